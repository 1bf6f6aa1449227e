//! One signalling connection: frames in, requests and frames out.
//!
//! A [`Session`] lives as long as its WebSocket. It answers what needs nobody else (pings, refusals, frames that make no
//! sense) at once, turns everything else into requests of the SFU, and the SFU's signals into frames. Replies are in the
//! encoding of the client's last frame, protobuf before the first.

mod description;
mod reply;
mod request;
mod response;

pub(crate) use description::{Description, description};
use reply::Reply;

use crate::pace::{self, Pace};
use crate::server::Server;
use crate::token::Grants;
use fanlight_base::{Now, TrackSid};
use fanlight_sfu::input::{Quirks, Request};
use fanlight_sfu::output::Signal;
use livekit_protocol as proto;
use prost::Message;
use proto::signal_request::Message as Asked;
use std::collections::VecDeque;
use std::time::Duration;

/// Largest message of a client, bytes (`limit.signal_message_size_limit` of releases after 1.13.5).
pub const MESSAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// An update is split so that each message stays below this, bytes.
pub const UPDATE_BYTES_MAX: usize = 128 * 1024;
/// Own tracks remembered to check a `sync_state`; the oldest is forgotten.
const OWN_TRACKS_MAX: usize = 1024;

/// What admission found out and the session needs.
#[derive(Debug, Clone)]
pub struct SessionSetup {
    /// LiveKit protocol number of the client.
    pub protocol: u32,
    /// One peer connection (signalling v1).
    pub single: bool,
    /// A Rust client before protocol 10, which takes fewer messages.
    pub old_rust: bool,
    /// What this client cannot do or needs.
    pub quirks: Quirks,
    /// Grants as admitted, for refreshed tokens.
    pub grants: Grants,
    /// Expiry of the token it came with, seconds since the Unix epoch.
    pub expires_s: Option<u64>,
    /// The client wants to resume a session (`reconnect=1`).
    pub resumes: bool,
    /// Answers to tracks of the join request that were refused.
    pub refused_tracks: Vec<proto::RequestResponse>,
    /// The join request carried an offer that cannot be used.
    pub bad_offer: bool,
}

/// A WebSocket message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Protobuf.
    Binary(Vec<u8>),
    /// Proto-JSON.
    Text(String),
}

impl Frame {
    /// Its length in bytes.
    pub const fn len(&self) -> usize {
        match self {
            Self::Binary(bytes) => bytes.len(),
            Self::Text(text) => text.len(),
        }
    }

    /// Whether there is nothing in it.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What the shell does next, in order.
#[derive(Debug)]
pub enum Action {
    /// Send this message.
    Send(Frame),
    /// For the shard of the participant's room.
    Request(Box<Request>),
    /// Close the connection with code 1000 after what was sent before; nothing comes after it.
    Close,
}

/// How much went through a session; the numbers only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// Messages from the client.
    pub messages_in: u64,
    /// Messages to the client.
    pub messages_out: u64,
    /// Bytes to the client, before framing.
    pub bytes_out: u64,
    /// Messages that closed the connection: undecodable or too large.
    pub broken: u64,
    /// Messages or parts of them that were ignored: empty, unknown, unreadable SDP, out of place.
    pub ignored: u64,
    /// Requests refused here.
    pub refused: u64,
}

/// One signalling connection.
#[derive(Debug)]
pub struct Session {
    setup: SessionSetup,
    json: bool,
    closed: bool,
    can_update_metadata: bool,
    own_tracks: VecDeque<TrackSid>,
    pace: Pace,
    counters: SessionCounters,
}

impl Session {
    /// A session that has seen nothing yet.
    pub fn new(setup: SessionSetup) -> Self {
        let video = setup.grants.video.as_ref();
        let can_update_metadata = video.is_some_and(|video| video.permission().can_update_metadata);
        Self {
            setup,
            json: false,
            closed: false,
            can_update_metadata,
            own_tracks: VecDeque::new(),
            pace: Pace::default(),
            counters: SessionCounters::default(),
        }
    }

    /// A message from the client. Ping frames of the WebSocket layer stay with the shell.
    pub fn handle_frame(&mut self, server: &Server, now: Now, frame: &Frame) -> Vec<Action> {
        if self.closed {
            return Vec::new();
        }
        self.counters.messages_in += 1;
        self.pace.charge(now.mono(), pace::cost(frame.len(), false));
        let request = match frame {
            Frame::Binary(bytes) if bytes.len() <= MESSAGE_BYTES_MAX => {
                self.json = false;
                proto::SignalRequest::decode(bytes.as_slice()).ok()
            }
            Frame::Text(text) if text.len() <= MESSAGE_BYTES_MAX => {
                self.json = true;
                serde_json::from_str::<proto::SignalRequest>(text).ok()
            }
            _ => None,
        };
        let Some(request) = request else {
            self.counters.broken += 1;
            return self.close();
        };
        if matches!(request.message, Some(Asked::Offer(_) | Asked::Answer(_))) {
            self.pace.charge(now.mono(), pace::cost(frame.len(), true));
        }
        match request.message {
            Some(message) => self.handle_message(server, now, message),
            None => self.ignore(),
        }
    }

    /// A ping or pong of the WebSocket layer, which costs as much as a small message.
    pub fn handle_ping(&mut self, now: Now) {
        self.pace.charge(now.mono(), pace::cost(0, false));
    }

    /// How long the shell is to wait before it reads the next message of this client.
    pub fn wait(&self, now: Now) -> Duration {
        self.pace.wait(now.mono())
    }

    /// A signal of the SFU for this client.
    pub fn handle_signal(&mut self, server: &Server, now: Now, signal: Signal) -> Vec<Action> {
        if self.closed {
            return Vec::new();
        }
        let mut actions = Vec::new();
        let joined = matches!(signal, Signal::Joined(_));
        let leaves = matches!(signal, Signal::Leave { .. });
        for message in self.responses(server, now, signal) {
            actions.push(self.send(message));
        }
        if joined {
            for refusal in std::mem::take(&mut self.setup.refused_tracks) {
                self.counters.refused += 1;
                actions.push(self.send(proto::signal_response::Message::RequestResponse(refusal)));
            }
            if std::mem::take(&mut self.setup.bad_offer) {
                actions.push(Action::Request(Box::new(Request::BadDescription)));
            }
        }
        if leaves {
            actions.extend(self.close());
        }
        actions
    }

    /// What a client gets that wants to resume: no session is there to be resumed, so it has to join anew.
    pub fn refuse_resume(&mut self) -> Vec<Action> {
        let leave = self.leave(
            fanlight_sfu::model::DisconnectReason::StateMismatch,
            fanlight_sfu::output::LeaveAction::Reconnect,
        );
        let mut actions = vec![self.send(leave)];
        actions.extend(self.close());
        actions
    }

    /// Whether [`Action::Close`] was given: nothing more comes out.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// How much went through.
    pub const fn counters(&self) -> SessionCounters {
        self.counters
    }

    fn send(&mut self, reply: impl Into<Reply>) -> Action {
        let reply = reply.into();
        // Values outside an enum have no proto-JSON; such a message goes out as protobuf, which every client reads.
        let text = if self.json { reply.json() } else { None };
        let frame = text.map_or_else(|| Frame::Binary(reply.encode()), Frame::Text);
        let bytes = frame.len();
        self.counters.messages_out += 1;
        self.counters.bytes_out =
            self.counters.bytes_out.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        Action::Send(frame)
    }

    fn close(&mut self) -> Vec<Action> {
        self.closed = true;
        vec![Action::Close]
    }

    fn ignore(&mut self) -> Vec<Action> {
        self.counters.ignored += 1;
        Vec::new()
    }
}
