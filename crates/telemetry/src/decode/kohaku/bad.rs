//! What is wrong with a report, in our words and in Kohaku's.

use super::body::Type;
use std::fmt;

/// Longest piece of a client's text that an error repeats, in characters.
const QUOTED_MAX: usize = 40;

/// Why a report cannot be taken. It prints in our words; [`BadReport::kohaku`] has Kohaku's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadReport {
    fault: Fault,
}

/// A rule of the envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// It must be there and, if it is a text, not be empty.
    Required,
    /// It has exactly so many characters.
    Characters(usize),
    /// It has at most so many bytes.
    BytesMax(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    /// Not JSON, or no object.
    Syntax {
        error: String,
        offset: usize,
    },
    WrongType {
        member: &'static str,
        wanted: Type,
        found: &'static str,
    },
    Time {
        text: String,
    },
    Role {
        text: String,
    },
    /// Fields in Go's names, in the order of Kohaku's structure.
    Rules {
        node: bool,
        broken: Vec<Broken>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Broken {
    field: &'static str,
    rule: Rule,
    /// What it has instead, in the rule's unit.
    found: usize,
}

impl std::error::Error for BadReport {}

impl BadReport {
    pub(super) fn syntax(text: &str, error: &serde_json::Error) -> Self {
        // Lines and columns count from 1, and the column in bytes.
        let line_start: usize =
            text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        let offset = line_start.saturating_add(error.column());
        Self { fault: Fault::Syntax { error: error.to_string(), offset } }
    }

    pub(super) fn wrong_type(member: &'static str, wanted: Type, found: &str) -> Self {
        let found = match found.bytes().next() {
            Some(b'"') => "string",
            Some(b'{') => "object",
            Some(b'[') => "array",
            Some(b't' | b'f') => "bool",
            Some(b'n') => "null",
            _ => "number",
        };
        Self { fault: Fault::WrongType { member, wanted, found } }
    }

    pub(super) fn time(text: &str) -> Self {
        Self { fault: Fault::Time { text: quoted(text) } }
    }

    pub(super) fn role(text: &str) -> Self {
        Self { fault: Fault::Role { text: quoted(text) } }
    }

    /// What Kohaku answered: for broken rules word by word, else alike.
    pub fn kohaku(&self) -> String {
        match &self.fault {
            Fault::Syntax { error, offset } => format!("Syntax error: offset={offset}, error={error}"),
            Fault::WrongType { member, wanted, found } => {
                format!("Unmarshal type error: expected={}, got={found}, field={member}", wanted.in_go())
            }
            Fault::Time { text } => {
                format!(r#"parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse "{text}""#)
            }
            Fault::Role { text } => {
                format!(
                    r#"ERROR: invalid input value for enum sora_connection_role: "{text}" (SQLSTATE 22P02)"#
                )
            }
            Fault::Rules { node, broken } => {
                let lines: Vec<String> = broken.iter().map(|broken| broken.kohaku(*node)).collect();
                lines.join("\n")
            }
        }
    }
}

impl fmt::Display for BadReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            Fault::Syntax { error, offset } => {
                write!(formatter, "the body is not a JSON object: {error} (byte {offset})")
            }
            Fault::WrongType { member, wanted, found } => {
                write!(formatter, "{member}: {found} found, {} wanted", wanted.name())
            }
            Fault::Time { text } => {
                write!(
                    formatter,
                    "timestamp: {text:?} is not an RFC 3339 time such as 2026-11-21T02:21:23.618Z"
                )
            }
            Fault::Role { text } => {
                write!(formatter, "role: {text:?} is not sendrecv, sendonly or recvonly")
            }
            Fault::Rules { broken, .. } => {
                for (number, broken) in broken.iter().enumerate() {
                    write!(formatter, "{}{broken}", if number == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
        }
    }
}

impl Broken {
    fn kohaku(self, node: bool) -> String {
        let field = self.field;
        let structure = if node { "soraNodeErlangVMStats" } else { "soraConnectionStats" };
        // What both structures have is a structure within them.
        let common = ["Type", "Timestamp", "Label", "Version", "NodeName"].contains(&field);
        let inner = if common { "soraStats." } else { "" };
        let tag = match self.rule {
            Rule::Required => "required",
            Rule::Characters(_) => "len",
            Rule::BytesMax(_) => "maxb",
        };
        format!(
            "Key: '{structure}.{inner}{field}' Error:Field validation for '{field}' failed on the '{tag}' tag"
        )
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let member = match self.field {
            "NodeName" => "node_name".to_owned(),
            field => match field.strip_suffix("ID") {
                Some(whose) => format!("{}_id", whose.to_lowercase()),
                None => field.to_lowercase(),
            },
        };
        let found = self.found;
        match self.rule {
            Rule::Required => write!(formatter, "{member}: missing or empty"),
            Rule::Characters(wanted) => {
                write!(formatter, "{member}: {found} characters, exactly {wanted} wanted")
            }
            Rule::BytesMax(most) => write!(formatter, "{member}: {found} bytes, at most {most} allowed"),
        }
    }
}

/// Gathers broken rules, one a field, as Kohaku's validator does.
pub(super) struct Checks {
    node: bool,
    broken: Vec<Broken>,
}

impl Checks {
    pub(super) fn new(node: bool) -> Self {
        Self { node, broken: Vec::new() }
    }

    pub(super) fn required(&mut self, field: &'static str, is_there: bool) {
        if !is_there {
            self.broken.push(Broken { field, rule: Rule::Required, found: 0 });
        }
    }

    pub(super) fn characters(&mut self, field: &'static str, text: &str, wanted: usize) {
        let found = text.chars().count();
        if found == 0 {
            self.required(field, false);
        } else if found != wanted {
            self.broken.push(Broken { field, rule: Rule::Characters(wanted), found });
        }
    }

    pub(super) fn bytes_max(&mut self, field: &'static str, text: &str, most: usize) {
        if text.is_empty() {
            self.required(field, false);
        } else if text.len() > most {
            self.broken.push(Broken { field, rule: Rule::BytesMax(most), found: text.len() });
        }
    }

    pub(super) fn finish(self) -> Result<(), BadReport> {
        match self.broken.is_empty() {
            true => Ok(()),
            false => Err(BadReport { fault: Fault::Rules { node: self.node, broken: self.broken } }),
        }
    }
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_MAX).collect()
}
