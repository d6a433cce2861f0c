//! Cases as tables: what is read, and what is refused with which words.

use super::*;
use palettizer_palette::{Granularity, LutDtype, Mode, Nbits, PaletteSpec, Precision};
use serde_json::json;

fn read_global(settings: Value) -> Result<OptimizationConfig, ConfigError> {
    from_value(
        &json!({"config_type": "OpPalettizerConfig", "global_config": settings}),
        &OpOptions::default(),
    )
}

fn grouped(group_size: usize, channel_axis: Option<i64>) -> Granularity {
    Granularity::PerGroupedChannel {
        group_size,
        channel_axis,
    }
}

#[test]
fn settings_that_are_read() {
    let k4 = || PaletteSpec::new(Mode::Kmeans(Nbits::B4));
    let table = [
        (json!({"nbits": 4}), k4()),
        (
            json!({"nbits": 4, "config_type": "OpPalettizerConfig"}),
            k4(),
        ),
        (
            json!({"mode": "KMeans", "nbits": 1}),
            PaletteSpec::new(Mode::Kmeans(Nbits::B1)),
        ),
        (
            json!({"mode": "UNIFORM", "nbits": 8}),
            PaletteSpec::new(Mode::Uniform(Nbits::B8)),
        ),
        (json!({"mode": "unique"}), PaletteSpec::new(Mode::Unique)),
        (
            json!({"mode": "unique", "nbits": null}),
            PaletteSpec::new(Mode::Unique),
        ),
        (json!({"nbits": 4, "granularity": "per_tensor"}), k4()),
        // as there: group_size and channel_axis count only for groups
        (
            json!({"nbits": 4, "group_size": 16, "channel_axis": 1}),
            k4(),
        ),
        (
            json!({"nbits": 4, "granularity": "per_grouped_channel"}),
            k4().with_granularity(grouped(32, None)),
        ),
        (
            json!({"nbits": 4, "granularity": "per_grouped_channel", "channel_axis": null}),
            k4().with_granularity(grouped(32, None)),
        ),
        (
            json!({"nbits": 4, "granularity": "per_grouped_channel", "group_size": 1, "channel_axis": -1}),
            k4().with_granularity(grouped(1, Some(-1))),
        ),
        (
            json!({"nbits": 4, "cluster_dim": 4}),
            k4().with_cluster_dim(4),
        ),
        (
            json!({"nbits": 4, "enable_per_channel_scale": true}),
            k4().with_per_channel_scale(true),
        ),
        (
            json!({"nbits": 4, "lut_dtype": "int8"}),
            k4().with_lut_dtype(LutDtype::Int8),
        ),
        (
            json!({"nbits": 4, "lut_dtype": "UINT8"}),
            k4().with_lut_dtype(LutDtype::Uint8),
        ),
        (json!({"nbits": 4, "lut_dtype": "float"}), k4()),
        (json!({"nbits": 4, "num_kmeans_workers": 4}), k4()),
    ];
    for (settings, expected) in table {
        let config = read_global(settings.clone()).unwrap();
        let expected = OpPalettizerConfig::new(expected);
        assert_eq!(config.global(), Some(&expected), "{settings}");
    }
    let config = read_global(json!({"nbits": 4, "weight_threshold": 0})).unwrap();
    assert_eq!(config.global().unwrap().weight_threshold(), 0);
}

#[test]
fn settings_that_are_refused() {
    let workers = "a whole number, 1 or more";
    let table = [
        (json!({}), "global_config.nbits is missing; expected 1, 2, 3, 4, 6 or 8 (mode kmeans needs it)".to_owned()),
        (json!({"mode": "uniform", "nbits": null}), "global_config.nbits is missing; expected 1, 2, 3, 4, 6 or 8 (mode uniform needs it)".to_owned()),
        (json!({"nbits": 5}), "global_config.nbits is 5; expected 1, 2, 3, 4, 6 or 8".to_owned()),
        (json!({"nbits": "4"}), "global_config.nbits is \"4\"; expected 1, 2, 3, 4, 6 or 8".to_owned()),
        (json!({"nbits": 4.5}), "global_config.nbits is 4.5; expected 1, 2, 3, 4, 6 or 8".to_owned()),
        (json!({"nbits": -4}), "global_config.nbits is -4; expected 1, 2, 3, 4, 6 or 8".to_owned()),
        (json!({"nbits": 260}), "global_config.nbits is 260; expected 1, 2, 3, 4, 6 or 8".to_owned()),
        (json!({"nbits": true}), "global_config.nbits is true; expected 1, 2, 3, 4, 6 or 8".to_owned()),
        (json!({"mode": "unique", "nbits": 4}), "global_config.nbits is 4 with mode unique; expected none: the mode takes as many bits as the values need".to_owned()),
        (json!({"mode": "kmean", "nbits": 4}), "global_config.mode is \"kmean\"; expected kmeans, uniform or unique".to_owned()),
        (json!({"mode": null, "nbits": 4}), "global_config.mode is null; expected kmeans, uniform or unique".to_owned()),
        (json!({"mode": "custom"}), "global_config.mode is custom, which needs a function, and flags and files hold none; expected kmeans, uniform or unique (Mode::Custom of the Rust API and lut_function of the Python API take one)".to_owned()),
        (json!({"mode": "custom", "lut_function": "f"}), "global_config.lut_function is \"f\"; expected no such key, because a file cannot hold a function; use Mode::Custom of the Rust API, or one of kmeans, uniform, unique".to_owned()),
        (json!({"nbits": 4, "granularity": "per_channel"}), "global_config.granularity is \"per_channel\"; expected per_tensor or per_grouped_channel".to_owned()),
        (json!({"nbits": 4, "group_size": -1}), "global_config.group_size is -1; expected a whole number, 0 or more".to_owned()),
        (json!({"nbits": 4, "group_size": null}), "global_config.group_size is null; expected a whole number, 0 or more".to_owned()),
        (json!({"nbits": 4, "group_size": [1]}), "global_config.group_size is a list; expected a whole number, 0 or more".to_owned()),
        (json!({"nbits": 4, "channel_axis": "1"}), "global_config.channel_axis is \"1\"; expected a whole number, or null to pick it from the op".to_owned()),
        (json!({"nbits": 4, "cluster_dim": 0}), format!("global_config.cluster_dim is 0; expected {workers}")),
        (json!({"nbits": 4, "cluster_dim": 2, "mode": "uniform"}), "global_config.cluster_dim is 2 with mode uniform; expected 1, or mode kmeans or unique".to_owned()),
        (json!({"mode": "unique", "lut_dtype": "int8"}), "global_config.lut_dtype is int8 with mode unique; expected float, or mode kmeans or uniform".to_owned()),
        (json!({"nbits": 4, "lut_dtype": "int4"}), "global_config.lut_dtype is \"int4\"; expected float, int8 or uint8".to_owned()),
        (json!({"nbits": 4, "enable_per_channel_scale": "yes"}), "global_config.enable_per_channel_scale is \"yes\"; expected true or false".to_owned()),
        (json!({"nbits": 4, "num_kmeans_workers": 0}), format!("global_config.num_kmeans_workers is 0; expected {workers}")),
        (json!({"nbits": 4, "weight_threshold": -1}), "global_config.weight_threshold is -1; expected a whole number, 0 or more".to_owned()),
        (json!({"nbits": 4, "weight_threshold": null}), "global_config.weight_threshold is null; expected a whole number, 0 or more".to_owned()),
        (json!({"config_type": "OpLinearQuantizerConfig"}), "global_config.config_type is \"OpLinearQuantizerConfig\"; expected OpPalettizerConfig".to_owned()),
        (json!(4), "global_config is 4; expected a mapping such as {nbits: 4}, or null for none".to_owned()),
        (json!({"a": {}, "nbits": {}}), "unknown key global_config.a; expected one of nbits, mode, granularity, group_size, channel_axis, cluster_dim, enable_per_channel_scale, lut_dtype, weight_threshold, config_type, num_kmeans_workers".to_owned()),
    ];
    for (settings, expected) in table {
        let error = read_global(settings.clone()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{settings}");
    }
}

#[test]
fn a_typo_gets_the_nearest_key() {
    let table = [
        ("nbit", Some("nbits")),
        ("n_bits", Some("nbits")),
        ("Mode", Some("mode")),
        ("group-size", Some("group_size")),
        ("groupsize", Some("group_size")),
        ("chanel_axis", Some("channel_axis")),
        ("per_channel_scale", Some("enable_per_channel_scale")),
        ("weight_treshold", Some("weight_threshold")),
        ("dtype", Some("lut_dtype")),
        ("x", None),
    ];
    for (typo, expected) in table {
        match read_global(json!({typo: 4})).unwrap_err() {
            ConfigError::UnknownKey { key, nearest, .. } => {
                assert_eq!(key, format!("global_config.{typo}"));
                assert_eq!(nearest, expected, "{typo}");
            }
            error => panic!("{typo}: {error}"),
        }
    }
    let long = "n".repeat(1000);
    let message = read_global(json!({long: 4})).unwrap_err().to_string();
    assert!(message.len() < 400, "{message}");
}

#[test]
fn whole_configurations_that_are_refused() {
    let table = [
        (
            "",
            "the configuration is null; expected a mapping with the key config_type",
        ),
        (
            "[1]",
            "the configuration is a list; expected a mapping with the key config_type",
        ),
        (
            "global_config: {nbits: 4}",
            "config_type is missing; expected OpPalettizerConfig",
        ),
        (
            "config_type: OpMagnitudePrunerConfig",
            "config_type is \"OpMagnitudePrunerConfig\"; expected OpPalettizerConfig",
        ),
        (
            "config_type: null",
            "config_type is null; expected OpPalettizerConfig",
        ),
        (
            "config_type: OpPalettizerConfig\nop_name_config: {}",
            "unknown key op_name_config (did you mean op_name_configs?); expected one of config_type, preset, global_config, op_type_configs, op_name_configs, budget",
        ),
        (
            "config_type: OpPalettizerConfig\nop_type_configs: [linear]",
            "op_type_configs is a list; expected a mapping from names to settings",
        ),
        (
            "config_type: OpPalettizerConfig\nop_type_configs: {conv: {nbits: 7}}",
            "op_type_configs.conv.nbits is 7; expected 1, 2, 3, 4, 6 or 8",
        ),
        (
            "config_type: OpPalettizerConfig\nop_name_configs: {conv_1: skip}",
            "op_name_configs.conv_1 is \"skip\"; expected a mapping such as {nbits: 4}, or null for none",
        ),
        (
            "config_type: OpPalettizerConfig\nop_type_configs: {const: {nbits: 4}}",
            "op_type_configs.const: constants have no settings by op type; use global_config, or op_name_configs with a constant's name",
        ),
        (
            "config_type: OpPalettizerConfig\nconfig_type: OpPalettizerConfig",
            "not valid YAML: ",
        ),
        (
            "config_type: OpPalettizerConfig\nop_type_configs: {conv: null, conv: {nbits: 4}}",
            "not valid YAML: ",
        ),
        ("config_type: !thing OpPalettizerConfig", "not valid YAML: "),
        ("config_type: [", "not valid YAML: "),
        ("a: 1\n---\nb: 2", "not valid YAML: "),
    ];
    for (text, expected) in table {
        let message = from_yaml_str(text, &OpOptions::default())
            .unwrap_err()
            .to_string();
        if expected.starts_with("not valid") {
            assert!(message.starts_with(expected), "{text}: {message}");
        } else {
            assert_eq!(message, expected, "{text}");
        }
    }
    for text in ["", "{", "{} {}", "{\"a\": 1, \"a\": 2}", "{'a': 1}"] {
        let message = from_json_str(text, &OpOptions::default())
            .unwrap_err()
            .to_string();
        assert!(message.starts_with("not valid JSON: "), "{text}: {message}");
    }
}

#[test]
fn every_level_is_read() {
    let text = "
config_type: OpPalettizerConfig
global_config: {mode: kmeans, nbits: 4}
op_type_configs:
  conv: {mode: uniform, nbits: 1}
  linear: null
op_name_configs:
  conv_1: {mode: unique}
  5: {nbits: 2}
";
    let mut base = OpOptions::default();
    base.spec.precision = Some(Precision::Exact);
    base.spec.seed = Some(7);
    let config = from_yaml_str(text, &base).unwrap();
    let spec = |mode| {
        let spec = PaletteSpec::new(mode).with_seed(7);
        Some(OpPalettizerConfig::new(
            spec.with_precision(Precision::Exact),
        ))
    };
    let expected = OptimizationConfig::new()
        .with_global(spec(Mode::Kmeans(Nbits::B4)))
        .with_op_type("conv", spec(Mode::Uniform(Nbits::B1)))
        .with_op_type("linear", None)
        .with_op_name("conv_1", spec(Mode::Unique))
        .with_op_name("5", spec(Mode::Kmeans(Nbits::B2)));
    assert_eq!(config, expected);
    let json = serde_json::to_string(&yaml_value(text).unwrap()).unwrap();
    assert_eq!(from_json_str(&json, &base).unwrap(), expected);
}

#[test]
fn nulls_are_nothing() {
    let text =
        "config_type: OpPalettizerConfig\nglobal_config:\nop_type_configs: ~\nop_name_configs: {}";
    assert_eq!(
        from_yaml_str(text, &OpOptions::default()).unwrap(),
        OptimizationConfig::new()
    );
}

#[test]
fn yaml_anchors_and_merges() {
    let text = "
config_type: OpPalettizerConfig
global_config: &base {nbits: 4, cluster_dim: 2}
op_type_configs:
  conv: *base
  linear: {<<: *base, nbits: 8}
  matmul: {<<: [{nbits: 1}, *base]}
";
    let config = from_yaml_str(text, &OpOptions::default()).unwrap();
    let modes = ["conv", "linear", "matmul"].map(|op_type| {
        let spec = config.op_types()[op_type].as_ref().unwrap().spec();
        (spec.mode().nbits().unwrap().bits(), spec.cluster_dim())
    });
    assert_eq!(modes, [(4, 2), (8, 2), (1, 2)]);
    let scalar = "config_type: OpPalettizerConfig\n<<: 4";
    let message = from_yaml_str(scalar, &OpOptions::default())
        .unwrap_err()
        .to_string();
    assert!(message.contains("<< merges mappings only"), "{message}");
}

#[test]
fn yaml_faults_have_a_place() {
    let table = [
        (
            "a: 1\n---\nb: 2",
            "more than one document in the file at line 2 column 1",
        ),
        ("a: 1\nb: [1, 2\nc: 3", "at line 3 column 2"),
        (
            "a: 1\n b: 3",
            "mapping values are not allowed in this context at line 2 column 3",
        ),
        (
            "a: 1\nb: \"x",
            "while scanning a quoted scalar, found unexpected end of stream at line 2 column 4",
        ),
        (
            "a:\n\tb: 1",
            "tabs disallowed within this context (block indentation) at line 2 column 2",
        ),
        ("a: @1", "unexpected character: `@' at line 1 column 4"),
        ("a: 1\na: 2", "the key a is there twice at line 2 column 1"),
        ("a: 1\n<<: 4", "<< merges mappings only at line 2 column 1"),
        ("a: !thing b", "unknown tag !thing at line 1 column 11"),
        ("a: !!int b", "\"b\" is no int at line 1 column 10"),
        (
            "a: 1\n[b]: 2",
            "a list or a mapping as a key: expected a name at line 2 column 1",
        ),
        (
            "a: &x [*x]",
            "an alias inside of what it stands for at line 1 column 8",
        ),
        (
            "a: *x",
            "while parsing node, found unknown anchor at line 1 column 4",
        ),
        (
            "a: 1\nb: é\0",
            "control character U+0000 at line 2 column 5",
        ),
        (
            "a: \u{1b}[31m",
            "control character U+001B at line 1 column 4",
        ),
    ];
    for (text, expected) in table {
        let message = from_yaml_str(text, &OpOptions::default())
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("not valid YAML: "),
            "{text:?}: {message}"
        );
        assert!(message.ends_with(expected), "{text:?}: {message}");
    }
}

#[test]
fn yaml_scalars_have_their_types() {
    let text = r#"
strings: [a, "1", '~', !!str 4, ! 4, 010, 0x, 1.2.3, "yes", .inf, 1_000]
numbers: [0, -7, +7, 18446744073709551615, 0x1F, 0o17, 0b101, 1.5, -.5, 1e3, !!float 2]
others: [true, False, yes, No, ON, off, null, ~, !!null "", ]
"#;
    let expected = json!({
        "strings": ["a", "1", "~", "4", "4", "010", "0x", "1.2.3", "yes", ".inf", "1_000"],
        "numbers": [0, -7, 7, 18446744073709551615u64, 31, 15, 5, 1.5, -0.5, 1000.0, 2],
        "others": [true, false, true, false, true, false, null, null, null],
    });
    assert_eq!(yaml_value(text).unwrap(), expected);
    // a key is a text, whatever it looks like
    assert_eq!(
        yaml_value("on: 1\n5: 2\n~: 3").unwrap(),
        json!({"on": 1, "5": 2, "~": 3})
    );
    let text = "a: &x one\nb: {*x : 1}\nc: |\n  two\n  lines\n";
    let expected = json!({"a": "one", "b": {"one": 1}, "c": "two\nlines\n"});
    assert_eq!(yaml_value(text).unwrap(), expected);
}

#[test]
fn limits_hold() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    let mut deep_aliases = String::from("a0: &a0 [x]\n");
    for level in 1..40 {
        let before = level - 1;
        if level < 9 {
            let aliases = vec![format!("*a{before}"); 10].join(", ");
            bomb += &format!("a{level}: &a{level} [{aliases}]\n");
        }
        deep_aliases += &format!("a{level}: &a{level} [*a{before}]\n");
    }
    let text = format!("a: &a {}\nb: [{}]", "x".repeat(100_000), "*a,".repeat(1000));
    let wide = format!("a: [{}]", "0,".repeat(510_000));
    let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
    let deeper = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let long = " ".repeat(MAX_BYTES as usize + 1);
    let table = [
        (&bomb, "more than 500000 values"),
        (&deep_aliases, "more than 32 levels of nesting"),
        (
            &text,
            "more than 16777216 bytes once its aliases are replaced",
        ),
        (&wide, "more than 500000 values"),
        (&deep, "more than 32 levels of nesting"),
        (&deeper, "more than 32 levels of nesting"),
        (&long, "more than 1048576 bytes"),
    ];
    for (text, expected) in table {
        let message = from_yaml_str(text, &OpOptions::default())
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}");
    }
    for text in [&deep, &deeper, &long] {
        from_json_str(text, &OpOptions::default()).unwrap_err();
    }
}

/// What a megabyte of a repeated text may be, and what may stand before and behind it.
const REPEATED: [(&str, &str, &str); 48] = [
    ("", "[", ""),
    ("", "{", ""),
    ("", "- ", ""),
    ("", "a: ", ""),
    ("", "? ", ""),
    ("", "[{", ""),
    ("", "{\"a\":", ""),
    ("", "[\n", ""),
    ("", "[,", ""),
    ("", "]", ""),
    ("", "a,", ""),
    ("[", "a,", "]"),
    ("{", "a,", "}"),
    ("[", "\"a\",", "]"),
    ("[", "a,\n", "]"),
    ("[", "a: b,", "]"),
    ("[", "[],", "]"),
    ("{", "[]: a,", "}"),
    ("{", "? a,", "}"),
    ("", "\"", ""),
    ("\"", "a", ""),
    ("\"", "a\n ", "\""),
    ("\"", "\\x41", "\""),
    ("", "'", ""),
    ("'", "a\n\n", "'"),
    ("", "#", ""),
    ("", "# a\n", ""),
    ("", "a: b # c\n", ""),
    ("", "\t", ""),
    ("", " ", ""),
    ("", "\n", ""),
    ("", "\r\n", ""),
    ("", "x", ""),
    ("", "é", ""),
    ("", "x ", ""),
    ("a: ", "b\n ", ""),
    ("a: |\n", " b\n", ""),
    ("a: >\n", " b\n\n", ""),
    ("a: |\n", " ", ""),
    ("", "\0", ""),
    ("", "&a ", ""),
    ("", "- &a a\n", ""),
    ("a: &a b\nb: [", "*a,", "]"),
    ("", "!", ""),
    ("", "!<", ""),
    ("", "---\n", ""),
    ("", "%TAG !a! b\n", ""),
    ("", "\u{feff}", ""),
];

#[test]
fn a_megabyte_of_anything_is_read_or_refused() {
    const CHILD: &str = "PALETTIZER_CONFIG_CHILD";
    if cfg!(unix) && std::env::var_os(CHILD).is_none() {
        // Each takes a fraction of a second; what grows with the square of its length takes minutes.
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "ulimit -t 60; exec \"$@\"", "sh"]);
        command.arg(std::env::current_exe().unwrap());
        command.args(["a_megabyte_of_anything_is_read_or_refused", "--nocapture"]);
        let output = command.env(CHILD, "1").output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", output.status);
        return;
    }
    let read = |text: &str| {
        eprintln!("{:?}", text.chars().take(20).collect::<String>());
        drop(from_yaml_str(text, &OpOptions::default()));
        drop(from_json_str(text, &OpOptions::default()));
    };
    for (before, piece, behind) in REPEATED {
        let count = (MAX_BYTES as usize - before.len() - behind.len()) / piece.len();
        read(&format!("{before}{}{behind}", piece.repeat(count)));
    }
    // Ever deeper indented, and as many anchors as fit.
    let indented = |item: &str| -> String {
        let line = |indent| format!("{}{item}\n", " ".repeat(indent));
        (0..1400).map(line).collect()
    };
    read(&indented("-"));
    read(&indented("a:"));
    read(
        &(0..60_000)
            .map(|at| format!("- &a{at} x\n"))
            .collect::<String>(),
    );
}

#[test]
fn files_are_told_apart_by_extension() {
    let folder = std::env::temp_dir().join(format!("palettizer-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let yaml = "config_type: OpPalettizerConfig\nglobal_config: {nbits: 4}";
    let json = r#"{"config_type": "OpPalettizerConfig", "global_config": {"nbits": 4}}"#;
    let table = [
        ("c.yaml", yaml, None),
        ("c.YML", yaml, None),
        ("c.json", json, None),
        ("d.json", yaml, Some("not valid JSON")),
        (
            "c.toml",
            yaml,
            Some("a configuration is a .yaml, .yml or .json file"),
        ),
        (
            "c",
            yaml,
            Some("a configuration is a .yaml, .yml or .json file"),
        ),
    ];
    for (name, text, refused) in table {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        match (from_path(&path, &OpOptions::default()), refused) {
            (Ok(config), None) => assert!(config.global().is_some(), "{name}"),
            (Err(error), Some(expected)) => {
                let message = error.to_string();
                assert!(
                    message.starts_with(&path.display().to_string()),
                    "{message}"
                );
                assert!(message.contains(expected), "{message}");
            }
            (result, _) => panic!("{name}: {result:?}"),
        }
    }
    std::fs::create_dir(folder.join("folder.json")).unwrap();
    for name in ["missing.yaml", "folder.json"] {
        let error = from_path(folder.join(name), &OpOptions::default()).unwrap_err();
        assert!(matches!(error, ConfigError::InFile { .. }), "{error}");
    }
    let encoded = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.join(name), bytes).unwrap();
        from_path(folder.join(name), &OpOptions::default()).map_err(|error| error.to_string())
    };
    for name in ["marked.yaml", "marked.json"] {
        encoded(name, format!("\u{feff}{json}").as_bytes()).unwrap();
    }
    for mark in [[0xff, 0xfe], [0xfe, 0xff]] {
        let message = encoded("wide.yaml", &[mark[0], mark[1], 0, 97]).unwrap_err();
        assert!(message.contains("UTF-16"), "{message}");
    }
    let message = encoded("binary.yaml", b"a: 1\nb: \xff").unwrap_err();
    assert!(message.contains("not UTF-8 at byte 9"), "{message}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn presets_are_named() {
    let yaml = "config_type: OpPalettizerConfig\npreset: llm";
    let config = from_yaml_str(yaml, &OpOptions::default()).unwrap();
    assert_eq!(config.preset(), Some(Preset::Llm));
    for (value, found) in [("lm", "\"lm\""), ("[llm]", "a list")] {
        let yaml = format!("config_type: OpPalettizerConfig\npreset: {value}");
        let error = from_yaml_str(&yaml, &OpOptions::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("preset is {found}; expected llm")
        );
    }
}

#[test]
fn patterns_keep_the_order_of_the_file() {
    let yaml =
        "config_type: OpPalettizerConfig\nop_name_configs: {z.*: null, a: {nbits: 4}, '.*': null}";
    let json = r#"{"config_type": "OpPalettizerConfig", "op_name_configs": {"z.*": null, "a": {"nbits": 4}, ".*": null}}"#;
    for config in [
        from_yaml_str(yaml, &OpOptions::default()),
        from_json_str(json, &OpOptions::default()),
    ] {
        let config = config.unwrap();
        let keys: Vec<&str> = config.op_names().keys().collect();
        assert_eq!(keys, ["z.*", "a", ".*"]);
    }
}

#[test]
fn the_table_of_keys_has_every_option() {
    let page = include_str!("../config_file.rs");
    for field in OpOptions::fields() {
        let row = format!("//! | `{}` |", field.name);
        let row = page.lines().find(|line| line.starts_with(&row));
        let row = row.unwrap_or_else(|| panic!("no row of {}", field.name));
        for choice in field.kind.choices() {
            assert!(row.contains(&choice), "{row}: no {choice}");
        }
    }
}
