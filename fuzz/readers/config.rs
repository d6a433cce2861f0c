//! A configuration: YAML or JSON.

use palettizer::{OpOptions, config_file};

/// Reads the text as both.
pub(crate) fn read(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else {
        return false;
    };
    let yaml = config_file::from_yaml_str(text, &OpOptions::default());
    let json = config_file::from_json_str(text, &OpOptions::default());
    if let Err(error) = &yaml {
        assert!(!error.to_string().is_empty());
    }
    yaml.is_ok() || json.is_ok()
}

/// Valid configurations.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    const SEEDS: [&str; 4] = [
        "config_type: OpPalettizerConfig\nglobal_config: {mode: kmeans, nbits: 4}\n",
        "# all that there is\nconfig_type: OpPalettizerConfig\nglobal_config: &base\n  mode: kmeans\n  nbits: 4\n  \
         granularity: per_grouped_channel\n  group_size: 16\n  channel_axis: -1\n  cluster_dim: 1\n  \
         enable_per_channel_scale: yes\n  num_kmeans_workers: 1\n  weight_threshold: 2048\n  lut_dtype: 'int8'\n\
         op_type_configs:\n  conv: {<<: *base, nbits: 8}\n  linear: ~\n\
         op_name_configs:\n  \"conv_1\": *base\n  fc: {mode: unique}\n  ? head\n  : nbits: 6\n    lut_dtype: >-\n      float\n",
        r#"{"config_type": "OpPalettizerConfig", "global_config": {"nbits": 4}, "op_type_configs": {"conv": null}}"#,
        "---\nconfig_type: !!str OpPalettizerConfig\nop_name_configs: {a: {nbits: 0x4}, b: null, c: {mode: \"un\\x69que\"}}\n...\n",
    ];
    SEEDS.map(|seed| seed.as_bytes().to_vec()).into()
}
