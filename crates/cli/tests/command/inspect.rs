//! `palettizer inspect`: the table and the JSON.

use crate::support::Scratch;
use serde_json::{Value, json};

#[test]
fn the_table_names_consumers_and_compression() {
    let scratch = Scratch::new();
    let run = scratch.run("inspect in.mlpackage").succeeds();
    let line = run.line("conv2_weight_to_fp16");
    assert_eq!(line[1..4], ["64×32×3×3", "fp16", "36,864"]);
    assert_eq!(line[6..], ["conv2_cast_fp16", "(conv.weight)", "-"]);
    assert!(
        run.out
            .contains("3 weights of more than 2,048 elements: 79,872 elements in 159,744 bytes"),
        "{}",
        run.out
    );

    scratch
        .run("compress in.mlpackage -o out.mlpackage --nbits 3")
        .succeeds();
    let run = scratch.run("inspect out.mlpackage").succeeds();
    let form = "3 bits, 1 LUT of fp16: lut_to_dense";
    assert!(run.out.contains(form), "{}", run.out);

    scratch
        .run("compress in.mlpackage -o more.mlpackage --nbits 4 --group-size 8 --cluster-dim 2 --lut-dtype int8 --per-channel-scale")
        .succeeds();
    let run = scratch.run("inspect more.mlpackage").succeeds();
    let form = "4 bits for 2, 8 LUTs of int8 for groups of 8, scaled: \
                blockwise_shift_scale + lut_to_dense + blockwise_shift_scale";
    assert!(run.out.contains(form), "{}", run.out);
    let run = scratch.run("inspect more.mlpackage --json").succeeds();
    let listing: Value = serde_json::from_str(&run.out).unwrap();
    let palette = json!({
        "nbits": 4, "luts": 8, "group_size": 8, "cluster_dim": 2, "lut_dtype": "int8", "per_channel_scale": true,
    });
    assert_eq!(listing["weights"][0]["compression"]["palette"], palette);
}

#[test]
fn json_has_every_weight() {
    let scratch = Scratch::new();
    let run = scratch
        .run("inspect in.mlpackage --json --weight-threshold 900")
        .succeeds();
    let listing: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(listing["version"], 1);
    let weights = listing["weights"].as_array().unwrap();
    assert_eq!(weights.len(), 4);
    let conv2 = weights
        .iter()
        .find(|weight| weight["name"] == "conv2_weight_to_fp16")
        .unwrap();
    for (key, value) in [
        ("shape", json!([64, 32, 3, 3])),
        ("dtype", json!("fp16")),
        ("elements", json!(18432)),
        ("bytes", json!(36864)),
        ("compression", json!(null)),
    ] {
        assert_eq!(conv2[key], value, "{key}");
    }
    let consumer = &conv2["consumers"][0];
    assert_eq!(consumer["op_type"], "conv");
    assert_eq!(consumer["name"], "conv2_cast_fp16");
    assert_eq!(consumer["params"]["weight"], "conv2_weight_to_fp16");
    assert!(conv2["sparsity"].as_f64().unwrap() < 0.1);
    assert!(conv2["unique_values"].as_u64().unwrap() > 1000);
}

#[test]
fn nothing_to_list_is_no_error() {
    let scratch = Scratch::new();
    let run = scratch
        .run("inspect in.mlpackage --weight-threshold 1000000")
        .succeeds();
    assert!(
        run.out
            .contains("0 weights of more than 1,000,000 elements"),
        "{}",
        run.out
    );
}
