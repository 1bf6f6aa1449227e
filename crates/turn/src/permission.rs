//! Permissions and channels of one allocation (RFC 8656 §9 and §12).

use crate::filter::{Peer, PeerFilter, Scope};
use crate::limits::{CHANNEL_LIFETIME, CHANNELS_MAX, PERMISSION_LIFETIME, PERMISSIONS_MAX};
use fanlight_base::{Mono, RunHint};
use std::net::{IpAddr, SocketAddr};

/// A peer address that may send to the allocation and be sent to.
#[derive(Debug, Clone, Copy)]
struct Permission {
    address: IpAddr,
    scope: Scope,
    expires: Mono,
}

/// A number that stands for a peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Channel {
    pub(crate) number: u16,
    pub(crate) peer: SocketAddr,
    pub(crate) way: Peer,
    pub(crate) hint: RunHint,
    expires: Mono,
}

/// Why a channel cannot be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unbindable {
    /// The number stands for another peer, or the peer has another number.
    Taken,
    /// There are too many.
    Full,
}

/// What an allocation lets through.
#[derive(Debug, Default)]
pub(crate) struct Permissions {
    permissions: Vec<Permission>,
    channels: Vec<Channel>,
}

impl Permissions {
    /// Gives or refreshes a permission; false when there are too many.
    #[must_use]
    pub(crate) fn permit(&mut self, now: Mono, address: IpAddr, scope: Scope) -> bool {
        let expires = now + PERMISSION_LIFETIME;
        if let Some(known) = self.permissions.iter_mut().find(|permission| permission.address == address) {
            known.expires = expires;
            known.scope = scope;
            return true;
        }
        if self.permissions.len() >= PERMISSIONS_MAX {
            self.permissions.retain(|permission| permission.expires > now);
        }
        if self.permissions.len() >= PERMISSIONS_MAX {
            return false;
        }
        self.permissions.push(Permission { address, scope, expires });
        true
    }

    /// How many of these addresses would need room that is not there.
    pub(crate) fn has_room(&mut self, now: Mono, addresses: &[IpAddr]) -> bool {
        self.permissions.retain(|permission| permission.expires > now);
        let known = |address: &IpAddr| self.permissions.iter().any(|one| one.address == *address);
        let new = addresses.iter().filter(|address| !known(address)).count();
        self.permissions.len().saturating_add(new) <= PERMISSIONS_MAX
    }

    /// The live permission for an address.
    pub(crate) fn scope(&self, now: Mono, address: IpAddr) -> Option<Scope> {
        self.permissions
            .iter()
            .find(|permission| permission.address == address && permission.expires > now)
            .map(|permission| permission.scope)
    }

    /// Binds or refreshes a channel. The permission that comes with it is the caller's to give.
    pub(crate) fn bind(
        &mut self,
        now: Mono,
        number: u16,
        peer: SocketAddr,
        way: Peer,
    ) -> Result<(), Unbindable> {
        self.channels.retain(|channel| channel.expires > now);
        let expires = now + CHANNEL_LIFETIME;
        let mut same = self.channels.iter_mut().filter(|one| one.number == number || one.peer == peer);
        if let Some(channel) = same.next() {
            if channel.number != number || channel.peer != peer {
                return Err(Unbindable::Taken);
            }
            channel.expires = expires;
            channel.way = way;
            return Ok(());
        }
        if self.channels.len() >= CHANNELS_MAX {
            return Err(Unbindable::Full);
        }
        self.channels.push(Channel { number, peer, way, hint: RunHint::default(), expires });
        Ok(())
    }

    /// The live channel of this number.
    pub(crate) fn channel(&mut self, now: Mono, number: u16) -> Option<&mut Channel> {
        self.channels.iter_mut().find(|channel| channel.number == number && channel.expires > now)
    }

    /// The number of the live channel to this peer.
    pub(crate) fn number(&self, now: Mono, peer: SocketAddr) -> Option<u16> {
        self.channels
            .iter()
            .find(|channel| channel.peer == peer && channel.expires > now)
            .map(|channel| channel.number)
    }

    /// Forgets what this filter no longer allows.
    pub(crate) fn keep_allowed(&mut self, filter: &PeerFilter) {
        self.permissions.retain_mut(|permission| match filter.judge_address(permission.address) {
            Ok(scope) => {
                permission.scope = scope;
                true
            }
            Err(_) => false,
        });
        self.channels.retain_mut(|channel| match filter.judge(channel.peer) {
            Ok(way) => {
                channel.way = way;
                true
            }
            Err(_) => false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Mono {
        Mono { ns: s * 1_000_000_000 }
    }

    fn ip(last: u8) -> IpAddr {
        [198, 51, 100, last].into()
    }

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::new(ip(1), port)
    }

    #[test]
    fn a_permission_lasts_five_minutes_from_its_last_refresh() {
        let mut permissions = Permissions::default();
        assert!(permissions.permit(at(0), ip(1), Scope::AnyPort));
        assert!(permissions.permit(at(200), ip(1), Scope::AnyPort));
        assert_eq!(permissions.scope(at(499), ip(1)), Some(Scope::AnyPort));
        assert_eq!(permissions.scope(at(500), ip(1)), None);
        assert_eq!(permissions.scope(at(0), ip(2)), None);
    }

    #[test]
    fn permissions_are_bounded_and_expired_ones_make_room() {
        let mut permissions = Permissions::default();
        let addresses: Vec<IpAddr> = (0..=PERMISSIONS_MAX as u8).map(ip).collect();
        assert!(!permissions.has_room(at(0), &addresses));
        let given = addresses.iter().filter(|one| permissions.permit(at(0), **one, Scope::AnyPort)).count();
        assert_eq!(given, PERMISSIONS_MAX);
        assert!(permissions.has_room(at(0), &addresses[..1]));
        assert!(permissions.permit(at(300), ip(250), Scope::AnyPort));
    }

    #[test]
    fn a_channel_and_its_peer_belong_together_until_it_expires() {
        let mut permissions = Permissions::default();
        assert_eq!(permissions.bind(at(0), 0x4000, peer(1), Peer::Outside), Ok(()));
        assert_eq!(permissions.bind(at(0), 0x4000, peer(2), Peer::Outside), Err(Unbindable::Taken));
        assert_eq!(permissions.bind(at(0), 0x4001, peer(1), Peer::Outside), Err(Unbindable::Taken));
        assert_eq!(permissions.bind(at(300), 0x4000, peer(1), Peer::Outside), Ok(()));
        assert_eq!(permissions.number(at(899), peer(1)), Some(0x4000));
        assert_eq!(permissions.number(at(900), peer(1)), None);
        assert!(permissions.channel(at(900), 0x4000).is_none());
        assert_eq!(permissions.bind(at(900), 0x4000, peer(2), Peer::Outside), Ok(()));
    }

    #[test]
    fn channels_are_bounded() {
        let mut permissions = Permissions::default();
        for index in 0..CHANNELS_MAX as u16 {
            assert_eq!(permissions.bind(at(0), 0x4000 + index, peer(1 + index), Peer::Outside), Ok(()));
        }
        assert_eq!(permissions.bind(at(0), 0x4fff, peer(9999), Peer::Outside), Err(Unbindable::Full));
    }
}
