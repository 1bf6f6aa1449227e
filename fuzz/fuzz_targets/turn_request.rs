#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fanlight_turn::fuzzing::fuzz_request(data));
