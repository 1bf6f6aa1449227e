//! Clients that report, each as soon as its last report is answered: as Sora does, and as a page does.

use super::ledger::{Answered, Room};
use crate::Failure;
use crate::server::Server;
use crate::websocket::access_token;
use fanlight_base::Random;
use jiff::Timestamp;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longer than any answer takes; a server that is killed closes its connections at once.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Between two reports of a client.
const PAUSE_MS: u64 = 30;
/// Of each kind.
const CLIENTS: usize = 2;

/// How a client reports.
#[derive(Debug, Clone)]
enum Kind {
    /// Sora's exporter, to the collector's port.
    Sora,
    /// A page with this access token, to the main port.
    Page { token: String },
}

struct Client {
    kind: Kind,
    to: SocketAddr,
    connection: String,
    random: Random,
}

/// Starts them; they end when the server is dead, and then tell what was answered.
pub(super) fn start(
    server: &Server,
    collector: SocketAddr,
    room: &Room,
    over: &Arc<AtomicBool>,
    mut random: Random,
) -> JoinHandle<Vec<Answered>> {
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let connection = |kind: &str| format!("{}-{kind}-{number}", room.name);
        let (kind, random) = (Kind::Sora, &mut random);
        clients.push(Client { kind, to: collector, connection: connection("sora"), random: random.fork() });
        if let Ok(token) = access_token(&room.name, &connection("page")) {
            let (kind, connection) = (Kind::Page { token }, connection("page"));
            clients.push(Client { kind, to: server.address, connection, random: random.fork() });
        }
    }
    let over = Arc::clone(over);
    std::thread::spawn(move || {
        std::thread::scope(|scope| {
            let all: Vec<_> =
                clients.into_iter().map(|client| scope.spawn(|| report(client, &over))).collect();
            all.into_iter().filter_map(|client| client.join().ok()).flatten().collect()
        })
    })
}

fn report(mut client: Client, over: &AtomicBool) -> Vec<Answered> {
    let mut answered = Vec::new();
    let mut last_ms = 0;
    while !over.load(Ordering::Acquire) {
        let now = Timestamp::now();
        let at_ms = u64::try_from(now.as_millisecond()).unwrap_or(0);
        if at_ms > last_ms {
            last_ms = at_ms;
            if matches!(client.say(at_ms), Ok(204)) {
                answered.push((client.connection.clone(), at_ms));
            }
        }
        std::thread::sleep(Duration::from_millis(1 + client.random.below(PAUSE_MS)));
    }
    answered
}

impl Client {
    /// Sends a report; gives the status of the answer.
    fn say(&mut self, at_ms: u64) -> Result<u16, Failure> {
        let Self { connection, .. } = self;
        let count = self.random.u32();
        let (path, header, body) = match &self.kind {
            Kind::Sora => {
                let time = Timestamp::from_millisecond(i64::try_from(at_ms)?)?;
                let body = serde_json::json!({
                    "type": "connection.user-agent", "timestamp": time.to_string(), "label": "soak", "version": "1",
                    "node_name": "sora@127.0.0.1", "multistream": true, "simulcast": false, "spotlight": false,
                    "role": "sendrecv", "channel_id": "soak", "client_id": "c", "session_id": "s",
                    "connection_id": connection,
                    "stats": [{"timestamp": 1.0, "id": "T01", "type": "transport", "bytesSent": count}],
                });
                ("/collector", "x-sora-stats-exporter-type: connection.user-agent\r\n", body)
            }
            Kind::Page { token } => {
                let stats = serde_json::json!([{"id": "T01", "type": "transport", "bytesSent": count}]);
                let report = serde_json::json!({"connection": connection, "at": at_ms, "stats": stats});
                let body = serde_json::json!({
                    "token": token, "page": connection, "version": "1", "now": at_ms, "reports": [report],
                });
                ("/api/v1/client-stats", "", body)
            }
        };
        let body = body.to_string();
        let mut stream = TcpStream::connect(self.to)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             {header}content-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        // The status line is enough: who has read it was answered.
        let mut line = [0; 12];
        stream.read_exact(&mut line)?;
        let status = std::str::from_utf8(&line)?.strip_prefix("HTTP/1.1 ").ok_or("no HTTP")?;
        Ok(status.parse()?)
    }
}
