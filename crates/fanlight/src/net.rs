//! Which addresses media listens on and announces.

use crate::config::Rtc;
use fanlight_base::Protocol;
use fanlight_transport::candidate::LocalCandidate;
use fanlight_turn::{Cidr, NotCidr};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// First UDP port when none is configured; shard `n` takes the `n`-th after it.
const UDP_PORT_DEFAULT: u16 = 7882;
/// ICE-TCP port when none is configured, as LiveKit's.
pub(crate) const TCP_PORT_DEFAULT: u16 = 7881;

/// An address to bind and the one clients are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MediaAddress {
    pub(crate) bound: IpAddr,
    pub(crate) announced: IpAddr,
}

/// Media cannot be reached as configured.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NetError {
    #[error("cannot list this machine's addresses: {0}")]
    List(String),
    #[error("no address is left for media: check rtc.interfaces, rtc.ips and rtc.enable_loopback_candidate")]
    None,
    #[error("rtc.ips: {0}")]
    Network(#[from] NotCidr),
}

/// Addresses of this machine that the configuration lets media use.
pub(crate) fn media_addresses(rtc: &Rtc, node_ip: Option<IpAddr>) -> Result<Vec<MediaAddress>, NetError> {
    let interfaces = if_addrs::get_if_addrs().map_err(|error| NetError::List(error.to_string()))?;
    let own: Vec<(String, IpAddr)> =
        interfaces.into_iter().map(|interface| (interface.name.clone(), interface.ip())).collect();
    choose(rtc, node_ip, &own)
}

/// Every address of this machine but those of one link.
pub(crate) fn own_addresses() -> Result<Vec<IpAddr>, NetError> {
    let interfaces = if_addrs::get_if_addrs().map_err(|error| NetError::List(error.to_string()))?;
    Ok(interfaces.iter().map(if_addrs::Interface::ip).filter(|ip| !is_link_local(*ip)).collect())
}

/// Ports for UDP, one a shard: as many as configured, at most `shards`.
pub(crate) fn udp_ports(rtc: &Rtc, shards: u16) -> Vec<u16> {
    let range = match (rtc.port_range_start, rtc.port_range_end, rtc.udp_port) {
        (Some(start), Some(end), _) if start > 0 && end >= start => start..=end,
        (_, _, Some(ports)) => ports.start..=ports.end,
        _ => UDP_PORT_DEFAULT..=UDP_PORT_DEFAULT.saturating_add(shards.saturating_sub(1)),
    };
    range.take(usize::from(shards)).collect()
}

fn choose(
    rtc: &Rtc,
    node_ip: Option<IpAddr>,
    own: &[(String, IpAddr)],
) -> Result<Vec<MediaAddress>, NetError> {
    let includes = networks(&rtc.ips.includes)?;
    let excludes = networks(&rtc.ips.excludes)?;
    let allowed = |name: &str, ip: IpAddr| {
        let by_name = (rtc.interfaces.includes.is_empty()
            || rtc.interfaces.includes.iter().any(|one| one == name))
            && !rtc.interfaces.excludes.iter().any(|one| one == name);
        let by_ip = (includes.is_empty() || includes.iter().any(|network| network.contains(ip)))
            && !excludes.iter().any(|network| network.contains(ip));
        by_name && by_ip && !is_link_local(ip) && (rtc.enable_loopback_candidate || !ip.is_loopback())
    };
    let mut chosen: Vec<MediaAddress> = own
        .iter()
        .filter(|(name, ip)| allowed(name, *ip))
        .map(|(_, ip)| MediaAddress { bound: *ip, announced: *ip })
        .collect();
    if let Some(node_ip) = node_ip {
        announce_as(&mut chosen, node_ip, own);
    }
    chosen.sort_by_key(|address| (address.announced.is_ipv6(), !address.announced.is_loopback()));
    chosen.dedup();
    if chosen.is_empty() { Err(NetError::None) } else { Ok(chosen) }
}

/// `node_ip` stands in for the addresses of its family: bound itself where it is ours, else announced for the first
/// other one (a one-to-one NAT in front).
fn announce_as(chosen: &mut Vec<MediaAddress>, node_ip: IpAddr, own: &[(String, IpAddr)]) {
    let ours = own.iter().any(|(_, ip)| *ip == node_ip);
    let behind = chosen
        .iter()
        .map(|address| address.bound)
        .find(|ip| ip.is_ipv4() == node_ip.is_ipv4() && !ip.is_loopback());
    chosen.retain(|address| {
        address.bound.is_ipv4() != node_ip.is_ipv4()
            || (address.bound.is_loopback() && !node_ip.is_loopback())
    });
    let bound = if ours { node_ip } else { behind.unwrap_or(node_ip) };
    chosen.push(MediaAddress { bound, announced: node_ip });
}

fn networks(texts: &[String]) -> Result<Vec<Cidr>, NetError> {
    Ok(texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?)
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => Ipv6Addr::is_unicast_link_local(&ip),
    }
}

/// A socket to bind and what clients are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MediaSocket {
    pub(crate) bound: SocketAddr,
    pub(crate) announced: SocketAddr,
}

impl MediaSocket {
    /// The candidate of this socket.
    pub(crate) const fn candidate(&self, protocol: Protocol) -> LocalCandidate {
        LocalCandidate { addr: self.bound, announced: self.announced, protocol }
    }
}

/// The sockets of one port.
pub(crate) fn with_port(addresses: &[MediaAddress], port: u16) -> Vec<MediaSocket> {
    let socket = |ip| SocketAddr::new(ip, port);
    addresses
        .iter()
        .map(|address| MediaSocket { bound: socket(address.bound), announced: socket(address.announced) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::File;

    fn rtc(yaml: &str) -> Rtc {
        File::parse(&format!("rtc: {{{yaml}}}\n")).unwrap().rtc
    }

    fn own() -> Vec<(String, IpAddr)> {
        [
            ("lo", "127.0.0.1"),
            ("eth0", "10.1.2.3"),
            ("eth0", "fe80::1"),
            ("eth0", "2001:db8::7"),
            ("docker0", "172.17.0.1"),
        ]
        .map(|(name, ip)| (name.to_string(), ip.parse().unwrap()))
        .to_vec()
    }

    fn chosen(yaml: &str) -> Result<Vec<MediaAddress>, NetError> {
        let rtc = rtc(yaml);
        choose(&rtc, rtc.node_ip, &own())
    }

    fn announced(yaml: &str) -> Vec<String> {
        chosen(yaml).unwrap().iter().map(|address| address.announced.to_string()).collect()
    }

    #[test]
    fn loopback_is_announced_only_when_asked_for_and_link_local_never() {
        assert_eq!(announced(""), ["10.1.2.3", "172.17.0.1", "2001:db8::7"]);
        assert_eq!(announced("enable_loopback_candidate: true")[0], "127.0.0.1");
    }

    #[test]
    fn interfaces_and_networks_filter() {
        assert_eq!(
            announced("interfaces: {excludes: [docker0]}, ips: {includes: [10.0.0.0/8]}"),
            ["10.1.2.3"]
        );
        assert_eq!(chosen("ips: {includes: [9.9.9.9/32]}"), Err(NetError::None));
        let error = chosen("ips: {includes: [here]}").unwrap_err().to_string();
        assert!(error.contains("rtc.ips") && error.contains("here"), "{error}");
    }

    #[test]
    fn a_public_node_ip_is_announced_for_a_private_socket() {
        let chosen = chosen("node_ip: 203.0.113.5").unwrap();
        let v4: Vec<_> = chosen.iter().filter(|address| address.announced.is_ipv4()).collect();
        assert_eq!(v4, [&MediaAddress { bound: [10, 1, 2, 3].into(), announced: [203, 0, 113, 5].into() }]);
        assert!(chosen.iter().any(|address| address.announced.is_ipv6()), "IPv6 stays, as with LiveKit");
    }

    #[test]
    fn each_shard_has_a_port_of_its_own() {
        assert_eq!(udp_ports(&rtc(""), 3), [7882, 7883, 7884]);
        assert_eq!(udp_ports(&rtc("udp_port: 9000"), 3), [9000]);
        assert_eq!(udp_ports(&rtc("port_range_start: 50000, port_range_end: 60000"), 2), [50000, 50001]);
    }
}
