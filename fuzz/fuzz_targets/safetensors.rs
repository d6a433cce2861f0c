#![no_main]

#[path = "../readers/safetensors.rs"]
#[allow(dead_code, reason = "the bounded harness uses its seeds")]
mod reader;
#[path = "../../crates/safetensors/tests/checkpoint/support.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    reader::read(data);
});
