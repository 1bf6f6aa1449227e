//! What PostgreSQL's `jsonb` does not take, although it is JSON. Known before it is sent, so that one object does not cost the others a
//! second try; what is not known here the server says, and it is halved down to.

/// `jsonb` has no NUL in texts.
const NUL: &str = "nul-character";
/// Half of a surrogate pair is no character.
const HALF_SURROGATE: &str = "half-surrogate";
/// Too far from zero, or too precise.
const NUMBER: &str = "number-range";
/// Not JSON to the letter: a raw control character, an escape that there is not, a number such as `01`.
const FORM: &str = "not-json";

/// `jsonb` stores numbers of up to 131,072 digits, and `1e131071` becomes all of them when it is read. Doubles end at 308.
const EXPONENT_MAX: u32 = 400;
const DIGITS_MAX: usize = 1_024;

/// Why an object cannot be stored. What has been read as an object before is read here, so that only its texts and numbers are of
/// interest.
pub(super) fn unfit(json: &str) -> Option<&'static str> {
    let mut rest = json.as_bytes();
    while let [first, after @ ..] = rest {
        let read = match first {
            b'"' => string(after),
            b'-' | b'0'..=b'9' => number(rest),
            _ => Ok(after),
        };
        match read {
            Ok(after) => rest = after,
            Err(why) => return Some(why),
        }
    }
    None
}

type Read<'a> = Result<&'a [u8], &'static str>;

/// From behind the first quote to behind the last one.
fn string(mut rest: &[u8]) -> Read<'_> {
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Ok(after),
            [b'\\', b'u', after @ ..] => escape(after)?,
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', after @ ..] => after,
            [b'\\' | 0..=0x1f, ..] | [] => return Err(FORM),
            [_, after @ ..] => after,
        };
    }
}

/// From behind `\u` to behind the character.
fn escape(rest: &[u8]) -> Read<'_> {
    let (code, after) = hexadecimal(rest)?;
    match code {
        0 => Err(NUL),
        0xd800..=0xdbff => match after {
            [b'\\', b'u', low @ ..] => match hexadecimal(low)? {
                (0xdc00..=0xdfff, after) => Ok(after),
                _ => Err(HALF_SURROGATE),
            },
            _ => Err(HALF_SURROGATE),
        },
        0xdc00..=0xdfff => Err(HALF_SURROGATE),
        _ => Ok(after),
    }
}

fn hexadecimal(rest: &[u8]) -> Result<(u32, &[u8]), &'static str> {
    let (digits, after) = rest.split_at_checked(4).ok_or(FORM)?;
    let mut code = 0;
    for digit in digits {
        code = code * 16 + char::from(*digit).to_digit(16).ok_or(FORM)?;
    }
    Ok((code, after))
}

fn number(rest: &[u8]) -> Read<'_> {
    let rest = rest.strip_prefix(b"-").unwrap_or(rest);
    let (whole, mut rest) = digits(rest);
    if whole.is_empty() || (whole.len() > 1 && whole.starts_with(b"0")) {
        return Err(FORM);
    }
    let mut size = whole.len();
    if let Some(after) = rest.strip_prefix(b".") {
        let (fraction, after) = digits(after);
        if fraction.is_empty() {
            return Err(FORM);
        }
        size += fraction.len();
        rest = after;
    }
    if let [b'e' | b'E', after @ ..] = rest {
        let after = after.strip_prefix(b"+").or_else(|| after.strip_prefix(b"-")).unwrap_or(after);
        let (exponent, after) = digits(after);
        if exponent.is_empty() {
            return Err(FORM);
        }
        let exponent = std::str::from_utf8(exponent).ok().and_then(|digits| digits.parse::<u32>().ok());
        if exponent.is_none_or(|exponent| exponent > EXPONENT_MAX) {
            return Err(NUMBER);
        }
        rest = after;
    }
    if size > DIGITS_MAX { Err(NUMBER) } else { Ok(rest) }
}

fn digits(rest: &[u8]) -> (&[u8], &[u8]) {
    let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    rest.split_at_checked(end).unwrap_or((rest, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_says_is_fit() {
        for json in [
            r#"{"id":"a","n":-1.5e-3,"m":0,"k":179616219446525440,"t":"\u00e9\ud83d\ude00\\ \"x\"","l":[true,null,{}]}"#,
            r#"{ "big" : 1.7976931348623157e308 , "u":18446744073709551615, "e":1E+2 }"#,
            r#"{"text":"1e999 \\u0000"}"#,
        ] {
            assert_eq!(unfit(json), None, "{json}");
        }
    }

    #[test]
    fn what_jsonb_refuses_is_named() {
        for (json, why) in [
            (r#"{"a":"x\u0000y"}"#, NUL),
            (r#"{"\u0000":1}"#, NUL),
            (r#"{"a":"\ud83d"}"#, HALF_SURROGATE),
            (r#"{"a":"\ud83dx"}"#, HALF_SURROGATE),
            (r#"{"a":"\ud83d\u0041"}"#, HALF_SURROGATE),
            (r#"{"a":"\ude00"}"#, HALF_SURROGATE),
            (r#"{"a":1e401}"#, NUMBER),
            (r#"{"a":[-0.5E-99999999999999999999]}"#, NUMBER),
            (&format!(r#"{{"a":1{}}}"#, "0".repeat(2_000)), NUMBER),
            (r#"{"a":01}"#, FORM),
            (r#"{"a":1.}"#, FORM),
            (r#"{"a":-}"#, FORM),
            (r#"{"a":1e}"#, FORM),
            (r#"{"a":"\x"}"#, FORM),
            (r#"{"a":"\u12g4"}"#, FORM),
            ("{\"a\":\"line\nbreak\"}", FORM),
        ] {
            assert_eq!(unfit(json), Some(why), "{json}");
        }
    }
}
