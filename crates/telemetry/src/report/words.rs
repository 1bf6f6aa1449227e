//! Numbers and reasons as people say them.

/// `8.9 s`, `1 m 01 s`, `26 h 00 m 05 s`.
pub fn duration(ms: u64) -> String {
    let (seconds, minutes, hours) = (ms / 1_000 % 60, ms / 60_000 % 60, ms / 3_600_000);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}.{} s", ms % 1_000 / 100),
        (0, _) => format!("{minutes} m {seconds:02} s"),
        _ => format!("{hours} h {minutes:02} m {seconds:02} s"),
    }
}

/// `512 B`, `59.5 kB`, `1.04 GB`: three digits, cut, in powers of ten.
pub fn size(bytes: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    let Some((unit, name)) = units.into_iter().find(|(unit, _)| bytes >= *unit) else {
        return format!("{bytes} B");
    };
    let (whole, hundredths) = (bytes / unit, bytes % unit * 100 / unit);
    match whole {
        0..=9 => format!("{whole}.{hundredths:02} {name}"),
        10..=99 => format!("{whole}.{} {name}", hundredths / 10),
        _ => format!("{whole} {name}"),
    }
}

/// Hundredths of a percent of `whole`, rounded; integers so that the same record always gives the same text.
pub(super) fn hundredths_of_percent(part: u64, whole: u64) -> Option<u128> {
    (whole > 0).then(|| (u128::from(part) * 10_000 + u128::from(whole) / 2) / u128::from(whole))
}

/// `0.99` for 99 hundredths.
pub(super) fn hundredths(value: u128) -> String {
    format!("{}.{:02}", value / 100, value % 100)
}

/// Microseconds as milliseconds, `-` when not known.
pub(super) fn milliseconds(us: u64) -> String {
    if us == 0 { "-".to_owned() } else { format!("{}.{}", us / 1_000, us % 1_000 / 100) }
}

/// `16:55:42.318`
pub(super) fn time(unix_ms: u64) -> String {
    format!("{}.{:03}", clock(unix_ms), unix_ms % 1_000)
}

/// `16:55:42`
pub(super) fn clock(unix_ms: u64) -> String {
    let s = unix_ms % 86_400_000 / 1_000;
    format!("{:02}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60)
}

/// Days since 1970.
pub(super) fn day(unix_ms: u64) -> u64 {
    unix_ms / 86_400_000
}

/// What the word of the record means, for those that have a meaning beyond themselves.
pub(super) fn meaning(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "client_initiated" => "left",
        "duplicate_identity" => "replaced by a newer session of its own",
        "server_shutdown" | "shutdown" => "the server shut down",
        "participant_removed" => "removed",
        "room_deleted" | "deleted" => "the room was deleted",
        "room_closed" => "the room closed",
        "state_mismatch" => "sent away to join anew",
        "join_failure" => "could not connect",
        "signal_close" => "signalling broke off",
        "connection_timeout" => "lost its connection",
        "media_failure" => "media failed",
        "crash" => "the server was killed",
        "panic" => "a bug of the server",
        "empty" => "nobody came",
        "departed" => "everybody had left",
        _ => return None,
    })
}

/// Whether a session that ended so ended as somebody wanted, or by what is said of the room.
pub(super) fn is_wanted(reason: &str) -> bool {
    matches!(
        reason,
        "client_initiated"
            | "duplicate_identity"
            | "server_shutdown"
            | "participant_removed"
            | "room_deleted"
            | "room_closed"
            | "migration"
            | "crash"
            | "panic"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_name_their_units() {
        assert_eq!(duration(900), "0.9 s");
        assert_eq!(duration(61_000), "1 m 01 s");
        assert_eq!(duration(3_600_000 * 26 + 5_000), "26 h 00 m 05 s");
    }

    #[test]
    fn sizes_have_three_digits() {
        let sizes = [0, 999, 1_000, 59_558, 310_221, 1_048_576, 12_345_678_901].map(size);
        assert_eq!(sizes, ["0 B", "999 B", "1.00 kB", "59.5 kB", "310 kB", "1.04 MB", "12.3 GB"]);
    }

    #[test]
    fn every_millisecond_is_printed() {
        assert_eq!(time(86_400_000 + 3_723_004), "01:02:03.004");
        assert_eq!(milliseconds(31_450), "31.4");
        assert_eq!(milliseconds(0), "-");
    }
}
