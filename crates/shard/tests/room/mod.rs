//! A room and who joins it.

use fanlight_base::{PeerKey, Redacted};
use fanlight_events::ClientFacts;
use fanlight_sfu::envelope::{BadEnvelope, Routed, Sender};
use fanlight_sfu::input::{Join, Layout, Quirks};
use fanlight_sfu::model::{ParticipantKind, Permission, RoomConfig};
use std::collections::BTreeMap;

pub(crate) fn room_config(sid: &str) -> RoomConfig {
    RoomConfig {
        sid: sid.into(),
        name: sid.into(),
        empty_timeout_s: 300,
        departure_timeout_s: 20,
        max_participants: 0,
        created_ms: 0,
        turn_password: Redacted::new(String::new()),
        sif_trailer: String::new(),
        enabled_codecs: Vec::new(),
        metadata: String::new(),
    }
}

pub(crate) fn join(peer: PeerKey, room: &str) -> Join {
    Join {
        peer,
        room: room.into(),
        sid: format!("PA_{}", peer.0).into(),
        identity: format!("user{}", peer.0).into(),
        name: String::new(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
        permission: Permission { can_subscribe: true, ..Permission::default() },
        kind: ParticipantKind::Standard,
        kind_details: Vec::new(),
        layout: Layout::Dual { subscriber_primary: true },
        protocol: 17,
        client_protocol: 2,
        capabilities: Vec::new(),
        client: ClientFacts::default(),
        quirks: Quirks::default(),
        auto_subscribe: true,
        adaptive_stream: false,
        ice_lite: false,
        add_tracks: Vec::new(),
        publisher_offer: None,
    }
}

pub(crate) fn no_data(_: &[u8], _: &Sender<'_>) -> Result<Routed, BadEnvelope> {
    Err(BadEnvelope)
}
