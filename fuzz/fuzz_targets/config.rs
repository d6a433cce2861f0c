#![no_main]

#[path = "../readers/config.rs"]
#[allow(dead_code, reason = "the bounded harness uses its seeds")]
mod reader;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    reader::read(data);
});
