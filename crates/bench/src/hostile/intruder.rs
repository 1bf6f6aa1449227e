//! A participant whom a token let in, and who does what no client does.

use super::path::{Path, credentials};
use super::target::Target;
use crate::Failure;
use crate::crowd::Line;
use crate::participant::News;
use crate::payload::Medium;
use crate::websocket::WebSocket;
use fanlight_transport::Certificate;
use fanlight_transport::fuzzing::handmade::{self, EXTENSIONS, InitAck, PEER_TAG, chunk};
use std::time::{Duration, Instant};

/// The server answers within this, or it does not want to.
const ANSWER_MAX: Duration = Duration::from_secs(10);
const PING_EVERY: Duration = Duration::from_secs(1);
const ABORT: u8 = 6;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
/// SSRC of a description that the server made, and of which track they are.
const SSRC: &str = "a=ssrc:";

/// Ids of the header extensions that an intruder offers.
pub(super) const MID_EXTENSION: u8 = 1;
pub(super) const RID_EXTENSION: u8 = 2;
pub(super) const REPAIRED_RID_EXTENSION: u8 = 3;
/// Payload types that an intruder offers.
pub(super) const VP8: u8 = 96;
pub(super) const RTX: u8 = 97;

pub(super) struct Intruder {
    pub(super) line: WebSocket,
    pub(super) publisher: Path,
    /// What it answers the server's offers with, if it wants to receive.
    subscriber: Option<Path>,
    /// SSRCs that the server sends to it.
    pub(super) heard: Vec<u32>,
    /// Sid of its track.
    pub(super) track: String,
    certificate: Certificate,
    target: Target,
    pinged: Instant,
}

/// The rooms of intruders: one for each media thread, because rooms go where the fewest participants are.
pub(super) fn room(number: usize) -> String {
    format!("hostile-{number}")
}

impl Intruder {
    /// Joins, and offers data channels and a track of video in three layers.
    pub(super) fn join(target: &Target, room: &str, identity: &str) -> Result<Self, Failure> {
        let certificate = Certificate::generate()?;
        let mut line = WebSocket::join_dual(target.http, room, identity)?;
        line.add_track("hostile", Medium::Video)?;
        line.offer(offer(&certificate))?;
        let (mut track, mut answer, mut offers) = (None, None, Vec::new());
        let started = Instant::now();
        while track.is_none() || answer.is_none() {
            match line.receive()? {
                Some(News::Published(sid)) => track = Some(sid),
                Some(News::Answer(sdp)) => answer = Some(sdp),
                Some(News::Offer { id, sdp }) => offers.push((id, sdp)),
                Some(News::Left(reason)) => return Err(format!("sent away: {reason}").into()),
                Some(_) => {}
                None if started.elapsed() > ANSWER_MAX => return Err("no answer over WebSocket".into()),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        let (track, answer) = track.zip(answer).ok_or("no answer over WebSocket")?;
        let publisher = Path::connect(&target.media, &answer, &certificate, true)?;
        let target = target.clone();
        let mut intruder = Self {
            line,
            publisher,
            subscriber: None,
            heard: Vec::new(),
            track,
            certificate,
            target,
            pinged: Instant::now(),
        };
        offers.into_iter().try_for_each(|(id, sdp)| intruder.subscribe(id, &sdp))?;
        Ok(intruder)
    }

    /// Takes what has come and keeps everything alive; an error is the end of it.
    pub(super) fn breathe(&mut self) -> Result<(), Failure> {
        while let Some(news) = self.line.receive()? {
            match news {
                News::Left(reason) => return Err(format!("sent away: {reason}").into()),
                News::Offer { id, sdp } => self.subscribe(id, &sdp)?,
                _ => {}
            }
        }
        self.publisher.breathe()?;
        if let Some(subscriber) = &mut self.subscriber {
            subscriber.breathe()?;
            subscriber.messages.clear();
        }
        if self.pinged.elapsed() > PING_EVERY {
            self.pinged = Instant::now();
            self.line.ping()?;
        }
        Ok(())
    }

    /// Answers an offer with its own sections, turned round.
    fn subscribe(&mut self, id: u32, offer: &str) -> Result<(), Failure> {
        self.line.answer(id, turned_round(offer, &self.certificate))?;
        let ssrcs = offer.lines().filter_map(|line| line.strip_prefix(SSRC)?.split(' ').next()?.parse().ok());
        self.heard = ssrcs.collect();
        self.heard.dedup();
        if self.subscriber.is_none() {
            self.subscriber = Some(Path::connect(&self.target.media, offer, &self.certificate, false)?);
        }
        Ok(())
    }

    /// The connection on which it receives, once the server has something for it.
    pub(super) fn subscriber(&mut self) -> Result<&mut Path, Failure> {
        let started = Instant::now();
        while self.subscriber.is_none() || self.heard.is_empty() {
            if started.elapsed() > ANSWER_MAX {
                return Err("nothing to receive".into());
            }
            std::thread::sleep(Duration::from_millis(5));
            self.breathe()?;
        }
        self.subscriber.as_mut().ok_or_else(|| "no subscriber".into())
    }

    /// An association whose TSNs begin with this one; gives the tag that its packets carry.
    pub(super) fn associate(&mut self, first_tsn: u32) -> Result<u32, Failure> {
        self.publisher.messages.clear();
        self.publisher.send_inside(&handmade::init(PEER_TAG, first_tsn, &EXTENSIONS))?;
        let ack = self.wait_inside(|packet| {
            InitAck::read(packet).map(|ack| (ack.tag, chunk(COOKIE_ECHO, 0, ack.cookie)))
        })?;
        let (tag, echo) = ack;
        self.publisher.send_inside(&handmade::packet(tag, &[echo]))?;
        self.wait_inside(|packet| (packet.get(12) == Some(&COOKIE_ACK)).then_some(()))?;
        Ok(tag)
    }

    /// Looks at what the server has said over SCTP: an ABORT is the end of the association.
    pub(super) fn association_stands(&mut self) -> Result<(), Failure> {
        let aborted = self.publisher.messages.drain(..).any(|packet| packet.get(12) == Some(&ABORT));
        if aborted { Err("the association was ended".into()) } else { Ok(()) }
    }

    fn wait_inside<T>(&mut self, wanted: impl Fn(&[u8]) -> Option<T>) -> Result<T, Failure> {
        let started = Instant::now();
        while started.elapsed() < ANSWER_MAX {
            self.breathe()?;
            if let Some(found) = self.publisher.messages.iter().find_map(|packet| wanted(packet)) {
                return Ok(found);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err("no answer of SCTP".into())
    }
}

/// A description with data channels and one section of video.
fn offer(certificate: &Certificate) -> String {
    let who = credentials(certificate);
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
         m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\n{who}a=mid:0\r\n\
         a=sctp-port:5000\r\na=max-message-size:262144\r\n{}",
        video(1, "hostile", &who)
    )
}

/// A section of video in three layers.
pub(super) fn video(mid: usize, cid: &str, who: &str) -> String {
    format!(
        "m=video 9 UDP/TLS/RTP/SAVPF {VP8} {RTX}\r\nc=IN IP4 0.0.0.0\r\n{who}a=mid:{mid}\r\na=rtcp-mux\r\n\
         a=rtcp-rsize\r\na=rtpmap:{VP8} VP8/90000\r\na=rtcp-fb:{VP8} nack\r\na=rtcp-fb:{VP8} nack pli\r\n\
         a=rtpmap:{RTX} rtx/90000\r\na=fmtp:{RTX} apt={VP8}\r\n\
         a=extmap:{MID_EXTENSION} urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
         a=extmap:{RID_EXTENSION} urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
         a=extmap:{REPAIRED_RID_EXTENSION} urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n\
         a=sendonly\r\na=msid:stream {cid}\r\na=rid:q send\r\na=rid:h send\r\na=rid:f send\r\n\
         a=simulcast:send q;h;f\r\n"
    )
}

/// An offer as the answer that takes all of it.
fn turned_round(offer: &str, certificate: &Certificate) -> String {
    const THEIRS: [&str; 8] = [
        "a=ssrc",
        "a=msid",
        "a=candidate",
        "a=end-of-candidates",
        "a=ice-",
        "a=fingerprint",
        "a=setup",
        "a=mid",
    ];
    let who = credentials(certificate);
    let mut answer = String::new();
    for line in offer.lines().map(str::trim) {
        if line == "a=sendonly" {
            answer.push_str("a=recvonly\r\n");
        } else if let Some(mid) = line.strip_prefix("a=mid:") {
            answer.push_str(&format!("a=mid:{mid}\r\n{who}"));
        } else if !THEIRS.iter().any(|theirs| line.starts_with(theirs)) {
            answer.push_str(line);
            answer.push_str("\r\n");
        }
    }
    answer
}
