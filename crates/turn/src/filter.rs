//! Which peers may be reached through a relay: deny by default.

use crate::cidr::Cidr;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What is configured about peers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerRules {
    /// `turn.allow_restricted_peer_cidrs`: restricted ranges that may be reached all the same. Loopback addresses, and
    /// those at which clouds serve metadata, are reached only when they stand here one by one (`127.0.0.2/32`).
    pub allow_restricted: Vec<Cidr>,
    /// `turn.deny_peer_cidrs`: ranges that may not be reached; stronger than `allow_restricted`.
    pub deny: Vec<Cidr>,
}

/// What this node calls its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeAddresses {
    /// Every address of the node, those a NAT in front of it shows included. Nothing behind them is relayed to, whatever
    /// is allowed, but media.
    pub own: Vec<IpAddr>,
    /// Sockets of media: always reachable, and handed over inside the process.
    pub media: Vec<MediaSocket>,
}

/// One of the node's own media sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaSocket {
    /// As candidates name it, and so as clients ask for it.
    pub advertised: SocketAddr,
    /// As the media plane knows it.
    pub local: SocketAddr,
}

/// A peer that may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Through the relay's socket.
    Outside,
    /// Inside the process: the media plane's name of its socket.
    Media(SocketAddr),
}

/// How far a permission for an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every port.
    AnyPort,
    /// Only the ports that are media sockets of this node.
    MediaOnly,
}

/// Why a peer may not be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refused {
    /// It is this node and no media socket.
    #[error("an address of this node that is no media socket")]
    Own,
    /// It stands in `deny_peer_cidrs`.
    #[error("denied by configuration")]
    Denied,
    /// It serves a cloud's metadata.
    #[error("a metadata service")]
    Metadata,
    /// Its range is private, local, reserved or no unicast, and not allowed by configuration.
    #[error("a restricted range")]
    Restricted,
    /// It is an IPv6 form of an IPv4 address that may not be reached.
    #[error("an IPv6 form of an address that may not be reached")]
    Disguised,
    /// Port 0.
    #[error("port 0")]
    Port,
}

/// Judges peers.
#[derive(Debug, Clone, Default)]
pub struct PeerFilter {
    rules: PeerRules,
    own: BTreeSet<IpAddr>,
    media: Vec<MediaSocket>,
}

impl PeerFilter {
    /// The filter of these rules on this node.
    pub fn new(rules: PeerRules, node: NodeAddresses) -> Self {
        let own = node.own.iter().copied().chain(node.media.iter().map(|socket| socket.advertised.ip()));
        Self { rules, own: own.map(|ip| ip.to_canonical()).collect(), media: node.media }
    }

    /// The same rules on a node whose addresses changed.
    pub fn set_node(&mut self, node: NodeAddresses) {
        *self = Self::new(std::mem::take(&mut self.rules), node);
    }

    /// Whether packets may go to this address and port.
    pub fn judge(&self, peer: SocketAddr) -> Result<Peer, Refused> {
        if peer.port() == 0 {
            return Err(Refused::Port);
        }
        if let Some(socket) = self.media.iter().find(|socket| socket.advertised == peer) {
            return Ok(Peer::Media(socket.local));
        }
        self.judge_outside(peer.ip()).map(|()| Peer::Outside)
    }

    /// Whether a permission for this address may be given, and for which ports.
    pub fn judge_address(&self, address: IpAddr) -> Result<Scope, Refused> {
        if self.media.iter().any(|socket| socket.advertised.ip() == address) {
            return Ok(Scope::MediaOnly);
        }
        self.judge_outside(address).map(|()| Scope::AnyPort)
    }

    /// The advertised addresses of a media socket, by the media plane's name of it.
    pub fn advertised(&self, local: SocketAddr) -> impl Iterator<Item = SocketAddr> {
        self.media.iter().filter(move |socket| socket.local == local).map(|socket| socket.advertised)
    }

    fn judge_outside(&self, address: IpAddr) -> Result<(), Refused> {
        self.judge_plain(address)?;
        let IpAddr::V6(address) = address else { return Ok(()) };
        for inner in disguised(address).into_iter().flatten() {
            self.judge_plain(inner.into()).map_err(|why| match why {
                Refused::Own => Refused::Own,
                _ => Refused::Disguised,
            })?;
        }
        Ok(())
    }

    fn judge_plain(&self, address: IpAddr) -> Result<(), Refused> {
        if self.own.contains(&address) || self.own.contains(&address.to_canonical()) {
            return Err(Refused::Own);
        }
        if self.rules.deny.iter().any(|range| range.contains(address)) {
            return Err(Refused::Denied);
        }
        if is_no_unicast(address) {
            return Err(Refused::Restricted);
        }
        let mut allowed = self.rules.allow_restricted.iter().filter(|range| range.contains(address));
        let why = match () {
            // Whatever the node serves on all its addresses is behind every loopback address.
            () if address.is_loopback() => Refused::Own,
            () if is_metadata(address) => Refused::Metadata,
            () if is_restricted(address) => return allowed.next().map(|_| ()).ok_or(Refused::Restricted),
            () => return Ok(()),
        };
        if allowed.any(Cidr::is_single) { Ok(()) } else { Err(why) }
    }
}

/// IANA's special-purpose registries, and the ranges that are no unicast.
const RESTRICTED_V4: [([u8; 4], u8); 16] = [
    ([0, 0, 0, 0], 8),       // this network
    ([10, 0, 0, 0], 8),      // private
    ([100, 64, 0, 0], 10),   // carrier-grade NAT
    ([127, 0, 0, 0], 8),     // loopback
    ([169, 254, 0, 0], 16),  // link-local, and metadata
    ([172, 16, 0, 0], 12),   // private
    ([192, 0, 0, 0], 24),    // protocol assignments
    ([192, 0, 2, 0], 24),    // documentation
    ([192, 31, 196, 0], 24), // AS112
    ([192, 52, 193, 0], 24), // AMT
    ([192, 88, 99, 0], 24),  // 6to4 relays
    ([192, 168, 0, 0], 16),  // private
    ([198, 18, 0, 0], 15),   // benchmarks
    ([198, 51, 100, 0], 24), // documentation
    ([203, 0, 113, 0], 24),  // documentation
    ([224, 0, 0, 0], 3),     // multicast, reserved, broadcast
];

/// Parts of 2000::/3 that are no ordinary unicast. Everything outside 2000::/3 is restricted but NAT64's well-known
/// prefix and, for what it stands for, nothing else.
const RESTRICTED_V6: [([u16; 4], u8); 5] = [
    ([0x2001, 0, 0, 0], 23),         // protocol assignments: Teredo, benchmarks, ORCHID
    ([0x2001, 0xdb8, 0, 0], 32),     // documentation
    ([0x2620, 0x4f, 0x8000, 0], 48), // AS112
    ([0x3fff, 0, 0, 0], 20),         // documentation
    ([0x3ffe, 0, 0, 0], 16),         // the former 6bone
];

const METADATA_V4: [[u8; 4]; 5] = [
    [169, 254, 169, 254], // nearly every cloud
    [169, 254, 170, 2],   // container credentials
    [100, 100, 100, 200], // Alibaba
    [168, 63, 129, 16],   // Azure; a public address
    [192, 0, 0, 192],     // Oracle
];
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// What can be no peer at all: the unspecified address (on Linux the node itself), multicast, broadcast, reserved.
fn is_no_unicast(address: IpAddr) -> bool {
    let reserved =
        matches!(address, IpAddr::V4(v4) if v4.octets().first().is_some_and(|first| *first >= 240));
    address.is_unspecified() || address.is_multicast() || reserved
}

fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => METADATA_V4.contains(&address.octets()),
        IpAddr::V6(address) => METADATA_V6.contains(&address),
    }
}

fn is_restricted(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => RESTRICTED_V4
            .iter()
            .any(|(network, prefix)| Cidr::new(Ipv4Addr::from(*network).into(), *prefix).contains(v4.into())),
        IpAddr::V6(v6) => {
            let nat64 = matches!(v6.segments(), [0x64, 0xff9b, 0, 0, 0, 0, _, _]);
            let global = v6.segments().first().is_some_and(|first| first >> 13 == 0b001);
            !nat64
                && (!global
                    || RESTRICTED_V6.iter().any(|([a, b, c, d], prefix)| {
                        Cidr::new(Ipv6Addr::new(*a, *b, *c, *d, 0, 0, 0, 0).into(), *prefix).contains(address)
                    }))
        }
    }
}

/// The IPv4 addresses that an IPv6 address stands for or leads to.
fn disguised(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match segments {
        // ::a.b.c.d, ::ffff:a.b.c.d, ::ffff:0:a.b.c.d (RFC 4291 §2.5.5, RFC 2765)
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => [v4(high, low), None],
        // NAT64's well-known prefix (RFC 6052)
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => [v4(high, low), None],
        // NAT64's local prefix (RFC 8215): as a /96, else as a /48 with bits 64 to 71 skipped (RFC 6052 §2.2)
        [0x64, 0xff9b, 1, 0, 0, 0, high, low] => [v4(high, low), None],
        [0x64, 0xff9b, 1, high, low, rest, _, _] => [v4(high, (low << 8) | (rest >> 8)), None],
        // 6to4 (RFC 3056)
        [0x2002, high, low, ..] => [v4(high, low), None],
        // Teredo (RFC 4380): server, and client with all bits turned
        [0x2001, 0, high, low, _, _, client_high, client_low] => {
            [v4(high, low), v4(!client_high, !client_low)]
        }
        // ISATAP (RFC 5214)
        [_, _, _, _, 0 | 0x0200, 0x5efe, high, low] => [v4(high, low), None],
        _ => [None, None],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(allow: &[&str], deny: &[&str]) -> PeerFilter {
        let list = |ranges: &[&str]| ranges.iter().map(|range| range.parse().unwrap()).collect();
        let rules = PeerRules { allow_restricted: list(allow), deny: list(deny) };
        let media = ["203.0.113.9:7882", "10.1.1.1:7882", "[2600::9]:7882"].map(|text| MediaSocket {
            advertised: text.parse().unwrap(),
            local: "0.0.0.0:7882".parse().unwrap(),
        });
        let own = ["203.0.113.9", "10.1.1.1", "2600::9", "127.0.0.1", "9.9.9.9"];
        let node =
            NodeAddresses { own: own.map(|text| text.parse().unwrap()).to_vec(), media: media.to_vec() };
        PeerFilter::new(rules, node)
    }

    fn judge(filter: &PeerFilter, address: &str) -> Result<Peer, Refused> {
        filter.judge(SocketAddr::new(address.parse().unwrap(), 4000))
    }

    #[test]
    fn ordinary_addresses_may_be_reached() {
        let filter = filter(&[], &[]);
        for address in
            ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::1"]
        {
            assert_eq!(judge(&filter, address), Ok(Peer::Outside), "{address}");
        }
    }

    #[test]
    fn every_special_range_is_refused_in_every_disguise() {
        let filter = filter(&[], &[]);
        let v4 = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.2",
            "169.254.1.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.251",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
        ];
        for text in v4 {
            assert!(judge(&filter, text).is_err(), "{text}");
            let [a, b, c, d] = text.parse::<Ipv4Addr>().unwrap().octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for disguise in [
                format!("::{high:x}:{low:x}"),
                format!("::ffff:{high:x}:{low:x}"),
                format!("::ffff:0:{high:x}:{low:x}"),
                format!("64:ff9b::{high:x}:{low:x}"),
                format!("64:ff9b:1::{high:x}:{low:x}"),
                format!("64:ff9b:1:{high:x}:{:x}:{:x}::", u16::from(c), u16::from(d) << 8),
                format!("2002:{high:x}:{low:x}::1"),
                format!("2001:0:808:808:0:0:{:x}:{:x}", !high, !low),
                format!("2001:0:{high:x}:{low:x}:0:0:f7f7:f7f7"),
                format!("2600:1:2:3:0:5efe:{high:x}:{low:x}"),
                format!("2600:1:2:3:200:5efe:{high:x}:{low:x}"),
            ] {
                assert!(judge(&filter, &disguise).is_err(), "{disguise} of {text}");
            }
        }
    }

    #[test]
    fn every_special_range_of_ipv6_is_refused() {
        let filter = filter(&[], &[]);
        for address in [
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "3fff::1",
            "100::1",
            "5f00::1",
            "64:ff9b:1::808:808",
            "::ffff:8.8.8.8",
            "::8.8.8.8",
            "4000::1",
        ] {
            assert!(judge(&filter, address).is_err(), "{address}");
        }
    }

    #[test]
    fn allowed_ranges_open_and_denied_ones_stay_shut() {
        let filter = filter(
            &["10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "0.0.0.0/0"],
            &["10.9.0.0/16", "8.8.0.0/16"],
        );
        assert_eq!(judge(&filter, "10.0.0.1"), Ok(Peer::Outside));
        for address in ["0.0.0.0", "224.0.0.251", "255.255.255.255"] {
            assert_eq!(judge(&filter, address), Err(Refused::Restricted), "{address}");
        }
        assert_eq!(judge(&filter, "10.9.0.1"), Err(Refused::Denied));
        assert_eq!(judge(&filter, "8.8.8.8"), Err(Refused::Denied));
        assert_eq!(judge(&filter, "169.254.169.254"), Err(Refused::Metadata));
        assert_eq!(judge(&filter, "::ffff:10.0.0.1"), Err(Refused::Restricted));
        assert_eq!(judge(&filter, "64:ff9b::a09:1"), Err(Refused::Disguised));
        assert_eq!(judge(&filter, "64:ff9b::a00:1"), Ok(Peer::Outside));
    }

    #[test]
    fn metadata_and_loopback_open_only_one_address_at_a_time() {
        let broad = filter(&["127.0.0.0/8", "::/0", "169.254.0.0/16"], &[]);
        for address in ["127.0.0.2", "::1", "169.254.169.254"] {
            assert!(judge(&broad, address).is_err(), "{address}");
        }
        let filter =
            filter(&["169.254.169.254/32", "fd00:ec2::254/128", "127.0.0.2/32", "127.0.0.1/32"], &[]);
        assert_eq!(judge(&filter, "127.0.0.2"), Ok(Peer::Outside));
        assert_eq!(judge(&filter, "127.0.0.3"), Err(Refused::Own));
        assert_eq!(judge(&filter, "127.0.0.1"), Err(Refused::Own), "listed as the node's own");
        assert_eq!(judge(&filter, "169.254.169.254"), Ok(Peer::Outside));
        assert_eq!(judge(&filter, "fd00:ec2::254"), Ok(Peer::Outside));
        assert_eq!(judge(&filter, "168.63.129.16"), Err(Refused::Metadata));
    }

    #[test]
    fn media_sockets_are_reached_inside_and_nothing_else_of_the_node_is() {
        let filter = filter(&["0.0.0.0/0", "::/0"], &["10.1.0.0/16"]);
        let at = |text: &str| filter.judge(text.parse().unwrap());
        let local = "0.0.0.0:7882".parse().unwrap();
        assert_eq!(at("203.0.113.9:7882"), Ok(Peer::Media(local)));
        assert_eq!(at("10.1.1.1:7882"), Ok(Peer::Media(local)));
        assert_eq!(at("[2600::9]:7882"), Ok(Peer::Media(local)));
        for own in ["203.0.113.9:7880", "10.1.1.1:3478", "[2600::9]:443", "127.0.0.1:7882", "9.9.9.9:30000"] {
            assert_eq!(at(own), Err(Refused::Own), "{own}");
        }
        for disguise in ["[::ffff:203.0.113.9]:7882", "[64:ff9b::10.1.1.1]:7882", "[2002:909:909::]:80"] {
            assert_eq!(at(disguise), Err(Refused::Own), "{disguise}");
        }
        assert_eq!(filter.judge_address("203.0.113.9".parse().unwrap()), Ok(Scope::MediaOnly));
        assert_eq!(filter.judge_address("9.9.9.9".parse().unwrap()), Err(Refused::Own));
        assert_eq!(at("8.8.8.8:0"), Err(Refused::Port));
    }

    proptest! {
        #[test]
        fn no_disguise_reaches_what_its_plain_form_does_not(bits in any::<u32>(), port in 1u16..) {
            let filter = filter(&["::/0"], &[]);
            let plain = Ipv4Addr::from_bits(bits);
            let refused = filter.judge(SocketAddr::new(plain.into(), port)).is_err();
            let [a, b, c, d] = plain.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for disguise in [
                plain.to_ipv6_mapped(),
                plain.to_ipv6_compatible(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 1, 2, 3, 4, 5),
                Ipv6Addr::new(0x2001, 0, 0x808, 0x808, 0, 0, !high, !low),
                Ipv6Addr::new(0x2600, 0, 0, 0, 0x200, 0x5efe, high, low),
            ] {
                let verdict = filter.judge(SocketAddr::new(disguise.into(), port));
                prop_assert!(!refused || verdict.is_err(), "{disguise} of {plain}: {verdict:?}");
            }
        }

        #[test]
        fn without_an_allow_list_only_global_unicast_is_reached(bits in any::<u128>(), port in 1u16..) {
            let filter = filter(&[], &[]);
            let address = Ipv6Addr::from_bits(bits);
            if filter.judge(SocketAddr::new(address.into(), port)).is_ok() {
                let segments = address.segments();
                prop_assert!(segments[0] >> 13 == 1 || segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0]);
            }
        }

        #[test]
        fn an_address_with_a_permission_for_every_port_is_reached_at_every_port(bits in any::<u32>(), port in 1u16..) {
            let filter = filter(&["10.0.0.0/8"], &["44.0.0.0/8"]);
            let address = IpAddr::from(Ipv4Addr::from_bits(bits));
            let any_port = filter.judge_address(address) == Ok(Scope::AnyPort);
            prop_assert_eq!(any_port, filter.judge(SocketAddr::new(address, port)) == Ok(Peer::Outside));
        }
    }
}
