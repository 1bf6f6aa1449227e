//! The members of a request's body, each as the text it came as.

use super::BadReport;
use crate::collector::limits::OBJECTS_MAX;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;

/// Members by name; of two with one name the last counts, as in Go.
pub(super) struct Body<'a>(BTreeMap<String, &'a RawValue>);

/// What a member should have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Boolean,
    Objects,
}

impl Type {
    /// The type in Go.
    pub(super) const fn in_go(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Boolean => "bool",
            Self::Objects => "[]json.RawMessage",
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Boolean => "true or false",
            Self::Objects => "an array",
        }
    }
}

impl<'a> Body<'a> {
    pub(super) fn read(text: &'a str) -> Result<Self, BadReport> {
        let members = serde_json::from_str(text).map_err(|error| BadReport::syntax(text, &error))?;
        Ok(Self(members))
    }

    /// All members and their texts, in the order of their names.
    pub(super) fn members(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.get()))
    }

    /// A text; `None` when it is not there, or null.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, BadReport> {
        self.member(name, Type::Text)
    }

    pub(super) fn boolean(&self, name: &'static str) -> Result<Option<bool>, BadReport> {
        self.member(name, Type::Boolean)
    }

    /// The values of an array, and how many there are beyond the most that are taken.
    pub(super) fn objects(&self, name: &'static str) -> Result<Option<(Vec<&'a RawValue>, u64)>, BadReport> {
        let Some(raw) = self.0.get(name).filter(|raw| raw.get() != "null") else { return Ok(None) };
        let mut deserializer = serde_json::Deserializer::from_str(raw.get());
        let values = deserializer.deserialize_seq(Values);
        values.map(Some).map_err(|_| BadReport::wrong_type(name, Type::Objects, raw.get()))
    }

    fn member<T: serde::de::DeserializeOwned>(
        &self,
        name: &'static str,
        wanted: Type,
    ) -> Result<Option<T>, BadReport> {
        let Some(raw) = self.0.get(name) else { return Ok(None) };
        serde_json::from_str(raw.get()).map_err(|_| BadReport::wrong_type(name, wanted, raw.get()))
    }
}

/// Keeps the first [`OBJECTS_MAX`] values and counts the rest.
struct Values;

impl<'de> Visitor<'de> for Values {
    type Value = (Vec<&'de RawValue>, u64);

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < OBJECTS_MAX {
            match values.next_element()? {
                Some(value) => kept.push(value),
                None => return Ok((kept, 0)),
            }
        }
        let mut beyond = 0;
        while values.next_element::<IgnoredAny>()?.is_some() {
            beyond += 1;
        }
        Ok((kept, beyond))
    }
}
