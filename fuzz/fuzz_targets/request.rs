//! What a client sends, on its way to a target.
//!
//! The claims stand in `src/proxy/fuzzing.rs`, where the ordinary tests run them over the seeds.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tradewind::proxy::fuzzing::request(bytes);
});
