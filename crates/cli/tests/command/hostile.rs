//! Files made to harm: names that a terminal would act on, weights that unfold, and files that are no files.

use crate::support::{Scratch, binary};
use serde_json::{Map, Value, json};

/// A name that clears the screen, writes a line of its own, and turns the text around.
const NAME: &str = "a\u{1b}[2J\r\nerror: all is well\u{7}\u{202e}\u{9b}1m.weight";

/// The same as it is shown.
const SHOWN: &str = "a\\u{1b}[2J\\r\\nerror: all is well\\u{7}\\u{202e}\\u{9b}1m.weight";

/// A safetensors file of these tensors: name, type, shape, bytes.
fn file(tensors: &[(&str, &str, Value, Vec<u8>)], metadata: Value) -> Vec<u8> {
    let mut header = Map::from_iter([("__metadata__".to_owned(), metadata)]);
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let start = data.len();
        data.extend_from_slice(bytes);
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]});
        header.insert((*name).to_owned(), entry);
    }
    let header = Value::Object(header).to_string();
    [
        &(header.len() as u64).to_le_bytes(),
        header.as_bytes(),
        &data,
    ]
    .concat()
}

fn is_clean(text: &str) {
    let active = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!text.contains(active), "{text:?}");
    assert!(
        !text
            .lines()
            .any(|line| line.starts_with("error: all is well")),
        "{text:?}"
    );
}

#[test]
fn names_are_shown_without_what_a_terminal_acts_on() {
    let scratch = Scratch::new();
    let weight = (NAME, "F32", json!([64, 64]), vec![1; 64 * 64 * 4]);
    std::fs::write(scratch.path("in.safetensors"), file(&[weight], json!({}))).unwrap();
    let listed = scratch.run("inspect in.safetensors");
    is_clean(&listed.out);
    assert!(listed.out.contains(SHOWN), "{}", listed.out);
    // JSON escapes them by itself, and keeps the name.
    let listed = scratch.run("inspect in.safetensors --json");
    let listing: Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(listing["weights"][0]["name"], NAME);

    let done = scratch.run("compress in.safetensors -o out.safetensors --nbits 4 --report r.json");
    assert_eq!(done.code, 0, "{done:?}");
    is_clean(&done.out);
    is_clean(&done.err);
    assert_eq!(scratch.json("r.json")["weights"][0]["name"], NAME);
    let strict = "compress in.safetensors -o strict.safetensors --nbits 4 --group-size 48 --strict";
    let failed = scratch.run(strict);
    assert_eq!(failed.code, 3, "{failed:?}");
    is_clean(&failed.err);
    assert!(failed.err.contains(SHOWN), "{}", failed.err);

    let cut = [(NAME, "F32", json!([64, 65]), vec![1; 64])];
    std::fs::write(scratch.path("cut.safetensors"), file(&cut, json!({}))).unwrap();
    let failed = scratch.run("inspect cut.safetensors");
    assert_eq!(failed.code, 1, "{failed:?}");
    is_clean(&failed.err);
    assert!(failed.err.contains(SHOWN), "{}", failed.err);
}

#[test]
fn what_unfolds_is_listed_and_refused_until_it_is_allowed() {
    let scratch = Scratch::new();
    // 4,096 indices of one bit, into vectors of 65,536 elements: 256 MiB and a little more.
    let rows = 4100_usize;
    let meta = json!({"w": {
        "dtype": "F16", "shape": [rows, 65536], "nbits": 1, "index_shape": [rows, 1], "vector_axis": 1,
    }});
    let tensors = [
        (
            "w.palette.lut",
            "F16",
            json!([1, 1, 2, 65536]),
            vec![1; 262_144],
        ),
        (
            "w.palette.indices",
            "U8",
            json!([rows.div_ceil(8)]),
            vec![0; rows.div_ceil(8)],
        ),
    ];
    let metadata = json!({"palettizer.format": "1", "palettizer.weights": meta.to_string()});
    std::fs::write(scratch.path("in.safetensors"), file(&tensors, metadata)).unwrap();
    let listed = scratch.run("inspect in.safetensors");
    assert!(listed.out.contains("4100×65536"), "{}", listed.out);
    let run = "decompress in.safetensors -o out.safetensors";
    scratch
        .run(run)
        .fails(1, "error: \"w\": unfolds to 537395200 bytes");
    assert_eq!(scratch.names(), ["in.mlpackage", "in.safetensors"]);
    let allowed = scratch.run(&format!("{run} --max-expansion 3000"));
    assert_eq!(allowed.code, 0, "{allowed:?}");
    for command in ["compress", "inspect", "decompress"] {
        let help = scratch.run(&format!("{command} --help"));
        assert!(help.out.contains("--max-expansion"), "{}", help.out);
    }
}

#[cfg(unix)]
#[test]
fn pipes_are_refused_in_one_sentence() {
    let scratch = Scratch::new();
    for name in ["p.mlpackage", "p.safetensors", "p.yaml", "p"] {
        let made = std::process::Command::new("mkfifo")
            .arg(scratch.path(name))
            .status();
        assert!(made.unwrap().success());
    }
    let out = "-o out.mlpackage --nbits 4";
    for (command, path) in [
        ("inspect p.mlpackage".to_owned(), "p.mlpackage"),
        ("inspect p.safetensors".to_owned(), "p.safetensors"),
        (
            format!("compress in.mlpackage {out} --sensitivity p.safetensors"),
            "p.safetensors",
        ),
        (
            "compress in.mlpackage -o out.mlpackage --config p.yaml".to_owned(),
            "p.yaml",
        ),
        (
            "compress in.mlpackage -o out.mlpackage --config p".to_owned(),
            "p",
        ),
    ] {
        let run = scratch.run(&command);
        run.fails(
            1,
            &format!("error: {path}: expected a regular file here, found a pipe"),
        );
        assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    }
    // What `--config <(make config)` and a pipe into `--config /dev/stdin` come to.
    let mut command = binary();
    command.args([
        "compress",
        "in.mlpackage",
        "-o",
        "out.mlpackage",
        "--config",
        "/dev/stdin",
    ]);
    command.stdin(std::process::Stdio::piped());
    scratch
        .run_command(&mut command)
        .fails(1, "/dev/stdin: expected a regular file here, found a pipe");
}
