//! Form of SCTP packets. Libraries trust lengths inside chunks and parameters in places and would panic on them, so
//! nothing reaches ours whose lengths do not fit (RFC 9260 §3, RFC 6525 §4, RFC 3758 §3).

/// Ports, verification tag and checksum.
pub(super) const HEADER_BYTES: usize = 12;

/// A chunk of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawChunk<'a> {
    /// Its type.
    pub(super) kind: u8,
    /// Behind the chunk's header, without padding.
    pub(super) value: &'a [u8],
    /// With header and padding.
    pub(super) whole: &'a [u8],
}

/// The chunks of a packet, up to the first whose length does not fit.
pub(super) fn chunks(packet: &[u8]) -> impl Iterator<Item = RawChunk<'_>> {
    let mut rest = packet.get(HEADER_BYTES..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (kind, value, tail) = next_chunk(rest)?;
        let whole = rest.get(..rest.len() - tail.len())?;
        rest = tail;
        Some(RawChunk { kind, value, whole })
    })
}

/// Whether every length in the packet fits. Types that are not known here are left to the library, which refuses them.
pub(super) fn is_well_formed(packet: &[u8]) -> bool {
    let Some((_, mut rest)) = packet.split_at_checked(HEADER_BYTES) else { return false };
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let Some((kind, value, tail)) = next_chunk(rest) else { return false };
        if !chunk_fits(kind, value) {
            return false;
        }
        rest = tail;
    }
    true
}

fn next_chunk(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [kind, _, high, low] = *bytes.first_chunk()?;
    let len = usize::from(u16::from_be_bytes([high, low]));
    let value = bytes.get(4..len)?;
    let padded = len.checked_next_multiple_of(4)?;
    // The library asks for the padding of every chunk, the last one's included.
    Some((kind, value, bytes.get(padded..)?))
}

fn chunk_fits(kind: u8, value: &[u8]) -> bool {
    let len = value.len();
    match kind {
        // DATA without a byte of user data is an error (RFC 9260 §3.3.1).
        0 => len > 12,
        // INIT and INIT ACK.
        1 | 2 => value.get(16..).is_some_and(parameters_fit),
        // SACK.
        3 => counts(value).is_some_and(|blocks| len == 12 + 4 * blocks),
        // HEARTBEAT and its ACK.
        4 | 5 => !value.is_empty() && parameters_fit(value),
        // ABORT and ERROR: causes have the form of parameters.
        6 | 9 => causes_fit(value),
        // SHUTDOWN.
        7 => len == 4,
        // SHUTDOWN ACK, COOKIE ACK, SHUTDOWN COMPLETE.
        8 | 11 | 14 => len == 0,
        // COOKIE ECHO.
        10 => len > 0,
        // RE-CONFIG: one or two parameters.
        130 => !value.is_empty() && parameters_fit(value),
        // FORWARD TSN.
        192 => len >= 4 && len.is_multiple_of(4),
        _ => true,
    }
}

/// Gap blocks and duplicates of a SACK together.
fn counts(value: &[u8]) -> Option<usize> {
    let [g0, g1, d0, d1] = *value.get(8..)?.first_chunk()?;
    let gaps = usize::from(u16::from_be_bytes([g0, g1]));
    Some(gaps + usize::from(u16::from_be_bytes([d0, d1])))
}

fn parameters_fit(bytes: &[u8]) -> bool {
    walk(bytes, |kind, value| {
        let len = value.len();
        match kind {
            // Outgoing SSN reset request.
            13 => len >= 12 && len.is_multiple_of(2),
            // Re-configuration response, with or without the TSNs.
            16 => len == 8 || len == 16,
            // Requested HMAC algorithms.
            0x8004 => len >= 2 && len.is_multiple_of(2),
            _ => true,
        }
    })
}

fn causes_fit(bytes: &[u8]) -> bool {
    walk(bytes, |_, _| true)
}

/// Walks type-length-value fields; the padding of the last may be missing.
fn walk(bytes: &[u8], fits: impl Fn(u16, &[u8]) -> bool) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        let Some(&[k0, k1, high, low]) = rest.first_chunk() else { return false };
        let len = usize::from(u16::from_be_bytes([high, low]));
        let Some(value) = rest.get(4..len) else { return false };
        if !fits(u16::from_be_bytes([k0, k1]), value) {
            return false;
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(chunks: &[u8]) -> Vec<u8> {
        [&[0; HEADER_BYTES][..], chunks].concat()
    }

    #[test]
    fn lengths_that_fit_pass() {
        assert!(is_well_formed(&with(&[11, 0, 0, 4])));
        assert!(is_well_formed(&with(&[0, 3, 0, 17, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 53, 9, 0, 0, 0])));
        assert!(is_well_formed(&with(&[6, 0, 0, 8, 0, 12, 0, 4])));
        assert!(is_well_formed(&with(&[3, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 2, 0, 3])));
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        for chunks in [
            &[][..],
            &[11, 0, 0],
            &[11, 0, 0, 3],
            &[11, 0, 0, 8],
            &[0, 3, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 53],
            &[0, 3, 0, 17, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 53, 9],
            &[3, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0],
            &[130, 0, 0, 12, 0, 13, 0, 8, 0, 0, 0, 1],
            &[4, 0, 0, 8, 0, 1, 0, 200],
            &[192, 0, 0, 6, 0, 0, 0, 0],
        ] {
            assert!(!is_well_formed(&with(chunks)), "{chunks:?}");
        }
    }
}
