//! What clients of our rooms counted of their tracks, read beside the record of calls.

use super::ClientsReader;
use super::reader::{Look, LookError};
use crate::read::{ReportError, read, report};
use crate::sqlite::int;
use fanlight_telemetry::Report;
use fanlight_telemetry::collector::Source;
use fanlight_telemetry::collector::measured::measured;
use fanlight_telemetry::collector::query::{ClientConnection, ClientQuery};
use fanlight_telemetry::collector::sides::{ClientSides, Objects, TrackNames, belongs, put_beside as put};
use fanlight_telemetry::decode::browser::clock_ms;
use fanlight_telemetry::report::{ParticipantReport, TimelineReport, TrackReport};
use std::path::Path;

/// Connections of one person in one room that are looked at, the newest first.
const CONNECTIONS_MAX: u64 = 200;
/// Clocks that are further off than this, 25 h, are not corrected.
const CLOCK_NS_MAX: u64 = 90_000_000_000_000;
/// A track's last report may come so long after its end: the longest usual interval of reports, and a little.
const LATE_MS: u64 = 65_000;

impl ClientsReader {
    /// Puts what clients counted beside the tracks of a report, and what they measured beside their participants.
    pub fn put_beside(&self, report: &mut Report) -> Result<(), ReportError> {
        self.look(|look| {
            for room in &mut report.rooms {
                let (name, timeline) = (room.name.clone(), &room.timeline);
                for participant in &mut room.participants {
                    for connection in connections_of(look, name.as_str(), participant)? {
                        if connection.source == Source::LiveKitMetrics.family() {
                            let latest = look.latest(connection.number)?;
                            participant.metrics.extend(measured(connection.number, &latest));
                        } else {
                            count(look, &connection, participant, timeline)?;
                        }
                    }
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// The participant that a connection is of, with the tracks that both have, by the record of calls in `dir`; `None` when it is of
    /// none of ours.
    pub fn sides(
        &self,
        dir: &Path,
        connection: &ClientConnection,
    ) -> Result<Option<ClientSides>, ReportError> {
        if !Source::PROVEN.contains(&connection.source.as_str()) {
            return Ok(None);
        }
        let Some(clock_ms) = self.look(|look| clock_of(look, connection.number))? else { return Ok(None) };
        for room in rooms_of(dir, connection, clock_ms)? {
            let mut report = report(dir, &room)?;
            let of_client = |one: &ParticipantReport| one.identity.as_str() == connection.client_id;
            for room in &mut report.rooms {
                room.participants.retain(of_client);
            }
            self.put_beside(&mut report)?;
            let mut own = report.rooms.into_iter().flat_map(|room| room.participants);
            if let Some(mut participant) = own.find(|one| belongs(connection, clock_ms, one)) {
                let tracks = std::mem::take(&mut participant.tracks).into_iter();
                let metrics = &participant.metrics;
                let its = |track: &TrackReport| {
                    track.client.as_ref().is_some_and(|client| client.connection == connection.number)
                        || metrics.iter().any(|metric| {
                            metric.connection == connection.number && metric.track == track.sid.as_str()
                        })
                };
                let tracks = tracks.filter(its).collect();
                return Ok(Some(ClientSides { participant, tracks }));
            }
        }
        Ok(None)
    }
}

/// Sessions of the room in which the client was when the connection reported, the newest first.
fn rooms_of(dir: &Path, connection: &ClientConnection, clock_ms: i64) -> Result<Vec<String>, ReportError> {
    let ours_ms = |ns: u64| (ns / 1_000_000).saturating_add_signed(clock_ms);
    let (first_ms, last_ms) = (ours_ms(connection.first_ns), ours_ms(connection.last_ns));
    read(dir, |record| {
        let mut statement = record.prepare(
            "SELECT sid FROM rooms WHERE name = ?1 AND started_ms <= ?3 AND coalesce(ended_ms, ?4) >= ?4
             AND EXISTS (SELECT 1 FROM participants WHERE room_sid = rooms.sid AND identity = ?2)
             ORDER BY started_ms DESC LIMIT ?5",
        )?;
        let (from, to) = (first_ms.saturating_sub(LATE_MS), last_ms.saturating_add(LATE_MS));
        let (room, identity) = (&connection.channel_id, &connection.client_id);
        let wanted = (room, identity, int(to), int(from), int(CONNECTIONS_MAX));
        statement.query_map(wanted, |row| row.get(0))?.collect()
    })
}

/// Those of a participant's session, by what its tokens prove.
fn connections_of(
    look: &dyn Look,
    room: &str,
    participant: &ParticipantReport,
) -> Result<Vec<ClientConnection>, LookError> {
    let ns = |ms: u64| ms.saturating_mul(1_000_000);
    let query = ClientQuery {
        channel_id: Some(room.to_owned()),
        client_id: Some(participant.identity.as_str().to_owned()),
        proven: true,
        from_ns: Some(ns(participant.joined_ms).saturating_sub(CLOCK_NS_MAX)),
        to_ns: participant.left_ms.map(|ms| ns(ms).saturating_add(CLOCK_NS_MAX)),
        limit: CONNECTIONS_MAX,
        ..ClientQuery::default()
    };
    let mut own = Vec::new();
    for connection in look.connections(&query)?.rows {
        if belongs(&connection, clock_of(look, connection.number)?, participant) {
            own.push(connection);
        }
    }
    Ok(own)
}

fn count(
    look: &dyn Look,
    connection: &ClientConnection,
    participant: &mut ParticipantReport,
    timeline: &[TimelineReport],
) -> Result<(), LookError> {
    let last = objects_before(look, connection.number, u64::MAX)?;
    let clock_ms = clock_of(look, connection.number)?;
    // The client's time of a time of ours, in nanoseconds.
    let client_ns = |ms: u64| ms.saturating_add_signed(clock_ms.saturating_neg()).saturating_mul(1_000_000);
    let counted: Vec<_> = {
        let of = |track| TrackNames::new(participant, track, timeline);
        let names: Vec<_> = participant.tracks.iter().map(of).collect();
        let mut all = Vec::with_capacity(names.len());
        for (place, (own, track)) in names.iter().zip(&participant.tracks).enumerate() {
            let sharing = names.iter().zip(&participant.tracks).enumerate();
            let shared = |other: usize, names: &TrackNames<'_>| other != place && own.shares(names);
            all.push(if sharing.clone().any(|(other, (names, _))| shared(other, names)) {
                // One m-line carried both, one after the other: each has what was counted in its time.
                let end_ms = track.ended_ms.map_or(u64::MAX, |ms| ms.saturating_add(LATE_MS));
                let next = sharing.filter(|(other, (names, later))| {
                    shared(*other, names) && later.started_ms > track.started_ms
                });
                let next_ms = next.map(|(_, (_, later))| later.started_ms).min().unwrap_or(u64::MAX);
                let until = objects_before(look, connection.number, client_ns(end_ms.min(next_ms)))?;
                let before = objects_before(look, connection.number, client_ns(track.started_ms))?;
                until.track(own, &before)
            } else {
                last.track(own, &Objects::default())
            });
        }
        all
    };
    for (track, counted) in participant.tracks.iter_mut().zip(counted) {
        if let Some(counted) = counted {
            put(track, connection.number, counted);
        }
    }
    Ok(())
}

/// The newest objects that count tracks, as of a time of the client's.
fn objects_before(look: &dyn Look, connection: u64, before_ns: u64) -> Result<Objects, LookError> {
    Ok(Objects::new(&look.counting(connection, before_ns)?))
}

/// How much our clock was ahead of the client's, by its last report; 0 when it did not say.
fn clock_of(look: &dyn Look, connection: u64) -> Result<i64, LookError> {
    Ok(look.last_extra(connection)?.and_then(|extra| clock_ms(&extra)).unwrap_or(0))
}
