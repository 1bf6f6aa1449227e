//! `soak --kill`: a server that is killed at random moments while people come and go and clients report, over and over, on one data
//! directory. Every record must open, and every report that was answered must be there, once.

mod churn;
mod ledger;
mod reporters;

use crate::Failure;
use crate::figures::print;
use crate::server::{Server, free_tcp_address, until_listening};
use fanlight_base::Random;
use ledger::{Ledger, Room};
use rustix::process::{Pid, Signal, kill_process};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const KILLS: u64 = 1_000;
/// What was answered is looked for after so many kills, and at the end.
const CHECK_EVERY: u64 = 20;
/// One life in four is this short: it ends while the server opens its record.
const OPENING_MS: u64 = 100;
/// The others are as long as this, and `OPENING_MS`.
const LIFE_MS: u64 = 1_500;
/// One life in eight gets SIGTERM first and is killed within this, on its way out.
const LEAVING_MS: u64 = 200;

/// When a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    lasts: Duration,
    /// From SIGTERM to SIGKILL, if it gets one.
    leaves: Option<Duration>,
}

impl Life {
    fn draw(random: &mut Random) -> Self {
        let lasts_ms = match random.below(4) {
            0 => random.below(OPENING_MS),
            _ => OPENING_MS + random.below(LIFE_MS),
        };
        let leaves = (random.below(8) == 0).then(|| Duration::from_millis(random.below(LEAVING_MS)));
        Self { lasts: Duration::from_millis(lasts_ms), leaves }
    }
}

/// `[KILLS] [SEED]`
pub(crate) fn run(arguments: &[&str]) -> Result<(), Failure> {
    let number = |place: usize, default: u64| match arguments.get(place) {
        Some(text) => text.parse().map_err(|_| format!("{text:?} is no number")),
        None => Ok(default),
    };
    let (kills, seed) = (number(0, KILLS)?, number(1, 1)?);
    let folder = TempDir::new()?;
    let begun = Instant::now();
    let mut soak = Soak {
        dir: folder.path(),
        random: Random::from_seed([seed.to_le_bytes()[0]; 32]),
        ledger: Ledger::default(),
        listened: 0,
        left: 0,
        connected: 0,
    };
    for kill in 1..=kills {
        soak.live(kill)?;
        if kill % CHECK_EVERY == 0 || kill == kills {
            soak.check()?;
            eprintln!("{kill} kills, {} reports answered and there", soak.ledger.checked);
        }
    }
    print("soak.kills", kills as f64, "kills");
    print("soak.kills.while_opening", (kills - soak.listened) as f64, "kills");
    print("soak.kills.while_leaving", soak.left as f64, "kills");
    print("soak.participants", soak.connected as f64, "participants");
    print("soak.reports_answered", soak.ledger.checked as f64, "reports");
    print("soak.rooms_on_record", soak.ledger.rooms as f64, "rooms");
    print("soak.record", folder_bytes(folder.path())? / 1e6, "MB");
    print("soak.took", begun.elapsed().as_secs_f64(), "s");
    Ok(())
}

struct Soak<'a> {
    dir: &'a Path,
    random: Random,
    ledger: Ledger,
    /// Lives that came to listen.
    listened: u64,
    /// Lives that ended on their way out.
    left: u64,
    /// Participants who were connected.
    connected: u64,
}

impl Soak<'_> {
    /// One life of the server, from its start to its kill.
    fn live(&mut self, number: u64) -> Result<(), Failure> {
        let life = Life::draw(&mut self.random);
        let (mut server, collector) = self.spawn()?;
        let over = Arc::new(AtomicBool::new(false));
        let pid = Pid::from_raw(i32::try_from(server.pid)?).ok_or("no process")?;
        let killer = std::thread::spawn({
            let over = Arc::clone(&over);
            move || kill(pid, life, &over)
        });
        let room = Room::of(number);
        while !over.load(Ordering::Acquire) && TcpStream::connect(collector).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        if !over.load(Ordering::Acquire) {
            self.listened += 1;
            let reporters = reporters::start(&server, collector, &room, &over, self.random.fork());
            self.connected += churn::run(&server, &room, &over, &mut self.random);
            self.ledger.answered(reporters.join().map_err(|_| "a reporter ended")?);
        }
        self.ledger.lived(room);
        killer.join().map_err(|_| "the killer ended")??;
        let status = server.wait()?;
        let leaving = life.leaves.is_some();
        self.left += u64::from(leaving);
        let by = |signal: Signal| status.signal() == Some(signal.as_raw());
        // Who is asked to end may do so in time, or be too young to know how.
        if by(Signal::KILL) || (leaving && (status.success() || by(Signal::TERM))) {
            Ok(())
        } else {
            Err(format!("the server of life {number} ended by itself: {status}").into())
        }
    }

    /// A server that nobody kills, until everything has been looked for.
    fn check(&mut self) -> Result<(), Failure> {
        let (server, collector) = self.spawn()?;
        until_listening(server.address)?;
        until_listening(collector)?;
        self.ledger.check(self.dir)
    }

    fn spawn(&self) -> Result<(Server, SocketAddr), Failure> {
        let (collector, exporter) = (free_tcp_address()?, free_tcp_address()?);
        let more = format!(
            "fanlight:\n  collector:\n    enabled: true\n    port: {}\n    exporter_port: {}\n",
            collector.port(),
            exporter.port()
        );
        Ok((Server::spawn_in(self.dir, "error", &more)?, collector))
    }
}

/// Ends a life. The process is our child and nobody has waited for it yet: its id is its own.
fn kill(pid: Pid, life: Life, over: &AtomicBool) -> Result<(), std::io::Error> {
    std::thread::sleep(life.lasts);
    if let Some(leaves) = life.leaves {
        kill_process(pid, Signal::TERM)?;
        std::thread::sleep(leaves);
    }
    let killed = kill_process(pid, Signal::KILL);
    over.store(true, Ordering::Release);
    Ok(killed?)
}

fn folder_bytes(dir: &Path) -> Result<f64, Failure> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_lives_and_some_of_each_kind() {
        let lives = |seed| {
            let mut random = Random::from_seed([seed; 32]);
            (0..100).map(|_| Life::draw(&mut random)).collect::<Vec<_>>()
        };
        assert_eq!(lives(1), lives(1));
        let short = lives(1).iter().filter(|life| life.lasts.as_millis() < u128::from(OPENING_MS)).count();
        let leaving = lives(1).iter().filter(|life| life.leaves.is_some()).count();
        assert!((10..50).contains(&short) && (3..30).contains(&leaving), "{short} {leaving}");
    }
}
