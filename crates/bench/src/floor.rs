//! The floor: sealing alone. No server that encrypts for each subscriber can cost less.

use crate::Failure;
use crate::cpu::Stopwatch;
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::hint::black_box;

/// Fixed header, extension introduction, transport-wide number and abs-send-time, to whole words.
const HEADER_BYTES: usize = 24;
/// Seals of one sample.
const SEALS: u64 = 2_000;

/// Bare AES-128-GCM of one packet's bytes in place.
pub(crate) struct Floor {
    key: LessSafeKey,
    payload: Vec<u8>,
    next: u64,
}

impl Floor {
    pub(crate) fn new(payload_bytes: usize) -> Result<Self, Failure> {
        let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).map_err(|_| "no AES-128-GCM")?;
        Ok(Self { key: LessSafeKey::new(key), payload: vec![0x5a; payload_bytes], next: 0 })
    }

    /// Appends a packet to `run`, copied and sealed there; its length comes back.
    pub(crate) fn seal_onto(&mut self, run: &mut Vec<u8>) -> Result<usize, Failure> {
        let start = run.len();
        let header = [0x90_u8; HEADER_BYTES];
        run.extend_from_slice(&header);
        run.extend_from_slice(&self.payload);
        let payload = run.get_mut(start + HEADER_BYTES..).ok_or("no room")?;
        let tag = self.key.seal_in_place_separate_tag(nonce(self.next), Aad::from(header), payload);
        self.next += 1;
        run.extend_from_slice(tag.map_err(|_| "sealing failed")?.as_ref());
        Ok(run.len() - start)
    }

    /// Nanoseconds for one seal, now.
    pub(crate) fn sample(&mut self, watch: &mut Stopwatch) -> Result<f64, Failure> {
        watch.take();
        watch.start();
        for number in self.next..self.next + SEALS {
            let aad = Aad::from(black_box([0x90_u8; HEADER_BYTES]));
            let tag = self.key.seal_in_place_separate_tag(nonce(number), aad, &mut self.payload);
            black_box(tag.map_err(|_| "sealing failed")?.as_ref());
        }
        watch.stop();
        self.next += SEALS;
        Ok(watch.take() as f64 / SEALS as f64)
    }
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    if let Some(end) = nonce.last_chunk_mut() {
        *end = number.to_be_bytes();
    }
    Nonce::assume_unique_for_key(nonce)
}
