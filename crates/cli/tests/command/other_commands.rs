//! `decompress`, `demo` and `completions`.

use std::path::Path;

use palettizer::coreml::Model;
use palettizer::runtime::Session;
use palettizer::values::Samples;

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
    let said = "The packages and the digits are in kept.";
    assert!(run.out.contains(said), "{}", run.out);
    let kept = names(&scratch.path("kept"));
    let bits = [1, 2, 3, 4, 6, 8].map(|bits| format!("digits-{bits}-bit.mlpackage"));
    assert_eq!(kept[..6], bits);
    let others = ["digits.mlpackage", "held-out-labels.txt", "held-out.npz"];
    assert_eq!(kept[6..], others);
    scratch.run("demo --save kept").fails(1, "use --force");
    scratch.run("demo --save kept --force").succeeds();
    scratch
        .run("inspect kept/digits-2-bit.mlpackage")
        .succeeds();
    std::fs::write(scratch.path("file"), "").unwrap();
    scratch.run("demo --save file").fails(1, "error: file: ");
}

/// The digits that a package of the folder reads right.
fn reads_right(folder: &Path, package: &str) -> usize {
    let model = Model::open(folder.join(package)).unwrap();
    let session = Session::new(&model).unwrap();
    let interface = session.interface(None).unwrap();
    let samples = Samples::open(folder.join("held-out.npz"), interface).unwrap();
    let labels = std::fs::read_to_string(folder.join("held-out-labels.txt")).unwrap();
    let labels: Vec<usize> = labels.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!((samples.len(), labels.len()), (360, 360));
    let right = labels.iter().enumerate().filter(|&(at, &label)| {
        let outputs = session.run(samples.get(at).unwrap()).unwrap();
        let scores = outputs["probabilities"].tensor().unwrap().floats().unwrap();
        (0..10).all(|other| other == label || scores[other] < scores[label])
    });
    right.count()
}

#[test]
fn the_demo_says_what_its_packages_read() {
    let scratch = Scratch::new();
    let run = scratch.run("demo --save kept").succeeds();
    let share = |package: &str| {
        let right = reads_right(&scratch.path("kept"), package);
        format!("{:.1}%", right as f64 / 3.6)
    };
    let shares = |first: &str| {
        let mut lines = run.out.lines().map(str::trim_start);
        let line = lines.find(|line| line.starts_with(first)).unwrap();
        line.split_whitespace()
            .find(|word| word.ends_with('%'))
            .unwrap()
            .to_owned()
    };
    assert_eq!(shares("as it is"), share("digits.mlpackage"));
    for bits in [8, 6, 4, 3, 2, 1] {
        let package = format!("digits-{bits}-bit.mlpackage");
        assert_eq!(shares(&format!("{bits} ")), share(&package), "{bits}");
    }
}

#[test]
fn the_demo_makes_a_page() {
    let scratch = Scratch::new();
    let run = scratch.run("demo --report demo.html").succeeds();
    assert!(run.out.contains("The page is demo.html."), "{}", run.out);
    assert_eq!(scratch.names(), ["demo.html", "in.mlpackage"]);
    let page = std::fs::read_to_string(scratch.path("demo.html")).unwrap();
    for part in ["\"widths\":[", "\"report\":{", "\"comparison\":{"] {
        assert!(page.contains(part), "{part}");
    }
    // an earlier page is replaced, and nothing else
    scratch.run("demo --report demo.html").succeeds();
    std::fs::write(scratch.path("diary.html"), "dear diary").unwrap();
    let run = scratch.run("demo --report diary.html");
    run.fails(1, "use --force");
    scratch
        .run("demo --report kept/digits.mlpackage/demo.html --save kept")
        .fails(2, "--report must not lie in a package");
    scratch.run("demo --report demo.json").fails(2, ".html");
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
