//! What a token grants.

use super::{TokenError, claims};
use fanlight_sfu::model::{ParticipantKind, Permission, Source};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Everything in a token but its issuer and its times.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Grants {
    /// `sub`, or `jti` when that is empty.
    pub identity: String,
    /// Display name.
    pub name: String,
    /// `kind`; unknown words are `standard`.
    pub kind: ParticipantKind,
    /// `kindDetails` as LiveKit numbers.
    pub kind_details: Vec<i32>,
    /// Application metadata.
    pub metadata: String,
    /// Application attributes.
    pub attributes: BTreeMap<String, String>,
    /// Digest of a webhook's body.
    pub sha256: String,
    /// Name of a room configuration.
    pub room_preset: String,
    /// Room configuration, as it stands in the token.
    pub room_config: Option<serde_json::Value>,
    /// What may be done with rooms; absent is not the same as empty.
    pub video: Option<VideoGrant>,
    /// `sip.admin`.
    pub sip_admin: bool,
    /// `sip.call`.
    pub sip_call: bool,
    /// `agent.admin`.
    pub agent_admin: bool,
    /// The claim of rtcstats, which LiveKit does not have.
    pub rtc_stats: Option<RtcStatsClaim>,
}

/// The claim `rtcStats`: whose stats these are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RtcStatsClaim {
    /// The user.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// One life of a page.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub session: String,
    /// The call.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub conference: String,
}

/// The claim `video`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VideoGrant {
    /// Make and delete rooms.
    #[serde(skip_serializing_if = "is_false")]
    pub room_create: bool,
    /// List rooms.
    #[serde(skip_serializing_if = "is_false")]
    pub room_list: bool,
    /// Record rooms.
    #[serde(skip_serializing_if = "is_false")]
    pub room_record: bool,
    /// Administer `room`.
    #[serde(skip_serializing_if = "is_false")]
    pub room_admin: bool,
    /// Join `room`.
    #[serde(skip_serializing_if = "is_false")]
    pub room_join: bool,
    /// The room.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub room: String,
    /// Publish tracks; yes when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish: Option<bool>,
    /// Receive tracks; yes when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe: Option<bool>,
    /// Send data; as `can_publish` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish_data: Option<bool>,
    /// Sources that may be published; all when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub can_publish_sources: Vec<String>,
    /// Change its own name, metadata and attributes; no when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_update_own_metadata: Option<bool>,
    /// Administer ingress.
    #[serde(skip_serializing_if = "is_false")]
    pub ingress_admin: bool,
    /// Not shown to others.
    #[serde(skip_serializing_if = "is_false")]
    pub hidden: bool,
    /// Records the room.
    #[serde(skip_serializing_if = "is_false")]
    pub recorder: bool,
    /// Is an agent.
    #[serde(skip_serializing_if = "is_false")]
    pub agent: bool,
    /// Subscribe to metrics; no when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe_metrics: Option<bool>,
    /// Manage agent sessions; no when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_manage_agent_session: Option<bool>,
    /// Room that participants may be moved to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub destination_room: String,
}

/// The members of [`VideoGrant`] as they are spelled in a token.
pub const VIDEO_GRANT_NAMES: [&str; 18] = [
    "roomCreate",
    "roomList",
    "roomRecord",
    "roomAdmin",
    "roomJoin",
    "room",
    "canPublish",
    "canSubscribe",
    "canPublishData",
    "canPublishSources",
    "canUpdateOwnMetadata",
    "ingressAdmin",
    "hidden",
    "recorder",
    "agent",
    "canSubscribeMetrics",
    "canManageAgentSession",
    "destinationRoom",
];

impl VideoGrant {
    /// This grant with the members of a JSON object laid over it, spelled as in a token; members that are none of
    /// [`VIDEO_GRANT_NAMES`] change nothing.
    pub fn with_json(&self, object: &Map<String, Value>) -> Result<Self, TokenError> {
        let mut members = match serde_json::to_value(self) {
            Ok(Value::Object(members)) => members,
            _ => Map::new(),
        };
        members.extend(object.clone());
        claims::video_grant(&members)
    }

    /// Whether tracks may be published.
    pub fn publishes(&self) -> bool {
        self.can_publish.unwrap_or(true)
    }

    /// The rights of a participant, defaults applied.
    pub fn permission(&self) -> Permission {
        Permission {
            can_subscribe: self.can_subscribe.unwrap_or(true),
            can_publish: self.publishes(),
            can_publish_data: self.can_publish_data.unwrap_or_else(|| self.publishes()),
            can_publish_sources: self.can_publish_sources.iter().map(|word| source(word)).collect(),
            hidden: self.hidden,
            recorder: self.recorder,
            can_update_metadata: self.can_update_own_metadata.unwrap_or(false),
            agent: self.agent,
            can_subscribe_metrics: self.can_subscribe_metrics.unwrap_or(false),
        }
    }

    /// Spells out rights that differ from what this grant says by itself.
    pub fn set_permission(&mut self, permission: &Permission) {
        if self.permission() == *permission {
            return;
        }
        self.can_subscribe = Some(permission.can_subscribe);
        self.can_publish = Some(permission.can_publish);
        self.can_publish_data = Some(permission.can_publish_data);
        self.can_publish_sources =
            permission.can_publish_sources.iter().map(|source| source.as_str().to_owned()).collect();
        self.hidden = permission.hidden;
        self.recorder = permission.recorder;
        self.can_update_own_metadata = Some(permission.can_update_metadata);
        self.agent = permission.agent;
        self.can_subscribe_metrics = Some(permission.can_subscribe_metrics);
        self.can_manage_agent_session = Some(self.can_manage_agent_session.unwrap_or(false));
    }
}

/// The word for a kind in a token.
pub const fn kind_name(kind: ParticipantKind) -> &'static str {
    match kind {
        ParticipantKind::Standard => "standard",
        ParticipantKind::Ingress => "ingress",
        ParticipantKind::Egress => "egress",
        ParticipantKind::Sip => "sip",
        ParticipantKind::Agent => "agent",
        ParticipantKind::Connector => "connector",
        ParticipantKind::Bridge => "bridge",
    }
}

/// The kind a word in a token means; any other word is `standard`, as LiveKit has it.
pub(super) fn kind(word: &str) -> ParticipantKind {
    match word {
        "ingress" => ParticipantKind::Ingress,
        "egress" => ParticipantKind::Egress,
        "sip" => ParticipantKind::Sip,
        "agent" => ParticipantKind::Agent,
        "connector" => ParticipantKind::Connector,
        "bridge" => ParticipantKind::Bridge,
        _ => ParticipantKind::Standard,
    }
}

/// LiveKit's number of a `kindDetails` word.
pub(super) fn kind_detail(word: &str) -> Option<i32> {
    const WORDS: [&str; 6] =
        ["cloud_agent", "forwarded", "connector_whatsapp", "connector_twilio", "bridge_rtsp", "simulation"];
    (0..).zip(WORDS).find(|(_, known)| *known == word).map(|(number, _)| number)
}

/// An unknown word narrows all the same: it means a source that no client calls its own.
fn source(word: &str) -> Source {
    match word.to_ascii_lowercase().as_str() {
        "camera" => Source::CAMERA,
        "microphone" => Source::MICROPHONE,
        "screen_share" => Source::SCREEN_SHARE,
        "screen_share_audio" => Source::SCREEN_SHARE_AUDIO,
        _ => Source::UNKNOWN,
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde calls with")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_rights_have_livekits_defaults() {
        let permission = VideoGrant::default().permission();
        assert!(permission.can_publish && permission.can_subscribe && permission.can_publish_data);
        assert!(!permission.can_update_metadata && !permission.can_subscribe_metrics);
        let silent = VideoGrant { can_publish: Some(false), ..VideoGrant::default() };
        assert!(!silent.permission().can_publish_data);
    }

    #[test]
    fn json_is_laid_over_a_grant() {
        let grant = VideoGrant { room_join: true, room: "r".to_owned(), ..VideoGrant::default() };
        let all = VIDEO_GRANT_NAMES.map(|name| {
            let value = match name {
                "room" | "destinationRoom" => Value::from("other"),
                "canPublishSources" => Value::from(vec!["camera"]),
                _ => Value::from(true),
            };
            (name.to_owned(), value)
        });
        let over = grant.with_json(&all.clone().into_iter().collect()).unwrap();
        assert_eq!(serde_json::to_value(&over).unwrap(), Value::Object(all.into_iter().collect()));
        let over =
            grant.with_json(&[("canPublish".to_owned(), Value::from(false))].into_iter().collect()).unwrap();
        assert_eq!((over.room.as_str(), over.can_publish, over.room_join), ("r", Some(false), true));
        assert!(grant.with_json(&[("canPublish".to_owned(), Value::from(1))].into_iter().collect()).is_err());
    }

    #[test]
    fn changed_rights_are_spelled_out_and_unchanged_ones_are_not() {
        let mut grant = VideoGrant::default();
        let mut permission = grant.permission();
        grant.set_permission(&permission);
        assert_eq!(grant, VideoGrant::default());
        permission.can_publish = false;
        grant.set_permission(&permission);
        assert_eq!(grant.permission(), permission);
        assert_eq!(grant.can_subscribe, Some(true));
    }
}
