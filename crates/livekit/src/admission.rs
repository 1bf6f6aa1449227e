//! From an HTTP request to a join: authentication, routing, grants, query or join request, limits.
//!
//! [`step`] says what is to be done with a request. Its checks stand in the order in which LiveKit makes them, so that a
//! request with several faults gets the status and the text LiveKit gives.

use crate::client::Client;
use crate::http_rules::{self, Answer, CleanPath, HttpRequest, Parameters};
use crate::join_request::{self, DecodedJoin};
use crate::server::Server;
use crate::session::SessionSetup;
use crate::token::{self, Grants, Token, TokenError, VideoGrant};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use fanlight_base::{Now, ParticipantSid, PeerKey, RoomName, RoomSid};
use fanlight_control::{JoinError, JoinRequest, Limits, RoomOptions};
use fanlight_sfu::input::{Join, Layout};
use livekit_protocol as proto;
use std::collections::BTreeMap;

const NO_PERMISSIONS: &str = "no permissions to access the room";
/// What LiveKit says when a participant passes every check but those of the media plane.
const CLOSED_BY_MEDIA: &str = "connection closed by media";

/// What is to be done with a request.
#[derive(Debug)]
pub enum Step {
    /// Send this.
    Answer(Answer),
    /// `/`: answer with [`http_rules::health`] and [`http_rules::cors`].
    Health,
    /// Ask [`Control::check`](fanlight_control::Control::check) for `request.room` and `request.may_create`, answer with
    /// [`validated`].
    Validate(Box<Admission>),
    /// Admit the participant with [`Control::handle_join`](fanlight_control::Control::handle_join), wait for its first
    /// signal, then switch to a WebSocket; answer [`refused`] if it is refused. The handshake headers are good.
    Join(Box<Admission>),
    /// Switch to a WebSocket, send [`Session::refuse_resume`](crate::session::Session::refuse_resume), close: there is no
    /// session to resume, and none is made.
    RefuseResume(Box<SessionSetup>),
    /// Not one of LiveKit's signalling paths: other routes by this path (decoded leading slashes, no query), with the
    /// token if there was one; [`http_rules::not_found`] if nobody knows it. Add [`http_rules::cors`].
    Pass {
        /// The path to route by.
        path: String,
        /// The token, found good; none when the request has none.
        token: Option<Box<Token>>,
    },
}

/// A participant that may come in.
#[derive(Debug)]
pub struct Admission {
    /// For `control`.
    pub request: JoinRequest,
    /// For [`Session::new`](crate::session::Session::new).
    pub session: SessionSetup,
}

/// What to do with `request`.
pub fn step(server: &Server, now: Now, request: &HttpRequest<'_>) -> Step {
    if http_rules::has_controls(request.path) {
        return Step::Answer(Answer::text(400, "the path has control characters"));
    }
    if let Some(answer) = http_rules::preflight(request) {
        return Step::Answer(answer);
    }
    let cleaned = http_rules::clean_path(request.path, request.query);
    let parameters = request.parameters();
    let authenticated = authenticate(server, now, request, &parameters);
    let route = match &cleaned {
        CleanPath::Path(path) => Route::of(path),
        CleanPath::Redirect(_) => Route::Other,
    };
    let answer = |answer: Answer| Step::Answer(route.dress(request, answer));
    let token = match authenticated {
        Ok(token) => token,
        Err(refusal) => return answer(refusal),
    };
    let path = match cleaned {
        CleanPath::Path(path) => path,
        CleanPath::Redirect(redirect) => return answer(redirect),
    };
    let (needs_join_request, strict) = match route {
        Route::Join { v1 } if request.is_websocket_upgrade() => (v1, false),
        Route::Validate { v1 } => (v1, true),
        Route::Join { .. } => return answer(Answer::empty(404)),
        Route::Agent => return answer(agent(request, token.as_ref())),
        Route::Health => return Step::Health,
        Route::Other => return Step::Pass { path: path.into_owned(), token: token.map(Box::new) },
    };
    let admitted = match admit(server, request, &parameters, token.as_ref(), needs_join_request, strict) {
        Ok(admitted) => admitted,
        Err(refusal) => return answer(refusal),
    };
    if strict {
        return Step::Validate(Box::new(admitted));
    }
    if let Err(refusal) = http_rules::check_handshake(request) {
        return answer(refusal);
    }
    if admitted.session.resumes {
        return Step::RefuseResume(Box::new(admitted.session));
    }
    Step::Join(Box::new(admitted))
}

/// Whether [`step`] needs the body, which is a form that may have the token, of at most
/// [`FORM_BYTES_MAX`](http_rules::FORM_BYTES_MAX). The refusal of a token in the header comes before.
pub fn wants_form(server: &Server, now: Now, request: &HttpRequest<'_>) -> Result<bool, Answer> {
    let CleanPath::Path(path) = http_rules::clean_path(request.path, request.query) else { return Ok(false) };
    let route = Route::of(&path);
    if !request.is_form() || !matches!(route, Route::Validate { .. }) {
        return Ok(false);
    }
    if request.header("authorization").is_some() {
        authenticate(server, now, request, &Parameters::default())
            .map_err(|refusal| route.dress(request, refusal))?;
    }
    Ok(true)
}

/// The answer of `/rtc/validate` and `/rtc/v1/validate` after `control` was asked.
pub fn validated(request: &HttpRequest<'_>, checked: Result<(), JoinError>) -> Answer {
    let answer = match checked {
        Ok(()) => Answer::text(200, "success"),
        Err(error) => refused(error),
    };
    Route::Validate { v1: false }.dress(request, answer)
}

/// The answer to a join that `control` refused, before CORS headers.
pub fn refused(error: JoinError) -> Answer {
    match error {
        JoinError::RoomNotFound => Answer::text(404, error.to_string()),
        JoinError::NodeLimit
        | JoinError::RoomUnavailable
        | JoinError::NodeUnavailable
        | JoinError::Draining => Answer::text(503, error.to_string()),
        JoinError::RoomFull | JoinError::UnknownPreset | JoinError::MetadataTooLong => {
            Answer::text(500, CLOSED_BY_MEDIA)
        }
    }
}

/// Finds and checks the token of a request: the `Authorization` header, else the parameter `access_token`.
pub fn authenticate(
    server: &Server,
    now: Now,
    request: &HttpRequest<'_>,
    parameters: &Parameters,
) -> Result<Option<Token>, Answer> {
    let unauthorized = |text: String| Answer::text(401, text);
    let token = match request.header("authorization").filter(|value| !value.is_empty()) {
        Some(value) => value.strip_prefix("Bearer ").ok_or_else(|| {
            unauthorized("invalid authorization header. Must start with Bearer ".to_owned())
        })?,
        None => parameters.get("access_token"),
    };
    if token.is_empty() {
        return Ok(None);
    }
    token::verify(&server.keys, now, token).map(Some).map_err(|error| unauthorized(error.to_string()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Join { v1: bool },
    Validate { v1: bool },
    Agent,
    Health,
    Other,
}

impl Route {
    fn of(path: &str) -> Self {
        match path {
            "/" => Self::Health,
            "/rtc" => Self::Join { v1: false },
            "/rtc/v1" => Self::Join { v1: true },
            "/rtc/validate" => Self::Validate { v1: false },
            "/rtc/v1/validate" => Self::Validate { v1: true },
            "/agent" => Self::Agent,
            _ => Self::Other,
        }
    }

    /// Adds CORS headers; the answers of validate may always be read.
    fn dress(self, request: &HttpRequest<'_>, mut answer: Answer) -> Answer {
        for (name, value) in http_rules::cors(request) {
            answer = answer.with(name, value);
        }
        match self {
            Self::Validate { .. } => answer.with("Access-Control-Allow-Origin", "*"),
            _ => answer,
        }
    }
}

/// Agent workers are not served yet: with a right token the path is as empty as without an upgrade.
fn agent(request: &HttpRequest<'_>, token: Option<&Token>) -> Answer {
    let granted = token.and_then(|token| token.grants.video.as_ref()).is_some_and(|video| video.agent);
    if request.is_websocket_upgrade() && !granted {
        return Answer::text(401, NO_PERMISSIONS);
    }
    Answer::empty(404)
}

fn admit(
    server: &Server,
    request: &HttpRequest<'_>,
    parameters: &Parameters,
    token: Option<&Token>,
    needs_join_request: bool,
    strict: bool,
) -> Result<Admission, Answer> {
    let bad = |text: &str| Answer::text(400, text);
    let asked = match parameters.get("join_request") {
        "" if needs_join_request => return Err(bad("join_request is required")),
        "" => Asked::from_query(parameters, strict)?,
        encoded => {
            Asked::from_join_request(join_request::decode(encoded).map_err(|error| bad(&error.to_string()))?)
        }
    };
    let (mut grants, expires_s) = granted(token, &server.limits)?;
    let mut video = grants.video.clone().unwrap_or_default();
    if !asked.publish.is_empty() {
        if !video.publishes() {
            return Err(Answer::text(401, NO_PERMISSIONS));
        }
        video.can_subscribe = Some(false);
        grants.identity = format!("{}#{}", grants.identity, asked.publish);
        check_identity(&grants.identity, &server.limits)?;
    }
    let own = !asked.metadata.is_empty() || !asked.attributes.is_empty();
    if own && !video.can_update_own_metadata.unwrap_or(false) {
        return Err(Answer::text(401, NO_PERMISSIONS));
    }
    if !asked.metadata.is_empty() {
        grants.metadata.clone_from(&asked.metadata);
    }
    grants.attributes.extend(asked.attributes.iter().map(|(key, value)| (key.clone(), value.clone())));
    grants.video = Some(video.clone());
    Ok(build(server, request, asked, grants, &video, expires_s))
}

/// Grants that let into a room, or what to answer.
fn granted(token: Option<&Token>, limits: &Limits) -> Result<(Grants, Option<u64>), Answer> {
    let bad = |text: String| Err(Answer::text(400, text));
    let Some((token, video)) = token.and_then(|token| Some((token, token.grants.video.as_ref()?))) else {
        return Err(Answer::text(401, NO_PERMISSIONS));
    };
    if !video.room_join {
        return Err(Answer::text(401, "permissions denied"));
    }
    if token.grants.identity.is_empty() {
        return bad("identity cannot be empty".to_owned());
    }
    check_identity(&token.grants.identity, limits)?;
    if video.room.is_empty() {
        return bad("no room name".to_owned());
    }
    if is_too_long(&video.room, limits.room_name_bytes) {
        let limit = limits.room_name_bytes;
        return bad(format!("room name length exceeds limits: max length {limit}"));
    }
    Ok((token.grants.clone(), token.expires_s))
}

fn check_identity(identity: &str, limits: &Limits) -> Result<(), Answer> {
    let limit = limits.identity_bytes;
    if is_too_long(identity, limit) {
        return Err(Answer::text(
            400,
            format!("participant identity length exceeds limits: max length {limit}"),
        ));
    }
    Ok(())
}

/// A limit of 0 is none.
const fn is_too_long(text: &str, limit: usize) -> bool {
    limit > 0 && text.len() > limit
}

fn build(
    server: &Server,
    request: &HttpRequest<'_>,
    asked: Asked,
    grants: Grants,
    video: &VideoGrant,
    expires_s: Option<u64>,
) -> Admission {
    let client = asked.client.augmented(request);
    let permission = video.permission();
    let quirks = client.quirks();
    let layout = if asked.single {
        Layout::Single
    } else {
        Layout::Dual { subscriber_primary: client.protocol() >= 3 && permission.can_subscribe }
    };
    let join = Join {
        peer: PeerKey(0),
        room: RoomSid::default(),
        sid: ParticipantSid::default(),
        identity: grants.identity.as_str().into(),
        name: grants.name.clone(),
        metadata: grants.metadata.clone(),
        attributes: grants.attributes.clone(),
        permission,
        kind: grants.kind,
        kind_details: grants.kind_details.clone(),
        layout,
        protocol: client.protocol(),
        client_protocol: client.client_protocol(),
        capabilities: client.capabilities().to_vec(),
        client: client.facts(),
        quirks,
        auto_subscribe: asked.auto_subscribe,
        adaptive_stream: asked.adaptive_stream,
        ice_lite: server.ice_lite && client.takes_ice_lite() && !asked.disable_ice_lite,
        add_tracks: asked.add_tracks,
        publisher_offer: asked.publisher_offer,
    };
    let request = JoinRequest {
        room: RoomName::from(&video.room),
        options: room_options(&grants),
        preset: grants.room_preset.clone(),
        may_create: video.room_create,
        join: Box::new(join),
    };
    let session = SessionSetup {
        protocol: client.protocol(),
        single: asked.single,
        old_rust: client.is_rust() && client.protocol() < 10,
        quirks,
        grants,
        expires_s,
        resumes: asked.reconnect,
        refused_tracks: asked.refused_tracks,
        bad_offer: asked.bad_offer,
    };
    Admission { request, session }
}

/// What a client asks for, whichever way it says so.
#[derive(Default)]
struct Asked {
    client: Client,
    single: bool,
    auto_subscribe: bool,
    adaptive_stream: bool,
    disable_ice_lite: bool,
    reconnect: bool,
    publish: String,
    metadata: String,
    attributes: BTreeMap<String, String>,
    add_tracks: Vec<fanlight_sfu::input::AddTrack>,
    refused_tracks: Vec<proto::RequestResponse>,
    publisher_offer: Option<(u32, Box<fanlight_transport::negotiate::RemoteDescription>)>,
    bad_offer: bool,
}

impl Asked {
    fn from_query(parameters: &Parameters, strict: bool) -> Result<Self, Answer> {
        let flag = |name| matches!(parameters.get(name), "1" | "true");
        let attributes = match decode_attributes(parameters.get("attributes")) {
            Some(attributes) => attributes,
            None if strict => return Err(Answer::text(400, "cannot decode attributes")),
            None => BTreeMap::new(),
        };
        Ok(Self {
            client: Client::from_parameters(parameters),
            auto_subscribe: parameters.get("auto_subscribe").is_empty() || flag("auto_subscribe"),
            adaptive_stream: flag("adaptive_stream"),
            disable_ice_lite: flag("disable_ice_lite"),
            reconnect: flag("reconnect"),
            publish: parameters.get("publish").to_owned(),
            attributes,
            ..Self::default()
        })
    }

    fn from_join_request(decoded: DecodedJoin) -> Self {
        let DecodedJoin { request, add_tracks, refused_tracks, publisher_offer, bad_offer } = decoded;
        let settings = request.connection_settings.unwrap_or_default();
        let attributes: BTreeMap<String, String> = request.participant_attributes.into_iter().collect();
        Self {
            client: Client::from_info(request.client_info.unwrap_or_default()),
            single: true,
            auto_subscribe: settings.auto_subscribe,
            adaptive_stream: settings.adaptive_stream,
            disable_ice_lite: settings.disable_ice_lite,
            reconnect: request.reconnect,
            publish: String::new(),
            metadata: request.metadata,
            attributes: attributes.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
            add_tracks,
            refused_tracks,
            publisher_offer,
            bad_offer,
        }
    }
}

/// `attributes` of a v0 query: base64 (URL alphabet) of a JSON object of texts. `None` when it is not that.
fn decode_attributes(encoded: &str) -> Option<BTreeMap<String, String>> {
    if encoded.is_empty() {
        return Some(BTreeMap::new());
    }
    let json = URL_SAFE.decode(encoded).ok()?;
    serde_json::from_slice(&json).ok()
}

/// `roomConfig` of a token; what is zero or empty leaves the default.
fn room_options(grants: &Grants) -> RoomOptions {
    let config = grants.room_config.clone();
    let config: proto::RoomConfiguration =
        config.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default();
    let set = |value: u32| (value > 0).then_some(value);
    RoomOptions {
        empty_timeout_s: set(config.empty_timeout),
        departure_timeout_s: set(config.departure_timeout),
        max_participants: set(config.max_participants),
        metadata: Some(config.metadata).filter(|metadata| !metadata.is_empty()),
    }
}

impl From<TokenError> for Answer {
    fn from(error: TokenError) -> Self {
        Self::text(401, error.to_string())
    }
}
