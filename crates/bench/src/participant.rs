//! A participant: up to two peer connections (signalling v0), and what it received.

use crate::Failure;
use crate::connection::{Connection, Said};
use crate::payload::Medium;
use fanlight_sfu::input::Target;
use rustc_hash::FxHashMap;
use std::net::SocketAddr;
use std::time::Instant;

/// What packets of one SSRC have shown.
#[derive(Debug, Clone, Copy)]
struct Heard {
    track: u32,
    /// Sequence number less the publisher's number: stays as it is while the stream is continuous.
    offset: u64,
}

/// A packet of a track that arrived as it was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    pub(crate) track: u32,
    pub(crate) number: u64,
}

/// A datagram on its way from a participant.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// Packets that a participant opened and looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Witness {
    /// Authentic and as they were sent.
    pub(crate) good: u64,
    /// Of the wrong content, or out of their sequence.
    pub(crate) bad: u64,
}

/// What signalling tells a participant.
#[derive(Debug)]
pub(crate) enum News {
    Joined,
    /// To what the publisher connection offered.
    Answer(String),
    /// For the subscriber connection.
    Offer {
        id: u32,
        sdp: String,
    },
    Candidate {
        target: Target,
        line: String,
    },
    /// A track that was announced has this sid.
    Published(String),
    /// The answer to a ping.
    Pong,
    /// The session is over.
    Left(String),
    Other,
}

pub(crate) struct Participant {
    pub(crate) publisher: Option<Connection>,
    pub(crate) subscriber: Option<Connection>,
    pub(crate) witness: Witness,
    /// What arrived, for who wants to know it of every packet.
    pub(crate) arrivals: Option<Vec<Arrival>>,
    heard: FxHashMap<u32, Heard>,
}

impl Participant {
    pub(crate) fn new(
        publisher: Option<SocketAddr>,
        subscriber: Option<SocketAddr>,
        now: Instant,
    ) -> Result<Self, Failure> {
        let connect = |address: Option<SocketAddr>| address.map(|it| Connection::new(it, now)).transpose();
        Ok(Self {
            publisher: connect(publisher)?,
            subscriber: connect(subscriber)?,
            witness: Witness::default(),
            arrivals: None,
            heard: FxHashMap::default(),
        })
    }

    /// Takes what signalling says; what comes back is the answer to an offer.
    pub(crate) fn heed(&mut self, news: News) -> Result<Option<(u32, String)>, Failure> {
        match news {
            News::Answer(sdp) => {
                if let Some(publisher) = &mut self.publisher {
                    publisher.take_answer(&sdp)?;
                }
            }
            News::Offer { id, sdp } => {
                if let Some(subscriber) = &mut self.subscriber {
                    return Ok(Some((id, subscriber.take_offer(&sdp)?)));
                }
            }
            News::Candidate { target, line } => {
                if let Some(connection) = self.connection(target) {
                    connection.take_candidate(&line);
                }
            }
            News::Left(reason) => return Err(format!("sent away: {reason}").into()),
            News::Joined | News::Published(_) | News::Pong | News::Other => {}
        }
        Ok(None)
    }

    fn connection(&mut self, target: Target) -> Option<&mut Connection> {
        match target {
            Target::Publisher => self.publisher.as_mut(),
            Target::Subscriber => self.subscriber.as_mut(),
        }
    }

    /// Looks at what the subscriber connection received.
    fn hear(&mut self, at: Instant, ssrc: u32, sequence: u64, payload: &[u8]) {
        if payload.is_empty() {
            return;
        }
        let Some((track, number)) = Medium::read(payload) else {
            self.witness.bad += 1;
            return;
        };
        let offset = sequence.wrapping_sub(number);
        let heard = self.heard.entry(ssrc).or_insert(Heard { track, offset });
        // A stack that has not seen the first packets may be off by whole roll-overs.
        if heard.track == track && (heard.offset ^ offset) & 0xffff == 0 {
            self.witness.good += 1;
            if let Some(arrivals) = &mut self.arrivals {
                arrivals.push(Arrival { at, track, number });
            }
        } else {
            self.witness.bad += 1;
        }
    }

    /// A datagram for one of its connections; what it answers goes to `send` with the address it leaves from.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        to: Target,
        from: SocketAddr,
        bytes: &[u8],
        send: &mut impl FnMut(Sending),
    ) -> Result<(), Failure> {
        let Some(connection) = self.connection(to) else { return Ok(()) };
        connection.receive(now, from, bytes)?;
        // What one datagram brought is taken before the next: the stack keeps one packet.
        self.advance(now, send)
    }

    /// Lets time pass for the connections that are due.
    pub(crate) fn advance(&mut self, now: Instant, send: &mut impl FnMut(Sending)) -> Result<(), Failure> {
        let mut packets = Vec::new();
        for connection in [&mut self.publisher, &mut self.subscriber].into_iter().flatten() {
            if connection.deadline > now {
                continue;
            }
            let from = connection.address;
            connection.advance(now, &mut |said| match said {
                Said::Datagram { to, bytes } => send(Sending { from, to, bytes }),
                Said::Packet { ssrc, sequence, payload } => packets.push((ssrc, sequence, payload)),
            })?;
        }
        for (ssrc, sequence, payload) in packets {
            self.hear(now, ssrc, sequence, &payload);
        }
        Ok(())
    }

    /// Streams heard of.
    pub(crate) fn streams(&self) -> usize {
        self.heard.len()
    }

    /// Whether every connection it has is up, and every offer answered.
    pub(crate) fn is_connected(&self) -> bool {
        [&self.publisher, &self.subscriber]
            .into_iter()
            .flatten()
            .all(|connection| connection.connected && connection.is_negotiated())
    }
}
