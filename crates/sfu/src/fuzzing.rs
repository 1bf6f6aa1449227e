//! Fuzz targets: plain functions that must not panic, whatever the bytes.

use crate::envelope::{BadEnvelope, DataEnvelope};
use crate::input::{AddTrack, Command, Join, Layout, Quirks, Request};
use crate::model::{Kind, ParticipantKind, Permission, RoomConfig, Source};
use crate::output::Output;
use crate::{Sfu, SfuConfig, TextLimits};
use fanlight_base::{Mono, Now, PeerKey, Protocol, Redacted, SendBatch};
use fanlight_events::ClientFacts;
use fanlight_transport::candidate::LocalCandidate;
use fanlight_transport::negotiate::RemoteDescription;
use fanlight_transport::{Certificate, ClockAnchor};
use std::collections::BTreeMap;
use std::time::Instant;

const ROOM: &str = "RM_fuzz";
const NOW: Now = Now { mono_ns: 1_000_000_000, unix_ns: 1_800_000_000_000_000_000 };

/// A description as offer of a participant of either signalling, before and after it announces tracks, and as answer of one
/// whom the server made an offer. No room ends by a bug.
pub fn fuzz_description(data: &[u8]) {
    let Ok(read) = RemoteDescription::parse(&String::from_utf8_lossy(data)) else { return };
    let Some(mut sfu) = sfu() else { return };
    let dual = Layout::Dual { subscriber_primary: true };
    for (peer, layout) in [(1, dual), (2, Layout::Single), (3, dual)] {
        command(&mut sfu, Command::Join(Box::new(join(peer, layout))));
    }
    let offer = |id| Request::Offer { id, sdp: Box::new(read.clone()) };
    for peer in [1, 2] {
        request(&mut sfu, peer, offer(1));
        for (kind, source) in [(Kind::Audio, Source::MICROPHONE), (Kind::Video, Source::CAMERA)] {
            let track = AddTrack::new(format!("cid{peer}"), kind, source);
            request(&mut sfu, peer, Request::AddTrack(Box::new(track)));
        }
        request(&mut sfu, peer, offer(2));
    }
    request(&mut sfu, 3, Request::Answer { id: 0, sdp: Box::new(read) });
    assert_eq!(sfu.counters().rooms_panicked, 0, "a room ended by a bug");
}

#[allow(
    clippy::disallowed_methods,
    reason = "an Instant cannot be made without the clock; its value is arbitrary"
)]
fn sfu() -> Option<Sfu> {
    let address = ([10, 0, 0, 1], 7882).into();
    let mut sfu = Sfu::new(SfuConfig {
        shard: 0,
        seed: [7; 32],
        certificate: Certificate::generate().ok()?,
        anchor: ClockAnchor::new(Instant::now(), Mono { ns: 0 }),
        candidates: vec![LocalCandidate::new(address, Protocol::Udp)],
        texts: TextLimits::default(),
        envelope: DataEnvelope { route: |_, _| Err(BadEnvelope) },
        encode_info: |_| Vec::new(),
    });
    let codecs = ["video/VP8", "video/H264", "video/VP9", "video/AV1", "audio/opus", "audio/red"];
    command(
        &mut sfu,
        Command::CreateRoom(Box::new(RoomConfig {
            sid: ROOM.into(),
            name: ROOM.into(),
            empty_timeout_s: 300,
            departure_timeout_s: 20,
            max_participants: 0,
            created_ms: NOW.unix_ms(),
            turn_password: Redacted::new(String::new()),
            sif_trailer: String::new(),
            enabled_codecs: codecs.map(String::from).to_vec(),
            metadata: String::new(),
        })),
    );
    Some(sfu)
}

fn join(peer: u64, layout: Layout) -> Join {
    Join {
        peer: PeerKey(peer),
        room: ROOM.into(),
        sid: format!("PA_{peer}").into(),
        identity: format!("user{peer}").into(),
        name: String::new(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
        permission: Permission { can_subscribe: true, can_publish: true, ..Permission::default() },
        kind: ParticipantKind::Standard,
        kind_details: Vec::new(),
        layout,
        protocol: 17,
        client_protocol: 0,
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

fn request(sfu: &mut Sfu, peer: u64, request: Request) {
    command(sfu, Command::Request { peer: PeerKey(peer), request });
}

/// A command in a turn of its own.
fn command(sfu: &mut Sfu, command: Command) {
    let mut batch = SendBatch::new();
    sfu.handle_command(NOW, command);
    while !matches!(sfu.poll_output(&mut batch), Output::Timeout(..)) {
        batch.clear();
    }
}
