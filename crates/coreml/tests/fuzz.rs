//! Damaged packages, programs and weight files, by the thousand: see `fuzz/readers`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "../../../fuzz/readers/blob.rs"]
mod blob;
#[path = "../../../fuzz/readers/damage.rs"]
mod damage;
#[path = "../../../fuzz/readers/harness.rs"]
mod harness;
#[path = "../../../fuzz/readers/package.rs"]
mod package;
#[path = "../../../fuzz/readers/protobuf.rs"]
mod protobuf;
mod support;

use harness::{bounded, fuzz};

#[test]
fn the_program() {
    if bounded("the_program") {
        fuzz(
            "protobuf",
            &protobuf::seeds(),
            100_000,
            1_000,
            protobuf::read,
        );
    }
}

#[test]
fn the_weight_file() {
    if bounded("the_weight_file") {
        fuzz("blob", &blob::seeds(), 300_000, 1_000, blob::read);
    }
}

#[test]
fn the_package() {
    if bounded("the_package") {
        fuzz("package", &package::seeds(), 1_000, 10, package::read);
    }
}
