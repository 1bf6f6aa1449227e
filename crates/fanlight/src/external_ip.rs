//! `rtc.use_external_ip`: the address that the world sees, as STUN servers tell it.

use fanlight_base::Random;
use fanlight_turn::BindingQuery;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

/// Asked when `rtc.stun_servers` is empty: LiveKit's own choice.
const SERVERS_DEFAULT: [&str; 3] =
    ["global.stun.twilio.com:3478", "stun.l.google.com:19302", "stun1.l.google.com:19302"];
/// Port of a server that is written without one (RFC 8489 §8.1).
const PORT_DEFAULT: u16 = 3478;
/// How long one round of questions waits for the first answer; more than a round trip around the world.
const ROUND: Duration = Duration::from_secs(1);
/// A datagram may be lost.
const ROUNDS: usize = 3;

/// Nobody told the address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExternalIpError {
    #[error(
        "rtc.use_external_ip: no STUN server answered ({0}); set rtc.node_ip, or rtc.stun_servers that can be reached"
    )]
    Silent(String),
    #[error("rtc.use_external_ip: cannot ask STUN servers: {0}; set rtc.node_ip")]
    Socket(#[from] io::Error),
}

/// Asks all of them; the first answer counts.
pub(crate) fn find(servers: &[String], random: &mut Random) -> Result<IpAddr, ExternalIpError> {
    let names: Vec<String> = match servers {
        [] => SERVERS_DEFAULT.map(str::to_owned).to_vec(),
        servers => servers.to_vec(),
    };
    let addresses: Vec<SocketAddr> = names.iter().filter_map(|name| resolve(name)).collect();
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    for _ in 0..ROUNDS {
        let (query, request) = BindingQuery::new(random);
        // One that cannot be reached leaves the others.
        let asked = addresses.iter().filter(|server| socket.send_to(&request, server).is_ok()).count();
        if asked > 0
            && let Some(found) = wait_for_answer(&socket, &query)?
        {
            return Ok(found.ip());
        }
    }
    Err(ExternalIpError::Silent(names.join(", ")))
}

fn wait_for_answer(socket: &UdpSocket, query: &BindingQuery) -> io::Result<Option<SocketAddr>> {
    let until = Instant::now() + ROUND;
    let mut buffer = [0; 1500];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv_from(&mut buffer) {
            Ok((len, _)) => {
                if let Some(found) = buffer.get(..len).and_then(|bytes| query.answer(bytes)) {
                    return Ok(Some(found));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            // An ICMP error of one server; another may still answer.
            Err(_) => {}
        }
    }
}

/// The first IPv4 address of `host` or `host:port`.
fn resolve(server: &str) -> Option<SocketAddr> {
    let with_port = |text: &str| text.to_socket_addrs().ok()?.find(SocketAddr::is_ipv4);
    with_port(server).or_else(|| with_port(&format!("{server}:{PORT_DEFAULT}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanlight_shard::{Clock, ShardOf, TurnListen, TurnSockets};
    use fanlight_turn::{
        Config, Credentials, NodeAddresses, PeerRules, PortRange, Quotas, RelayAddress, Relays, TurnServer,
    };

    /// A STUN server of our own.
    fn server() -> (String, fanlight_shard::TurnThread) {
        let own = Ipv4Addr::LOCALHOST;
        let listen = TurnListen { udp: vec![(own, 0).into()], ..TurnListen::default() };
        let sockets = TurnSockets::bind(listen).unwrap();
        let address = sockets.udp[0].to_string();
        let relay = RelayAddress { bind: own, advertised: own };
        let config = Config {
            realm: "livekit".into(),
            credentials: Credentials::default(),
            relays: Relays { v4: Some(relay), v6: None, ports: PortRange { first: 1, last: 1 } },
            peers: PeerRules::default(),
            node: NodeAddresses::default(),
            quotas: Quotas::default(),
            first_id: 1,
        };
        let server = TurnServer::new(config, Random::from_seed([1; 32])).unwrap();
        let clock = Clock::new(Instant::now());
        let thread = sockets.start(server, "stun".into(), clock, ShardOf::new(), Box::new(|_| true)).unwrap();
        (address, thread)
    }

    #[test]
    fn the_address_is_what_the_first_server_that_answers_saw() {
        let (address, thread) = server();
        let servers = ["[::1]:9".to_owned(), address];
        let found = find(&servers, &mut Random::from_seed([2; 32])).unwrap();
        assert_eq!(found, IpAddr::from([127, 0, 0, 1]));
        assert!(thread.stop());
    }

    #[test]
    fn without_an_answer_the_error_says_whom_was_asked_and_what_to_do() {
        let servers = ["[::1]:9".to_owned()];
        let error = find(&servers, &mut Random::from_seed([2; 32])).unwrap_err().to_string();
        assert!(error.contains("[::1]:9") && error.contains("rtc.node_ip"), "{error}");
    }
}
