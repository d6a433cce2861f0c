//! Cases as tables: what is read, and what is refused with which words.

use super::*;
use serde_json::json;

const NONE: Defaults = Defaults {
    precision: Precision::Refined,
    seed: 0,
};

fn read_global(settings: Value) -> Result<OptimizationConfig, ConfigError> {
    from_value(
        &json!({"config_type": "OpPalettizerConfig", "global_config": settings}),
        NONE,
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
        (json!({"mode": "unique", "nbits": 4}), "global_config.nbits is 4; expected nothing, because mode unique takes as many bits as the values need".to_owned()),
        (json!({"mode": "kmean", "nbits": 4}), "global_config.mode is \"kmean\"; expected kmeans, uniform or unique".to_owned()),
        (json!({"mode": null, "nbits": 4}), "global_config.mode is null; expected kmeans, uniform or unique".to_owned()),
        (json!({"mode": "custom"}), "global_config.mode: mode custom needs a function, which a file cannot hold; use Mode::Custom of the Rust API, or one of kmeans, uniform, unique".to_owned()),
        (json!({"mode": "custom", "lut_function": "f"}), "global_config.lut_function: mode custom needs a function, which a file cannot hold; use Mode::Custom of the Rust API, or one of kmeans, uniform, unique".to_owned()),
        (json!({"nbits": 4, "granularity": "per_channel"}), "global_config.granularity is \"per_channel\"; expected per_tensor or per_grouped_channel".to_owned()),
        (json!({"nbits": 4, "group_size": 0}), format!("global_config.group_size is 0; expected {workers}")),
        (json!({"nbits": 4, "group_size": null}), format!("global_config.group_size is null; expected {workers}")),
        (json!({"nbits": 4, "group_size": [1]}), format!("global_config.group_size is a list; expected {workers}")),
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
        (json!({"a": {}, "nbits": {}}), "unknown key global_config.a; expected one of config_type, mode, nbits, granularity, group_size, channel_axis, cluster_dim, enable_per_channel_scale, num_kmeans_workers, weight_threshold, lut_dtype".to_owned()),
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
        ("dtype", None),
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
            "unknown key op_name_config (did you mean op_name_configs?); expected one of config_type, global_config, op_type_configs, op_name_configs",
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
        (
            "a: 1\n---\nb: 2",
            "not valid YAML: more than one document in the file",
        ),
    ];
    for (text, expected) in table {
        let message = from_yaml_str(text, NONE).unwrap_err().to_string();
        if expected.starts_with("not valid") {
            assert!(message.starts_with(expected), "{text}: {message}");
        } else {
            assert_eq!(message, expected, "{text}");
        }
    }
    for text in ["", "{", "{} {}", "{\"a\": 1, \"a\": 2}", "{'a': 1}"] {
        let message = from_json_str(text, NONE).unwrap_err().to_string();
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
    let defaults = Defaults {
        precision: Precision::Exact,
        seed: 7,
    };
    let config = from_yaml_str(text, defaults).unwrap();
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
    let json = serde_json::to_string(&document::yaml(text).unwrap()).unwrap();
    assert_eq!(from_json_str(&json, defaults).unwrap(), expected);
}

#[test]
fn nulls_are_nothing() {
    let text =
        "config_type: OpPalettizerConfig\nglobal_config:\nop_type_configs: ~\nop_name_configs: {}";
    assert_eq!(
        from_yaml_str(text, NONE).unwrap(),
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
    let config = from_yaml_str(text, NONE).unwrap();
    let modes = ["conv", "linear", "matmul"].map(|op_type| {
        let spec = config.op_types()[op_type].as_ref().unwrap().spec();
        (spec.mode().nbits().unwrap().bits(), spec.cluster_dim())
    });
    assert_eq!(modes, [(4, 2), (8, 2), (1, 2)]);
    let scalar = "config_type: OpPalettizerConfig\n<<: 4";
    let message = from_yaml_str(scalar, NONE).unwrap_err().to_string();
    assert!(message.contains("<< merges mappings only"), "{message}");
}

#[test]
fn limits_hold() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    let wide = format!("a: [{}]", "0,".repeat(510_000));
    let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
    let deeper = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let long = " ".repeat(MAX_BYTES as usize + 1);
    let table = [
        (wide.as_str(), "more than 500000 values"),
        (deep.as_str(), "more than 32 levels of nesting"),
        (deeper.as_str(), "more than 32 levels of nesting"),
        (long.as_str(), "more than 1048576 bytes"),
    ];
    for (text, expected) in table {
        let message = from_yaml_str(text, NONE).unwrap_err().to_string();
        assert!(
            message.contains(expected) || message.contains("recursion limit"),
            "{message}"
        );
    }
    for text in [deep.as_str(), deeper.as_str(), long.as_str()] {
        from_json_str(text, NONE).unwrap_err();
    }
    from_yaml_str(&bomb, NONE).unwrap_err();
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
        match (from_path(&path, NONE), refused) {
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
        let error = from_path(folder.join(name), NONE).unwrap_err();
        assert!(matches!(error, ConfigError::InFile { .. }), "{error}");
    }
    std::fs::write(folder.join("binary.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    from_path(folder.join("binary.yaml"), NONE).unwrap_err();
    std::fs::remove_dir_all(&folder).unwrap();
}
