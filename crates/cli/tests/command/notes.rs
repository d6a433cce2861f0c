//! What is said beside the tables: nothing done, nothing to do, and forms that are known for trouble.

use crate::support::Scratch;
use serde_json::{Value, json};

#[test]
fn nothing_palettized_is_a_warning_with_the_reasons_first() {
    let scratch = Scratch::new();
    let run = scratch.run(
        "compress in.mlpackage -o out.mlpackage --nbits 4 --group-size 7 --weight-threshold 0",
    );
    assert_eq!(
        (run.code, run.err.as_str()),
        (
            0,
            "warning: nothing was palettized, 0 of 10 weights:\n  \
             5: one-dimensional\n  \
             2: group_size 7 does not divide the 64 channels of axis 0\n  \
             1: group_size 7 does not divide the 32 channels of axis 0\n  \
             1: group_size 7 does not divide the 96 channels of axis 0\n  \
             1: group_size 7 does not divide the 10 channels of axis 0\n"
        )
    );
    assert!(scratch.path("out.mlpackage").is_dir());

    let run = scratch
        .run("compress in.mlpackage -o none.mlpackage --nbits 4 --weight-threshold 99999999");
    let words = "warning: nothing was palettized: there is no weight";
    assert!(run.code == 0 && run.err.starts_with(words), "{run:?}");

    // One is enough.
    scratch
        .run("compress in.mlpackage -o some.mlpackage --op-name conv2_weight_to_fp16=4")
        .succeeds();
}

#[test]
fn a_dense_model_has_nothing_to_decompress() {
    let scratch = Scratch::new();
    let run = scratch
        .run("decompress in.mlpackage -o out.mlpackage")
        .succeeds();
    assert_eq!(
        run.out,
        "nothing to do: in.mlpackage has no compressed weights; out.mlpackage is a copy of it\n"
    );
    let weights = "Data/com.apple.CoreML/weights/weight.bin";
    let read = |package: &str| std::fs::read(scratch.path(package).join(weights)).unwrap();
    assert_eq!(read("out.mlpackage"), read("in.mlpackage"));
    scratch
        .run("compress in.mlpackage -o small.mlpackage --nbits 4")
        .succeeds();
    let run = scratch
        .run("decompress small.mlpackage -o dense.mlpackage")
        .succeeds();
    assert!(!run.out.contains("nothing to do"), "{}", run.out);
}

#[test]
fn forms_with_public_reports_are_noted() {
    let scratch = Scratch::new();
    let notes = |flags: &str| {
        let args = "compress in.mlpackage -o out.mlpackage --force --report r.json --nbits 4";
        std::fs::remove_file(scratch.path("r.json")).ok();
        let run = scratch.run(&format!("{args} {flags}")).succeeds();
        let report: Value = scratch.json("r.json");
        let notes = report["notes"].as_array().unwrap().clone();
        for note in &notes {
            let line = format!(
                "note: {} weights: {} ({})\n",
                note["weights"],
                note["text"].as_str().unwrap(),
                note["reference"].as_str().unwrap()
            );
            assert!(run.out.contains(&line), "{line}{}", run.out);
            assert!(line.contains("public reports") || line.contains("the guide of coremltools"));
        }
        assert_eq!(run.out.matches("note:").count(), notes.len());
        let short = notes
            .iter()
            .map(|note| json!([note["code"], note["weights"]]));
        short.collect::<Vec<_>>()
    };
    assert!(notes("").is_empty());
    assert!(notes("--group-size 8 --op-name dense2_weight_to_fp16=skip").is_empty());
    assert_eq!(
        notes("--per-channel-scale"),
        [json!(["per_channel_scale", 3])]
    );
    assert_eq!(notes("--group-size 4"), [json!(["many_tables", 3])]);
    assert_eq!(
        notes("--group-size 1 --per-channel-scale"),
        [json!(["per_channel_scale", 3]), json!(["many_tables", 3])]
    );
}
