//! Attacks on the listener that coturn takes for Redis, before AUTH.

use super::attack::{Attack, Stint};
use super::target::Target;
use crate::Failure;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const PER_SECOND: u32 = 500;
const PATIENCE: Duration = Duration::from_millis(500);
/// Arrays in arrays.
const NESTED: usize = 16_000;
/// A bulk string that is begun, and its part that comes.
const BULK_BYTES: usize = 512 << 20;
const PART_BYTES: usize = 1 << 20;

pub(super) const ATTACKS: &[Attack] = &[
    Attack { name: "coturn-nested-arrays", attackers: 1, run: |target, stint| pour(target, stint, nested()) },
    Attack { name: "coturn-big-bulk", attackers: 1, run: |target, stint| pour(target, stint, bulk()) },
    Attack { name: "coturn-passwords", attackers: 1, run: |target, stint| pour(target, stint, guess()) },
];

/// The same on one connection after another.
fn pour(target: &Target, stint: Stint, bytes: Vec<u8>) -> Result<u64, Failure> {
    let (mut pace, mut open) = (stint.pace(PER_SECOND), Vec::new());
    while pace.next() {
        let Ok(mut stream) = TcpStream::connect_timeout(&target.coturn, PATIENCE) else { continue };
        let _ = stream.set_write_timeout(Some(PATIENCE));
        let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
        // Closed in the middle is what it should be.
        let _ = stream.write_all(&bytes);
        let _ = stream.read(&mut [0; 256]);
        open.push(stream);
        if open.len() > 500 {
            open.remove(0);
        }
    }
    Ok(pace.count())
}

fn nested() -> Vec<u8> {
    b"*1\r\n".repeat(NESTED)
}

fn bulk() -> Vec<u8> {
    let mut bytes = format!("*2\r\n$4\r\nAUTH\r\n${BULK_BYTES}\r\n").into_bytes();
    bytes.resize(bytes.len() + PART_BYTES, b'a');
    bytes
}

fn guess() -> Vec<u8> {
    b"*2\r\n$4\r\nAUTH\r\n$5\r\nwrong\r\n".repeat(100)
}
