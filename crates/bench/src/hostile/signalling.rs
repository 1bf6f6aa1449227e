//! Attacks over WebSocket: floods of requests, descriptions, slow readers, and joins that come to nothing.

use super::attack::{Attack, Stint, again, together};
use super::intruder::{self, Intruder, room};
use super::path::credentials;
use super::stun::trickle;
use super::target::Target;
use crate::Failure;
use crate::crowd::Line;
use crate::websocket::WebSocket;
use fanlight_transport::Certificate;
use livekit_protocol as proto;
use proto::signal_request::Message as Say;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const INTRUDERS: u32 = 2;
/// Requests of one attacker: what the server does not read waits in the attacker's socket, and the attacker with it.
const PER_SECOND: u32 = 20_000;
const DESCRIPTIONS_PER_SECOND: u32 = 200;
/// Participants who never read what they are told, how often somebody tells them, and how much.
const SLOW_READERS: u32 = 100;
const UPDATES: usize = 200;
const METADATA_BYTES: usize = 500_000;
const UPDATES_PER_SECOND: u32 = 50;
const JOINS_PER_SECOND: u32 = 100;
/// A host's.
const REFUSED_PER_SECOND: u32 = 1_000;
const ANSWER_MAX: Duration = Duration::from_secs(2);

pub(super) const ATTACKS: &[Attack] = &[
    request("signal-pings", |target, stint| flood(target, stint, |_, _| ping())),
    request("signal-mutes", |target, stint| flood(target, stint, mute)),
    request("signal-trickles", |target, stint| flood(target, stint, |_, n| candidate(n))),
    request("signal-metadata", |target, stint| flood(target, stint, |_, n| metadata(n, 1_000))),
    request("signal-add-tracks", |target, stint| flood(target, stint, |_, n| add_track(n))),
    request("signal-subscriptions", |target, stint| flood(target, stint, |_, n| subscription(n))),
    request("signal-simulate", |target, stint| flood(target, stint, |_, _| simulate())),
    request("signal-all", |target, stint| flood(target, stint, all)),
    request("signal-junk", junk),
    request("offers-500-sections", |target, stint| offers(target, stint, 500)),
    request("offers-150-sections", |target, stint| offers(target, stint, 150)),
    Attack { name: "slow-readers", attackers: SLOW_READERS + 1, run: slow_readers },
    Attack { name: "join-churn", attackers: INTRUDERS, run: churn },
    Attack { name: "join-without-token", attackers: 1, run: without_token },
];

const fn request(name: &'static str, run: super::attack::Run) -> Attack {
    Attack { name, attackers: INTRUDERS, run }
}

/// In the rooms of the honest call, so that whatever is told to others is told to them.
fn join(target: &Target, number: usize, joined: u32) -> Result<Intruder, Failure> {
    Intruder::join(target, &super::call::room(number), &format!("intruder-{joined}"))
}

fn flood(target: &Target, stint: Stint, make: fn(&str, u64) -> Say) -> Result<u64, Failure> {
    together(INTRUDERS as usize, |number| {
        again(stint, PER_SECOND, |joined, pace| {
            let mut intruder = join(target, number, joined)?;
            while pace.next() {
                let request = make(&intruder.track, pace.count());
                intruder.line.press(request, || stint.is_over())?;
                if pace.count().is_multiple_of(64) {
                    intruder.breathe()?;
                }
            }
            Ok(())
        })
    })
}

fn ping() -> Say {
    Say::PingReq(proto::Ping { timestamp: 1, rtt: 1 })
}

fn mute(track: &str, n: u64) -> Say {
    Say::Mute(proto::MuteTrackRequest { sid: track.to_owned(), muted: n.is_multiple_of(2) })
}

fn candidate(n: u64) -> Say {
    trickle(std::net::SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 9)))
}

fn metadata(n: u64, bytes: usize) -> Say {
    let mut metadata = n.to_string();
    metadata.extend(std::iter::repeat_n('x', bytes.saturating_sub(metadata.len())));
    Say::UpdateMetadata(proto::UpdateParticipantMetadata { metadata, ..Default::default() })
}

fn add_track(n: u64) -> Say {
    Say::AddTrack(proto::AddTrackRequest {
        cid: format!("cid-{n}"),
        name: format!("{n}"),
        ..Default::default()
    })
}

fn subscription(n: u64) -> Say {
    let track_sids = (0..100).map(|track| format!("TR_{track}")).collect();
    Say::Subscription(proto::UpdateSubscription {
        track_sids,
        subscribe: n.is_multiple_of(2),
        participant_tracks: Vec::new(),
    })
}

fn simulate() -> Say {
    let scenario = Some(proto::simulate_scenario::Scenario::SpeakerUpdate(1));
    Say::Simulate(proto::SimulateScenario { scenario })
}

fn all(track: &str, n: u64) -> Say {
    match n % 7 {
        0 => ping(),
        1 => mute(track, n / 7),
        2 => candidate(n),
        3 => metadata(n, 1_000),
        4 => add_track(n),
        5 => subscription(n / 7),
        _ => simulate(),
    }
}

/// Messages that are no requests.
fn junk(target: &Target, stint: Stint) -> Result<u64, Failure> {
    together(INTRUDERS as usize, |number| {
        again(stint, PER_SECOND, |joined, pace| {
            let mut intruder = join(target, number, joined)?;
            while pace.next() {
                intruder.line.press_bytes(vec![0xff; 1_000], || stint.is_over())?;
                if pace.count().is_multiple_of(64) {
                    intruder.breathe()?;
                }
            }
            Ok(())
        })
    })
}

/// Descriptions of so many sections of video, each of them new.
fn offers(target: &Target, stint: Stint, sections: usize) -> Result<u64, Failure> {
    let who = credentials(&Certificate::generate()?);
    let mids: Vec<String> = (0..sections).map(|mid| mid.to_string()).collect();
    let mut sdp =
        format!("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n", mids.join(" "));
    sdp.extend((0..sections).map(|mid| intruder::video(mid, &format!("cid-{mid}"), &who)));
    together(INTRUDERS as usize, |number| {
        again(stint, DESCRIPTIONS_PER_SECOND, |joined, pace| {
            let name = format!("intruder-{joined}");
            let mut line = WebSocket::join_dual(target.http, &room(number), &name)?;
            while pace.next() {
                let description = proto::SessionDescription {
                    r#type: "offer".to_owned(),
                    sdp: sdp.clone(),
                    id: pace.count() as u32,
                    ..Default::default()
                };
                line.press(Say::Offer(description), || stint.is_over())?;
                drain(&mut line)?;
            }
            Ok(())
        })
    })
}

/// Takes what has come.
fn drain(line: &mut WebSocket) -> Result<(), Failure> {
    while line.receive()?.is_some() {}
    Ok(())
}

/// A room of participants who read nothing, and one who changes what all have to be told.
fn slow_readers(target: &Target, stint: Stint) -> Result<u64, Failure> {
    let mut readers = Vec::new();
    for reader in 0..SLOW_READERS {
        readers.push(WebSocket::join_dual(target.http, &room(0), &format!("reader-{reader}"))?);
    }
    let mut writer = WebSocket::join_dual(target.http, &room(0), "writer")?;
    let mut pace = stint.pace(UPDATES_PER_SECOND);
    while pace.count() < UPDATES as u64 && pace.next() {
        writer.press(metadata(pace.count(), METADATA_BYTES), || stint.is_over())?;
        drain(&mut writer)?;
    }
    stint.sit_out();
    drop(readers);
    Ok(pace.count())
}

/// Comes and goes at once.
fn churn(target: &Target, stint: Stint) -> Result<u64, Failure> {
    together(INTRUDERS as usize, |number| {
        let mut pace = stint.pace(JOINS_PER_SECOND);
        while pace.next() {
            // A join that is refused because there are too many is what should be.
            drop(WebSocket::join_dual(target.http, &room(number), &format!("visitor-{}", pace.count())));
        }
        Ok(pace.count())
    })
}

fn without_token(target: &Target, stint: Stint) -> Result<u64, Failure> {
    let mut pace = stint.pace(REFUSED_PER_SECOND);
    while pace.next() {
        let token =
            "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjk5OTk5OTk5OTl9.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let Ok(mut stream) = TcpStream::connect_timeout(&target.http, ANSWER_MAX) else { continue };
        let request = format!(
            "GET /rtc?access_token={token}&protocol=17 HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let _ = stream.set_read_timeout(Some(ANSWER_MAX));
        let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.read(&mut [0; 512]));
    }
    Ok(pace.count())
}
