#![no_main]

#[path = "../readers/run.rs"]
#[allow(dead_code, reason = "the bounded harness uses its seeds")]
mod reader;
#[path = "../../crates/coreml/tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    reader::read(data);
});
