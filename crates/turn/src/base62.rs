//! The base62 of LiveKit's TURN user names and passwords (`jxskiss/base62`).
//!
//! Bits are taken from the end of the bytes, six at a time, least significant first. Six bits whose upper part is
//! `x1111x` would need symbols 30, 31, 62 or 63: they are written as the five lower bits, and the sixth goes with the
//! next symbol.

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// Bits 1 to 4: set in all four values that have only five bits.
const COMPACT: u8 = 0b01_1110;

/// The text of these bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(3) / 2 + 1);
    let mut bits = Bits { bytes, left: bytes.len().saturating_mul(8) };
    while bits.left > 0 {
        let taken = bits.left.min(6);
        let value = bits.peek(taken);
        let (symbol, used) = if value & COMPACT == COMPACT && (bits.left > 6 || value > 0b01_1111) {
            (value & 0b01_1111, 5)
        } else {
            (value, taken)
        };
        bits.left -= used;
        text.push(ALPHABET.get(usize::from(symbol)).copied().map_or('A', char::from));
    }
    text
}

/// The bytes of a text; `None` when it has another character.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut reversed = Vec::with_capacity(text.len());
    let (mut pending, mut count) = (0u32, 0u32);
    let last = text.len().checked_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        let symbol = value_of(byte)?;
        let width = match () {
            () if Some(at) == last => u8::BITS - symbol.leading_zeros(),
            () if symbol & COMPACT == COMPACT => 5,
            () => 6,
        };
        pending |= u32::from(symbol) << count;
        count += width;
        if count >= 8 {
            reversed.push((pending & 0xff) as u8);
            pending >>= 8;
            count -= 8;
        }
    }
    if count > 0 {
        reversed.push((pending & 0xff) as u8);
    }
    reversed.reverse();
    Some(reversed)
}

fn value_of(byte: u8) -> Option<u8> {
    ALPHABET.iter().position(|symbol| *symbol == byte).and_then(|at| u8::try_from(at).ok())
}

struct Bits<'a> {
    bytes: &'a [u8],
    /// Bits not yet taken, counted from the first byte's most significant bit.
    left: usize,
}

impl Bits<'_> {
    /// The last `count` (at most 6) of the bits left.
    fn peek(&self, count: usize) -> u8 {
        (self.left.saturating_sub(count)..self.left).fold(0, |value, at| {
            (value << 1) | (self.bytes.get(at / 8).copied().unwrap_or(0) >> (7 - at % 8) & 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_livekits_library_makes() {
        for (bytes, text) in [
            (&b"a"[..], "hB"),
            (b"Hello", "vxGblhE"),
            (b"APIkey|PA_abc|1795231283", "zgjMxMjM1kzNxw3YiF2XBBFfyrs1SCqgA"),
            (b"devkey|PA_J7mXq2Zk9LpQ|1795231583", "zgTNxMjM1kzNxwXUwxUOrplMxhVb3o0XBBFfyrs1srMyA"),
            (&[0xff, 0xff, 0xff], "ffffP"),
            (&[0, 0], "AAA"),
            (&[0xf7, 0xdf, 0x7d, 0xff], "fvvvvH"),
        ] {
            assert_eq!(encode(bytes), text);
            assert_eq!(decode(text).as_deref(), Some(bytes));
        }
        assert_eq!(decode("a:b"), None);
        assert_eq!(decode(""), Some(Vec::new()));
    }

    proptest::proptest! {
        #[test]
        fn what_was_encoded_is_decoded(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            proptest::prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }
    }
}
