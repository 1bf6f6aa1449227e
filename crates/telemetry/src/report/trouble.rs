//! What went wrong in a room, as far as its record says so: each rule is one comparison with a number that stands here.

use super::table::printable;
use super::text::{NAME_WIDTH, VALUE_WIDTH, track_of, who};
use super::words::{duration, hundredths, hundredths_of_percent, is_wanted, meaning};
use super::{ParticipantReport, RoomReport, TrackReport};
use fanlight_events::Direction;
use std::collections::BTreeMap;

/// From here on people hear and see loss that retransmissions did not mend; hundredths of a percent.
const LOSS_MIN: u128 = 200;
/// From here on people talk over each other (ITU-T G.114 has 150 ms one way for a good conversation).
const ROUND_TRIP_MIN_US: u64 = 300_000;
/// A track without a packet for so long is not just slow in coming.
const SILENT_MIN_MS: u64 = 5_000;
/// Sentences printed.
const SENTENCES_MAX: usize = 40;

/// Sentences about a room; none when nothing was noticed. `until_ms` is when open sessions were last known to last.
pub(super) fn sentences(room: &RoomReport, until_ms: u64) -> Vec<String> {
    let mut sentences = Vec::new();
    if let Some(reason @ ("crash" | "panic")) = room.reason.as_deref() {
        sentences.push(format!("The room was cut off: {} ({reason}).", meaning(reason).unwrap_or(reason)));
    }
    for participant in &room.participants {
        session(participant, until_ms, &mut sentences);
        for track in &participant.tracks {
            media(room, participant, track, until_ms, &mut sentences);
        }
    }
    refusals(room, &mut sentences);
    let more = sentences.len().saturating_sub(SENTENCES_MAX);
    if more > 0 {
        sentences.truncate(SENTENCES_MAX);
        sentences.push(format!("And {more} more."));
    }
    sentences
}

fn session(participant: &ParticipantReport, until_ms: u64, sentences: &mut Vec<String>) {
    let name = printable(participant.identity.as_str(), NAME_WIDTH);
    let lasted = duration(participant.left_ms.unwrap_or(until_ms).saturating_sub(participant.joined_ms));
    let unwanted = participant.reason.as_deref().filter(|reason| !is_wanted(reason));
    let how = unwanted
        .map(|reason| format!("{} ({})", meaning(reason).unwrap_or("ended"), printable(reason, NAME_WIDTH)));
    match (participant.connect_ms, how) {
        (None, Some(how)) => sentences.push(format!("{name} never connected: {how} after {lasted}.")),
        (None, None) if participant.left_ms.is_some() => {
            sentences.push(format!("{name} never connected in {lasted}."));
        }
        (Some(_), Some(how)) => {
            sentences.push(format!("{name} did not leave by itself: {how} after {lasted}."))
        }
        (_, None) => {}
    }
    if participant.connection_type == "tcp" {
        sentences.push(format!(
            "{name} was connected over TCP, which stalls on loss; UDP may be blocked on its way."
        ));
    }
}

fn media(
    room: &RoomReport,
    participant: &ParticipantReport,
    track: &TrackReport,
    until_ms: u64,
    sentences: &mut Vec<String>,
) {
    let name = printable(participant.identity.as_str(), NAME_WIDTH);
    let counters = &track.counters;
    let (what, way) = match track.direction {
        Direction::Publish => {
            (format!("{name}'s {}", track_of(track)), "on the way to the server".to_owned())
        }
        Direction::Subscribe => {
            let publisher = who(room, track.publisher.as_str());
            (format!("{publisher}'s {}", track_of(track)), format!("on the way to {name}"))
        }
    };
    let lost = hundredths_of_percent(counters.lost, sent(track)).filter(|lost| *lost >= LOSS_MIN);
    if let Some(lost) = lost {
        sentences.push(format!("{what} lost {} % of its packets {way}.", hundredths(lost)));
    }
    if counters.rtt_us >= ROUND_TRIP_MIN_US {
        sentences.push(format!("{what} took {} ms there and back {way}.", counters.rtt_us / 1_000));
    }
    let lasted_ms = track.ended_ms.unwrap_or(until_ms).saturating_sub(track.started_ms);
    if counters.packets == 0 && lasted_ms >= SILENT_MIN_MS && !is_silent_at_its_source(room, track) {
        sentences.push(format!("Nothing of {what} arrived {way} in {}.", duration(lasted_ms)));
    }
}

/// Lost packets are of all that were sent: upstream those that came are counted, downstream those that left.
pub(super) fn sent(track: &TrackReport) -> u64 {
    let (packets, lost) = (track.counters.packets, track.counters.lost);
    match track.direction {
        Direction::Publish => packets.saturating_add(lost),
        Direction::Subscribe => packets.max(lost),
    }
}

/// A subscriber cannot get what its publisher did not send, or muted at some time.
fn is_silent_at_its_source(room: &RoomReport, track: &TrackReport) -> bool {
    let muted = room.timeline.iter().any(|event| event.event == "track_muted" && event.track == track.sid);
    let published = room.participants.iter().flat_map(|participant| &participant.tracks).any(|other| {
        other.direction == Direction::Publish && other.sid == track.sid && other.counters.packets > 0
    });
    muted || (track.direction == Direction::Subscribe && !published)
}

/// What was refused, and what the record itself lacks, with how often.
fn refusals(room: &RoomReport, sentences: &mut Vec<String>) {
    let mut refused: BTreeMap<(String, String, String), u64> = BTreeMap::new();
    let mut queues: BTreeMap<String, u64> = BTreeMap::new();
    for event in &room.timeline {
        let field = |name: &str| {
            let text = event.fields.get(name).and_then(|value| value.as_str()).unwrap_or_default();
            printable(text, VALUE_WIDTH)
        };
        match event.event.as_str() {
            "refused" => {
                let whom = who(room, event.participant.as_str());
                *refused.entry((whom, field("what"), field("why"))).or_default() += 1;
            }
            "queue_refused" => {
                let count = event.fields.get("refused").and_then(serde_json::Value::as_u64).unwrap_or(0);
                let most = queues.entry(field("queue")).or_default();
                *most = count.max(*most);
            }
            _ => {}
        }
    }
    for ((whom, what, why), times) in refused {
        let whom = if whom.is_empty() { String::new() } else { format!(" to {whom}") };
        let times = if times > 1 { format!(", {times} times") } else { String::new() };
        sentences.push(format!("Refused{whom}: {what} ({why}){times}."));
    }
    for (queue, count) in queues {
        sentences
            .push(format!("This record is not complete: {count} entries did not fit the queue {queue}."));
    }
}
