//! Real participants of a real server: a WebSocket and UDP sockets each, driven by one thread.

use crate::Failure;
use crate::participant::{News, Participant, Sending};
use crate::payload::Medium;
use crate::udp::{ReceiveBuffer, Udp};
use crate::websocket::WebSocket;
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

/// One participant.
struct Member {
    participant: Participant,
    socket: WebSocket,
    publisher: Option<Udp>,
    subscriber: Option<Udp>,
    is_joined: bool,
}

pub(crate) struct Crowd {
    server: SocketAddr,
    poll: Poll,
    events: Events,
    members: Vec<Member>,
    buffer: ReceiveBuffer,
    medium: Medium,
    /// When the timers of all members were looked at last.
    ticked: Instant,
}

impl Crowd {
    pub(crate) fn new(server: SocketAddr, medium: Medium) -> Result<Self, Failure> {
        Ok(Self {
            server,
            poll: Poll::new()?,
            events: Events::with_capacity(1_024),
            members: Vec::new(),
            buffer: ReceiveBuffer::new(),
            medium,
            ticked: Instant::now(),
        })
    }

    /// A participant joins over signalling v1: one connection with two data channels.
    pub(crate) fn join_single(&mut self, room: &str) -> Result<(), Failure> {
        let udp = Udp::new()?;
        let mut participant = Participant::new(self.medium, Some(udp.address), None, Instant::now())?;
        let publisher = participant.publisher.as_mut().ok_or("no connection")?;
        let offer = publisher.offer_channels()?;
        let identity = format!("participant-{}", self.members.len());
        let socket = WebSocket::join_single(self.server, room, &identity, offer)?;
        self.add(Member { participant, socket, publisher: Some(udp), subscriber: None, is_joined: false })
    }

    /// A participant joins over signalling v0, with a subscriber connection and, if it `publishes`, another one.
    pub(crate) fn join_dual(&mut self, room: &str, publishes: bool) -> Result<(), Failure> {
        let (publisher, subscriber) = (if publishes { Some(Udp::new()?) } else { None }, Udp::new()?);
        let address = publisher.as_ref().map(|udp| udp.address);
        let mut participant =
            Participant::new(self.medium, address, Some(subscriber.address), Instant::now())?;
        let identity = format!("participant-{}", self.members.len());
        let mut socket = WebSocket::join_dual(self.server, room, &identity)?;
        if let Some(connection) = &mut participant.publisher {
            socket.offer(connection.offer_channels()?)?;
        }
        let subscriber = Some(subscriber);
        self.add(Member { participant, socket, publisher, subscriber, is_joined: false })
    }

    /// A member adds so many tracks to its publisher connection.
    pub(crate) fn publish(&mut self, member: usize, tracks: usize) -> Result<(), Failure> {
        let medium = self.medium;
        let member = self.members.get_mut(member).ok_or("no such member")?;
        let cids: Vec<String> = (0..tracks).map(|track| format!("track-{track}")).collect();
        for cid in &cids {
            member.socket.add_track(cid, medium)?;
        }
        let connection = member.participant.publisher.as_mut().ok_or("does not publish")?;
        member.socket.offer(connection.offer(medium, &cids)?)
    }

    fn add(&mut self, mut member: Member) -> Result<(), Failure> {
        let first = self.members.len() * TOKENS;
        self.watch(member.socket.stream().as_raw_fd(), first)?;
        for (udp, offset) in [(&member.publisher, 1), (&member.subscriber, 2)] {
            if let Some(udp) = udp {
                self.watch(udp.socket.as_raw_fd(), first + offset)?;
            }
        }
        // What came with the answer to the upgrade wakes nobody.
        member.read_signals()?;
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
                let connected = self.members.len() - self.connecting();
                return Err(
                    format!("{connected} of {} participants are connected", self.members.len()).into()
                );
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
        let complete = |member: &&Member| member.is_joined && member.participant.is_connected();
        self.members.iter().rev().filter(|member| !complete(member)).count()
    }

    /// Sections of all subscriber connections that carry a track.
    pub(crate) fn sections(&self) -> usize {
        self.members.iter().filter_map(|it| it.participant.subscriber.as_ref()).map(|it| it.sections).sum()
    }

    fn turn(&mut self) -> Result<(), Failure> {
        self.poll.poll(&mut self.events, Some(TICK))?;
        let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        for token in ready {
            let Some(member) = self.members.get_mut(token / TOKENS) else { continue };
            match token % TOKENS {
                0 => member.read_signals()?,
                1 => member.receive(&mut self.buffer, Target::Publisher)?,
                _ => member.receive(&mut self.buffer, Target::Subscriber)?,
            }
        }
        let now = Instant::now();
        if now - self.ticked >= TICK {
            self.ticked = now;
            self.members.iter_mut().try_for_each(|member| member.advance(now))?;
        }
        Ok(())
    }
}

impl Member {
    fn read_signals(&mut self) -> Result<(), Failure> {
        while let Some(news) = self.socket.receive()? {
            self.is_joined |= matches!(news, News::Joined);
            if let Some((id, sdp)) = self.participant.heed(news)? {
                self.socket.answer(id, sdp)?;
            }
        }
        self.advance(Instant::now())
    }

    fn receive(&mut self, buffer: &mut ReceiveBuffer, target: Target) -> Result<(), Failure> {
        let Self { participant, publisher, subscriber, .. } = self;
        let (publisher, subscriber) = (publisher.as_ref(), subscriber.as_ref());
        let udp = if target == Target::Publisher { publisher } else { subscriber };
        let Some(udp) = udp else { return Ok(()) };
        let mut outcome = Ok(());
        let now = Instant::now();
        while udp.receive(buffer, |from, bytes, stride| {
            for datagram in bytes.chunks(stride) {
                if outcome.is_ok() {
                    let send = &mut |sending| transmit(publisher, subscriber, &sending);
                    outcome = participant.receive(now, target, from, datagram, send);
                }
            }
        })? {}
        outcome
    }

    fn advance(&mut self, now: Instant) -> Result<(), Failure> {
        let Self { participant, publisher, subscriber, .. } = self;
        let (publisher, subscriber) = (publisher.as_ref(), subscriber.as_ref());
        participant.advance(now, &mut |sending| transmit(publisher, subscriber, &sending))
    }
}

/// A datagram that the kernel does not take is lost, as on any network.
fn transmit(publisher: Option<&Udp>, subscriber: Option<&Udp>, sending: &Sending) {
    let own = [publisher, subscriber].into_iter().flatten().find(|udp| udp.address == sending.from);
    if let Some(udp) = own {
        let _ = udp.send(sending.to, &sending.bytes, sending.bytes.len());
    }
}
