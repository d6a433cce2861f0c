//! Damaged input, by the thousand: the model, the weight file, the manifest.
//!
//! A fixed sequence of damages to small valid files, so that a failure comes back when run again. Each
//! reader may refuse, but must not panic, hang, or take memory out of proportion to its input. A fixed
//! number of rounds is run; `PALETTIZER_FUZZ_SECONDS=N` (`cargo xtask fuzz --seconds N`) goes on, with
//! other seeds, for N seconds on each reader.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use palettizer_coreml::blob::WeightFile;
use palettizer_coreml::package::Package;
use palettizer_coreml::proto::Model;
use prost::Message;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use support::{
    Builder, Parts, Random, WEIGHTS, child, conv_model, in_child, linear_model, manifest, values,
};
use tempfile::TempDir;

/// Runs a fuzz test where a gigabyte is all the memory that there is: a reader that believes a forged
/// length and reserves that much ends the process, and so the test. True in that process.
fn bounded(test: &str) -> bool {
    if child().is_some() || cfg!(not(target_os = "linux")) {
        return true;
    }
    in_child(test, "ulimit -v 1048576; exec \"$@\"", Path::new("."));
    false
}

/// Feeds damaged copies of `seeds` to `reader`: `rounds` of them, and more for as long as asked.
fn fuzz(name: &str, seeds: &[Vec<u8>], rounds: u64, mut reader: impl FnMut(&[u8])) {
    let seconds = std::env::var("PALETTIZER_FUZZ_SECONDS");
    let seconds = seconds.ok().map_or(0, |text| text.parse().unwrap());
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut round = 0;
    while round < rounds || (seconds > 0 && Instant::now() < until) {
        let mut random = Random::new(round);
        let input = damaged(seeds, &mut random);
        let start = Instant::now();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| reader(&input)));
        assert!(
            result.is_ok(),
            "{name}: round {round} panicked: {input:02x?}"
        );
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{name}: round {round} hangs"
        );
        round += 1;
    }
}

/// A copy of one seed with one to four damages.
fn damaged(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        damage(&mut bytes, seeds, random);
    }
    bytes
}

fn damage(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    const INTERESTING: [u64; 12] = [
        0,
        1,
        63,
        64,
        0x7f,
        0xffff,
        0xdead_beef,
        0x7fff_ffff,
        0xffff_ffff,
        1 << 40,
        i64::MAX as u64,
        u64::MAX,
    ];
    let at = random.below(bytes.len());
    let end = (at + random.below(64)).min(bytes.len());
    match random.below(9) {
        // One bit, one byte.
        0 => bytes
            .get_mut(at)
            .into_iter()
            .for_each(|byte| *byte ^= 1 << random.below(8)),
        1 => bytes
            .get_mut(at)
            .into_iter()
            .for_each(|byte| *byte = random.next() as u8),
        // Cut short; a piece gone; a piece doubled; a piece of another seed.
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..end)),
        4 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        5 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len());
            let to = (from + random.below(256)).min(other.len());
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        // Numbers at limits, as a weight file has them and as protobuf has them.
        6 | 7 => {
            let value = INTERESTING[random.below(INTERESTING.len())].to_le_bytes();
            let width = [4, 8][random.below(2)];
            let at = if random.below(2) == 0 { at } else { at & !7 };
            for (place, byte) in bytes.iter_mut().skip(at).zip(&value[..width]) {
                *place = *byte;
            }
        }
        _ => {
            let mut varint = Vec::new();
            let value = INTERESTING[random.below(INTERESTING.len())];
            prost::encoding::encode_varint(value, &mut varint);
            bytes.splice(at..(at + 1).min(bytes.len()), varint);
        }
    }
}

fn parts() -> Vec<Parts> {
    let nested = Builder::new("CoreML8")
        .input("x", &[1, 4])
        .weight_f32("w", &[4, 4], &values(16))
        .boolean("flag", true)
        .op(
            "matmul",
            "y",
            &[("x", "x"), ("y", "w"), ("transpose_y", "flag")],
            &[1, 4],
        )
        .output("y");
    vec![linear_model(), conv_model("CoreML6", 2, 2), nested.build()]
}

#[test]
fn the_model() {
    if !bounded("the_model") {
        return;
    }
    let parts = parts();
    let seeds: Vec<Vec<u8>> = parts.iter().map(|part| part.model.clone()).collect();
    let weights = &parts[0].weights;
    let mut read = 0;
    fuzz("model", &seeds, 200_000, |input| {
        // Everything that it refers to is looked up, as the plan of a model does.
        let Ok((package, model)) = Package::from_parts(input, weights.clone()) else {
            return;
        };
        read += 1;
        let offsets = blob_offsets(&model);
        if let Ok(file) = package.weight_file(WEIGHTS) {
            offsets.iter().for_each(|&offset| drop(file.blob(offset)));
            file.check_overlaps(&offsets).ok();
        }
        // What was read can be written, and is then read as the same.
        let bytes = model.encode_to_vec();
        let again = Model::decode(bytes.as_slice()).unwrap();
        assert_eq!(again.encode_to_vec(), bytes);
    });
    assert!(
        read > 1_000,
        "only {read} inputs were read: too much damage to test anything"
    );
}

fn blob_offsets(model: &Model) -> Vec<u64> {
    let functions = model.ml_program.iter().flat_map(|p| p.functions.values());
    let blocks = functions.flat_map(|f| f.block_specializations.values());
    blocks
        .flat_map(|block| &block.operations)
        .flat_map(|operation| operation.attributes.values())
        .filter_map(|value| value.blob_file.as_ref().map(|blob| blob.offset))
        .collect()
}

#[test]
fn the_weight_file() {
    if !bounded("the_weight_file") {
        return;
    }
    let seeds: Vec<Vec<u8>> = parts()
        .into_iter()
        .map(|mut p| p.weights.remove(WEIGHTS).unwrap())
        .collect();
    let mut read = 0;
    fuzz("weights", &seeds, 300_000, |input| {
        let Ok(file) = WeightFile::from_bytes("fuzz", input.to_vec()) else {
            return;
        };
        let mut good = Vec::new();
        for offset in (0..file.len()).step_by(64).chain([1, file.len(), u64::MAX]) {
            if let Ok(blob) = file.blob(offset) {
                let bits = blob.elements() * u64::from(blob.dtype.bits()) + blob.unused_bits;
                assert_eq!(bits, blob.data.len() as u64 * 8);
                good.push(offset);
            }
        }
        read += good.len();
        file.check_overlaps(&good).ok();
        file.release(0..u64::MAX);
    });
    assert!(read > 1_000, "only {read} blobs were read");
}

#[test]
fn the_manifest() {
    if !bounded("the_manifest") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let path = linear_model().write(&folder.path().join("m.mlpackage"));
    let seeds = [manifest().into_bytes()];
    let mut read = 0;
    fuzz("manifest", &seeds, 600, |input| {
        fs::write(path.join("Manifest.json"), input).unwrap();
        read += u32::from(Package::open(&path).is_ok());
    });
    assert!(read > 10, "only {read} manifests were read");
}
