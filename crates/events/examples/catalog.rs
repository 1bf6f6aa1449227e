//! Prints the event catalogue as Markdown: the content of `docs/events.md`.
#![allow(clippy::print_stdout, reason = "printing is what this program is for")]

fn main() {
    print!("{}", fanlight_events::markdown());
}
