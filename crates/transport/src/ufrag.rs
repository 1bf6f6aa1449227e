//! Our ICE user name fragments: the number of the shard that made one, then random letters.
//!
//! A TCP connection is accepted before anybody knows whose it is. Its first check names our ufrag, and that names the
//! shard, with neither a lookup nor a lock.

use fanlight_base::Random;

/// Letters of a ufrag, as LiveKit's (pion) have them.
const LETTERS: usize = 16;
/// Of which the first ones are the shard's number, most significant first. The other 14 hold 83 random bits; RFC 8445
/// §5.3 asks for 24.
const SHARD_LETTERS: usize = 2;
/// The ALPHA and DIGIT of RFC 8839 §5.4 `ice-char`, in the order of their value.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Shards that a ufrag can tell apart.
pub const SHARDS_MAX: u16 = 62 * 62;

/// A new ufrag of this shard; numbers from [`SHARDS_MAX`] on begin again at 0.
pub(crate) fn make(shard: u16, random: &mut Random) -> String {
    let number = usize::from(shard % SHARDS_MAX);
    let digits = [number / DIGITS.len(), number % DIGITS.len()];
    let mut ufrag: String =
        digits.iter().filter_map(|digit| DIGITS.get(*digit)).map(|letter| char::from(*letter)).collect();
    ufrag.push_str(&random.alphanumeric(LETTERS - SHARD_LETTERS));
    ufrag
}

/// The shard that made this ufrag; `None` when none of ours did.
pub fn shard(ufrag: &str) -> Option<u16> {
    if ufrag.len() != LETTERS {
        return None;
    }
    let digit = |letter: &u8| DIGITS.iter().position(|other| other == letter);
    let [high, low] = ufrag.as_bytes().first_chunk::<SHARD_LETTERS>()?;
    u16::try_from(digit(high)?.checked_mul(DIGITS.len())?.checked_add(digit(low)?)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_finds_its_own_number_again() {
        let mut random = Random::from_seed([1; 32]);
        for number in 0..SHARDS_MAX {
            let ufrag = make(number, &mut random);
            assert_eq!((ufrag.len(), shard(&ufrag)), (LETTERS, Some(number)));
            assert!(ufrag.bytes().all(|letter| letter.is_ascii_alphanumeric()));
        }
    }

    #[test]
    fn what_we_did_not_make_names_no_shard() {
        for foreign in
            ["", "0", "abcd", "00aaaaaaaaaaaaa", "00aaaaaaaaaaaaaaa", "+0aaaaaaaaaaaaaa", "é0aaaaaaaaaaaaa"]
        {
            assert_eq!(shard(foreign), None, "{foreign}");
        }
    }
}
