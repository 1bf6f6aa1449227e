//! LiveKit's signalling over a real WebSocket.

use crate::Failure;
use crate::crowd::Line;
use crate::participant::News;
use crate::payload::Medium;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use fanlight_base::{Now, Redacted};
use fanlight_livekit::token::{self, Grants, VideoGrant};
use fanlight_sfu::input::Target;
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_request::Message as Say;
use proto::signal_response::Message as Said;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{SystemTime, UNIX_EPOCH};
use tungstenite::{Message, WebSocket as Socket};

/// Id and secret of `--dev`.
const KEY: (&str, &str) = ("devkey", "secret");
const TOKEN_LIFETIME_S: u64 = 3_600;
/// LiveKit's protocol number.
const PROTOCOL: i32 = 17;

/// What the server does not read is offered again after this.
const PRESSED_AGAIN: std::time::Duration = std::time::Duration::from_millis(1);

pub(crate) struct WebSocket {
    socket: Socket<TcpStream>,
    offers: u32,
}

impl WebSocket {
    /// Joins over `/rtc/v1` with the first offer inside: one peer connection.
    pub(crate) fn join_single(
        server: SocketAddr,
        room: &str,
        identity: &str,
        offer: String,
    ) -> Result<Self, Failure> {
        let settings = proto::ConnectionSettings { auto_subscribe: true, ..Default::default() };
        let client = proto::ClientInfo {
            sdk: proto::client_info::Sdk::Js.into(),
            protocol: PROTOCOL,
            ..Default::default()
        };
        let request = proto::JoinRequest {
            client_info: Some(client),
            connection_settings: Some(settings),
            publisher_offer: Some(description("offer", 1, offer)),
            ..Default::default()
        };
        let wrapped = proto::WrappedJoinRequest { compression: 0, join_request: request.encode_to_vec() }
            .encode_to_vec();
        let query = format!("join_request={}", URL_SAFE.encode(wrapped).replace('=', "%3D"));
        Ok(Self { offers: 1, ..Self::connect(server, "/rtc/v1", &query, room, identity)? })
    }

    /// Joins over `/rtc`: a publisher and a subscriber connection.
    pub(crate) fn join_dual(server: SocketAddr, room: &str, identity: &str) -> Result<Self, Failure> {
        let query = format!("protocol={PROTOCOL}&sdk=js&auto_subscribe=1");
        Self::connect(server, "/rtc", &query, room, identity)
    }

    fn connect(
        server: SocketAddr,
        path: &str,
        query: &str,
        room: &str,
        identity: &str,
    ) -> Result<Self, Failure> {
        let token = access_token(room, identity)?;
        let url = format!("ws://{server}{path}?access_token={token}&{query}");
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        let (socket, _) = tungstenite::client(url.as_str(), stream)?;
        socket.get_ref().set_nonblocking(true)?;
        Ok(Self { socket, offers: 0 })
    }

    /// Asks for a sign of life (LiveKit's protocol 8).
    pub(crate) fn ping(&mut self) -> Result<(), Failure> {
        self.say(Say::PingReq(proto::Ping { timestamp: 1, rtt: 1 }))
    }

    pub(crate) fn say(&mut self, message: Say) -> Result<(), Failure> {
        let bytes = proto::SignalRequest { message: Some(message) }.encode_to_vec();
        Ok(self.socket.send(Message::Binary(bytes.into()))?)
    }
}

/// For who sends more than the server wants to read.
impl WebSocket {
    /// Says something, however long it takes the server to read it, unless the time is over.
    pub(crate) fn press(&mut self, message: Say, is_over: impl Fn() -> bool) -> Result<(), Failure> {
        self.press_bytes(proto::SignalRequest { message: Some(message) }.encode_to_vec(), is_over)
    }

    /// The same with any bytes.
    pub(crate) fn press_bytes(&mut self, bytes: Vec<u8>, is_over: impl Fn() -> bool) -> Result<(), Failure> {
        let mut outcome = self.socket.send(Message::Binary(bytes.into()));
        loop {
            match outcome {
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
                outcome => return Ok(outcome?),
            }
            if is_over() {
                return Ok(());
            }
            std::thread::sleep(PRESSED_AGAIN);
            outcome = self.socket.flush();
        }
    }
}

impl Line for WebSocket {
    fn descriptor(&self) -> Option<RawFd> {
        Some(self.socket.get_ref().as_raw_fd())
    }

    fn receive(&mut self) -> Result<Option<News>, Failure> {
        match self.socket.read() {
            Ok(Message::Binary(bytes)) => news(&bytes).map(Some),
            Ok(Message::Close(_)) => Ok(Some(News::Left("the server closed the WebSocket".to_owned()))),
            Ok(_) => Ok(Some(News::Other)),
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn answer(&mut self, id: u32, sdp: String) -> Result<(), Failure> {
        self.say(Say::Answer(description("answer", id, sdp)))
    }

    fn offer(&mut self, sdp: String) -> Result<(), Failure> {
        self.offers += 1;
        self.say(Say::Offer(description("offer", self.offers, sdp)))
    }

    fn add_track(&mut self, cid: &str, medium: Medium) -> Result<(), Failure> {
        let (kind, source) = match medium {
            Medium::Video => (proto::TrackType::Video, proto::TrackSource::Camera),
            Medium::Audio => (proto::TrackType::Audio, proto::TrackSource::Microphone),
        };
        self.say(Say::AddTrack(proto::AddTrackRequest {
            cid: cid.to_owned(),
            r#type: kind.into(),
            source: source.into(),
            width: 1280,
            height: 720,
            ..Default::default()
        }))
    }
}

fn news(bytes: &[u8]) -> Result<News, Failure> {
    Ok(match proto::SignalResponse::decode(bytes)?.message {
        Some(Said::Join(_)) => News::Joined,
        Some(Said::Answer(answer)) => News::Answer(answer.sdp),
        Some(Said::Offer(offer)) => News::Offer { id: offer.id, sdp: offer.sdp },
        Some(Said::Trickle(trickle)) => {
            let target = if trickle.target() == proto::SignalTarget::Publisher {
                Target::Publisher
            } else {
                Target::Subscriber
            };
            let init: serde_json::Value = serde_json::from_str(&trickle.candidate_init)?;
            let line = init.get("candidate").and_then(serde_json::Value::as_str).unwrap_or_default();
            News::Candidate { target, line: line.to_owned() }
        }
        Some(Said::TrackPublished(published)) => {
            News::Published(published.track.map(|track| track.sid).unwrap_or_default())
        }
        Some(Said::PongResp(_)) => News::Pong,
        Some(Said::Leave(leave)) => News::Left(format!("{:?}", leave.reason())),
        _ => News::Other,
    })
}

fn description(kind: &str, id: u32, sdp: String) -> proto::SessionDescription {
    proto::SessionDescription { r#type: kind.to_owned(), sdp, id, ..Default::default() }
}

/// A token that lets `identity` into `room` of a server with `--dev`.
pub(crate) fn access_token(room: &str, identity: &str) -> Result<String, Failure> {
    let video = VideoGrant {
        room_join: true,
        room: room.to_owned(),
        can_update_own_metadata: Some(true),
        ..VideoGrant::default()
    };
    let grants = Grants { identity: identity.to_owned(), video: Some(video), ..Grants::default() };
    let unix = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let now = Now { mono_ns: 0, unix_ns: u64::try_from(unix.as_nanos())? };
    let secret = Redacted::new(KEY.1.to_owned());
    let token = token::create(KEY.0, &secret, &grants, now, TOKEN_LIFETIME_S).ok_or("cannot sign")?;
    Ok(token.reveal().clone())
}
