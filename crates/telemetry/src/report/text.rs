//! A report for people: who was there, what went wrong, what each sent and received, what happened.

use super::table::{Align, Table, printable};
use super::trouble::{self, sent};
use super::words::{
    clock, day, duration, hundredths, hundredths_of_percent, meaning, milliseconds, size, time,
};
use super::{ParticipantReport, Report, RoomReport, TimelineReport, TrackReport};
use crate::calendar::date;
use crate::rows::kind_name;
use crate::window::bitrate_bps;
use fanlight_events::Direction;
use serde_json::Value;
use std::fmt::Write;

/// Names are chosen by users: this much of one is shown.
pub(super) const NAME_WIDTH: usize = 32;
/// Values of a timeline event's fields.
pub(super) const VALUE_WIDTH: usize = 48;
/// Series of metrics shown of one participant; real clients have some 20.
const METRICS_SHOWN: usize = 50;
/// A server that has not written for so long is not running: it writes each second.
const SILENT_MS: u64 = 10_000;

/// Until when open sessions are known to have lasted, and what to call them.
#[derive(Clone, Copy)]
struct Until {
    ms: u64,
    running: bool,
}

pub(super) fn render(report: &Report, now_ms: u64) -> String {
    let seen_ms = report.seen_ms.unwrap_or(0);
    let running = now_ms.saturating_sub(seen_ms) <= SILENT_MS;
    let until = Until { ms: if running { now_ms } else { seen_ms }, running };
    let mut text = String::new();
    for room in &report.rooms {
        if !text.is_empty() {
            text.push('\n');
        }
        render_room(room, until, &mut text);
    }
    text
}

fn render_room(room: &RoomReport, until: Until, text: &mut String) {
    let name = printable(room.name.as_str(), NAME_WIDTH);
    let _ = writeln!(text, "Room {name}  {}", printable(room.sid.as_str(), NAME_WIDTH));
    let span = span(room.started_ms, room.ended_ms, until);
    let ending = match room.ended_ms {
        Some(_) => format!("ended: {}", reason(room.reason.as_deref())),
        None => open("open", until),
    };
    let _ = writeln!(text, "  {span}, {ending}");
    if room.participants.is_empty() {
        text.push_str("  Nobody was there\n");
    } else {
        render_people(room, until, text);
    }
    let troubles = trouble::sentences(room, until.ms);
    if !troubles.is_empty() {
        text.push_str("\n  What went wrong\n");
        for sentence in troubles {
            let _ = writeln!(text, "    {sentence}");
        }
    } else if !room.participants.is_empty() {
        text.push_str("\n  Nothing went wrong that the server noticed\n");
    }
    for participant in &room.participants {
        render_media(room, participant, until, text);
        render_metrics(room, participant, text);
    }
    render_timeline(room, text);
}

fn render_people(room: &RoomReport, until: Until, text: &mut String) {
    let mut table = Table::new(&[
        ("WHO", Align::Left),
        ("CAME", Align::Left),
        ("LEFT", Align::Left),
        ("STAYED", Align::Right),
        ("CONNECTED IN", Align::Right),
        ("OVER", Align::Left),
        ("HOW IT ENDED", Align::Left),
        ("CLIENT", Align::Left),
    ]);
    for participant in &room.participants {
        let stayed_ms = participant.left_ms.unwrap_or(until.ms).saturating_sub(participant.joined_ms);
        let ending = match participant.left_ms {
            Some(_) => reason(participant.reason.as_deref()),
            None => open("there", until),
        };
        table.row(vec![
            printable(participant.identity.as_str(), NAME_WIDTH),
            clock_of(room, participant.joined_ms),
            participant.left_ms.map_or_else(|| "-".to_owned(), |ms| clock_of(room, ms)),
            duration(stayed_ms),
            participant.connect_ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms} ms")),
            printable(&participant.connection_type.to_uppercase(), 8),
            ending,
            client(participant),
        ]);
    }
    let count = room.participants.len();
    let _ = writeln!(text, "\n  Who was there: {count} session{}", if count == 1 { "" } else { "s" });
    table.render("    ", text);
}

fn render_media(room: &RoomReport, participant: &ParticipantReport, until: Until, text: &mut String) {
    let identity = printable(participant.identity.as_str(), NAME_WIDTH);
    let sid = printable(participant.sid.as_str(), NAME_WIDTH);
    let _ = write!(text, "\n  {identity}  {sid}");
    if !participant.client.address.is_empty() {
        let _ = write!(text, "  from {}", printable(&participant.client.address, NAME_WIDTH));
    }
    text.push('\n');
    if let Some(relay) = &participant.relay {
        let (sent, received) = (size(relay.sent_bytes), size(relay.received_bytes));
        let held = duration(relay.held_ms);
        let _ =
            writeln!(text, "    over a TURN relay for {held}: sent {sent}, received {received} of payload");
    }
    if participant.tracks.is_empty() {
        text.push_str("    sent and received nothing\n");
        return;
    }
    let beside = participant.tracks.iter().any(|track| track.client.is_some());
    let mut columns = vec![
        ("WAY", Align::Left),
        ("TRACK", Align::Left),
        ("CODEC", Align::Left),
        ("SINCE", Align::Left),
        ("LASTED", Align::Right),
        ("PACKETS", Align::Right),
        ("SIZE", Align::Right),
        ("KBPS", Align::Right),
        ("PEAK", Align::Right),
        ("LOST", Align::Right),
        ("LOST %", Align::Right),
        ("RESENT", Align::Right),
        ("RTT MS", Align::Right),
        ("JITTER MS", Align::Right),
    ];
    if beside {
        columns.extend([("AT CLIENT", Align::Right), ("DIFF %", Align::Right)]);
    }
    let mut table = Table::new(&columns);
    for track in &participant.tracks {
        let mut cells = track_cells(room, track, until);
        if beside {
            cells.extend(client_cells(track));
        }
        table.row(cells);
    }
    table.render("    ", text);
}

/// What the participant's client measured of itself and of others.
fn render_metrics(room: &RoomReport, participant: &ParticipantReport, text: &mut String) {
    if participant.metrics.is_empty() {
        return;
    }
    let mut table = Table::new(&[
        ("ITS CLIENT MEASURED", Align::Left),
        ("VALUE", Align::Right),
        ("OF", Align::Left),
        ("TRACK", Align::Left),
        ("LAYER", Align::Left),
        ("AT", Align::Left),
    ]);
    for metric in participant.metrics.iter().take(METRICS_SHOWN) {
        let tracks = room.participants.iter().flat_map(|participant| &participant.tracks);
        let track = tracks.into_iter().find(|track| track.sid.as_str() == metric.track);
        table.row(vec![
            printable(&metric.label, VALUE_WIDTH),
            metric.value.map_or_else(|| "-".to_owned(), |value| printable(&value.to_string(), 20)),
            printable(&metric.participant, NAME_WIDTH),
            track.map_or_else(|| printable(&metric.track, NAME_WIDTH), track_of),
            printable(&metric.rid, 8),
            clock_of(room, metric.at_ms),
        ]);
    }
    text.push('\n');
    table.render("    ", text);
    let more = participant.metrics.len().saturating_sub(METRICS_SHOWN);
    if more > 0 {
        let _ = writeln!(text, "    and {more} more: --json has all");
    }
}

fn track_cells(room: &RoomReport, track: &TrackReport, until: Until) -> Vec<String> {
    let counters = &track.counters;
    let lasted_ms = track.ended_ms.unwrap_or(until.ms).saturating_sub(track.started_ms);
    // Without an end, or with an end after the last sample, the bytes are those up to that sample.
    let counted_ms = track.counters_ms.map_or(0, |ms| ms.saturating_sub(track.started_ms));
    let (direction, name) = match track.direction {
        Direction::Publish => ("sent", track_of(track)),
        Direction::Subscribe => {
            ("received", format!("{}'s {}", who(room, track.publisher.as_str()), track_of(track)))
        }
    };
    let lost = hundredths_of_percent(counters.lost, sent(track));
    vec![
        direction.to_owned(),
        name,
        printable(track.codec.rsplit('/').next().unwrap_or_default(), 12),
        clock_of(room, track.started_ms),
        duration(lasted_ms),
        counters.packets.to_string(),
        size(counters.bytes),
        kbps(bitrate_bps(counters.bytes, counted_ms)),
        kbps(track.peak_bps),
        counters.lost.to_string(),
        lost.map_or_else(|| "-".to_owned(), hundredths),
        counters.retransmitted.to_string(),
        milliseconds(counters.rtt_us),
        milliseconds(counters.jitter_us),
    ]
}

/// Packets as the client counted them, and how far that is from the server's count of the same.
fn client_cells(track: &TrackReport) -> [String; 2] {
    let Some(client) = &track.client else { return ["-".to_owned(), "-".to_owned()] };
    let away = client.packets.abs_diff(client.server_packets);
    let away = hundredths_of_percent(away, client.server_packets);
    [client.packets.to_string(), away.map_or_else(|| "-".to_owned(), hundredths)]
}

fn render_timeline(room: &RoomReport, text: &mut String) {
    if room.timeline.is_empty() {
        return;
    }
    text.push_str("\n  Timeline (UTC)\n");
    let columns = ["TIME", "EVENT", "WHO", "WHAT"].map(|name| (name, Align::Left));
    let mut table = Table::new(&columns);
    for event in &room.timeline {
        table.row(vec![
            time(event.t_ms),
            printable(&event.event, NAME_WIDTH),
            who(room, event.participant.as_str()),
            what(room, event),
        ]);
    }
    table.render("    ", text);
}

/// What a track is called: its source, or its kind.
pub(super) fn track_of(track: &TrackReport) -> String {
    printable(if track.source.is_empty() { kind_name(track.kind) } else { &track.source }, 20)
}

/// The identity of a session, or its id.
pub(super) fn who(room: &RoomReport, sid: &str) -> String {
    let known = room.participants.iter().find(|participant| participant.sid.as_str() == sid);
    let name = known.map_or(sid, |participant| participant.identity.as_str());
    printable(if name.is_empty() { sid } else { name }, NAME_WIDTH)
}

fn what(room: &RoomReport, event: &TimelineReport) -> String {
    let mut parts = Vec::new();
    if !event.track.is_empty() {
        parts.push(track_in_timeline(room, event));
    }
    for (name, value) in &event.fields {
        if is_said_elsewhere(name, value, event) {
            continue;
        }
        let shown = match value {
            Value::String(text) if !text.is_empty() => printable(text, VALUE_WIDTH),
            Value::Number(number) if number.as_u64() != Some(0) => number.to_string(),
            Value::Bool(true) => "yes".to_owned(),
            Value::Array(items) if !items.is_empty() => list(items),
            _ => continue,
        };
        parts.push(format!("{}={shown}", printable(name, NAME_WIDTH)));
    }
    parts.join(" ")
}

fn list(items: &[Value]) -> String {
    let texts = items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned));
    printable(&texts.collect::<Vec<_>>().join(","), VALUE_WIDTH)
}

fn track_in_timeline(room: &RoomReport, event: &TimelineReport) -> String {
    let published = room.participants.iter().find_map(|participant| {
        let publishes =
            |track: &&TrackReport| track.direction == Direction::Publish && track.sid == event.track;
        participant.tracks.iter().find(publishes).map(|track| (participant, track))
    });
    match published {
        Some((participant, track)) if participant.sid == event.participant => track_of(track),
        Some((participant, track)) => {
            format!("{}'s {}", printable(participant.identity.as_str(), NAME_WIDTH), track_of(track))
        }
        None => printable(event.track.as_str(), NAME_WIDTH),
    }
}

/// The client, the identity and the track's name stand in other columns.
fn is_said_elsewhere(name: &str, value: &Value, event: &TimelineReport) -> bool {
    match name {
        "identity" | "publisher" | "cid" | "mids" | "ssrc" => true,
        "source" | "kind" if !event.track.is_empty() => true,
        "kind" => value == "standard",
        _ => false,
    }
}

fn kbps(bps: u64) -> String {
    bps.saturating_add(500).checked_div(1_000).unwrap_or(0).to_string()
}

fn span(from_ms: u64, to_ms: Option<u64>, until: Until) -> String {
    let lasted = duration(to_ms.unwrap_or(until.ms).saturating_sub(from_ms));
    let from = format!("{} {}", date(from_ms), clock(from_ms));
    match to_ms {
        Some(ms) if day(ms) == day(from_ms) => format!("{from} – {} UTC ({lasted})", clock(ms)),
        Some(ms) => format!("{from} – {} {} UTC ({lasted})", date(ms), clock(ms)),
        None => format!("since {from} UTC ({lasted})"),
    }
}

/// With the date only when it is another day than that on which the room began.
fn clock_of(room: &RoomReport, ms: u64) -> String {
    if day(ms) == day(room.started_ms) { clock(ms) } else { format!("{} {}", date(ms), clock(ms)) }
}

fn open(what: &str, until: Until) -> String {
    if until.running {
        format!("still {what}")
    } else {
        format!("{what} when the server was last seen, {} {} UTC", date(until.ms), clock(until.ms))
    }
}

/// The word of the record, with what it means in front.
fn reason(reason: Option<&str>) -> String {
    let reason = reason.unwrap_or("unknown");
    let word = printable(reason, NAME_WIDTH);
    meaning(reason).map_or(word.clone(), |meaning| format!("{meaning} ({word})"))
}

fn client(participant: &ParticipantReport) -> String {
    let client = &participant.client;
    let pairs = [
        (&client.sdk, &client.version),
        (&client.browser, &client.browser_version),
        (&client.os, &client.os_version),
        (&client.device_model, &client.network),
    ];
    let parts: Vec<String> = pairs
        .iter()
        .map(|(name, version)| printable(format!("{name} {version}").trim(), NAME_WIDTH))
        .filter(|part| !part.is_empty())
        .collect();
    parts.join(", ")
}
