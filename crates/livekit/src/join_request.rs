//! The `join_request` of signalling v1: base64 of a possibly compressed message.

use crate::convert::{AddTrackRefusal, add_track};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use fanlight_sfu::input::AddTrack;
use fanlight_transport::negotiate::RemoteDescription;
use flate2::read::GzDecoder;
use livekit_protocol as proto;
use prost::Message;
use proto::wrapped_join_request::Compression;
use std::io::Read;

/// Longest join request after decompression, bytes.
pub const JOIN_REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Most tracks announced with a join; the rest gets its refusal.
const ADD_TRACKS_MAX: usize = 64;

/// Why a join request was refused; the text is the body of the 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinRequestError {
    /// Not base64 of the URL alphabet with padding.
    #[error("cannot base64 decode wrapped join request")]
    Base64,
    /// The outer message.
    #[error("cannot unmarshal wrapped join request")]
    Wrapped,
    /// Not gzip, or broken.
    #[error("cannot read decompressed join request")]
    Gzip,
    /// Longer than [`JOIN_REQUEST_BYTES_MAX`].
    #[error("join request too large")]
    TooLarge,
    /// The inner message.
    #[error("cannot unmarshal join request")]
    Inner,
}

/// A join request with its tracks and its offer in the SFU's words.
#[derive(Debug)]
pub struct DecodedJoin {
    /// The message without `add_track_requests`, `publisher_offer` and `sync_state`.
    pub request: proto::JoinRequest,
    /// Tracks to add.
    pub add_tracks: Vec<AddTrack>,
    /// Tracks that cannot be added, already answered.
    pub refused_tracks: Vec<proto::RequestResponse>,
    /// The offer, if there is one and it parses.
    pub publisher_offer: Option<(u32, Box<RemoteDescription>)>,
    /// There is an offer that cannot be used: the client is told to reconnect.
    pub bad_offer: bool,
}

/// Decodes the parameter `join_request`.
pub fn decode(encoded: &str) -> Result<DecodedJoin, JoinRequestError> {
    let bytes = URL_SAFE.decode(encoded).map_err(|_| JoinRequestError::Base64)?;
    let wrapped =
        proto::WrappedJoinRequest::decode(bytes.as_slice()).map_err(|_| JoinRequestError::Wrapped)?;
    // A compression nobody knows stands for an empty request: the client is let in with defaults.
    let inner = match Compression::try_from(wrapped.compression) {
        Ok(Compression::None) if wrapped.join_request.len() > JOIN_REQUEST_BYTES_MAX => {
            return Err(JoinRequestError::TooLarge);
        }
        Ok(Compression::None) => wrapped.join_request,
        Ok(Compression::Gzip) => inflate(&wrapped.join_request)?,
        Err(_) => Vec::new(),
    };
    let request = proto::JoinRequest::decode(inner.as_slice()).map_err(|_| JoinRequestError::Inner)?;
    Ok(convert(request))
}

fn inflate(compressed: &[u8]) -> Result<Vec<u8>, JoinRequestError> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells an exact fit from too much.
    let limit = u64::try_from(JOIN_REQUEST_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    GzDecoder::new(compressed).take(limit).read_to_end(&mut bytes).map_err(|_| JoinRequestError::Gzip)?;
    if bytes.len() > JOIN_REQUEST_BYTES_MAX { Err(JoinRequestError::TooLarge) } else { Ok(bytes) }
}

fn convert(mut request: proto::JoinRequest) -> DecodedJoin {
    let (mut add_tracks, mut refused_tracks) = (Vec::new(), Vec::new());
    for (index, wanted) in std::mem::take(&mut request.add_track_requests).into_iter().enumerate() {
        let converted =
            if index < ADD_TRACKS_MAX { add_track(&wanted) } else { Err(AddTrackRefusal::TooMany) };
        match converted {
            Ok(track) => add_tracks.push(track),
            Err(refusal) => refused_tracks.push(refusal.response(wanted)),
        }
    }
    let offer = request.publisher_offer.take();
    request.sync_state = None;
    let (mut publisher_offer, mut bad_offer) = (None, false);
    if let Some(offer) = offer {
        match crate::session::description(&offer, "offer") {
            crate::session::Description::Good(sdp) => publisher_offer = Some((offer.id, sdp)),
            crate::session::Description::Bad => bad_offer = true,
            crate::session::Description::Unreadable => {}
        }
    }
    DecodedJoin { request, add_tracks, refused_tracks, publisher_offer, bad_offer }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression as Level;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn wrap(compression: i32, join_request: Vec<u8>) -> String {
        URL_SAFE.encode(proto::WrappedJoinRequest { compression, join_request }.encode_to_vec())
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Level::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_fault_has_its_text() {
        let cases = [
            ("!!!".to_owned(), JoinRequestError::Base64),
            ("EhEKCwgJEgUxLjIuMBgQEgIIAQ".to_owned(), JoinRequestError::Base64),
            ("____".to_owned(), JoinRequestError::Wrapped),
            (wrap(0, vec![0xff; 4]), JoinRequestError::Inner),
            (wrap(1, b"plain".to_vec()), JoinRequestError::Gzip),
            (wrap(1, gzip(&[0xff; 4])), JoinRequestError::Inner),
            (wrap(1, gzip(&vec![0; JOIN_REQUEST_BYTES_MAX + 1])), JoinRequestError::TooLarge),
            (wrap(0, vec![0; JOIN_REQUEST_BYTES_MAX + 1]), JoinRequestError::TooLarge),
        ];
        for (encoded, error) in cases {
            assert_eq!(decode(&encoded).err(), Some(error));
        }
    }

    #[test]
    fn an_unknown_compression_is_an_empty_request() {
        assert_eq!(decode(&wrap(7, vec![0xff; 4])).unwrap().request, proto::JoinRequest::default());
    }

    #[test]
    fn tracks_of_no_kind_are_refused_one_by_one() {
        let track = |cid: &str, kind| proto::AddTrackRequest {
            cid: cid.to_owned(),
            r#type: kind,
            ..Default::default()
        };
        let request = proto::JoinRequest {
            add_track_requests: vec![track("a", 0), track("d", 2)],
            ..Default::default()
        };
        let decoded = decode(&wrap(0, request.encode_to_vec())).unwrap();
        assert_eq!(decoded.add_tracks.len(), 1);
        assert_eq!(decoded.refused_tracks.len(), 1);
    }
}
