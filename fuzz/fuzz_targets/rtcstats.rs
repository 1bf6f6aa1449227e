#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fanlight_telemetry::fuzzing::fuzz_rtcstats(data));
