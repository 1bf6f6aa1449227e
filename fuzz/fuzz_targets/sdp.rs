#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fanlight_transport::fuzzing::fuzz_sdp(data);
    fanlight_sfu::fuzzing::fuzz_description(data);
});
