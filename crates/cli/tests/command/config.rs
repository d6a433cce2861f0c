//! `palettizer compress --config`: what the file says, what flags add to it, what is refused.

use crate::support::Scratch;
use serde_json::{Value, json};

const YAML: &str = "
config_type: OpPalettizerConfig
global_config: {mode: uniform, nbits: 6, granularity: per_grouped_channel, group_size: 16}
op_type_configs:
  linear: {nbits: 2}
op_name_configs:
  conv2_weight_to_fp16: null
";

/// Runs with the file and flags; the weights of the report by the start of their names.
fn weights(scratch: &Scratch, file: &str, flags: &str) -> impl Fn(&str) -> Value {
    let run = scratch.run(&format!(
        "compress in.mlpackage -o out.mlpackage --force --report r.json --config {file} {flags}"
    ));
    assert_eq!(run.code, 0, "{run:?}");
    let report = scratch.json("r.json");
    move |name| {
        let weights = report["weights"].as_array().unwrap();
        let named = |weight: &&Value| weight["name"].as_str().unwrap().starts_with(name);
        weights.iter().find(named).unwrap().clone()
    }
}

#[test]
fn a_file_decides_and_rules_add_to_it() {
    let scratch = Scratch::new();
    std::fs::write(scratch.path("c.yaml"), YAML).unwrap();
    let found = weights(&scratch, "c.yaml", "");
    assert_eq!(found("conv3")["nbits"], 6);
    assert_eq!(found("conv3")["mode"], "uniform");
    assert_eq!(found("conv3")["luts"], 4);
    assert_eq!(found("dense1")["nbits"], 2);
    assert_eq!(found("dense1")["mode"], "kmeans");
    assert_eq!(found("conv2")["status"], "skipped");

    // a rule starts from the file's global settings, and replaces the file's own for that name
    let flags = "--op-type linear=8 --op-name conv2_weight_to_fp16=granularity=per_tensor --seed 1 --exact --strict";
    let found = weights(&scratch, "c.yaml", flags);
    assert_eq!(found("dense1")["nbits"], 8);
    assert_eq!(found("dense1")["mode"], "uniform");
    assert_eq!(found("conv2")["nbits"], 6);
    assert_eq!(found("conv2")["granularity"], "per_tensor");
    assert_eq!(found("conv3")["nbits"], 6);
}

#[test]
fn json_is_read_too() {
    let scratch = Scratch::new();
    let config = json!({"config_type": "OpPalettizerConfig", "op_type_configs": {"linear": {"mode": "unique"}, "conv": {"nbits": 1}}});
    std::fs::write(scratch.path("c.json"), config.to_string()).unwrap();
    let found = weights(&scratch, "c.json", "");
    assert_eq!(found("conv2")["nbits"], 1);
    assert_eq!(found("dense1")["status"], "skipped");
}

#[test]
fn a_bad_file_fails_and_leaves_nothing() {
    let scratch = Scratch::new();
    let table = [
        (
            "c.yaml",
            "config_type: OpPalettizerConfig\nop_type_configs: {conv: {nbits: 5}}",
            "error: c.yaml: op_type_configs.conv.nbits is 5; expected 1, 2, 3, 4, 6 or 8",
        ),
        (
            "c.yml",
            "config_type: OpPalettizerConfig\nglobal_config: {nbit: 4}",
            "error: c.yml: unknown key global_config.nbit (did you mean nbits?)",
        ),
        ("c.json", "{", "error: c.json: not valid JSON"),
        (
            "c.toml",
            "",
            "error: c.toml: a configuration is a .yaml, .yml or .json file",
        ),
    ];
    for (name, text, message) in table {
        std::fs::write(scratch.path(name), text).unwrap();
        let run = scratch.run(&format!(
            "compress in.mlpackage -o out.mlpackage --config {name}"
        ));
        run.fails(1, message);
        std::fs::remove_file(scratch.path(name)).unwrap();
    }
    let run = scratch.run("compress in.mlpackage -o out.mlpackage --config missing.yaml");
    run.fails(1, "error: missing.yaml: No such file");
    assert_eq!(scratch.names(), ["in.mlpackage"]);
}
