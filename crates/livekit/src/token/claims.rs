//! Claims as JSON: read with LiveKit's tolerance and error texts, written in LiveKit's order.

use super::grants::{self, Grants, RtcStatsClaim, VideoGrant};
use super::{TokenError, kind_name};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The claims of a token.
pub(super) struct Claims {
    pub(super) grants: Grants,
    pub(super) expires_s: Option<u64>,
    pub(super) not_before_s: Option<u64>,
}

pub(super) fn read(claims: &Map<String, Value>) -> Result<Claims, TokenError> {
    let top = Reader { object: claims, place: "ClaimGrants.ClaimGrants" };
    let subject = top.text("sub")?;
    let identity = if subject.is_empty() { top.text("jti")? } else { subject };
    let sip = top.object("sip", "SIPGrant", "SIPGrant.ClaimGrants.sip")?;
    let agent = top.object("agent", "AgentGrant", "AgentGrant.ClaimGrants.agent")?;
    let flag =
        |reader: &Option<Reader<'_>>, name| reader.as_ref().map_or(Ok(false), |reader| reader.flag(name));
    let grants = Grants {
        identity,
        name: top.text("name")?,
        kind: grants::kind(&top.text("kind")?),
        kind_details: top.texts("kindDetails")?.iter().filter_map(|word| grants::kind_detail(word)).collect(),
        metadata: top.text("metadata")?,
        attributes: top.text_map("attributes")?,
        sha256: top.text("sha256")?,
        room_preset: top.text("roomPreset")?,
        room_config: claims.get("roomConfig").filter(|value| !value.is_null()).cloned(),
        video: top
            .object("video", "VideoGrant", "VideoGrant.ClaimGrants.video")?
            .map(|v| video(&v))
            .transpose()?,
        sip_admin: flag(&sip, "admin")?,
        sip_call: flag(&sip, "call")?,
        agent_admin: flag(&agent, "admin")?,
        // A claim that is not LiveKit's keeps nobody out.
        rtc_stats: claims.get("rtcStats").and_then(|claim| serde_json::from_value(claim.clone()).ok()),
    };
    Ok(Claims { grants, expires_s: top.seconds("exp")?, not_before_s: top.seconds("nbf")? })
}

/// Reads a grant as it stands in a token.
pub(super) fn video_grant(object: &Map<String, Value>) -> Result<VideoGrant, TokenError> {
    video(&Reader { object, place: "VideoGrant.ClaimGrants.video" })
}

fn video(reader: &Reader<'_>) -> Result<VideoGrant, TokenError> {
    Ok(VideoGrant {
        room_create: reader.flag("roomCreate")?,
        room_list: reader.flag("roomList")?,
        room_record: reader.flag("roomRecord")?,
        room_admin: reader.flag("roomAdmin")?,
        room_join: reader.flag("roomJoin")?,
        room: reader.text("room")?,
        can_publish: reader.choice("canPublish")?,
        can_subscribe: reader.choice("canSubscribe")?,
        can_publish_data: reader.choice("canPublishData")?,
        can_publish_sources: reader.texts("canPublishSources")?,
        can_update_own_metadata: reader.choice("canUpdateOwnMetadata")?,
        ingress_admin: reader.flag("ingressAdmin")?,
        hidden: reader.flag("hidden")?,
        recorder: reader.flag("recorder")?,
        agent: reader.flag("agent")?,
        can_subscribe_metrics: reader.choice("canSubscribeMetrics")?,
        can_manage_agent_session: reader.choice("canManageAgentSession")?,
        destination_room: reader.text("destinationRoom")?,
    })
}

/// Reads members of an object; `null` counts as absent, unknown members are left alone.
struct Reader<'a> {
    object: &'a Map<String, Value>,
    /// How LiveKit's error texts name the object.
    place: &'static str,
}

impl<'a> Reader<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<String, TokenError> {
        match self.get(name) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(self.mismatch(name, other, "string")),
        }
    }

    fn choice(&self, name: &str) -> Result<Option<bool>, TokenError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.mismatch(name, other, "bool")),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, TokenError> {
        Ok(self.choice(name)?.unwrap_or(false))
    }

    fn texts(&self, name: &str) -> Result<Vec<String>, TokenError> {
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        let Value::Array(items) = value else { return Err(self.mismatch(name, value, "[]string")) };
        let text = |item: &Value| match item {
            Value::String(text) => Ok(text.clone()),
            other => Err(self.mismatch(name, other, "string")),
        };
        items.iter().map(text).collect()
    }

    fn text_map(&self, name: &str) -> Result<BTreeMap<String, String>, TokenError> {
        let Some(value) = self.get(name) else { return Ok(BTreeMap::new()) };
        let Value::Object(members) = value else {
            return Err(self.mismatch(name, value, "map[string]string"));
        };
        let member = |(key, item): (&String, &Value)| match item {
            Value::String(text) => Ok((key.clone(), text.clone())),
            other => Err(self.mismatch(name, other, "string")),
        };
        members.iter().map(member).collect()
    }

    fn object(&self, name: &str, go: &str, place: &'static str) -> Result<Option<Reader<'a>>, TokenError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Reader { object, place })),
            Some(other) => Err(self.mismatch(name, other, &format!("auth.{go}"))),
        }
    }

    /// A time in seconds: a number, with a fraction or not, or a number as text.
    fn seconds(&self, name: &str) -> Result<Option<u64>, TokenError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        match number {
            Some(seconds) if seconds.is_finite() => Ok(Some(seconds.max(0.0) as u64)),
            _ => Err(self.mismatch(name, value, "float64")),
        }
    }

    fn mismatch(&self, name: &str, value: &Value, go: &str) -> TokenError {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        TokenError::Malformed(format!(
            "could not JSON decode claim: json: cannot unmarshal {found} into Go struct field {}.{name} of type {go}",
            self.place
        ))
    }
}

/// Claims to be signed; the order of the members is LiveKit's.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written<'a> {
    iss: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    sub: &'a str,
    exp: u64,
    nbf: u64,
    iat: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    identity: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    video: Option<&'a VideoGrant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sip: Option<Sip>,
    #[serde(skip_serializing_if = "str::is_empty")]
    room_preset: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_config: Option<&'a Value>,
    #[serde(skip_serializing_if = "str::is_empty")]
    sha256: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attributes: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtc_stats: Option<&'a RtcStatsClaim>,
}

#[derive(Serialize)]
struct Sip {
    admin: bool,
    call: bool,
}

impl<'a> Written<'a> {
    pub(super) fn new(key: &'a str, grants: &'a Grants, now_s: u64, expires_s: u64) -> Self {
        let sip = grants.sip_admin || grants.sip_call;
        Self {
            iss: key,
            sub: &grants.identity,
            exp: expires_s,
            nbf: now_s,
            iat: now_s,
            identity: &grants.identity,
            name: &grants.name,
            kind: kind_name(grants.kind),
            video: grants.video.as_ref(),
            sip: sip.then_some(Sip { admin: grants.sip_admin, call: grants.sip_call }),
            room_preset: &grants.room_preset,
            room_config: grants.room_config.as_ref(),
            sha256: &grants.sha256,
            metadata: &grants.metadata,
            attributes: &grants.attributes,
            rtc_stats: grants.rtc_stats.as_ref(),
        }
    }
}
