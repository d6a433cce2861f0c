//! Cases as tables: rules that are read, what they inherit, and what is refused.

use super::*;
use palettizer::{
    Granularity, GranularityName, LutDtype, Mode, ModeName, Nbits, OpPalettizerConfig, PaletteSpec,
    SpecOptions,
};

fn grouped(group_size: usize, channel_axis: Option<i64>) -> Granularity {
    Granularity::PerGroupedChannel {
        group_size,
        channel_axis,
    }
}

#[test]
fn rules_that_are_read() {
    let bits = |nbits| SpecOptions {
        nbits: Some(nbits),
        ..SpecOptions::default()
    };
    let table = [
        ("linear=skip", "linear", None),
        ("linear=8", "linear", Some(bits(Nbits::B8))),
        ("a/b.c-d=nbits=6", "a/b.c-d", Some(bits(Nbits::B6))),
        (
            "conv=6,mode=UNIFORM, group_size=16,channel-axis=-1",
            "conv",
            Some(SpecOptions {
                mode: Some(ModeName::Uniform),
                group_size: Some(16),
                channel_axis: Some(-1),
                ..bits(Nbits::B6)
            }),
        ),
        (
            "conv=per-channel-scale,lut-dtype=int8,cluster-dim=2,granularity=per-tensor",
            "conv",
            Some(SpecOptions {
                enable_per_channel_scale: Some(true),
                lut_dtype: Some(LutDtype::Int8),
                cluster_dim: Some(2),
                granularity: Some(GranularityName::PerTensor),
                ..SpecOptions::default()
            }),
        ),
        (
            "conv=per_channel_scale=false",
            "conv",
            Some(SpecOptions {
                enable_per_channel_scale: Some(false),
                ..SpecOptions::default()
            }),
        ),
    ];
    for (text, name, spec) in table {
        let name = name.to_owned();
        let settings = spec.map(OpOptions::from);
        assert_eq!(parse(text), Ok(Rule { name, settings }), "{text}");
    }
    let settings = settings("weight-threshold=0").unwrap();
    assert_eq!(settings.weight_threshold, Some(0));
}

#[test]
fn rules_that_are_refused() {
    let shape = "expected NAME=VALUE, where VALUE is a number of bits, skip, or a list such as nbits=6,mode=uniform,group-size=16";
    let table = [
        ("", shape),
        ("linear", shape),
        ("linear=", shape),
        ("=8", shape),
        ("linear=5", "nbits is 5; expected 1, 2, 3, 4, 6 or 8"),
        ("linear=8bit", "nbits is 8bit; expected 1, 2, 3, 4, 6 or 8"),
        (
            "linear=none",
            "\"none\" is no setting: expected a number of bits, skip, or KEY=VALUE with a key of nbits, mode, granularity, group-size, channel-axis, cluster-dim, per-channel-scale, lut-dtype, weight-threshold",
        ),
        ("linear=8,8", "nbits is there twice"),
        (
            "linear=bits=8",
            "unknown key bits; expected one of nbits, mode, granularity, group-size, channel-axis, cluster-dim, per-channel-scale, lut-dtype, weight-threshold",
        ),
        (
            "linear=mode=k",
            "mode is k; expected kmeans, uniform or unique",
        ),
        (
            "linear=granularity=per_channel",
            "granularity is per_channel; expected per_tensor or per_grouped_channel",
        ),
        (
            "linear=group-size=-1",
            "group-size is -1; expected a whole number, 0 or more",
        ),
        (
            "linear=channel-axis=x",
            "channel-axis is x; expected a whole number",
        ),
        (
            "linear=cluster-dim=-1",
            "cluster-dim is -1; expected a whole number, 1 or more",
        ),
        (
            "linear=per-channel-scale=1",
            "per-channel-scale is 1; expected true or false",
        ),
        (
            "linear=lut-dtype=int4",
            "lut-dtype is int4; expected float, int8 or uint8",
        ),
        (
            "linear=weight-threshold=-1",
            "weight-threshold is -1; expected a whole number, 0 or more",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(parse(text), Err(expected.to_owned()), "{text}");
    }
}

#[test]
fn rules_inherit_what_they_do_not_say() {
    let k4 = || PaletteSpec::new(Mode::Kmeans(Nbits::B4));
    let k8 = || PaletteSpec::new(Mode::Kmeans(Nbits::B8));
    let g = grouped;
    let table = [
        (
            PaletteSpec::new(Mode::Uniform(Nbits::B4)),
            "8",
            PaletteSpec::new(Mode::Uniform(Nbits::B8)),
        ),
        (PaletteSpec::new(Mode::Unique), "8", k8()),
        (k4(), "mode=unique", PaletteSpec::new(Mode::Unique)),
        (
            k4(),
            "mode=uniform",
            PaletteSpec::new(Mode::Uniform(Nbits::B4)),
        ),
        (k4(), "group-size=8", k4().with_granularity(g(8, None))),
        (
            k4(),
            "channel-axis=1",
            k4().with_granularity(g(32, Some(1))),
        ),
        (
            k4().with_granularity(g(8, Some(1))),
            "8",
            k8().with_granularity(g(8, Some(1))),
        ),
        (
            k4().with_granularity(g(8, Some(1))),
            "group-size=4",
            k4().with_granularity(g(4, Some(1))),
        ),
        (
            k4().with_granularity(g(8, Some(1))),
            "granularity=per_tensor",
            k4(),
        ),
        (k4().with_cluster_dim(2), "8", k8().with_cluster_dim(2)),
        (k4().with_cluster_dim(2), "cluster-dim=1", k4()),
        (
            k4().with_per_channel_scale(true),
            "8,per-channel-scale=false",
            k8(),
        ),
        (
            k4().with_lut_dtype(LutDtype::Int8),
            "8",
            k8().with_lut_dtype(LutDtype::Int8),
        ),
    ];
    for (base, rule, expected) in table {
        let base = OpOptions::from(&OpPalettizerConfig::new(base).with_weight_threshold(7));
        let settings = settings(rule).unwrap().over(&base);
        let built = settings.build().unwrap();
        let expected = OpPalettizerConfig::new(expected).with_weight_threshold(7);
        assert_eq!(built, expected, "{rule}");
    }
}

#[test]
fn settings_that_contradict_each_other() {
    let table = [
        (
            "mode=uniform",
            "nbits is missing; expected 1, 2, 3, 4, 6 or 8 (mode uniform needs it)",
        ),
        (
            "4,mode=unique",
            "nbits is 4 with mode unique; expected none: the mode takes as many bits as the values need",
        ),
        (
            "mode=custom",
            "mode is custom, which needs a function, and flags and files hold none; expected kmeans, uniform or unique (Mode::Custom of the Rust API and lut_function of the Python API take one)",
        ),
        (
            "4,granularity=per_tensor,group-size=4",
            "group-size is 4 with granularity per_tensor; expected none, or granularity per_grouped_channel",
        ),
        (
            "4,granularity=per_tensor,channel-axis=0",
            "channel-axis is 0 with granularity per_tensor; expected none, or granularity per_grouped_channel",
        ),
        (
            "4,mode=uniform,cluster-dim=2",
            "cluster-dim is 2 with mode uniform; expected 1, or mode kmeans or unique",
        ),
        (
            "mode=unique,lut-dtype=int8",
            "lut-dtype is int8 with mode unique; expected float, or mode kmeans or uniform",
        ),
    ];
    for (rule, expected) in table {
        let settings = settings(rule).unwrap();
        let error = settings.build().unwrap_err();
        assert_eq!(explain(&error, ""), expected, "{rule}");
    }
}
