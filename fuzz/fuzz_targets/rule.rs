//! Rules in every form: text, bytes of the ledger, messages.
//!
//! The claims stand in `src/wire/fuzzing.rs`, where the ordinary tests run them over the seeds.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tradewind::wire::fuzzing::rule(bytes);
});
