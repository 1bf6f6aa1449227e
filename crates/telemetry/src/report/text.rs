//! A report for people.

use super::table::{Align, Table, printable};
use super::{ParticipantReport, Report, RoomReport, TimelineReport, TrackReport};
use crate::rows::{direction_name, kind_name};
use crate::window::bitrate_bps;
use fanlight_events::Direction;
use serde_json::Value;
use std::fmt::Write;

/// Names are chosen by users: this much of one is shown.
const NAME_WIDTH: usize = 32;
/// Values of a timeline event's fields.
const VALUE_WIDTH: usize = 48;
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
    let _ =
        writeln!(text, "  {span}, {}", ending("ended", "open", room.ended_ms, room.reason.as_deref(), until));
    let count = room.participants.len();
    let _ = writeln!(text, "  {count} participant{}", if count == 1 { "" } else { "s" });
    for participant in &room.participants {
        text.push('\n');
        render_participant(room, participant, until, text);
    }
    if room.timeline.is_empty() {
        return;
    }
    text.push_str("\n  Timeline\n");
    let mut table = Table::new(&[
        ("UTC", Align::Left),
        ("EVENT", Align::Left),
        ("WHO", Align::Left),
        ("WHAT", Align::Left),
    ]);
    for event in &room.timeline {
        table.row(vec![
            time(event.t_ms),
            printable(&event.event, NAME_WIDTH),
            who(room, event.participant.as_str()),
            what(event),
        ]);
    }
    table.render("  ", text);
}

fn render_participant(room: &RoomReport, participant: &ParticipantReport, until: Until, text: &mut String) {
    let identity = printable(participant.identity.as_str(), NAME_WIDTH);
    let _ = write!(text, "  {identity}  {}", printable(participant.sid.as_str(), NAME_WIDTH));
    let client = client(participant);
    let _ = writeln!(text, "{}{client}", if client.is_empty() { "" } else { "  " });
    let span = span(participant.joined_ms, participant.left_ms, until);
    let _ = write!(text, "    {span}, ");
    match participant.connect_ms {
        Some(ms) => {
            let _ =
                write!(text, "connected in {ms} ms over {}, ", printable(&participant.connection_type, 8));
        }
        None => text.push_str("never connected, "),
    }
    let reason = participant.reason.as_deref();
    let _ = writeln!(text, "{}", ending("left", "present", participant.left_ms, reason, until));
    if participant.tracks.is_empty() {
        return;
    }
    let mut table = Table::new(&[
        ("DIRECTION", Align::Left),
        ("SOURCE", Align::Left),
        ("FROM", Align::Left),
        ("CODEC", Align::Left),
        ("UTC", Align::Left),
        ("LASTED", Align::Right),
        ("PACKETS", Align::Right),
        ("BYTES", Align::Right),
        ("RESENT", Align::Right),
        ("LOST", Align::Right),
        ("LOST %", Align::Right),
        ("AVG KBPS", Align::Right),
        ("PEAK KBPS", Align::Right),
    ]);
    for track in &participant.tracks {
        table.row(track_cells(room, track, until));
    }
    table.render("    ", text);
}

fn track_cells(room: &RoomReport, track: &TrackReport, until: Until) -> Vec<String> {
    let counters = &track.counters;
    let lasted_ms = track.ended_ms.unwrap_or(until.ms).saturating_sub(track.started_ms);
    // Without an end, or with an end after the last sample, the bytes are those up to that sample.
    let counted_ms = track.counters_ms.map_or(0, |ms| ms.saturating_sub(track.started_ms));
    let source = if track.source.is_empty() { kind_name(track.kind) } else { &track.source };
    let from = match track.direction {
        Direction::Publish => String::new(),
        Direction::Subscribe => who(room, track.publisher.as_str()),
    };
    vec![
        direction_name(track.direction).to_owned(),
        printable(source, 20),
        from,
        printable(track.codec.rsplit('/').next().unwrap_or_default(), 12),
        time(track.started_ms),
        duration(lasted_ms),
        counters.packets.to_string(),
        counters.bytes.to_string(),
        counters.retransmitted.to_string(),
        counters.lost.to_string(),
        loss_percent(track),
        kbps(bitrate_bps(counters.bytes, counted_ms)),
        kbps(track.peak_bps),
    ]
}

/// Lost packets of all that were sent: upstream those that came are counted, downstream those that left.
fn loss_percent(track: &TrackReport) -> String {
    let (packets, lost) = (track.counters.packets, track.counters.lost);
    let sent = match track.direction {
        Direction::Publish => packets.saturating_add(lost),
        Direction::Subscribe => packets.max(lost),
    };
    if sent == 0 {
        return "-".to_owned();
    }
    // Hundredths, rounded; integers so that the same record always gives the same text.
    let hundredths = (u128::from(lost) * 10_000 + u128::from(sent) / 2) / u128::from(sent);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

fn kbps(bps: u64) -> String {
    bps.saturating_add(500).checked_div(1_000).unwrap_or(0).to_string()
}

fn span(from_ms: u64, to_ms: Option<u64>, until: Until) -> String {
    let lasted = duration(to_ms.unwrap_or(until.ms).saturating_sub(from_ms));
    let from = format!("{} {}", date(from_ms), time(from_ms));
    match to_ms {
        Some(ms) if day(ms) == day(from_ms) => format!("{from} – {} UTC ({lasted})", time(ms)),
        Some(ms) => format!("{from} – {} {} UTC ({lasted})", date(ms), time(ms)),
        None => format!("since {from} UTC ({lasted})"),
    }
}

fn ending(ended: &str, open: &str, at: Option<u64>, reason: Option<&str>, until: Until) -> String {
    match (at, until.running) {
        (Some(_), _) => format!("{ended}: {}", printable(reason.unwrap_or("unknown"), NAME_WIDTH)),
        (None, true) => format!("still {open}"),
        (None, false) => {
            format!("{open} when the server was last seen, {} {} UTC", date(until.ms), time(until.ms))
        }
    }
}

fn who(room: &RoomReport, sid: &str) -> String {
    let known = room.participants.iter().find(|participant| participant.sid.as_str() == sid);
    let name = known.map_or(sid, |participant| participant.identity.as_str());
    printable(if name.is_empty() { sid } else { name }, NAME_WIDTH)
}

fn what(event: &TimelineReport) -> String {
    let mut parts = Vec::new();
    if !event.track.is_empty() {
        parts.push(printable(event.track.as_str(), NAME_WIDTH));
    }
    for (name, value) in &event.fields {
        // The client stands above its tracks already.
        let shown = match value {
            Value::String(text) if !text.is_empty() => printable(text, VALUE_WIDTH),
            Value::Number(number) => number.to_string(),
            Value::Bool(yes) => yes.to_string(),
            Value::Array(_) => printable(&value.to_string(), VALUE_WIDTH),
            Value::String(_) | Value::Null | Value::Object(_) => continue,
        };
        parts.push(format!("{}={shown}", printable(name, NAME_WIDTH)));
    }
    parts.join(" ")
}

fn client(participant: &ParticipantReport) -> String {
    let client = &participant.client;
    let pairs = [
        (&client.sdk, &client.version),
        (&client.browser, &client.browser_version),
        (&client.os, &client.os_version),
        (&client.device_model, &client.network),
    ];
    let mut parts: Vec<String> = pairs
        .iter()
        .map(|(name, version)| printable(format!("{name} {version}").trim(), NAME_WIDTH))
        .filter(|part| !part.is_empty())
        .collect();
    if !client.address.is_empty() {
        parts.push(format!("from {}", printable(&client.address, NAME_WIDTH)));
    }
    parts.join(", ")
}

fn duration(ms: u64) -> String {
    let (seconds, minutes, hours) = (ms / 1_000 % 60, ms / 60_000 % 60, ms / 3_600_000);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}.{} s", ms % 1_000 / 100),
        (0, _) => format!("{minutes} m {seconds:02} s"),
        _ => format!("{hours} h {minutes:02} m {seconds:02} s"),
    }
}

fn time(unix_ms: u64) -> String {
    let ms = unix_ms % 86_400_000;
    format!("{:02}:{:02}:{:02}.{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000)
}

fn day(unix_ms: u64) -> u64 {
    unix_ms / 86_400_000
}

/// The Gregorian date of a day since 1970, by 400-year eras of 146,097 days whose years begin in March.
fn date(unix_ms: u64) -> String {
    let days = day(unix_ms) + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day_of_month:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let day_ms = 86_400_000;
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(11_016 * day_ms), "2000-02-29");
        assert_eq!(date(20_778 * day_ms), "2026-11-21");
        assert_eq!(date(20_819 * day_ms - 1), "2026-12-31");
    }

    #[test]
    fn durations_name_their_units() {
        assert_eq!(duration(900), "0.9 s");
        assert_eq!(duration(61_000), "1 m 01 s");
        assert_eq!(duration(3_600_000 * 26 + 5_000), "26 h 00 m 05 s");
    }

    #[test]
    fn every_millisecond_is_printed() {
        assert_eq!(time(86_400_000 + 3_723_004), "01:02:03.004");
    }
}
