//! Our own candidates: as ICE uses them, as SDP lines and as the JSON that trickles.

use fanlight_base::Protocol;
use std::net::{IpAddr, SocketAddr};

/// Priority of host candidates over UDP, as LiveKit announces them: type preference 126, local preference 65,535,
/// component 1 (RFC 8445 §5.1.2.1).
pub const UDP_PRIORITY: u32 = 2_130_706_431;
/// Priority of passive host candidates over TCP, as LiveKit announces them.
pub const TCP_PRIORITY: u32 = 1_671_430_143;

/// A host candidate of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalCandidate {
    /// The socket's address, as it stands in [`fanlight_base::Addresses::local`].
    pub addr: SocketAddr,
    /// The address told to clients: the same, unless a 1:1 NAT stands between.
    pub announced: SocketAddr,
    /// UDP, or passive TCP.
    pub protocol: Protocol,
}

impl LocalCandidate {
    /// A candidate that is announced under its own address.
    pub const fn new(addr: SocketAddr, protocol: Protocol) -> Self {
        Self { addr, announced: addr, protocol }
    }

    /// The candidate attribute without `a=` (RFC 8839 §5.1): `candidate:<foundation> <component> udp …`.
    ///
    /// SDP lists both components, although RTCP is always multiplexed; a trickled candidate has component 1.
    pub fn attribute(&self, component: u8, ufrag: &str) -> String {
        let (transport, priority, tcp_type) = match self.protocol {
            Protocol::Udp => ("udp", UDP_PRIORITY, ""),
            Protocol::Tcp => ("tcp", TCP_PRIORITY, " tcptype passive"),
        };
        format!(
            "candidate:{foundation} {component} {transport} {priority} {ip} {port} typ host{tcp_type} ufrag {ufrag}",
            foundation = self.foundation(),
            ip = self.announced.ip(),
            port = self.announced.port(),
        )
    }

    /// The RTCIceCandidateInit that trickles: first m-line, `usernameFragment` null (the ufrag stands in the line).
    pub fn init_json(&self, mid: &str, ufrag: &str) -> String {
        let mut json = String::from("{\"candidate\":");
        push_json_string(&mut json, &self.attribute(1, ufrag));
        json.push_str(",\"sdpMid\":");
        push_json_string(&mut json, mid);
        json.push_str(",\"sdpMLineIndex\":0,\"usernameFragment\":null}");
        json
    }

    /// The same for candidates of one type, address and transport (RFC 8445 §5.1.1.3); pion's value: the CRC-32 of
    /// type, address and network name.
    fn foundation(&self) -> u32 {
        let network = match (self.protocol, self.announced.ip()) {
            (Protocol::Udp, IpAddr::V4(_)) => "udp4",
            (Protocol::Udp, IpAddr::V6(_)) => "udp6",
            (Protocol::Tcp, IpAddr::V4(_)) => "tcp4",
            (Protocol::Tcp, IpAddr::V6(_)) => "tcp6",
        };
        crc32(format!("host{}{network}", self.announced.ip()).as_bytes())
    }
}

/// The `end-of-candidates` line (RFC 8838 §8.2), without `a=`.
pub const END_OF_CANDIDATES: &str = "end-of-candidates";

/// CRC-32 (ISO-HDLC, reflected polynomial 0xedb88320), bit by bit: a few bytes per candidate.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

fn push_json_string(json: &mut String, text: &str) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            control if u32::from(control) < 0x20 => {
                json.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            other => json.push(other),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(addr: &str, protocol: Protocol) -> LocalCandidate {
        LocalCandidate::new(addr.parse().expect("an address"), protocol)
    }

    #[test]
    fn lines_are_those_of_a_recorded_livekit_server() {
        let ufrag = "hXDQKSJJRJdUuQZQ";
        let lines = [
            candidate("127.0.0.1:27882", Protocol::Udp).attribute(1, ufrag),
            candidate("[fd00::2]:27882", Protocol::Udp).attribute(2, ufrag),
            candidate("127.0.0.1:27881", Protocol::Tcp).attribute(1, ufrag),
            candidate("[fd00::2]:27881", Protocol::Tcp).attribute(2, ufrag),
        ];
        assert_eq!(
            lines,
            [
                "candidate:2878742611 1 udp 2130706431 127.0.0.1 27882 typ host ufrag hXDQKSJJRJdUuQZQ",
                "candidate:3932658255 2 udp 2130706431 fd00::2 27882 typ host ufrag hXDQKSJJRJdUuQZQ",
                "candidate:375738803 1 tcp 1671430143 127.0.0.1 27881 typ host tcptype passive ufrag hXDQKSJJRJdUuQZQ",
                "candidate:1469377455 2 tcp 1671430143 fd00::2 27881 typ host tcptype passive ufrag hXDQKSJJRJdUuQZQ",
            ]
        );
    }

    #[test]
    fn the_trickled_json_is_that_of_a_recorded_livekit_server() {
        let json = candidate("127.0.0.1:27882", Protocol::Udp).init_json("0", "tpKmFKOuHvFtcbaJ");
        assert_eq!(
            json,
            "{\"candidate\":\"candidate:2878742611 1 udp 2130706431 127.0.0.1 27882 typ host ufrag \
             tpKmFKOuHvFtcbaJ\",\"sdpMid\":\"0\",\"sdpMLineIndex\":0,\"usernameFragment\":null}"
        );
    }

    #[test]
    fn clients_are_told_the_announced_address() {
        let mut candidate = candidate("10.0.0.2:7882", Protocol::Udp);
        candidate.announced = "203.0.113.5:7882".parse().expect("an address");
        assert!(candidate.attribute(1, "u").contains(" 203.0.113.5 7882 "));
        assert!(!candidate.init_json("a\"b", "u").contains("10.0.0.2"));
        assert!(candidate.init_json("a\"b", "u").contains("\"sdpMid\":\"a\\\"b\""));
    }
}
