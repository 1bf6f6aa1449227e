//! A `SignalResponse` on its way to the wire: participants stand in it as they were encoded once for everybody.

use crate::convert;
use fanlight_sfu::model::SharedInfo;
use livekit_protocol as proto;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use proto::signal_response::Message as Said;

/// Field numbers of `SignalResponse`, `JoinResponse` and `ParticipantUpdate`.
const JOIN: u32 = 1;
const UPDATE: u32 = 5;
const JOIN_OTHERS: u32 = 3;
const UPDATE_PARTICIPANTS: u32 = 1;

/// What a client is told.
#[derive(Debug)]
pub(super) struct Reply {
    said: Said,
    /// Participants that are to stand in it: an update's, or those a join finds.
    infos: Vec<SharedInfo>,
}

impl From<Said> for Reply {
    fn from(said: Said) -> Self {
        Self { said, infos: Vec::new() }
    }
}

impl Reply {
    /// A join into the company of `others`.
    pub(super) fn join(join: proto::JoinResponse, others: Vec<SharedInfo>) -> Self {
        Self { said: Said::Join(join), infos: others }
    }

    /// Participants that changed.
    pub(super) fn update(infos: Vec<SharedInfo>) -> Self {
        Self { said: Said::Update(proto::ParticipantUpdate::default()), infos }
    }

    /// As protobuf.
    pub(super) fn encode(self) -> Vec<u8> {
        match &self.said {
            Said::Join(join) => spliced((JOIN, join), JOIN_OTHERS, &self.infos),
            Said::Update(update) => spliced((UPDATE, update), UPDATE_PARTICIPANTS, &self.infos),
            _ => proto::SignalResponse { message: Some(self.said) }.encode_to_vec(),
        }
    }

    /// As JSON; `None` when a value of it has none.
    pub(super) fn json(&self) -> Option<String> {
        let infos = self.infos.iter().map(|info| convert::participant(info)).collect();
        let mut said = self.said.clone();
        match &mut said {
            Said::Join(join) => join.other_participants = infos,
            Said::Update(update) => update.participants = infos,
            _ => {}
        }
        serde_json::to_string(&proto::SignalResponse { message: Some(said) }).ok()
    }
}

/// How many bytes a participant takes as an entry of a repeated field.
pub(super) fn entry_bytes(info: &SharedInfo) -> usize {
    let len = info.encoded().len();
    key_len(JOIN_OTHERS) + encoded_len_varint(len as u64) + len
}

/// A response with one message in it, and in that, behind its own fields, these participants.
fn spliced((field, message): (u32, &impl Message), entries: u32, infos: &[SharedInfo]) -> Vec<u8> {
    let len = message.encoded_len() + infos.iter().map(entry_bytes).sum::<usize>();
    let mut bytes = Vec::with_capacity(key_len(field) + encoded_len_varint(len as u64) + len);
    encode_key(field, WireType::LengthDelimited, &mut bytes);
    encode_varint(len as u64, &mut bytes);
    message.encode_raw(&mut bytes);
    for info in infos {
        encode_key(entries, WireType::LengthDelimited, &mut bytes);
        encode_varint(info.encoded().len() as u64, &mut bytes);
        bytes.extend_from_slice(info.encoded());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanlight_sfu::model::{ParticipantInfo, ParticipantKind, ParticipantState, Permission};

    fn info(sid: &str, metadata_bytes: usize) -> SharedInfo {
        let info = ParticipantInfo {
            sid: sid.into(),
            identity: sid.into(),
            state: ParticipantState::Active,
            tracks: Vec::new(),
            metadata: "m".repeat(metadata_bytes),
            joined_ms: 1_800_000_000_000,
            name: String::new(),
            version: 7,
            permission: Permission::default(),
            is_publisher: true,
            kind: ParticipantKind::Standard,
            kind_details: Vec::new(),
            attributes: std::iter::once(("key".to_owned(), "value".to_owned())).collect(),
            disconnect_reason: None,
            client_protocol: 0,
            capabilities: Vec::new(),
        };
        SharedInfo::new(info, convert::encode_participant)
    }

    fn infos() -> Vec<SharedInfo> {
        vec![info("PA_1", 0), info("PA_2", 200), info("PA_3", 500_000)]
    }

    fn messages() -> Vec<proto::ParticipantInfo> {
        infos().iter().map(|info| convert::participant(info)).collect()
    }

    #[test]
    fn what_is_spliced_is_what_the_message_would_be() {
        let join = proto::JoinResponse { server_version: "1".to_owned(), ..Default::default() };
        let whole = proto::JoinResponse { other_participants: messages(), ..join.clone() };
        let cases = [
            (Reply::join(join, infos()), Said::Join(whole)),
            (Reply::update(infos()), Said::Update(proto::ParticipantUpdate { participants: messages() })),
            (Reply::update(Vec::new()), Said::Update(proto::ParticipantUpdate::default())),
            (Reply::from(Said::Pong(3)), Said::Pong(3)),
        ];
        for (reply, said) in cases {
            let expected = proto::SignalResponse { message: Some(said) };
            assert_eq!(reply.json(), serde_json::to_string(&expected).ok());
            let decoded = proto::SignalResponse::decode(reply.encode().as_slice());
            assert_eq!(decoded.expect("it can be read"), expected);
        }
    }
}
