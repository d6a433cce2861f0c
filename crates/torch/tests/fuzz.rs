//! Damaged input, by the thousand: files, palettized files, parts, indices.
//!
//! A fixed sequence of damages to small valid files, so that a failure comes back when run again. Each reader may
//! refuse, but must not panic, hang, or take memory out of proportion to its input. A fixed number of rounds is run;
//! `PALETTIZER_FUZZ_SECONDS=N` goes on, with other seeds, for N seconds.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[allow(dead_code, reason = "the other tests use the rest")]
#[path = "checkpoint/support.rs"]
mod support;

use palettizer_palette::{LutDtype, Mode, Nbits, PaletteSpec};
use palettizer_torch::Checkpoint;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use support::{Scratch, compress, config, file, kmeans, tensors, weight};

/// Set in the process that a gigabyte is all the memory for.
const CHILD: &str = "PALETTIZER_FUZZ_CHILD";

/// Numbers at limits, as the JSON of a header has them.
const NUMBERS: [&str; 10] = [
    "0",
    "1",
    "-1",
    "63",
    "64",
    "1e3",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "99999999999999999999",
];

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound.max(1) as u64) as usize
    }
}

/// A copy of one seed with one to four damages. Most are in the text at the beginning, which is kept as long as the file
/// says that it is.
fn damaged(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    let framed = bytes.first() != Some(&b'{');
    for _ in 0..=random.below(4) {
        let text = match framed {
            true => 8..bytes.len().min(4000),
            false => 0..bytes.len(),
        };
        let before = bytes.len();
        damage(&mut bytes, text.start, text.len(), random);
        if framed && bytes.len() >= 8 && random.below(4) > 0 {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            let length = length
                .wrapping_add(bytes.len() as u64)
                .wrapping_sub(before as u64);
            bytes[..8].copy_from_slice(&length.to_le_bytes());
        }
    }
    bytes
}

fn damage(bytes: &mut Vec<u8>, start: usize, len: usize, random: &mut Random) {
    let at = (start + random.below(len)).min(bytes.len());
    let end = (at + random.below(24)).min(bytes.len());
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    match random.below(8) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        3 => bytes
            .iter_mut()
            .skip(at)
            .take(1)
            .for_each(|byte| *byte ^= 1 << random.below(8)),
        4 => {
            let piece = bytes[at..end].to_vec();
            let to = (start + random.below(len)).min(bytes.len());
            bytes.splice(to..to, piece);
        }
        _ => {
            // The next number in the text becomes another one.
            let from = (at..bytes.len()).find(|&at| digit(at)).unwrap_or(at);
            let to = (from..bytes.len()).find(|&at| !digit(at)).unwrap_or(from);
            let number = NUMBERS[random.below(NUMBERS.len())];
            bytes.splice(from..to, number.bytes());
        }
    }
}

/// Feeds damaged copies of `seeds` to `reader`, and gives the number that it could read.
fn fuzz(seeds: &[Vec<u8>], path: &Path, reader: impl Fn(&Path) -> bool) -> u64 {
    let seconds = std::env::var("PALETTIZER_FUZZ_SECONDS");
    let seconds = seconds.ok().map_or(0, |text| text.parse().unwrap());
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut round, mut read) = (0, 0);
    while round < 2500 || (seconds > 0 && Instant::now() < until) {
        round += 1;
        let mut random = Random(u64::wrapping_mul(round, 0x9e37_79b9_7f4a_7c15) | 1);
        // A file that is cut and written again is synced by some systems; a new one is not.
        drop(std::fs::remove_file(path));
        std::fs::write(path, damaged(seeds, &mut random)).unwrap();
        let start = Instant::now();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| reader(path)));
        let result = result.map_err(|_| format!("round {round} panicked"));
        read += u64::from(result.unwrap());
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "round {round} hangs"
        );
    }
    read
}

#[test]
fn readers_refuse_or_read() {
    if cfg!(target_os = "linux") && std::env::var_os(CHILD).is_none() {
        // A reader that believes a forged length and reserves that much ends this process.
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -v 2097152; exec \"$@\"", "sh"]);
        command.arg(std::env::current_exe().unwrap());
        command.args(["readers_refuse_or_read", "--exact", "--nocapture"]);
        let output = command.env(CHILD, "1").output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        return;
    }
    let scratch = Scratch::new();
    let all = tensors();
    let checkpoint = scratch.checkpoint(&all);
    let small = |name: &str, spec: PaletteSpec| {
        compress(&checkpoint, &config(spec), &scratch.path(name)).unwrap();
        scratch.read(name)
    };
    let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B3));
    let seeds = [
        scratch.read("in.safetensors"),
        small("a.safetensors", spec.clone()),
        small(
            "b.safetensors",
            spec.with_cluster_dim(2).with_lut_dtype(LutDtype::Uint8),
        ),
        file(&[weight("w", "F16", &[3, 4], 1)], &[]),
    ];
    let read = fuzz(&seeds, &scratch.path("x.safetensors"), |path| {
        let Ok(checkpoint) = Checkpoint::open(path) else {
            return false;
        };
        // What was opened can be used.
        for name in checkpoint.names() {
            support::dense(&checkpoint, name);
        }
        checkpoint.weights(0).unwrap();
        true
    });
    assert!(
        read > 20,
        "{read} files could be read: the damages are too great"
    );

    let part = scratch.path("part.safetensors");
    let four = kmeans(Nbits::B4);
    let names = ["fc1.weight", "fc2.weight", "conv.weight"];
    checkpoint
        .compress_part(&names, &four, &part, false, &())
        .unwrap();
    let seeds = [std::fs::read(&part).unwrap()];
    let out = scratch.path("out.safetensors");
    fuzz(&seeds, &part, |path| {
        checkpoint.assemble(&four, &[path], &out, true, &()).is_ok()
    });

    let map: Vec<String> = all
        .iter()
        .map(|tensor| format!("\"{}\":\"in.safetensors\"", tensor.0))
        .collect();
    let index = format!("{{\"metadata\":{{}},\"weight_map\":{{{}}}}}", map.join(","));
    let path = scratch.path("x.safetensors.index.json");
    std::fs::write(&path, &index).unwrap();
    Checkpoint::open(&path).unwrap();
    fuzz(&[index.into_bytes()], &path, |path| {
        Checkpoint::open(path).is_ok()
    });
}
