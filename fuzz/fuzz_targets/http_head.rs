#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fanlight_livekit::fuzzing::fuzz_http_head(data));
