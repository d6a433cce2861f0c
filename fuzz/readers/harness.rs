//! The bounded harness: a fixed sequence of damages to valid files, so that a failure comes back when run again.
//!
//! A reader may refuse, but must not panic, hang, or take memory out of proportion to its input. A fixed number of
//! rounds is run; `PALETTIZER_FUZZ_SECONDS=N` (`cargo xtask fuzz --seconds N`) goes on, with other seeds, for N seconds
//! on each reader. `PALETTIZER_FUZZ_CORPUS=FOLDER` also writes the valid files, and a hundred damaged ones, to a folder
//! for each target in FOLDER, for the coverage-guided fuzzer to begin with. What is run is what the coverage-guided targets run: the functions beside this file.

use crate::damage::{Random, damaged};
use std::time::{Duration, Instant};

/// Set in the process that has little memory.
const CHILD: &str = "PALETTIZER_FUZZ_CHILD";

/// Runs the fuzz test of this name where two gigabytes are all the memory that there is: a reader that believes a forged
/// length and reserves that much ends the process, and so the test. True in that process.
pub(crate) fn bounded(test: &str) -> bool {
    if std::env::var_os(CHILD).is_some() || cfg!(not(target_os = "linux")) {
        return true;
    }
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -v 2097152; exec \"$@\"", "sh"]);
    command.arg(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]);
    let output = command.env(CHILD, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.contains("1 passed"), "no test of this name: {text}");
    false
}

/// Feeds damaged copies of `seeds` to `reader`, `rounds` of them and more for as long as asked. The seeds themselves must
/// be read, and of the others `least`: else there is too much damage to test anything.
pub(crate) fn fuzz(
    target: &str,
    seeds: &[Vec<u8>],
    rounds: u64,
    least: u64,
    mut reader: impl FnMut(&[u8]) -> bool,
) {
    for (at, seed) in seeds.iter().enumerate() {
        assert!(reader(seed), "{target}: seed {at} is refused");
    }
    if let Some(corpus) = std::env::var_os("PALETTIZER_FUZZ_CORPUS") {
        let folder = std::path::Path::new(&corpus).join(target);
        std::fs::create_dir_all(&folder).unwrap();
        let more = (0..100).map(|round| damaged(seeds, &mut Random::new(round)));
        for (at, input) in seeds.iter().cloned().chain(more).enumerate() {
            std::fs::write(folder.join(at.to_string()), input).unwrap();
        }
    }
    let seconds = std::env::var("PALETTIZER_FUZZ_SECONDS");
    let seconds = seconds.ok().map_or(0, |text| text.parse().unwrap());
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut round, mut read) = (0, 0);
    while round < rounds || (seconds > 0 && Instant::now() < until) {
        let input = damaged(seeds, &mut Random::new(round));
        let start = Instant::now();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| reader(&input)));
        match result {
            Ok(good) => read += u64::from(good),
            Err(_) => panic!("{target}: round {round} panicked: {input:02x?}"),
        }
        let hangs = start.elapsed() > Duration::from_secs(10);
        assert!(!hangs, "{target}: round {round} hangs");
        round += 1;
    }
    assert!(
        read >= least,
        "{target}: only {read} of {round} inputs were read"
    );
}
