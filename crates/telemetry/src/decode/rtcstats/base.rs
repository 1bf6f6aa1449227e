//! What a peer connection's objects were at last, to which each report adds what has changed.

use super::{Protocol, names};
use crate::collector::limits::{ID_BYTES_MAX, OBJECTS_MAX};
use crate::collector::{Reason, StatsObject};
use serde_json::value::RawValue;
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// What a member takes in memory beside its texts.
const MEMBER_BYTES: usize = 96;
/// The time of the report stands in place of this one, in protocol 2.
const COMMON: &str = "0";

/// Objects by their ids. Values are kept as they were written, so that no number loses a digit.
#[derive(Debug, Default)]
pub(super) struct Base {
    objects: BTreeMap<SmolStr, Members>,
    bytes: usize,
}

/// The members of one object, as texts in JSON.
type Members = BTreeMap<SmolStr, String>;

/// A report taken apart: the value of one `getStats`.
type Delta<'a> = BTreeMap<SmolStr, &'a RawValue>;

impl Base {
    /// Roughly what it takes in memory.
    pub(super) fn size_bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Adds a report, of at most `room_bytes` more; gives the ids of its objects, or of all when it is to be told `whole`, and
    /// why others were not taken.
    pub(super) fn add(
        &mut self,
        protocol: Protocol,
        value: &str,
        whole: bool,
        room_bytes: usize,
    ) -> Result<(Vec<SmolStr>, Vec<Reason>), serde_json::Error> {
        let delta: Delta<'_> = serde_json::from_str(value)?;
        let time_name = match protocol {
            Protocol::V5 => names::COMMON_TIME,
            Protocol::V2 => "timestamp",
        };
        let time = delta.get(time_name).map(|time| time.get()).filter(|time| !time.starts_with(['{', 'n']));
        let most = self.bytes.saturating_add(room_bytes);
        let (mut changed, mut refused) = (Vec::new(), Vec::new());
        for (id, object) in &delta {
            if id == time_name && time.is_some() {
                continue;
            }
            if object.get() == "null" {
                self.remove(id);
                continue;
            }
            match self.merge(protocol, id, object.get(), time, most) {
                Ok(()) => changed.push(id.clone()),
                Err(reason) => refused.push(reason),
            }
        }
        if whole {
            for (id, members) in &mut self.objects {
                // Objects that are left out are of the report's time too.
                if let Some(time) = time.filter(|_| !delta.contains_key(id)) {
                    put(members, &mut self.bytes, SmolStr::new_static("timestamp"), time.to_owned());
                }
            }
            changed = self.objects.keys().cloned().collect();
        }
        Ok((changed, refused))
    }

    /// An object as the page had it.
    pub(super) fn object(&self, id: &str) -> Result<StatsObject, Reason> {
        let members = self.objects.get(id).ok_or(Reason::NotAnObject)?;
        let mut json = format!(r#"{{"id":{}"#, serde_json::Value::from(id));
        for (name, value) in members {
            json.push_str(&format!(",{}:{value}", serde_json::Value::from(name.as_str())));
        }
        json.push('}');
        StatsObject::parse(&json)
    }

    fn remove(&mut self, id: &str) {
        if let Some(members) = self.objects.remove(id) {
            let bytes = members.iter().map(|(name, value)| size(name, value)).fold(0, usize::saturating_add);
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    fn merge(
        &mut self,
        protocol: Protocol,
        id: &SmolStr,
        object: &str,
        time: Option<&str>,
        most: usize,
    ) -> Result<(), Reason> {
        let delta: Delta<'_> = serde_json::from_str(object).map_err(|_| Reason::NotAnObject)?;
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(if id.is_empty() { Reason::NoId } else { Reason::TooLong });
        }
        let known = self.objects.contains_key(id);
        if !known && !delta.contains_key("type") {
            // It was told whole before we listened.
            return Err(Reason::NoType);
        }
        let takes = object.len().saturating_add(delta.len().saturating_mul(MEMBER_BYTES));
        if (!known && self.objects.len() >= OBJECTS_MAX) || self.bytes.saturating_add(takes) > most {
            return Err(Reason::TooMany);
        }
        let members = self.objects.entry(id.clone()).or_default();
        let bytes = &mut self.bytes;
        if let Some(time) = time {
            put(members, bytes, SmolStr::new_static("timestamp"), time.to_owned());
        }
        for (word, value) in delta {
            let value = value.get();
            let name = match protocol {
                Protocol::V5 => SmolStr::new(names::member(&word)),
                Protocol::V2 => word,
            };
            match name.as_str() {
                "id" => {}
                "timestamp" if protocol == Protocol::V2 && value == COMMON => {}
                "type" if protocol == Protocol::V5 => put(members, bytes, name, kind(value)),
                _ => {
                    let value = merged(members.get(&name), value);
                    put(members, bytes, name, value);
                }
            }
        }
        Ok(())
    }
}

fn put(members: &mut Members, bytes: &mut usize, name: SmolStr, value: String) {
    *bytes = bytes.saturating_add(size(&name, &value));
    if let Some(before) = members.get(&name) {
        *bytes = bytes.saturating_sub(size(&name, before));
    }
    members.insert(name, value);
}

/// A member's new value: of an object within the object only what has changed is said, and an array is said whole.
fn merged(before: Option<&String>, value: &str) -> String {
    let both = before.filter(|before| before.starts_with('{') && value.starts_with('{'));
    let parsed = both.and_then(|before| {
        let before: Delta<'_> = serde_json::from_str(before).ok()?;
        Some((before, serde_json::from_str::<Delta<'_>>(value).ok()?))
    });
    let Some((mut all, new)) = parsed else { return value.to_owned() };
    all.extend(new);
    serde_json::to_string(&all).unwrap_or_else(|_| value.to_owned())
}

fn size(name: &str, value: &str) -> usize {
    name.len().saturating_add(value.len()).saturating_add(MEMBER_BYTES)
}

/// A type as a text, whether it was written as a number or as a text.
fn kind(raw: &str) -> String {
    let text: Option<String> = serde_json::from_str(raw).ok();
    serde_json::Value::from(names::kind(text.as_deref().unwrap_or(raw))).to_string()
}
