//! `palettizer compress`: the table, the report, `--force`, `--strict`, what settings apply to what.

use crate::support::{Run, Scratch, binary};
use serde_json::{Value, json};

const TO: &str = "compress in.mlpackage -o out.mlpackage";

/// What a report says of the weight whose name starts so.
fn weight<'a>(report: &'a Value, name: &str) -> &'a Value {
    let weights = report["weights"].as_array().unwrap();
    let found = weights
        .iter()
        .find(|weight| weight["name"].as_str().unwrap().starts_with(name));
    found.unwrap_or_else(|| panic!("no {name} in {report}"))
}

fn report(scratch: &Scratch, flags: &str) -> Value {
    let run = scratch.run(&format!("{TO} --force --report r.json {flags}"));
    assert_eq!(run.code, 0, "{flags}: {run:?}");
    scratch.json("r.json")
}

#[test]
fn the_table_lines_up_with_the_report() {
    let scratch = Scratch::new();
    let run = scratch
        .run(&format!("{TO} --nbits 4 --report r.json"))
        .succeeds();
    let report = scratch.json("r.json");
    assert_eq!(scratch.names(), ["in.mlpackage", "out.mlpackage", "r.json"]);
    assert_eq!(
        run.line("weight"),
        "weight consumer shape dtype bits LUTs before after SNR dB"
            .split(' ')
            .collect::<Vec<_>>()
    );
    let conv3 = weight(&report, "conv3_weight");
    let snr = format!("{:.1}", conv3["snr_db"].as_f64().unwrap());
    let line = run.line("conv3_weight");
    assert_eq!(
        line[1..8],
        ["conv", "64×64×3×3", "fp16", "4", "1", "73,728", "18,464"]
    );
    assert_eq!(line[8], snr);
    let columns = |line: &str| line.chars().count();
    let lines: Vec<&str> = run
        .out
        .lines()
        .take_while(|line| !line.is_empty())
        .collect();
    let done = lines.iter().filter(|line| !line.contains("skipped"));
    assert!(done.clone().count() >= 4, "{lines:?}");
    assert!(
        done.clone().all(|line| columns(line) == columns(lines[0])),
        "{lines:?}"
    );

    let before = report["bytes_before"].as_u64().unwrap();
    let after = report["bytes_after"].as_u64().unwrap();
    assert!(after * 3 < before, "{report}");
    let total = run
        .out
        .lines()
        .find(|line| line.contains(" bytes ("))
        .unwrap();
    let ratio = format!("{:.2}× smaller", before as f64 / after as f64);
    for part in [ratio.as_str(), "bits per weight", "53,799", " → "] {
        assert!(total.contains(part), "{part} is not in {total}");
    }
    assert!(!run.out.contains('\u{1b}'));
}

#[test]
fn the_report_has_every_field() {
    let scratch = Scratch::new();
    let report = report(&scratch, "--nbits 4 --group-size 32 --weight-threshold 500");
    assert_eq!(report["version"], 1);
    assert_eq!(report["target"], "iOS18");
    assert_eq!(report["unmatched"], json!([]));
    for key in ["seconds", "bits_per_weight"] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{report}");
    }
    let done = weight(&report, "conv2_weight");
    for (key, value) in [
        ("op_types", json!(["conv"])),
        ("shape", json!([64, 32, 3, 3])),
        ("dtype", json!("fp16")),
        ("status", json!("compressed")),
        ("reason", json!(null)),
        ("nbits", json!(4)),
        ("mode", json!("kmeans")),
        ("granularity", json!("per_grouped_channel")),
        ("group_size", json!(32)),
        ("cluster_dim", json!(1)),
        ("luts", json!(2)),
        ("bytes_before", json!(36864)),
    ] {
        assert_eq!(done[key], value, "{key}");
    }
    for key in ["bytes_after", "mse", "snr_db"] {
        assert!(done[key].as_f64().unwrap() > 0.0, "{key}: {done}");
    }
    let skipped = weight(&report, "dense2_weight");
    assert_eq!(skipped["status"], "skipped");
    assert_eq!(
        skipped["reason"],
        "group_size 32 does not divide the 10 channels of axis 0"
    );
    assert_eq!(skipped["bytes_before"], skipped["bytes_after"]);
    assert_eq!(skipped["nbits"], json!(null));
}

#[test]
fn a_report_on_stdout_has_stdout_for_itself() {
    let scratch = Scratch::new();
    let run = scratch.run(&format!("{TO} --nbits 2 --report -"));
    assert_eq!(run.code, 0);
    let report: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(weight(&report, "conv2")["nbits"], 2);
    assert!(run.err.starts_with("weight "), "{}", run.err);
    assert_eq!(scratch.names(), ["in.mlpackage", "out.mlpackage"]);
}

#[test]
fn flags_reach_the_palette() {
    let scratch = Scratch::new();
    let table = [
        (
            "--nbits 6",
            "conv2",
            json!({"nbits": 6, "mode": "kmeans", "granularity": "per_tensor", "luts": 1}),
        ),
        (
            "--nbits 3 --mode UNIFORM",
            "conv2",
            json!({"nbits": 3, "mode": "uniform"}),
        ),
        (
            "--nbits 4 --group-size 16",
            "conv2",
            json!({"granularity": "per_grouped_channel", "group_size": 16, "luts": 4}),
        ),
        (
            "--nbits 4 --channel-axis -3",
            "conv3",
            json!({"granularity": "per_grouped_channel", "group_size": 32, "luts": 2}),
        ),
        (
            "--nbits 4 --granularity per_grouped_channel",
            "conv3",
            json!({"group_size": 32, "luts": 2}),
        ),
        (
            "--nbits 4 --cluster-dim 2 --seed 3",
            "conv2",
            json!({"cluster_dim": 2, "bytes_after": 4672}),
        ),
        (
            "--nbits 4 --op-type linear=8",
            "dense1",
            json!({"nbits": 8}),
        ),
        ("--nbits 4 --op-type linear=8", "conv2", json!({"nbits": 4})),
        (
            "--nbits 4 --op-type linear=skip",
            "dense1",
            json!({"status": "skipped"}),
        ),
        (
            "--nbits 4 --op-name conv2_weight_to_fp16=skip",
            "conv2",
            json!({"status": "skipped"}),
        ),
        (
            "--nbits 4 --op-name conv2_cast_fp16=nbits=6,mode=uniform",
            "conv2",
            json!({"nbits": 6, "mode": "uniform"}),
        ),
        ("--op-type linear=8", "conv2", json!({"status": "skipped"})),
        ("--op-type linear=8", "dense1", json!({"nbits": 8})),
        (
            "--mode uniform --op-type linear=8",
            "dense1",
            json!({"nbits": 8, "mode": "uniform"}),
        ),
        (
            "--nbits 4 --exact --threads 1",
            "conv2",
            json!({"nbits": 4}),
        ),
        (
            "--nbits 4 --minimum-deployment-target macos26",
            "conv2",
            json!({"nbits": 4}),
        ),
    ];
    for (flags, name, expected) in table {
        let report = report(&scratch, flags);
        let found = weight(&report, name);
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&found[key], value, "{flags}: {key} of {found}");
        }
    }
}

#[test]
fn integer_tables_and_scales_are_written() {
    let scratch = Scratch::new();
    let size = |flags: &str| {
        weight(&report(&scratch, flags), "conv2")["bytes_after"]
            .as_u64()
            .unwrap()
    };
    let plain = size("--nbits 4");
    assert!(size("--nbits 4 --lut-dtype int8") < plain);
    assert!(size("--nbits 4 --lut-dtype uint8") < plain);
    assert!(size("--nbits 4 --per-channel-scale") > plain);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let scratch = Scratch::new();
    for threads in [1, 3] {
        let flags = "--nbits 4 --cluster-dim 2 --group-size 32";
        let run = scratch.run(&format!(
            "compress in.mlpackage -o {threads}.mlpackage {flags} --threads {threads}"
        ));
        run.succeeds();
    }
    for file in ["model.mlmodel", "weights/weight.bin"] {
        let [one, three] = [1, 3].map(|threads| {
            let path = format!("{threads}.mlpackage/Data/com.apple.CoreML/{file}");
            std::fs::read(scratch.path(&path)).unwrap()
        });
        assert!(one == three, "{file}");
    }
}

#[test]
fn names_that_fit_nothing_are_told() {
    let scratch = Scratch::new();
    let run = scratch.run(&format!(
        "{TO} --nbits 4 --op-type liner=8 --op-name conv9=skip"
    ));
    assert_eq!(run.code, 0);
    for hint in [
        "\"liner\"; did you mean linear?",
        "\"conv9\"; palettizer inspect lists them",
    ] {
        let warning = format!("warning: no op, op type or constant with a weight fits {hint}");
        assert!(run.err.contains(&warning), "{}", run.err);
    }
}

#[test]
fn an_output_is_replaced_only_by_force() {
    let scratch = Scratch::new();
    scratch.run(&format!("{TO} --nbits 4")).succeeds();
    scratch
        .run(&format!("{TO} --nbits 2"))
        .fails(1, "use --force");
    scratch.run(&format!("{TO} --nbits 2 --force")).succeeds();
    scratch
        .run("compress in.mlpackage -o in.mlpackage --nbits 2 --force")
        .succeeds();
    let run = scratch.run("inspect in.mlpackage").succeeds();
    assert!(
        run.out.contains("2 bits, 1 LUT of fp16: lut_to_dense"),
        "{}",
        run.out
    );
}

#[test]
fn strict_makes_a_skip_an_error() {
    let scratch = Scratch::new();
    let run = scratch.run(&format!(
        "{TO} --nbits 4 --group-size 48 --strict --report r.json"
    ));
    run.fails(3, "group_size 48 does not divide the 64 channels of axis 0");
    assert_eq!(scratch.names(), ["in.mlpackage"]);
    let run = scratch.run(&format!("{TO} --nbits 4 --op-type linear=skip --strict"));
    run.succeeds();
}

#[test]
fn colours_are_for_terminals_and_who_asks_for_them() {
    let scratch = Scratch::new();
    let args = format!("{TO} --nbits 4 --force");
    let coloured =
        |name: &str| -> Run { scratch.run_command(binary().args(args.split(' ')).env(name, "1")) };
    assert!(coloured("CLICOLOR_FORCE").out.contains("\u{1b}[1m"));
    assert!(!coloured("NO_COLOR").out.contains('\u{1b}'));
}
