//! coturn's statistics database: a channel (or key) names an allocation, a payload says what happened to it.
//!
//! coturn publishes under `turn/realm/<realm>/user/<user>/allocation/<id>/<suffix>`, without the realm part where the
//! session has none. Read in every release from 4.5.0.8 to 4.17.1; releases differ in which suffixes and fields there are.

use crate::turn_account::{AllocationName, Leg, LegCounters, Path, TurnEvent};
use smol_str::SmolStr;

/// Longest channel or payload looked at; coturn's own buffer is 1024 bytes.
pub const TEXT_BYTES_MAX: usize = 4096;

/// A message of coturn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Something happened to an allocation.
    Event(AllocationName, TurnEvent),
    /// A relay thread says every 5 s that it lives (until 4.6.1).
    Heartbeat,
}

/// Why a message was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The channel is not one of coturn's.
    #[error("the channel is not of the form turn/[realm/…/]user/…/allocation/<id>/<what>")]
    Channel,
    /// The payload does not say what its channel promises.
    #[error("the payload does not fit its channel")]
    Payload,
    /// Longer than [`TEXT_BYTES_MAX`].
    #[error("longer than {TEXT_BYTES_MAX} bytes")]
    Long,
}

/// Reads one message.
pub fn read(channel: &str, payload: &str) -> Result<Message, Unreadable> {
    if channel.len() > TEXT_BYTES_MAX || payload.len() > TEXT_BYTES_MAX {
        return Err(Unreadable::Long);
    }
    if channel == "__XXX__" {
        return Ok(Message::Heartbeat);
    }
    let (name, suffix) = read_channel(channel).ok_or(Unreadable::Channel)?;
    let event = match suffix {
        "status" => status(payload),
        "traffic" => counters(payload).map(|counters| TurnEvent::Traffic(Leg::Client, counters)),
        "traffic/peer" => counters(payload).map(|counters| TurnEvent::Traffic(Leg::Peer, counters)),
        "total_traffic" => counters(payload).map(|counters| TurnEvent::Total(Leg::Client, counters)),
        "total_traffic/peer" => counters(payload).map(|counters| TurnEvent::Total(Leg::Peer, counters)),
        _ => return Err(Unreadable::Channel),
    };
    Ok(Message::Event(name, event.ok_or(Unreadable::Payload)?))
}

/// Names the allocation and what the message is about. User names may contain every other part of a channel, so the last
/// `/allocation/` counts, and the first `/user/`.
fn read_channel(channel: &str) -> Option<(AllocationName, &str)> {
    let (owner, rest) = last_allocation(channel.strip_prefix("turn/")?)?;
    let (id, suffix) = rest.split_once('/')?;
    let (realm, user) = match owner.strip_prefix("realm/") {
        Some(owner) => owner.split_once("/user/")?,
        None => ("", owner.strip_prefix("user/")?),
    };
    Some((AllocationName { realm: realm.into(), user: user.into(), id: id.parse().ok()? }, suffix))
}

fn last_allocation(channel: &str) -> Option<(&str, &str)> {
    channel.rmatch_indices("/allocation/").find_map(|(place, separator)| {
        let rest = channel.get(place + separator.len()..)?;
        let (id, suffix) = rest.split_once('/')?;
        let known =
            matches!(suffix, "status" | "traffic" | "traffic/peer" | "total_traffic" | "total_traffic/peer");
        // `%018llu`: at least 18 digits, at most the 20 of a 64-bit number.
        let is_id = (18..=20).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_digit());
        (known && is_id).then_some((channel.get(..place)?, rest))
    })
}

fn status(payload: &str) -> Option<TurnEvent> {
    if payload == "deleted" {
        return Some(TurnEvent::Deleted);
    }
    let (what, fields) = payload.split_once(' ')?;
    let lifetime_s = field(fields, "lifetime")?.parse().ok()?;
    let text = |name| SmolStr::new(field(fields, name).unwrap_or_default());
    let path = Path {
        transport: text("type"),
        local: text("local"),
        remote: text("remote"),
        tls: text("ssl"),
        cipher: text("cipher"),
    };
    match what {
        "new" => Some(TurnEvent::Opened { lifetime_s, path }),
        "refreshed" => Some(TurnEvent::Refreshed { lifetime_s, path }),
        _ => None,
    }
}

fn counters(payload: &str) -> Option<LegCounters> {
    let number = |name| field(payload, name)?.parse().ok();
    Some(LegCounters {
        rx_packets: number("rcvp")?,
        rx_bytes: number("rcvb")?,
        tx_packets: number("sentp")?,
        tx_bytes: number("sentb")?,
    })
}

/// The value of `name` in `a=1, b=2`; fields that are not known do no harm.
fn field<'a>(fields: &'a str, name: &str) -> Option<&'a str> {
    fields.split(", ").find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(channel: &str) -> Option<(String, String, u64)> {
        let (name, _) = read_channel(channel)?;
        Some((name.realm.to_string(), name.user.to_string(), name.id))
    }

    #[test]
    fn a_user_name_may_contain_what_separates_the_parts() {
        let user = "1795231298:a/b/allocation/000000000000000007/status";
        let channel = format!("turn/realm/conf.example/user/{user}/allocation/001000000000000007/status");
        let expected = Some(("conf.example".into(), user.into(), 1_000_000_000_000_007));
        assert_eq!(name_of(&channel), expected);
        let nested = name_of("turn/realm/r/user/x/user/y/allocation/000000000000000011/total_traffic/peer");
        assert_eq!(nested, Some(("r".into(), "x/user/y".into(), 11)));
        assert_eq!(name_of("turn/user//allocation/001000000000000001/traffic").unwrap().0, "");
    }

    #[test]
    fn status_lines_of_old_and_new_releases_are_read() {
        let channel = "turn/realm/r/user/u/allocation/000000000000000001/status";
        let opened = |payload| match read(channel, payload) {
            Ok(Message::Event(_, TurnEvent::Opened { lifetime_s, path })) => (lifetime_s, path),
            other => panic!("{other:?}"),
        };
        assert_eq!(opened("new lifetime=600"), (600, Path::default()));
        let (_, path) = opened(
            "new lifetime=600, type=TLS/TCP, local=[::1]:5349, remote=[::1]:38836, ssl=TLSv1.3, cipher=X, more=1",
        );
        assert_eq!(
            (path.transport.as_str(), path.local.as_str(), path.tls.as_str()),
            ("TLS/TCP", "[::1]:5349", "TLSv1.3")
        );
    }

    #[test]
    fn what_is_not_coturns_is_refused() {
        let status = "turn/realm/r/user/u/allocation/000000000000000001/status";
        assert_eq!(read(status, "gone"), Err(Unreadable::Payload));
        assert_eq!(read(status, "new lifetime=-1"), Err(Unreadable::Payload));
        assert_eq!(read("turn/realm/r/user/u/allocation/17/status", "deleted"), Err(Unreadable::Channel));
        assert_eq!(
            read("turn/realm/r/allocation/000000000000000001/status", "deleted"),
            Err(Unreadable::Channel)
        );
        assert_eq!(read(&"x".repeat(TEXT_BYTES_MAX + 1), ""), Err(Unreadable::Long));
        assert_eq!(read("__XXX__", "__YYY__"), Ok(Message::Heartbeat));
    }
}
