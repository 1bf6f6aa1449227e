//! Bodies: none is read before its handler asks for it, and all together are bounded.

use crate::gate::{Gate, Kind, Share};
use axum::body::Body;
use http_body_util::BodyExt;
use std::net::IpAddr;
use std::time::Duration;

/// A body comes within this.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// A body that nobody has read.
pub(crate) struct Unread {
    body: Body,
    gate: Gate,
    remote: IpAddr,
    announced: Option<usize>,
}

/// All of a body, with its share of what bodies may take.
pub(crate) struct Whole {
    pub(crate) bytes: Vec<u8>,
    _share: Share,
}

/// Why a body was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body may have at most {0} bytes")]
    TooLong(usize),
    #[error("no whole body within {} s", BODY_WITHIN.as_secs())]
    Late,
    #[error("too many bodies at once; send it again later")]
    Busy,
    #[error("the body ended before it was whole")]
    Broken,
}

impl BodyError {
    pub(crate) const fn status(&self) -> u16 {
        match self {
            Self::TooLong(_) => 413,
            Self::Late => 408,
            Self::Busy => 503,
            Self::Broken => 400,
        }
    }
}

impl Unread {
    pub(crate) fn new(body: Body, gate: &Gate, remote: IpAddr, announced: Option<&str>) -> Self {
        let announced = announced.and_then(|digits| digits.parse().ok());
        Self { body, gate: gate.clone(), remote, announced }
    }

    /// Reads it, unless it is longer than `most` bytes.
    pub(crate) async fn read(self, most: usize) -> Result<Whole, BodyError> {
        if self.announced.is_some_and(|bytes| bytes > most) {
            return Err(BodyError::TooLong(most));
        }
        tokio::time::timeout(BODY_WITHIN, self.gather(most)).await.unwrap_or(Err(BodyError::Late))
    }

    async fn gather(mut self, most: usize) -> Result<Whole, BodyError> {
        let mut share = self.gate.share(Kind::BodyBytes, self.remote);
        let mut bytes = Vec::new();
        while let Some(frame) = self.body.frame().await {
            let Ok(piece) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
            if piece.len() > most.saturating_sub(bytes.len()) {
                return Err(BodyError::TooLong(most));
            }
            if !share.grow(piece.len()) {
                return Err(BodyError::Busy);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Whole { bytes, _share: share })
    }
}
