//! Damaged checkpoints, parts and indices, by the thousand: see `fuzz/readers`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "../../../fuzz/readers/damage.rs"]
mod damage;
#[path = "../../../fuzz/readers/harness.rs"]
mod harness;
#[path = "../../../fuzz/readers/safetensors.rs"]
mod safetensors;
#[allow(dead_code, reason = "the other tests use the rest")]
#[path = "checkpoint/support.rs"]
mod support;

use damage::Random;
use harness::{bounded, fuzz};
use palettizer_palette::Nbits;
use palettizer_pipeline::staged_output::SaveOptions;
use palettizer_safetensors::Checkpoint;
use support::{Scratch, kmeans, tensors};

/// A safetensors file whose header is as long as the file says, most times: else hardly any damage to the text behind
/// would be looked at.
fn framed(data: &[u8], random: &mut Random, whole: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    if data.len() >= 8 && random.below(4) > 0 {
        let length = u64::from_le_bytes(whole[..8].try_into().unwrap());
        let length = (length + data.len() as u64).saturating_sub(whole.len() as u64);
        data[..8].copy_from_slice(&length.to_le_bytes());
    }
    data
}

#[test]
fn the_file() {
    if bounded("the_file") {
        let seeds = safetensors::seeds();
        fuzz("safetensors", &seeds, 2_000, 20, safetensors::read);
        let seed = &seeds[2];
        let mut random = Random::new(1);
        let read = |data: &[u8]| safetensors::read(&framed(data, &mut random, seed));
        fuzz("header", std::slice::from_ref(seed), 2_000, 5, read);
    }
}

#[test]
fn the_part() {
    if bounded("the_part") {
        let scratch = Scratch::new();
        let checkpoint = scratch.checkpoint(&tensors());
        let four = kmeans(Nbits::B4);
        let names = ["fc1.weight", "fc2.weight", "conv.weight"];
        let (part, out) = (
            scratch.path("part.safetensors"),
            scratch.path("out.safetensors"),
        );
        checkpoint
            .palettize_part(&names, &four, &part, SaveOptions::overwriting(false), &())
            .unwrap();
        let seed = std::fs::read(&part).unwrap();
        let mut random = Random::new(2);
        fuzz("part", std::slice::from_ref(&seed), 2_000, 1, |data| {
            // A file that is cut and written again is synced by some systems; a new one is not.
            drop(std::fs::remove_file(&part));
            std::fs::write(&part, framed(data, &mut random, &seed)).unwrap();
            checkpoint
                .assemble(&four, &[&part], &out, SaveOptions::overwriting(true), &())
                .is_ok()
        });
    }
}

#[test]
fn the_index() {
    if bounded("the_index") {
        let scratch = Scratch::new();
        let all = tensors();
        drop(scratch.checkpoint(&all));
        let names = all
            .iter()
            .map(|tensor| format!("\"{}\":\"in.safetensors\"", tensor.0));
        let map = names.collect::<Vec<_>>().join(",");
        let index =
            format!("{{\"metadata\":{{\"total_size\":1,\"x\":[{{}}]}},\"weight_map\":{{{map}}}}}");
        let path = scratch.path("x.safetensors.index.json");
        fuzz("index", &[index.into_bytes()], 2_000, 10, |data| {
            drop(std::fs::remove_file(&path));
            std::fs::write(&path, data).unwrap();
            Checkpoint::open(&path).is_ok()
        });
    }
}
