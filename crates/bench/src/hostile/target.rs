//! The server under attack with all its listeners, and what attackers know of it.

use crate::Failure;
use crate::server::{Server, free_tcp_address, until_listening};
use crate::turn_client::{REALM, SECRET};
use std::net::SocketAddr;

/// With which pages of any origin report.
pub(super) const COLLECTOR_KEY: &str = "4f2c6b0e9d1a4c55b1c3f0a7";

/// A server with everything on.
pub(super) struct Site {
    pub(super) server: Server,
    ice_tcp: SocketAddr,
    turn: SocketAddr,
    coturn: SocketAddr,
    metrics: SocketAddr,
    collector: SocketAddr,
}

/// Where an attacker finds what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) http: SocketAddr,
    pub(super) ice_tcp: SocketAddr,
    pub(super) turn: SocketAddr,
    pub(super) coturn: SocketAddr,
    pub(super) metrics: SocketAddr,
    pub(super) collector: SocketAddr,
    /// Of each media thread.
    pub(super) media: Vec<SocketAddr>,
    /// Sockets of the honest call.
    pub(super) victims: Vec<SocketAddr>,
}

impl Site {
    pub(super) fn start() -> Result<Self, Failure> {
        let (ice_tcp, turn) = (free_tcp_address()?, free_tcp_address()?);
        let (coturn, metrics, collector) = (free_tcp_address()?, free_tcp_address()?, free_tcp_address()?);
        let more = format!(
            "prometheus_port: {metrics}\nturn:\n  enabled: true\n  udp_port: {turn}\nfanlight:\n  turn:\n    \
             static_auth_secret: {SECRET}\n    realm: {REALM}\n  coturn:\n    listen: {coturn}\n    \
             password: south\n  collector:\n    enabled: true\n    port: {collector}\n    exporter_port: 0\n    \
             keys:\n      - key: {COLLECTOR_KEY}\n        origins: ['*']\n",
            metrics = metrics.port(),
            turn = turn.port(),
            collector = collector.port(),
        );
        let server = Server::start_with_tcp(ice_tcp.port(), &more)?;
        for address in [ice_tcp, coturn, metrics, collector] {
            until_listening(address)?;
        }
        Ok(Self { server, ice_tcp, turn, coturn, metrics, collector })
    }

    pub(super) fn target(&self, victims: Vec<SocketAddr>) -> Target {
        Target {
            http: self.server.address,
            ice_tcp: self.ice_tcp,
            turn: self.turn,
            coturn: self.coturn,
            metrics: self.metrics,
            collector: self.collector,
            media: self.server.media.clone(),
            victims,
        }
    }
}

impl Target {
    /// For a command line.
    pub(super) fn to_words(&self) -> Vec<String> {
        let single = [self.http, self.ice_tcp, self.turn, self.coturn, self.metrics, self.collector];
        let word = |address: &SocketAddr| address.to_string();
        let mut words: Vec<String> = single.iter().chain(&self.media).map(word).collect();
        words.push("victims".to_owned());
        words.extend(self.victims.iter().map(word));
        words
    }

    pub(super) fn from_words(words: &[&str]) -> Result<Self, Failure> {
        let (ours, theirs) = words
            .iter()
            .position(|word| *word == "victims")
            .map(|at| words.split_at(at))
            .ok_or("no victims")?;
        let parsed = |words: &[&str]| words.iter().map(|word| word.parse()).collect::<Result<Vec<_>, _>>();
        let (ours, victims) = (parsed(ours)?, parsed(theirs.get(1..).unwrap_or_default())?);
        let [http, ice_tcp, turn, coturn, metrics, collector, media @ ..] = ours.as_slice() else {
            return Err("too few addresses".into());
        };
        let [http, ice_tcp, turn, coturn, metrics, collector] =
            [*http, *ice_tcp, *turn, *coturn, *metrics, *collector];
        Ok(Self { http, ice_tcp, turn, coturn, metrics, collector, media: media.to_vec(), victims })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_command_line_says_all_that_attackers_know() {
        let address = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let target = Target {
            http: address(1),
            ice_tcp: address(2),
            turn: address(3),
            coturn: address(4),
            metrics: address(5),
            collector: address(6),
            media: vec![address(7), address(8)],
            victims: vec![address(9)],
        };
        let words = target.to_words();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(Target::from_words(&words).unwrap(), target);
        assert!(Target::from_words(&words[..3]).is_err());
    }
}
