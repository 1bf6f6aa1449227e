//! The list of all events with their fields, for people.

use crate::fact::FACTS;
use crate::sample::SAMPLES;
use std::fmt::Write;

/// How an event is treated when there is too much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Never dropped silently; what cannot be kept is counted and said.
    Fact,
    /// Cumulative; a lost one is made good by the next.
    Sample,
}

/// One event of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct EventDoc {
    /// Name in the timeline and in the store.
    pub name: &'static str,
    /// Fact or sample.
    pub lane: Lane,
    /// What it says.
    pub doc: &'static str,
    /// Its fields beside stamp, room and participant.
    pub fields: &'static [FieldDoc],
}

/// One field of an event.
#[derive(Debug, Clone, Copy)]
pub struct FieldDoc {
    /// Name; a unit stands at its end.
    pub name: &'static str,
    /// Rust type.
    pub kind: &'static str,
    /// What it says.
    pub doc: &'static str,
}

/// All events, facts first.
pub fn catalog() -> impl Iterator<Item = &'static EventDoc> {
    FACTS.iter().chain(SAMPLES)
}

/// The catalogue as `docs/events.md`.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Events\n\nGenerated from `crates/events` by `cargo xtask docs`; a test compares.\n\nEvery event carries `unix_ms`, \
         and where they apply `room`, `participant` and `track` (sids).\n",
    );
    for event in catalog() {
        let lane = match event.lane {
            Lane::Fact => "fact",
            Lane::Sample => "sample",
        };
        let _ = write!(page, "\n## {} ({lane})\n\n{}\n", event.name, event.doc.trim());
        if !event.fields.is_empty() {
            page.push_str("\n| field | type | meaning |\n|---|---|---|\n");
        }
        for field in event.fields {
            let _ = writeln!(page, "| `{}` | `{}` | {} |", field.name, field.kind, field.doc.trim());
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_tells_what_the_code_says() {
        let committed = include_str!("../../../docs/events.md");
        assert!(
            committed == markdown(),
            "docs/events.md differs from the code: run `cargo run -p fanlight-events --example catalog > docs/events.md`"
        );
    }

    #[test]
    fn no_two_events_share_a_name() {
        let mut names: Vec<_> = catalog().map(|event| event.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
