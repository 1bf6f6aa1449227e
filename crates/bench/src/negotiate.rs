//! `bench negotiate`: what an offer or an answer costs the media thread, in a room where everything is subscribed.

use crate::Failure;
use crate::figures::{lower_quartile, print};
use crate::hall::{Hall, Role, add_track, room};
use crate::payload::Medium;
use fanlight_sfu::input::{Request, Target};
use fanlight_sfu::model::RoomConfig;
use fanlight_sfu::output::Signal;
use fanlight_transport::negotiate::RemoteDescription;
use fanlight_transport::sdp::SessionDescription;
use std::fmt::Write as _;
use std::time::Duration;

/// A Chromium's offer of everything it has.
const CHROMIUM: &str = include_str!("../../../fuzz/corpus/sdp/chromium-publisher.sdp");
const SECTIONS: &[usize] = &[1, 10, 50, 150];
/// Negotiations of each case.
const ROUNDS: usize = 41;
/// Tracks announced at a time; more would be refused.
const ANNOUNCED: usize = 20;
/// A participant publishes at most so many; sections beyond that are ended ones.
const PUBLISHED: usize = 100;

pub(crate) fn run(filter: Option<&str>) -> Result<(), Failure> {
    let cases: [(&str, Case); 4] =
        [("publish", publish), ("single", single), ("subscribe", subscribe), ("hostile", hostile)];
    for (name, case) in cases {
        for sections in SECTIONS {
            if filter.is_none_or(|filter| format!("{name}.sections_{sections}").contains(filter)) {
                for (figure, us) in case(*sections)? {
                    print(&format!("negotiate.{figure}_us.sections_{sections}"), us, "us");
                }
            }
        }
    }
    Ok(())
}

/// Measures with so many sections.
type Case = fn(usize) -> Figures;
type Figures = Result<Vec<(&'static str, f64)>, Failure>;

/// A client of signalling v0 that publishes offers its tracks again.
fn publish(sections: usize) -> Figures {
    let mut hall = Hall::in_room(Medium::Video, all_codecs())?;
    let tracks = sections.min(PUBLISHED);
    hall.join(Role::Publisher { tracks: tracks.min(ANNOUNCED) })?;
    hall.settle()?;
    for from in (0..tracks).step_by(ANNOUNCED) {
        let until = tracks.min(from + ANNOUNCED);
        if from > 0 {
            hall.publish(0, from..until)?;
            hall.settle()?;
        }
        for track in from..until {
            let at = hall.instant();
            let publisher = hall.participants.get_mut(0).and_then(|it| it.publisher.as_mut());
            publisher.ok_or("does not publish")?.write(at, track, 0)?;
        }
        hall.pass(Duration::from_millis(100))?;
    }
    let own = described(&hall, 0, Target::Publisher)?;
    let mut offer = Chromium::new(&own)?;
    for section in own.sections() {
        let (mid, track) = (section.mid().unwrap_or_default(), section.msid().and_then(|msid| msid.track));
        offer.section(
            "video",
            mid,
            &format!("a=sendonly\r\na=msid:stream {}\r\n", track.unwrap_or_default()),
        );
    }
    for ended in tracks..sections {
        offer.section("video", &format!("ended{ended}"), "a=inactive\r\n");
    }
    let offer = offer.finish();
    let us = repeat(&mut hall, 0, &offer)?;
    Ok(vec![("publish", us)])
}

/// A client of signalling v1 offers again the sections on which it receives.
fn single(sections: usize) -> Figures {
    let (mut hall, client) = audience(sections, Role::Single)?;
    let own = described(&hall, client, Target::Publisher)?;
    let mut offer = Chromium::new(&own)?;
    let data = own.sections().next().and_then(|section| section.mid()).ok_or("no data channels")?;
    offer.section("application", data, "");
    for number in 0..sections {
        offer.section("video", &format!("r{number}"), "a=recvonly\r\n");
    }
    let offer = offer.finish();
    let us = repeat(&mut hall, client, &offer)?;
    let bound = hall.send(client, request(0, &offer)?).into_iter().find_map(|signal| match signal {
        Signal::Answer { mid_to_track, .. } => Some(mid_to_track.len()),
        _ => None,
    });
    if bound != Some(sections) {
        return Err(format!("{bound:?} of {sections} tracks are answered").into());
    }
    Ok(vec![("single", us)])
}

/// A client of signalling v0 drops one of its subscriptions and takes it again: our offer, and its answer.
fn subscribe(sections: usize) -> Figures {
    let (mut hall, client) = audience(sections, Role::Subscriber)?;
    let own = described(&hall, client, Target::Subscriber)?;
    let (mut offers, mut answers) = (Vec::new(), Vec::new());
    let mut dropped = None;
    let mut pending = hall.take_held(client).into_iter().find_map(offered);
    for round in 0..2 * ROUNDS {
        if let Some((id, sdp, tracks)) = pending.take() {
            let answer = Box::new(RemoteDescription::parse(&chromium_answer(&own, &sdp)?)?);
            dropped = dropped.or_else(|| tracks.into_iter().next().map(|(_, track)| track));
            hall.watch.take();
            hall.send(client, Request::Answer { id, sdp: answer });
            answers.push(hall.watch.take() as f64 / 1_000.0);
        }
        hall.pass(Duration::from_millis(100))?;
        let tracks = vec![dropped.clone().ok_or("nothing was offered")?];
        hall.watch.take();
        let signals = hall.send(client, Request::Subscribe { tracks, subscribe: round % 2 == 1 });
        offers.push(hall.watch.take() as f64 / 1_000.0);
        pending = signals.into_iter().find_map(offered);
        if pending.is_none() {
            return Err("nothing is offered".into());
        }
    }
    Ok(vec![("subscribe_offer", lower_quartile(offers)), ("subscribe_answer", lower_quartile(answers))])
}

/// A client of signalling v1 writes as much as is read of each section, and other track ids each time.
fn hostile(sections: usize) -> Figures {
    let (mut hall, client) = audience(1, Role::Single)?;
    let own = described(&hall, client, Target::Publisher)?;
    for track in 0..ANNOUNCED {
        let request = Request::AddTrack(Box::new(add_track(format!("cid{track}"), Medium::Video)));
        hall.send(client, request);
    }
    let data = own.sections().next().and_then(|section| section.mid()).ok_or("no data channels")?;
    let mut offers = Vec::new();
    for round in 0..2 {
        let mut offer = Chromium::new(&own)?;
        offer.section("application", data, "");
        for number in 1..sections.max(2) {
            offer.dearest(&format!("x{number}"), &format!("{round}-{number}"));
        }
        offers.push(offer.finish());
    }
    let mut samples = Vec::new();
    for (round, offer) in offers.iter().cycle().take(ROUNDS).enumerate() {
        let request = request(round, offer)?;
        hall.watch.take();
        let signals = hall.send(client, request);
        samples.push(hall.watch.take() as f64 / 1_000.0);
        if !signals.iter().any(|signal| matches!(signal, Signal::Answer { .. })) {
            return Err(format!("not answered: {signals:?}").into());
        }
        hall.pass(Duration::from_millis(100))?;
    }
    Ok(vec![("hostile", lower_quartile(samples))])
}

type Offered = (u32, String, Vec<(String, fanlight_base::TrackSid)>);

fn offered(signal: Signal) -> Option<Offered> {
    match signal {
        Signal::Offer { id, sdp, mid_to_track } => Some((id, sdp.to_string(), mid_to_track)),
        _ => None,
    }
}

/// A room with so many tracks that flow, and one that is to receive all of them.
fn audience(tracks: usize, role: Role) -> Result<(Hall, usize), Failure> {
    let mut hall = Hall::in_room(Medium::Video, all_codecs())?;
    for _ in 0..tracks {
        hall.join(Role::Publisher { tracks: 1 })?;
    }
    hall.settle()?;
    for publisher in 0..tracks {
        let at = hall.instant();
        let publisher = hall.participants.get_mut(publisher).and_then(|it| it.publisher.as_mut());
        publisher.ok_or("does not publish")?.write(at, 0, 0)?;
    }
    hall.pass(Duration::from_millis(100))?;
    hall.holds_offers = true;
    hall.join(role)?;
    hall.settle()?;
    Ok((hall, tracks))
}

/// What a connection last said of itself.
fn described(hall: &Hall, participant: usize, target: Target) -> Result<SessionDescription, Failure> {
    let participant = hall.participants.get(participant).ok_or("no such participant")?;
    let connection = match target {
        Target::Publisher => participant.publisher.as_ref(),
        Target::Subscriber => participant.subscriber.as_ref(),
    };
    Ok(SessionDescription::parse(&connection.ok_or("no such connection")?.description)?)
}

/// Microseconds of the core for an offer that is made again and again, and what follows from it at once.
fn repeat(hall: &mut Hall, participant: usize, offer: &str) -> Result<f64, Failure> {
    let mut samples = Vec::new();
    for round in 0..ROUNDS {
        let request = request(round, offer)?;
        hall.watch.take();
        let signals = hall.send(participant, request);
        samples.push(hall.watch.take() as f64 / 1_000.0);
        if !signals.iter().any(|signal| matches!(signal, Signal::Answer { .. })) {
            return Err(format!("not answered: {signals:?}").into());
        }
        hall.pass(Duration::from_millis(100))?;
    }
    Ok(lower_quartile(samples))
}

fn request(round: usize, offer: &str) -> Result<Request, Failure> {
    let id = u32::try_from(round + 10)?;
    Ok(Request::Offer { id, sdp: Box::new(RemoteDescription::parse(offer)?) })
}

fn all_codecs() -> RoomConfig {
    let enabled = ["video/VP8", "video/H264", "video/VP9", "video/AV1", "audio/opus", "audio/red"];
    RoomConfig { enabled_codecs: enabled.map(String::from).to_vec(), ..room() }
}

/// A description as Chromium writes it, over another connection's transport.
struct Chromium {
    text: String,
    transport: String,
    mids: Vec<String>,
}

impl Chromium {
    fn new(own: &SessionDescription) -> Result<Self, Failure> {
        let credentials = own.ice_credentials().ok_or("no credentials")?;
        let fingerprint = own.fingerprint().ok_or("no fingerprint")?;
        let transport = format!(
            "a=setup:actpass\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:{fingerprint}\r\na=ice-options:trickle\r\n",
            credentials.ufrag, credentials.pwd
        );
        Ok(Self { text: String::new(), transport, mids: Vec::new() })
    }

    /// One section of this medium with all that Chromium says about it.
    fn section(&mut self, medium: &str, mid: &str, lines: &str) {
        const OWN: [&str; 9] =
            ["setup", "ice-", "fingerprint", "candidate", "mid", "msid", "ssrc", "rid", "simulcast"];
        let found =
            CHROMIUM.split("m=").skip(1).find(|section| section.starts_with(medium)).unwrap_or_default();
        self.text.push_str("m=");
        for line in found.lines() {
            let attribute = line.strip_prefix("a=").unwrap_or_default();
            let own = OWN.iter().any(|own| attribute.starts_with(own)) || attribute == "sendonly";
            if !own {
                let _ = write!(self.text, "{line}\r\n");
            }
        }
        let _ = write!(self.text, "a=mid:{mid}\r\n{lines}{}", self.transport);
        self.mids.push(mid.to_owned());
    }

    /// A section with as many payload types, SSRCs and RIDs as are read.
    fn dearest(&mut self, mid: &str, track: &str) {
        let list = |of: fn(usize) -> String, count| (0..count).map(of).collect::<String>();
        let formats = list(|number| format!(" {number}"), 128);
        let lines = [
            list(|number| format!("a=rtpmap:{number} H264/90000\r\n"), 128),
            list(|number| format!("a=ssrc:{number} cname:x\r\n"), 64),
            list(|number| format!("a=rid:{number} send\r\n"), 64),
        ]
        .concat();
        let _ = write!(
            self.text,
            "m=video 9 UDP/TLS/RTP/SAVPF{formats}\r\na=mid:{mid}\r\na=sendrecv\r\na=msid:s {track}\r\n{lines}{}",
            self.transport
        );
        self.mids.push(mid.to_owned());
    }

    fn finish(self) -> String {
        let mids = self.mids.join(" ");
        format!(
            "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=extmap-allow-mixed\r\na=group:BUNDLE {mids}\r\n{}",
            self.text
        )
    }
}

/// Takes everything that is offered, as Chromium writes it.
fn chromium_answer(own: &SessionDescription, offer: &str) -> Result<String, Failure> {
    const OWN: [&str; 8] = ["setup", "ice-", "fingerprint", "candidate", "end-of", "msid", "ssrc", "group"];
    let transport = Chromium::new(own)?.transport.replace("actpass", "active");
    let mut text = String::new();
    let mut direction = "";
    let mut sections = 0;
    for line in offer.lines() {
        let attribute = line.strip_prefix("a=").unwrap_or_default();
        if line.starts_with("m=") {
            text.push_str(direction);
            sections += 1;
            direction = "";
        }
        match attribute {
            "sendrecv" => direction = if sections == 1 { "a=sendrecv\r\n" } else { "a=recvonly\r\n" },
            "recvonly" => direction = "a=inactive\r\n",
            _ if OWN.iter().any(|own| attribute.starts_with(own)) && !attribute.starts_with("group") => {}
            _ => {
                let _ = write!(text, "{line}\r\n");
            }
        }
        if attribute.starts_with("mid:") {
            text.push_str(&transport);
        }
    }
    text.push_str(direction);
    Ok(text)
}
