//! `decompress`, `demo` and `completions`.

use crate::support::{Scratch, names};

#[test]
fn decompress_gives_dense_weights() {
    let scratch = Scratch::new();
    let compressed = scratch
        .run("compress in.mlpackage -o small.mlpackage --nbits 4")
        .succeeds();
    let run = scratch
        .run("decompress small.mlpackage -o dense.mlpackage")
        .succeeds();
    // Both commands count the same bytes of a package.
    let [dense, small] = totals(&compressed.out);
    assert_eq!(totals(&run.out)[0], small);
    assert_eq!(dense[..3], totals(&run.out)[1][..3], "{}", run.out);
    let run = scratch.run("inspect dense.mlpackage").succeeds();
    let line = run.line("conv2_weight");
    assert_eq!(line[1..4], ["64×32×3×3", "fp16", "36,864"]);
    assert_eq!(line[5], "16", "distinct values");
    assert_eq!(line.last(), Some(&"-"));
    scratch
        .run("decompress small.mlpackage -o dense.mlpackage")
        .fails(1, "use --force");
    scratch
        .run("decompress small.mlpackage -o dense.mlpackage --force")
        .succeeds();
}

/// The bytes before and after, as a command prints them.
fn totals(out: &str) -> [String; 2] {
    let line = out.lines().find(|line| line.contains(" bytes (")).unwrap();
    let (before, after) = line.split_once(" → ").unwrap();
    let number = |word: Option<&str>| word.unwrap().to_owned();
    [
        number(before.split(' ').next_back()),
        number(after.split(' ').next()),
    ]
}

#[test]
fn the_demo_gets_smaller_with_every_bit() {
    let scratch = Scratch::new();
    let run = scratch.run("demo").succeeds();
    let sizes = ["8 ", "6 ", "4 ", "3 ", "2 ", "1 "].map(|bits| {
        let mut lines = run.out.lines().map(str::trim_start);
        let line = lines.find(|line| line.starts_with(bits)).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert!(words[2].ends_with('×'), "{line}");
        assert!(words[4].contains("e-"), "{line}");
        words[1].replace(',', "").parse::<u64>().unwrap()
    });
    assert!(sizes.windows(2).all(|pair| pair[1] < pair[0]), "{sizes:?}");
    assert!(
        run.out
            .contains("palettizer compress Model.mlpackage -o Small.mlpackage --nbits 4")
    );
    assert!(run.out.contains("palettizer demo --save"));
    assert_eq!(scratch.names(), ["in.mlpackage"]);
}

#[test]
fn the_demo_can_be_kept() {
    let scratch = Scratch::new();
    let run = scratch.run("demo --save kept").succeeds();
    assert!(run.out.contains("The packages are in kept."), "{}", run.out);
    let kept = names(&scratch.path("kept"));
    let bits = [1, 2, 3, 4, 6, 8].map(|bits| format!("digits-{bits}-bit.mlpackage"));
    assert_eq!(kept[..6], bits);
    assert_eq!(kept[6..], ["digits.mlpackage"]);
    scratch.run("demo --save kept").fails(1, "use --force");
    scratch.run("demo --save kept --force").succeeds();
    scratch
        .run("inspect kept/digits-2-bit.mlpackage")
        .succeeds();
    std::fs::write(scratch.path("file"), "").unwrap();
    scratch.run("demo --save file").fails(1, "error: file: ");
}

#[test]
fn every_shell_gets_completions() {
    let scratch = Scratch::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let run = scratch.run(&format!("completions {shell}")).succeeds();
        for word in ["palettizer", "per-channel-scale", "decompress"] {
            assert!(run.out.contains(word), "{shell}: {word}");
        }
    }
}
