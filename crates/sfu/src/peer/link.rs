//! A participant's transport as its room knows it.

use crate::input::Target;
use fanlight_base::PeerKey;
use fanlight_transport::ChannelId;
use std::collections::BTreeMap;

/// What a data channel is for, by its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// `_reliable`.
    Reliable,
    /// `_lossy`.
    Lossy,
    /// Any other label.
    Other,
}

impl Channel {
    /// Label of the reliable channel.
    pub(crate) const RELIABLE: &'static str = "_reliable";
    /// Label of the lossy channel.
    pub(crate) const LOSSY: &'static str = "_lossy";

    /// By label.
    pub(crate) fn of(label: &str) -> Self {
        match label {
            Self::RELIABLE => Self::Reliable,
            Self::LOSSY => Self::Lossy,
            _ => Self::Other,
        }
    }
}

/// A transport of a participant.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: PeerKey,
    pub(crate) target: Target,
    /// DTLS is done.
    pub(crate) connected: bool,
    /// Our candidates were told.
    pub(crate) trickled: bool,
    /// The client's description has arrived: its candidates can be used.
    pub(crate) has_remote: bool,
    pub(crate) channels: BTreeMap<ChannelId, Channel>,
}

impl Link {
    pub(crate) fn new(peer: PeerKey, target: Target) -> Self {
        Self { peer, target, connected: false, trickled: false, has_remote: false, channels: BTreeMap::new() }
    }

    /// The newest channel of this kind: a client that opens a label again means the new one.
    pub(crate) fn channel(&self, channel: Channel) -> Option<ChannelId> {
        self.channels.iter().rev().find(|(_, kind)| **kind == channel).map(|(id, _)| *id)
    }
}
