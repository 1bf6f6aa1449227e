//! Reads the text of a JSON object once: a hash that is equal for equal values, and where three of its members are.
//!
//! Equal is what PostgreSQL's `jsonb` takes for equal: the order of members, the spelling of a number (`1`, `1.0`, `1e0`)
//! and of a text (`A`, `\u0041`) do not matter. As in Kohaku's comparison a member that is `null` is as good as absent.
//! Numbers are compared as they are written, without a detour through 64 bits.

use super::Reason;
use super::limits::DEPTH_MAX;
use foldhash::quality::FixedState;
use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher};

/// What is read of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found<'a> {
    /// Of all values but the `timestamp` of the object itself.
    pub(super) hash: u64,
    /// The text of `timestamp`, when it is there.
    pub(super) timestamp: Option<&'a str>,
    /// The text of `id`, quotes included.
    pub(super) id: Option<&'a str>,
    /// The text of `type`, quotes included.
    pub(super) kind: Option<&'a str>,
}

/// Reads an object; what is no JSON object is none.
pub(super) fn scan(json: &str) -> Result<Found<'_>, Reason> {
    let mut cursor = Cursor { text: json, at: 0, digits: Vec::new() };
    cursor.skip_space();
    let mut found = Found { hash: 0, timestamp: None, id: None, kind: None };
    let members = cursor.members(0, |name, value, hash| match name {
        "timestamp" => {
            found.timestamp = Some(value);
            false
        }
        "id" => {
            found.id = Some(value);
            hash
        }
        "type" => {
            found.kind = Some(value);
            hash
        }
        _ => hash,
    })?;
    found.hash = members;
    cursor.skip_space();
    if cursor.peek().is_some() { Err(Reason::NotAnObject) } else { Ok(found) }
}

/// The text of a JSON string with its quotes.
pub(super) fn unescaped(raw: &str) -> Result<Cow<'_, str>, serde_json::Error> {
    match raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) {
        Some(plain) if !plain.contains('\\') => Ok(Cow::Borrowed(plain)),
        _ => serde_json::from_str(raw).map(Cow::Owned),
    }
}

/// Differs for each kind of value, so that `"1"` and `1` do.
#[derive(Clone, Copy)]
enum Tag {
    Text = 1,
    Number = 2,
    Literal = 3,
    Array = 4,
    Object = 5,
    Member = 6,
}

fn hashed(tag: Tag, parts: &[&[u8]]) -> u64 {
    let mut hasher = FixedState::with_seed(tag as u64).build_hasher();
    for part in parts {
        hasher.write_usize(part.len());
        hasher.write(part);
    }
    hasher.finish()
}

/// A place in a text. Whatever the text is, it only moves on and recurses [`DEPTH_MAX`] deep.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
    /// The digits of the number that is being read.
    digits: Vec<u8>,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, byte: u8) -> Result<(), Reason> {
        if self.next() == Some(byte) { Ok(()) } else { Err(Reason::NotAnObject) }
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// The hash of the value here; `None` for null.
    fn value(&mut self, depth: usize) -> Result<Option<u64>, Reason> {
        if depth > DEPTH_MAX {
            return Err(Reason::TooDeep);
        }
        match self.peek() {
            Some(b'{') => {
                let members = self.members(depth, |_, _, hash| hash)?;
                Ok(Some(hashed(Tag::Object, &[&members.to_le_bytes()])))
            }
            Some(b'[') => self.array(depth).map(Some),
            Some(b'"') => {
                let raw = self.string()?;
                Ok(Some(text_hash(raw)))
            }
            Some(b'-' | b'0'..=b'9') => self.number().map(Some),
            Some(_) => self.literal(),
            None => Err(Reason::NotAnObject),
        }
    }

    /// The members of the object here, added up: their order does not matter. `takes` hears the name and the text of each and
    /// says whether it counts; its last argument says what is usual.
    fn members(
        &mut self,
        depth: usize,
        mut takes: impl FnMut(&str, &'a str, bool) -> bool,
    ) -> Result<u64, Reason> {
        self.expect(b'{')?;
        self.skip_space();
        let mut sum = 0u64;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(sum);
        }
        loop {
            self.skip_space();
            let raw = self.string()?;
            let name = unescaped(raw).unwrap_or(Cow::Borrowed(raw));
            self.skip_space();
            self.expect(b':')?;
            self.skip_space();
            let start = self.at;
            let value = self.value(depth + 1)?;
            let text = self.text.get(start..self.at).unwrap_or_default();
            let counts = takes(&name, text, true);
            if let (true, Some(value)) = (counts, value) {
                sum = sum.wrapping_add(hashed(Tag::Member, &[name.as_bytes(), &value.to_le_bytes()]));
            }
            self.skip_space();
            match self.next() {
                Some(b',') => {}
                Some(b'}') => return Ok(sum),
                _ => return Err(Reason::NotAnObject),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<u64, Reason> {
        self.expect(b'[')?;
        self.skip_space();
        let mut hash = hashed(Tag::Array, &[]);
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(hash);
        }
        loop {
            self.skip_space();
            let item = self.value(depth + 1)?.unwrap_or(hashed(Tag::Literal, &[b"null"]));
            hash = hashed(Tag::Array, &[&hash.to_le_bytes(), &item.to_le_bytes()]);
            self.skip_space();
            match self.next() {
                Some(b',') => {}
                Some(b']') => return Ok(hash),
                _ => return Err(Reason::NotAnObject),
            }
        }
    }

    /// The text of the string here, quotes included.
    fn string(&mut self) -> Result<&'a str, Reason> {
        let start = self.at;
        self.expect(b'"')?;
        loop {
            match self.next().ok_or(Reason::NotAnObject)? {
                b'"' => return self.text.get(start..self.at).ok_or(Reason::NotAnObject),
                b'\\' => self.at += 1,
                _ => {}
            }
        }
    }

    fn literal(&mut self) -> Result<Option<u64>, Reason> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        for word in ["true", "false", "null"] {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok((word != "null").then(|| hashed(Tag::Literal, &[word.as_bytes()])));
            }
        }
        Err(Reason::NotAnObject)
    }

    /// The number here, as sign, digits without zeros at either end, and a power of ten.
    fn number(&mut self) -> Result<u64, Reason> {
        let negative = self.peek() == Some(b'-');
        if negative {
            self.at += 1;
        }
        self.digits.clear();
        let mut power = 0i64;
        let (mut any, mut fraction) = (false, false);
        loop {
            match self.peek() {
                Some(digit @ b'0'..=b'9') => {
                    any = true;
                    if digit != b'0' || !self.digits.is_empty() {
                        self.digits.push(digit);
                    }
                    power -= i64::from(fraction);
                }
                Some(b'.') if !fraction => fraction = true,
                _ => break,
            }
            self.at += 1;
        }
        if !any {
            return Err(Reason::NotAnObject);
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            power = power.saturating_add(self.exponent()?);
        }
        while self.digits.last() == Some(&b'0') {
            self.digits.pop();
            power = power.saturating_add(1);
        }
        if self.digits.is_empty() {
            return Ok(hashed(Tag::Number, &[]));
        }
        Ok(hashed(Tag::Number, &[&[u8::from(negative)], &self.digits, &power.to_le_bytes()]))
    }

    fn exponent(&mut self) -> Result<i64, Reason> {
        let negative = match self.peek() {
            Some(sign @ (b'+' | b'-')) => {
                self.at += 1;
                sign == b'-'
            }
            _ => false,
        };
        let start = self.at;
        let mut size = 0i64;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            size = size.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
            self.at += 1;
        }
        if self.at == start {
            return Err(Reason::NotAnObject);
        }
        // Saturated in the middle of its range, so that adding to it cannot overflow either way.
        let size = size.min(i64::MAX / 4);
        Ok(if negative { -size } else { size })
    }
}

/// A text that no reader can make sense of, as half of a surrogate pair, is compared as it is written.
fn text_hash(raw: &str) -> u64 {
    match unescaped(raw) {
        Ok(text) => hashed(Tag::Text, &[text.as_bytes()]),
        Err(_) => hashed(Tag::Text, &[raw.as_bytes(), b"raw"]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_types, reason = "proptest's `prop_oneof` is made of them")]

    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn hash(json: &str) -> u64 {
        scan(json).unwrap().hash
    }

    #[test]
    fn equal_values_are_equal_however_they_are_written() {
        for (a, b) in [
            (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#),
            (r#"{"a":1}"#, r#" { "a" : 1.0 } "#),
            (r#"{"a":100}"#, r#"{"a":1e2}"#),
            (r#"{"a":100}"#, r#"{"a":10.00E+1}"#),
            (r#"{"a":0.001}"#, r#"{"a":1e-3}"#),
            (r#"{"a":0}"#, r#"{"a":-0.0e9}"#),
            (r#"{"a":"A"}"#, r#"{"\u0061":"\u0041"}"#),
            (r#"{"a":1,"b":null}"#, r#"{"a":1}"#),
            (r#"{"a":{"x":1,"y":[1,{"p":2,"q":3}]}}"#, r#"{"a":{"y":[1,{"q":3,"p":2.0}],"x":1}}"#),
            (r#"{"a":1,"timestamp":5}"#, r#"{"timestamp":6.5,"a":1}"#),
            (r#"{"a":179616219446525440}"#, r#"{"a":17961621944652544e1}"#),
        ] {
            assert_eq!(hash(a), hash(b), "{a} {b}");
        }
    }

    #[test]
    fn different_values_differ() {
        let texts = [
            r#"{}"#,
            r#"{"a":1}"#,
            r#"{"a":-1}"#,
            r#"{"a":10}"#,
            r#"{"a":0.1}"#,
            r#"{"a":0}"#,
            r#"{"a":"1"}"#,
            r#"{"a":""}"#,
            r#"{"a":true}"#,
            r#"{"a":false}"#,
            r#"{"a":[]}"#,
            r#"{"a":{}}"#,
            r#"{"a":[1]}"#,
            r#"{"a":[1,2]}"#,
            r#"{"a":[2,1]}"#,
            r#"{"a":[[1],2]}"#,
            r#"{"a":[1,null]}"#,
            r#"{"a":{"timestamp":1}}"#,
            r#"{"a":{"timestamp":2}}"#,
            r#"{"a":{"b":1},"c":2}"#,
            r#"{"a":{"b":1,"c":2}}"#,
            r#"{"b":1}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":18446744073709551615}"#,
            r#"{"a":18446744073709551616}"#,
            r#"{"a":36893488147419103232}"#,
            r#"{"a":36893488147419103233}"#,
            r#"{"a":1e99999999999999999999}"#,
            r#"{"a":1e-99999999999999999999}"#,
        ];
        let mut hashes: Vec<u64> = texts.iter().map(|text| hash(text)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), texts.len());
    }

    /// Members of any depth, as serde_json makes them.
    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e15..1e15f64).prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c]{0,2}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn two_objects_have_one_hash_when_they_are_equal_only(a in json(), b in json()) {
            let text = |value: &Value| serde_json::json!({ "v": value }).to_string();
            prop_assert_eq!(hash(&text(&a)) == hash(&text(&b)), text(&a) == text(&b));
        }

        #[test]
        fn white_space_and_order_do_not_matter(a in json(), b in json()) {
            let plain = format!(r#"{{"x":{a},"y":{b}}}"#);
            let other = format!("{{ \"y\" :\n{b:#} , \"timestamp\": 1,\r\"x\":\t{a:#}}}");
            prop_assert_eq!(hash(&plain), hash(&other));
        }

        #[test]
        fn any_text_is_read_without_harm(text in ".{0,60}") {
            let _ = scan(&text);
            let _ = scan(&format!("{{{text}}}"));
        }
    }
}
