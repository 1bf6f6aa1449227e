//! Participants with real UDP sockets, driven by one thread; how signalling reaches them is their [`Line`]'s.

use crate::Failure;
use crate::hall::{is_rtcp, is_rtp};
use crate::participant::{Arrival, News, Participant, Sending};
use crate::payload::{FRAME_PACKETS, Medium};
use crate::udp::{ReceiveBuffer, Udp};
use fanlight_sfu::input::Target;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

/// A participant that is not connected after this has failed.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// Timers of the participants are looked at so often.
const TICK: Duration = Duration::from_millis(5);
/// Tokens of one member: its WebSocket, and the sockets of its connections.
const TOKENS: usize = 3;

/// One of so many received media packets is opened and looked at. A prime near 1,000, so that all have their turn.
const OPENED_EVERY: u64 = 997;

/// Signalling of one participant.
pub(crate) trait Line {
    /// The next message, if there is one.
    fn receive(&mut self) -> Result<Option<News>, Failure>;
    /// Answers an offer.
    fn answer(&mut self, id: u32, sdp: String) -> Result<(), Failure>;
    /// Offers on the publisher connection.
    fn offer(&mut self, sdp: String) -> Result<(), Failure>;
    /// Announces a track.
    fn add_track(&mut self, cid: &str, medium: Medium) -> Result<(), Failure>;
    /// What becomes readable with a message, if anything does.
    fn descriptor(&self) -> Option<RawFd>;
}

/// Media as it reached the sockets.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Received {
    pub(crate) packets: u64,
    /// What came in one piece: what the sender handed to the kernel in one call.
    pub(crate) runs: u64,
    to_open: u64,
}

/// One participant.
struct Member<L> {
    participant: Participant,
    line: L,
    publisher: Option<Udp>,
    subscriber: Option<Udp>,
    is_joined: bool,
    pongs: u64,
    /// Why it is gone.
    gone: Option<String>,
}

pub(crate) struct Crowd<L> {
    poll: Poll,
    events: Events,
    members: Vec<Member<L>>,
    /// A receiver hands on samples of the media only, and no reports about the rest leave.
    pub(crate) samples: bool,
    pub(crate) received: Received,
    buffer: ReceiveBuffer,
    /// A member whose signalling or connection ends is taken for gone, instead of ending the run.
    pub(crate) forgiving: bool,
    /// When the timers of all members were looked at last.
    ticked: Instant,
}

impl<L: Line> Crowd<L> {
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self {
            samples: false,
            received: Received { to_open: OPENED_EVERY, ..Received::default() },
            poll: Poll::new()?,
            events: Events::with_capacity(1_024),
            members: Vec::new(),
            buffer: ReceiveBuffer::new(),
            forgiving: false,
            ticked: Instant::now(),
        })
    }

    /// A participant with one connection, which has two data channels; `join` gets its first offer.
    pub(crate) fn add_single(
        &mut self,
        join: impl FnOnce(String) -> Result<L, Failure>,
    ) -> Result<(), Failure> {
        let udp = Udp::new()?;
        let mut participant = Participant::new(Some(udp.address), None, Instant::now())?;
        let publisher = participant.publisher.as_mut().ok_or("no connection")?;
        let line = join(publisher.offer_channels()?)?;
        self.add(Member::new(participant, line, Some(udp), None))
    }

    /// A participant with a connection to publish, one to subscribe, or both.
    pub(crate) fn add_dual(&mut self, mut line: L, publishes: bool, subscribes: bool) -> Result<(), Failure> {
        let socket = |wanted: bool| if wanted { Udp::new().map(Some) } else { Ok(None) };
        let (publisher, subscriber) = (socket(publishes)?, socket(subscribes)?);
        let address = |udp: &Option<Udp>| udp.as_ref().map(|udp| udp.address);
        let (to_publish, to_subscribe) = (address(&publisher), address(&subscriber));
        let mut participant = Participant::new(to_publish, to_subscribe, Instant::now())?;
        if let Some(connection) = &mut participant.publisher {
            line.offer(connection.offer_channels()?)?;
        }
        self.add(Member::new(participant, line, publisher, subscriber))
    }

    /// A member adds so many tracks to its publisher connection.
    pub(crate) fn publish(&mut self, member: usize, medium: Medium, tracks: usize) -> Result<(), Failure> {
        let member = self.members.get_mut(member).ok_or("no such member")?;
        let cids: Vec<String> = (0..tracks).map(|track| format!("{medium:?}-{track}")).collect();
        for cid in &cids {
            member.line.add_track(cid, medium)?;
        }
        let connection = member.participant.publisher.as_mut().ok_or("does not publish")?;
        member.line.offer(connection.offer(medium, &cids)?)
    }

    /// A member sends a frame of each of its tracks, which are video.
    pub(crate) fn send_frame(&mut self, member: usize, tracks: usize) -> Result<(), Failure> {
        let name = u32::try_from(member * tracks)?;
        for track in 0..tracks {
            self.send(member, track, name + u32::try_from(track)?, FRAME_PACKETS)?;
        }
        Ok(())
    }

    /// A member sends so many packets of a track at once, under this name; gives when, and the number of the first.
    pub(crate) fn send(
        &mut self,
        member: usize,
        track: usize,
        name: u32,
        packets: u64,
    ) -> Result<(Instant, u64), Failure> {
        let now = Instant::now();
        let member = self.members.get_mut(member).ok_or("no such member")?;
        let connection = member.participant.publisher.as_mut().ok_or("does not publish")?;
        let mut last = 0;
        for _ in 0..packets {
            last = connection.write(now, track, name)?;
        }
        member.advance(now, false)?;
        Ok((now, last + 1 - packets))
    }

    /// Every packet that arrives is kept from now on, until it is taken.
    pub(crate) fn keep_arrivals(&mut self) {
        for member in &mut self.members {
            member.participant.arrivals = Some(Vec::new());
        }
    }

    /// What has arrived, by member.
    pub(crate) fn take_arrivals(&mut self) -> impl Iterator<Item = (usize, Vec<Arrival>)> {
        let members = self.members.iter_mut().enumerate();
        members.filter_map(|(number, member)| {
            Some((number, std::mem::take(member.participant.arrivals.as_mut()?)))
        })
    }

    /// Why a member is gone, if it is.
    pub(crate) fn gone(&self, member: usize) -> Option<&str> {
        self.members.get(member)?.gone.as_deref()
    }

    /// Signalling of a member.
    pub(crate) fn line(&mut self, member: usize) -> Option<&mut L> {
        self.members.get_mut(member).map(|member| &mut member.line)
    }

    /// Streams that members have heard of.
    pub(crate) fn streams(&self) -> usize {
        self.members.iter().map(|member| member.participant.streams()).sum()
    }

    /// Where the connections of members send.
    pub(crate) fn remotes(&self) -> Vec<SocketAddr> {
        let connections =
            self.members.iter().flat_map(|it| [&it.participant.publisher, &it.participant.subscriber]);
        connections.flatten().filter_map(|connection| connection.remote).collect()
    }

    /// Answers to pings that members got.
    pub(crate) fn pongs(&self) -> u64 {
        self.members.iter().map(|member| member.pongs).sum()
    }

    /// Where members send from, and where they receive.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let sockets = self.members.iter().flat_map(|it| [&it.publisher, &it.subscriber]);
        sockets.flatten().map(|udp| udp.address).collect()
    }

    /// Packets that were opened: right ones and wrong ones.
    pub(crate) fn opened(&self) -> (u64, u64) {
        let witnesses = self.members.iter().map(|member| member.participant.witness);
        witnesses.fold((0, 0), |(good, bad), witness| (good + witness.good, bad + witness.bad))
    }

    /// Where members receive what they subscribe to.
    pub(crate) fn subscriber_addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().filter_map(|it| it.subscriber.as_ref()).map(|udp| udp.address).collect()
    }

    fn add(&mut self, mut member: Member<L>) -> Result<(), Failure> {
        let first = self.members.len() * TOKENS;
        if let Some(descriptor) = member.line.descriptor() {
            self.watch(descriptor, first)?;
        }
        for (udp, offset) in [(&member.publisher, 1), (&member.subscriber, 2)] {
            if let Some(udp) = udp {
                self.watch(udp.socket.as_raw_fd(), first + offset)?;
            }
        }
        // What came with the answer to the upgrade wakes nobody.
        member.read_signals(false)?;
        self.members.push(member);
        Ok(())
    }

    fn watch(&self, descriptor: RawFd, token: usize) -> Result<(), Failure> {
        let registry = self.poll.registry();
        Ok(registry.register(&mut SourceFd(&descriptor), Token(token), Interest::READABLE)?)
    }

    /// Serves everybody until `done`.
    pub(crate) fn run_until(&mut self, done: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let started = Instant::now();
        while !done(self) {
            if started.elapsed() > CONNECT_MAX {
                let (members, sections) = (self.members.len(), self.sections());
                let connected = members - self.connecting();
                return Err(format!("{connected} of {members} connected, {sections} tracks offered").into());
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Serves everybody for a while.
    pub(crate) fn run(&mut self, time: Duration) -> Result<(), Failure> {
        let started = Instant::now();
        while started.elapsed() < time {
            self.turn()?;
        }
        Ok(())
    }

    /// Participants whose join is not complete: JoinResponse, ICE and DTLS of all their connections.
    pub(crate) fn connecting(&self) -> usize {
        let complete = |member: &&Member<L>| member.is_joined && member.participant.is_connected();
        self.members.iter().rev().filter(|member| !complete(member)).count()
    }

    /// Sections of all subscriber connections that carry a track.
    pub(crate) fn sections(&self) -> usize {
        self.members.iter().filter_map(|it| it.participant.subscriber.as_ref()).map(|it| it.sections).sum()
    }

    /// Waits for what comes, five milliseconds at most, and lets time pass for everybody.
    pub(crate) fn turn(&mut self) -> Result<(), Failure> {
        self.poll.poll(&mut self.events, Some(TICK))?;
        let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        let (buffer, received, samples) = (&mut self.buffer, &mut self.received, self.samples);
        for token in ready {
            let Some(member) = self.members.get_mut(token / TOKENS) else { continue };
            let outcome = match token % TOKENS {
                _ if member.gone.is_some() => Ok(()),
                0 => member.read_signals(samples),
                1 => member.receive(buffer, Target::Publisher, received, samples),
                _ => member.receive(buffer, Target::Subscriber, received, samples),
            };
            member.go_on(outcome, self.forgiving)?;
        }
        let now = Instant::now();
        if now - self.ticked >= TICK {
            self.ticked = now;
            for member in self.members.iter_mut().filter(|member| member.gone.is_none()) {
                let outcome = if member.line.descriptor().is_none() {
                    member.read_signals(samples)
                } else {
                    member.advance(now, samples)
                };
                member.go_on(outcome, self.forgiving)?;
            }
        }
        Ok(())
    }
}

impl<L: Line> Member<L> {
    fn new(participant: Participant, line: L, publisher: Option<Udp>, subscriber: Option<Udp>) -> Self {
        Self { participant, line, publisher, subscriber, is_joined: false, pongs: 0, gone: None }
    }

    /// What ends a member ends the run, unless that is to be counted.
    fn go_on(&mut self, outcome: Result<(), Failure>, forgiving: bool) -> Result<(), Failure> {
        match outcome {
            Err(failure) if forgiving => self.gone = Some(failure.to_string()),
            outcome => outcome?,
        }
        Ok(())
    }

    fn read_signals(&mut self, samples: bool) -> Result<(), Failure> {
        while let Some(news) = self.line.receive()? {
            self.is_joined |= matches!(news, News::Joined);
            self.pongs += u64::from(matches!(news, News::Pong));
            if let Some((id, sdp)) = self.participant.heed(news)? {
                self.line.answer(id, sdp)?;
            }
        }
        self.advance(Instant::now(), samples)
    }

    fn receive(
        &mut self,
        buffer: &mut ReceiveBuffer,
        target: Target,
        received: &mut Received,
        samples: bool,
    ) -> Result<(), Failure> {
        let udp = if target == Target::Publisher { &self.publisher } else { &self.subscriber };
        let Some(udp) = udp else { return Ok(()) };
        let (mut outcome, mut out) = (Ok(()), Vec::new());
        let now = Instant::now();
        let participant = &mut self.participant;
        while udp.receive(buffer, |from, bytes, stride| {
            let media = is_rtp(bytes);
            received.runs += u64::from(media);
            for datagram in bytes.chunks(stride) {
                if media {
                    received.packets += 1;
                    received.to_open = received.to_open.checked_sub(1).unwrap_or(OPENED_EVERY - 1);
                }
                if outcome.is_ok() && (!media || !samples || received.to_open == 0) {
                    let send = &mut |sending| out.push(sending);
                    outcome = participant.receive(now, target, from, datagram, send);
                }
            }
        })? {}
        self.transmit(&out, samples);
        outcome
    }

    fn advance(&mut self, now: Instant, samples: bool) -> Result<(), Failure> {
        let mut out = Vec::new();
        self.participant.advance(now, &mut |sending| out.push(sending))?;
        self.transmit(&out, samples);
        Ok(())
    }

    /// Datagrams of one size leave in one call. What the kernel does not take is lost, as on any network.
    fn transmit(&self, out: &[Sending], samples: bool) {
        let together = |one: &Sending, next: &Sending| {
            (one.from, one.to, one.bytes.len()) == (next.from, next.to, next.bytes.len())
        };
        for run in out.chunk_by(together) {
            let Some(first) = run.first().filter(|first| !(samples && is_rtcp(&first.bytes))) else {
                continue;
            };
            let sockets = [&self.publisher, &self.subscriber].into_iter().flatten();
            if let Some(udp) = sockets.into_iter().find(|udp| udp.address == first.from) {
                let contents: Vec<u8> = run.iter().flat_map(|sending| &sending.bytes).copied().collect();
                let _ = udp.send(first.to, &contents, first.bytes.len());
            }
        }
    }
}
