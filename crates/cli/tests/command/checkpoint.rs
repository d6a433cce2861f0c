//! `.safetensors` checkpoints: the same verbs and flags, and what they cannot have.

use palettizer::SaveOptions;
use palettizer::safetensors::{Checkpoint, Content, DenseTensor, ElementType};
use serde_json::{Value, json};

use crate::support::Scratch;

/// Pseudo-random numbers, the same in each run.
fn numbers(count: usize, seed: usize) -> Vec<u8> {
    let number = |at: usize| ((at * 7919 + seed) as f32 * 0.37).sin() * 0.5;
    let numbers = (0..count).map(number);
    numbers.flat_map(f32::to_le_bytes).collect()
}

/// Writes tensors of fp32.
fn write(scratch: &Scratch, name: &str, tensors: &[(&str, &[usize])]) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .enumerate()
        .map(|(seed, (_, shape))| numbers(shape.iter().product(), seed))
        .collect();
    let pairs = tensors.iter().zip(&bytes);
    let contents: Vec<(&str, Content<'_>)> = pairs
        .map(|((name, shape), bytes)| {
            let element = ElementType::F32;
            let shape = shape.to_vec();
            (
                *name,
                Content::Dense(DenseTensor::new(element, shape, bytes)),
            )
        })
        .collect();
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    Checkpoint::write(
        scratch.path(name),
        &contents,
        &metadata,
        SaveOptions::default(),
    )
    .unwrap();
}

const TENSORS: [(&str, &[usize]); 3] = [
    ("layers.0.weight", &[64, 64]),
    ("layers.0.bias", &[64]),
    ("layers.1.weight", &[32, 16, 3, 3]),
];

fn scratch() -> Scratch {
    let scratch = Scratch::new();
    write(&scratch, "in.safetensors", &TENSORS);
    scratch
}

/// Makes a folder of two shards of it.
fn folder(scratch: &Scratch) {
    std::fs::create_dir(scratch.path("in")).unwrap();
    write(scratch, "in/1.safetensors", &TENSORS[..2]);
    write(scratch, "in/2.safetensors", &TENSORS[2..]);
    let files = ["1.safetensors", "1.safetensors", "2.safetensors"];
    let map = TENSORS
        .iter()
        .zip(files)
        .map(|((name, _), file)| (name.to_string(), json!(file)));
    let index = json!({"weight_map": map.collect::<serde_json::Map<_, _>>()});
    let path = scratch.path("in/m.safetensors.index.json");
    std::fs::write(path, index.to_string()).unwrap();
}

#[test]
fn there_and_back() {
    let scratch = scratch();
    let run = scratch
        .run("compress in.safetensors -o out.safetensors --nbits 4 --group-size 16 --report r.json")
        .succeeds();
    assert_eq!(
        run.line("weight").join(" "),
        "weight shape dtype bits LUTs before after SNR dB"
    );
    let line = run.line("layers.0.weight");
    assert_eq!(line[1..7], ["64×64", "fp32", "4", "4", "16,384", "2,304"]);
    assert!(run.out.contains("skipped: one-dimensional"), "{}", run.out);
    assert!(
        run.out.ends_with("2 weights palettized, 1 skipped\n"),
        "{}",
        run.out
    );
    let report = scratch.json("r.json");
    assert_eq!(report["target"], Value::Null);
    assert_eq!(report["weights"].as_array().unwrap().len(), 3);
    let size = std::fs::metadata(scratch.path("out.safetensors"))
        .unwrap()
        .len();
    assert_eq!(report["bytes_after"], size);

    let run = scratch.run("inspect out.safetensors").succeeds();
    assert!(
        run.out.contains("4 bits, 4 LUTs of fp32 for groups of 16"),
        "{}",
        run.out
    );
    assert!(
        run.out.contains("2 tensors of more than 2,048 elements"),
        "{}",
        run.out
    );
    let run = scratch
        .run("inspect out.safetensors --json --weight-threshold 0")
        .succeeds();
    let listing: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(listing["version"], 1);
    let weight = &listing["weights"].as_array().unwrap()[1];
    assert_eq!(weight["name"], "layers.0.weight");
    assert_eq!(weight["palette"]["luts"], 4);
    assert_eq!(weight["palette"]["group_size"], 16);
    assert!(weight["unique_values"].as_u64().unwrap() <= 64);

    scratch
        .run("decompress out.safetensors -o dense.safetensors")
        .succeeds();
    let sizes = ["in.safetensors", "dense.safetensors"];
    let sizes = sizes.map(|name| std::fs::metadata(scratch.path(name)).unwrap().len());
    assert_eq!(sizes[0], sizes[1]);
}

#[test]
fn folders_of_shards_make_folders() {
    let scratch = scratch();
    folder(&scratch);
    let rules = [
        "--op-name",
        r"layers\..*\.weight=3",
        "--op-name",
        "layers.1.weight=skip",
    ];
    for input in ["in", "in/m.safetensors.index.json"] {
        let run = scratch.run_command(
            crate::support::binary()
                .args(["compress", input, "-o", "out", "--force"])
                .args(rules),
        );
        let run = run.succeeds();
        assert_eq!(run.line("layers.0.weight")[3], "3");
        let skipped = "1 skipped: the configuration skips it\n    layers.1.weight\n";
        assert!(run.out.contains(skipped), "{}", run.out);
    }
    let names = crate::support::names(&scratch.path("out"));
    assert_eq!(
        names,
        ["1.safetensors", "2.safetensors", "m.safetensors.index.json"]
    );
    let run = scratch.run("inspect out").succeeds();
    assert_eq!(run.line("tensor")[1], "file");
    assert_eq!(run.line("layers.0.weight")[1], "1.safetensors");
    scratch.run("decompress out -o dense").succeeds();
    assert_eq!(crate::support::names(&scratch.path("dense")), names);
}

#[test]
fn what_a_checkpoint_cannot_have_is_named() {
    let scratch = scratch();
    folder(&scratch);
    std::fs::write(
        scratch.path("c.yaml"),
        "config_type: OpPalettizerConfig\nop_type_configs: {linear: {nbits: 4}}\n",
    )
    .unwrap();
    std::fs::write(scratch.path("bad.safetensors"), "no header").unwrap();
    let before = scratch.names();
    let file = "compress in.safetensors -o out.safetensors";
    let table = [
        (
            2,
            format!("{file} --nbits 4 --op-type linear=8"),
            "--op-type is for Core ML models",
        ),
        (
            2,
            format!("{file} --op-type linear=8"),
            "--op-type is for Core ML models",
        ),
        (
            2,
            format!("{file} --nbits 4 --joint-compression"),
            "--joint-compression is for Core ML",
        ),
        (
            2,
            format!("{file} --nbits 4 --minimum-deployment-target iOS18"),
            "--minimum-deployment-target is for Core ML",
        ),
        (
            2,
            format!("{file} --config c.yaml"),
            "op type \"linear\" cannot be used",
        ),
        (
            2,
            format!("{file} --nbits 4 --sensitivity-default ones"),
            "--sensitivity <FILE>",
        ),
        (
            1,
            "compress in.safetensors -o out.mlpackage --nbits 4".to_owned(),
            "expected a name that ends in .safetensors",
        ),
        (
            1,
            "compress in -o out.safetensors --nbits 4".to_owned(),
            "expected the name of a folder",
        ),
        (
            1,
            "compress in.mlpackage -o out.safetensors --nbits 4".to_owned(),
            "expected a name that ends in .mlpackage",
        ),
        (
            1,
            "inspect bad.safetensors".to_owned(),
            "bad.safetensors: damaged safetensors file",
        ),
        (
            1,
            "inspect none.safetensors".to_owned(),
            "none.safetensors: No such file",
        ),
        (
            1,
            format!("{file} --nbits 4 --sensitivity none.safetensors"),
            "none.safetensors: No such",
        ),
        (
            3,
            format!("{file} --nbits 4 --group-size 5 --strict"),
            "group_size 5 does not divide",
        ),
    ];
    for (code, command, message) in table {
        scratch.run(&command).fails(code, message);
        assert_eq!(scratch.names(), before, "{command}");
    }
    let run = scratch.run(&format!("{file} --nbits 4 --op-name none.*=skip"));
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.err.contains("no tensor fits \"none.*\""), "{}", run.err);
}

#[test]
fn sensitivities_weigh_both_kinds_of_models() {
    let scratch = scratch();
    write(&scratch, "squares.safetensors", &TENSORS);
    let make_positive = |from: &str, to: &str| {
        let checkpoint = Checkpoint::open(scratch.path(from)).unwrap();
        let squares: Vec<(String, Vec<usize>, Vec<u8>)> = checkpoint
            .names()
            .into_iter()
            .map(|name| {
                let Content::Dense(tensor) = checkpoint.get(name).unwrap() else {
                    panic!("{name}")
                };
                let (values, _) = tensor.bytes.as_chunks::<4>();
                let values = values
                    .iter()
                    .map(|bytes| f32::from_le_bytes(*bytes).powi(2));
                let bytes = values.flat_map(f32::to_le_bytes).collect();
                (name.to_owned(), tensor.shape, bytes)
            })
            .collect();
        let contents: Vec<(&String, Content<'_>)> = squares
            .iter()
            .map(|(name, shape, bytes)| {
                let (element, shape) = (ElementType::F32, shape.clone());
                (
                    name,
                    Content::Dense(DenseTensor::new(element, shape, bytes)),
                )
            })
            .collect();
        let options = SaveOptions::default();
        Checkpoint::write(scratch.path(to), &contents, &Default::default(), options).unwrap();
    };
    make_positive("squares.safetensors", "s.safetensors");
    write(
        &scratch,
        "conv.safetensors",
        &[("conv2_weight_to_fp16", &[64, 32, 3, 3])],
    );
    make_positive("conv.safetensors", "conv_s.safetensors");

    let compress = |model: &str, flags: &str| {
        let extension = model.rsplit('.').next().unwrap();
        let run = scratch.run(&format!(
            "compress {model} -o out.{extension} --force --nbits 2 --report r.json {flags}"
        ));
        (run, scratch.json("r.json"))
    };
    let (_, plain) = compress("in.safetensors", "");
    let (run, weighted) = compress("in.safetensors", "--sensitivity s.safetensors");
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(weighted["weights"][0]["sensitivity"], Value::Null);
    assert_eq!(weighted["weights"][1]["sensitivity"], true);
    assert_ne!(weighted["weights"][1]["mse"], plain["weights"][1]["mse"]);

    let out = std::fs::read(scratch.path("out.safetensors")).unwrap();
    for (model, message) in [
        ("in.safetensors", "no sensitivity has the name of a weight"),
        ("in.mlpackage", ": missing"),
    ] {
        let (run, _) = compress(model, "--sensitivity conv_s.safetensors");
        run.fails(1, message);
    }
    assert_eq!(std::fs::read(scratch.path("out.safetensors")).unwrap(), out);
    let (run, report) = compress(
        "in.mlpackage",
        "--sensitivity conv_s.safetensors --sensitivity-default ones",
    );
    assert_eq!(run.code, 0, "{run:?}");
    let weights = report["weights"].as_array().unwrap();
    let weighted: Vec<&str> = weights
        .iter()
        .filter(|weight| weight["sensitivity"] == true)
        .map(|weight| weight["name"].as_str().unwrap())
        .collect();
    assert_eq!(weighted, ["conv2_weight_to_fp16"]);
}

#[test]
fn sensitivities_of_another_model_are_named_on_both_sides() {
    let scratch = scratch();
    write(
        &scratch,
        "other.safetensors",
        &[("module.layers.0.weight", &[64, 64]), ("lm_head", &[2, 2])],
    );
    for flags in ["", "--sensitivity-default ones"] {
        let run = scratch.run(&format!(
            "compress in.safetensors -o out.safetensors --nbits 4 --sensitivity other.safetensors {flags}"
        ));
        run.fails(
            1,
            "the weights to palettize are \"layers.0.weight\", \"layers.1.weight\"; \
             the sensitivities are of \"module.layers.0.weight\", \"lm_head\"",
        );
    }
}

#[test]
fn a_preset_spares_what_is_delicate() {
    let scratch = Scratch::new();
    let names: [(&str, &[usize]); 6] = [
        ("model.embed_tokens.weight", &[128, 64]),
        ("model.layers.0.self_attn.q_proj.weight", &[64, 64]),
        ("model.layers.0.self_attn.rotary_emb.cos_cached", &[128, 32]),
        ("model.layers.0.mlp.up_proj.weight", &[128, 64]),
        ("model.norm.weight", &[64]),
        ("lm_head.weight", &[128, 64]),
    ];
    write(&scratch, "in.safetensors", &names);
    std::fs::write(
        scratch.path("c.yaml"),
        "config_type: OpPalettizerConfig\npreset: llm\nglobal_config: {nbits: 4, cluster_dim: 2}\n",
    )
    .unwrap();
    let bits = |flags: &str| {
        let command =
            format!("compress in.safetensors -o out.safetensors --force --report r.json {flags}");
        scratch.run(&command).succeeds();
        let report = scratch.json("r.json");
        let weights = report["weights"].as_array().unwrap().iter();
        let bits = weights.map(|weight| weight["nbits"].as_u64().unwrap_or(0));
        bits.collect::<Vec<_>>()
    };
    // the order of the file is that of the data
    let expected = bits("--nbits 4 --preset llm");
    assert_eq!(bits("--config c.yaml"), expected);
    assert_eq!(bits("--config c.yaml --preset llm"), expected);
    let report = scratch.json("r.json");
    let row = |name: &str| {
        let mut weights = report["weights"].as_array().unwrap().iter();
        weights
            .find(|weight| weight["name"] == name)
            .unwrap()
            .clone()
    };
    for (name, nbits) in [
        ("model.embed_tokens.weight", json!(8)),
        ("lm_head.weight", json!(8)),
        ("model.layers.0.self_attn.q_proj.weight", json!(4)),
        ("model.layers.0.mlp.up_proj.weight", json!(4)),
        (
            "model.layers.0.self_attn.rotary_emb.cos_cached",
            Value::Null,
        ),
    ] {
        assert_eq!(row(name)["nbits"], nbits, "{name}");
    }
    assert_eq!(row("lm_head.weight")["cluster_dim"], 1);
    let reason = "the preset llm leaves rotary tables and masks as they are";
    assert_eq!(
        row("model.layers.0.self_attn.rotary_emb.cos_cached")["reason"],
        reason
    );

    // a rule goes before it
    scratch
        .run("compress in.safetensors -o out.safetensors --force --report r.json --nbits 4 --preset llm --op-name lm_head.*=6 --op-name .*cos.*=2")
        .succeeds();
    let report = scratch.json("r.json");
    let mut found: Vec<u64> = (report["weights"].as_array().unwrap().iter())
        .filter_map(|weight| weight["nbits"].as_u64())
        .collect();
    found.sort_unstable();
    assert_eq!(found, [2, 4, 4, 6, 8]);
    scratch
        .run("compress in.safetensors -o o.safetensors --preset llm")
        .fails(2, "how many bits?");
    scratch
        .run("compress in.safetensors -o o.safetensors --nbits 4 --preset big")
        .fails(2, "unknown preset \"big\"; expected llm");
}
