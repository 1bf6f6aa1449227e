#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fanlight_rtp::fuzzing::fuzz_dependency_descriptor(data));
