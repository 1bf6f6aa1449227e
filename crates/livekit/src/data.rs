//! Data packets between participants: stamped with who sends them, everything else left as it came.
//!
//! A packet is patched on the wire instead of being decoded and encoded again, so that fields a newer client sends and
//! this server does not know reach the others byte by byte.

use fanlight_base::{Identity, ParticipantSid};
use fanlight_sfu::envelope::{BadEnvelope, DataEnvelope, Routed, Sender};
use prost::encoding::{decode_varint, encode_varint};

/// The envelope of LiveKit's `DataPacket`.
pub const ENVELOPE: DataEnvelope = DataEnvelope { route };

/// Most destinations read from one packet; SCTP messages of 64 kB hardly hold more.
const DESTINATIONS_MAX: usize = 4_096;

/// Field numbers of `DataPacket`.
mod packet {
    pub(super) const KIND: u32 = 1;
    pub(super) const USER: u32 = 2;
    pub(super) const PARTICIPANT_IDENTITY: u32 = 4;
    pub(super) const DESTINATION_IDENTITIES: u32 = 5;
    pub(super) const METRICS: u32 = 8;
    pub(super) const SEQUENCE: u32 = 16;
    pub(super) const PARTICIPANT_SID: u32 = 17;
}

/// Field numbers of `UserPacket`.
mod user {
    pub(super) const PARTICIPANT_SID: u32 = 1;
    pub(super) const DESTINATION_SIDS: u32 = 3;
    pub(super) const PARTICIPANT_IDENTITY: u32 = 5;
    pub(super) const DESTINATION_IDENTITIES: u32 = 6;
}

/// Stamps a packet and reads where it goes.
///
/// Destinations of the packet win over those of its (deprecated) user part.
fn route(bytes: &[u8], sender: &Sender<'_>) -> Result<Routed, BadEnvelope> {
    let mut routed = Routed {
        bytes: Vec::with_capacity(bytes.len().saturating_add(64)),
        destinations: Vec::new(),
        destination_sids: Vec::new(),
        sequence: 0,
        metrics: None,
    };
    let mut of_user = UserDestinations::default();
    for field in fields(bytes) {
        let field = field?;
        match field.number {
            packet::KIND | packet::PARTICIPANT_IDENTITY | packet::PARTICIPANT_SID => continue,
            packet::USER => {
                let patched = patch_user(field.payload()?, sender, &mut of_user)?;
                put_bytes(&mut routed.bytes, packet::USER, &patched);
                continue;
            }
            packet::DESTINATION_IDENTITIES => push(&mut routed.destinations, field.text()?)?,
            packet::SEQUENCE => {
                routed.sequence = field.varint().and_then(|v| u32::try_from(v).map_err(|_| BadEnvelope))?
            }
            packet::METRICS => routed.metrics = Some(field.payload()?.to_vec()),
            _ => {}
        }
        routed.bytes.extend_from_slice(field.whole);
    }
    if !sender.reliable {
        // `Kind` is RELIABLE = 0, which proto3 leaves out, or LOSSY = 1.
        encode_varint(u64::from(packet::KIND << 3), &mut routed.bytes);
        encode_varint(1, &mut routed.bytes);
    }
    put_text(&mut routed.bytes, packet::PARTICIPANT_IDENTITY, sender.identity.as_str());
    put_text(&mut routed.bytes, packet::PARTICIPANT_SID, sender.sid.as_str());
    if routed.destinations.is_empty() {
        routed.destinations = of_user.identities;
        routed.destination_sids = of_user.sids;
    }
    Ok(routed)
}

#[derive(Default)]
struct UserDestinations {
    identities: Vec<Identity>,
    sids: Vec<ParticipantSid>,
}

fn patch_user(bytes: &[u8], sender: &Sender<'_>, to: &mut UserDestinations) -> Result<Vec<u8>, BadEnvelope> {
    let mut patched = Vec::with_capacity(bytes.len().saturating_add(64));
    for field in fields(bytes) {
        let field = field?;
        match field.number {
            user::PARTICIPANT_SID | user::PARTICIPANT_IDENTITY => continue,
            user::DESTINATION_SIDS => push(&mut to.sids, field.text()?)?,
            user::DESTINATION_IDENTITIES => push(&mut to.identities, field.text()?)?,
            _ => {}
        }
        patched.extend_from_slice(field.whole);
    }
    put_text(&mut patched, user::PARTICIPANT_SID, sender.sid.as_str());
    put_text(&mut patched, user::PARTICIPANT_IDENTITY, sender.identity.as_str());
    Ok(patched)
}

fn push<'a, T: From<&'a str>>(list: &mut Vec<T>, text: &'a str) -> Result<(), BadEnvelope> {
    if list.len() >= DESTINATIONS_MAX {
        return Err(BadEnvelope);
    }
    list.push(text.into());
    Ok(())
}

fn put_text(bytes: &mut Vec<u8>, number: u32, text: &str) {
    if !text.is_empty() {
        put_bytes(bytes, number, text.as_bytes());
    }
}

fn put_bytes(bytes: &mut Vec<u8>, number: u32, payload: &[u8]) {
    encode_varint(u64::from(number << 3 | 2), bytes);
    encode_varint(u64::try_from(payload.len()).unwrap_or(u64::MAX), bytes);
    bytes.extend_from_slice(payload);
}

/// One field on the wire.
struct Field<'a> {
    number: u32,
    /// Tag, length and payload.
    whole: &'a [u8],
    value: Value<'a>,
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Field<'a> {
    fn payload(&self) -> Result<&'a [u8], BadEnvelope> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(BadEnvelope),
        }
    }

    fn text(&self) -> Result<&'a str, BadEnvelope> {
        std::str::from_utf8(self.payload()?).map_err(|_| BadEnvelope)
    }

    fn varint(&self) -> Result<u64, BadEnvelope> {
        match self.value {
            Value::Varint(value) => Ok(value),
            _ => Err(BadEnvelope),
        }
    }
}

fn fields(mut rest: &[u8]) -> impl Iterator<Item = Result<Field<'_>, BadEnvelope>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = next_field(&mut rest);
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn next_field<'a>(rest: &mut &'a [u8]) -> Result<Field<'a>, BadEnvelope> {
    let start = *rest;
    let key = decode_varint(rest).map_err(|_| BadEnvelope)?;
    let number = u32::try_from(key >> 3).map_err(|_| BadEnvelope)?;
    if number == 0 {
        return Err(BadEnvelope);
    }
    let value = match key & 7 {
        0 => Value::Varint(decode_varint(rest).map_err(|_| BadEnvelope)?),
        1 => take(rest, 8).map(|_| Value::Fixed)?,
        2 => {
            let length = decode_varint(rest).map_err(|_| BadEnvelope)?;
            Value::Bytes(take(rest, usize::try_from(length).map_err(|_| BadEnvelope)?)?)
        }
        5 => take(rest, 4).map(|_| Value::Fixed)?,
        // Groups are not part of proto3.
        _ => return Err(BadEnvelope),
    };
    let whole = start.get(..start.len().saturating_sub(rest.len())).ok_or(BadEnvelope)?;
    Ok(Field { number, whole, value })
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], BadEnvelope> {
    let (taken, left) = rest.split_at_checked(length).ok_or(BadEnvelope)?;
    *rest = left;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use livekit_protocol as proto;
    use prost::Message;
    use proto::data_packet::Value as Payload;

    fn routed(packet: &proto::DataPacket, reliable: bool) -> (proto::DataPacket, Routed) {
        let (sid, identity) = (ParticipantSid::from("PA_a"), Identity::from("alice"));
        let sender = Sender { sid: &sid, identity: &identity, reliable };
        let routed = route(&packet.encode_to_vec(), &sender).unwrap();
        (proto::DataPacket::decode(routed.bytes.as_slice()).unwrap(), routed)
    }

    #[expect(deprecated, reason = "the old fields are what is tested")]
    fn user_packet() -> proto::UserPacket {
        proto::UserPacket {
            participant_sid: "PA_forged".to_owned(),
            participant_identity: "mallory".to_owned(),
            payload: b"hello".to_vec(),
            topic: Some("t".to_owned()),
            destination_sids: vec!["PA_b".to_owned()],
            destination_identities: vec!["bob".to_owned()],
            nonce: vec![7; 16],
            ..Default::default()
        }
    }

    #[test]
    #[expect(deprecated, reason = "the old fields are what is tested")]
    fn a_sender_cannot_forge_itself_or_its_channel() {
        let packet = proto::DataPacket {
            kind: proto::data_packet::Kind::Reliable as i32,
            participant_identity: "mallory".to_owned(),
            participant_sid: "PA_forged".to_owned(),
            sequence: 9,
            value: Some(Payload::User(user_packet())),
            ..Default::default()
        };
        let (seen, routed) = routed(&packet, false);
        assert_eq!(seen.kind(), proto::data_packet::Kind::Lossy);
        assert_eq!((seen.participant_identity.as_str(), seen.participant_sid.as_str()), ("alice", "PA_a"));
        let Some(Payload::User(user)) = seen.value else { panic!("no user packet") };
        assert_eq!((user.participant_identity.as_str(), user.participant_sid.as_str()), ("alice", "PA_a"));
        assert_eq!(
            (user.payload, user.topic, user.nonce),
            (b"hello".to_vec(), Some("t".to_owned()), vec![7; 16])
        );
        assert_eq!(routed.sequence, 9);
        assert_eq!(routed.destinations, ["bob".into()]);
        assert_eq!(routed.destination_sids, ["PA_b".into()]);
    }

    #[test]
    fn destinations_of_the_packet_win_over_those_of_its_user_part() {
        let packet = proto::DataPacket {
            destination_identities: vec!["carol".to_owned()],
            value: Some(Payload::User(user_packet())),
            ..Default::default()
        };
        let (_, routed) = routed(&packet, true);
        assert_eq!(routed.destinations, ["carol".into()]);
        assert!(routed.destination_sids.is_empty());
    }

    #[test]
    fn fields_of_newer_clients_survive() {
        let mut bytes = proto::DataPacket { sequence: 3, ..Default::default() }.encode_to_vec();
        let unknown = [0xfa, 0x7f, 3, 1, 2, 3, 0x91, 0x7f, 8, 7, 6, 5, 4, 3, 2, 1, 0x95, 0x7f, 4, 3, 2, 1];
        bytes.extend_from_slice(&unknown);
        let (sid, identity) = (ParticipantSid::default(), Identity::default());
        let routed = route(&bytes, &Sender { sid: &sid, identity: &identity, reliable: true }).unwrap();
        assert_eq!(routed.bytes, bytes);
    }

    #[test]
    fn a_batch_of_metrics_is_handed_out_as_it_came() {
        let batch =
            proto::MetricsBatch { timestamp_ms: 7, str_data: vec!["alice".to_owned()], ..Default::default() };
        let packet = proto::DataPacket { value: Some(Payload::Metrics(batch.clone())), ..Default::default() };
        assert_eq!(routed(&packet, true).1.metrics, Some(batch.encode_to_vec()));
        let other = proto::DataPacket { value: Some(Payload::User(user_packet())), ..Default::default() };
        assert_eq!(routed(&other, true).1.metrics, None);
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        let (sid, identity) = (ParticipantSid::default(), Identity::default());
        let sender = Sender { sid: &sid, identity: &identity, reliable: true };
        for bytes in
            [&[0xff][..], &[0x0a, 5, 1], &[0x00, 1], &[0x10, 1], &[0x2a, 1, 0xff], &[0x0b], &[0x82, 1, 0]]
        {
            assert_eq!(route(bytes, &sender), Err(BadEnvelope), "{bytes:?}");
        }
        assert!(route(&[], &sender).is_ok());
    }
}
