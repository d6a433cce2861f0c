//! There and back: every palette comes back from the file as it went in, and the same bytes come out on any number of
//! threads.

use crate::support::{Scratch, Tensor, compress, config, dense, file, tensors, weight};
use palettizer_palette::{
    Context, Dtype, Granularity, LutDtype, Mode, Nbits, Palette, PaletteSpec, Tensor as Weight,
    palettize,
};
use palettizer_pipeline::staged_output::SaveOptions;
use palettizer_safetensors::{Checkpoint, Content, DenseTensor, ElementType, Error};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The palette that the file should hold.
fn expected((_, dtype, shape, bytes): &Tensor, spec: &PaletteSpec) -> Palette {
    let dtype = ElementType::from_name(dtype).unwrap();
    let tensor = Weight::new(dtype.palette_dtype().unwrap(), shape, bytes).unwrap();
    let context = Context {
        output_axis: Some(0),
        ..Context::default()
    };
    let mut palette = palettize(&tensor, spec, &context).unwrap();
    palette.error = Default::default();
    palette
}

fn grouped(group_size: usize, channel_axis: Option<i64>) -> Granularity {
    Granularity::PerGroupedChannel {
        group_size,
        channel_axis,
    }
}

#[test]
fn every_form_comes_back() {
    let kmeans = |nbits| PaletteSpec::new(Mode::Kmeans(nbits));
    let specs = [
        kmeans(Nbits::B1),
        kmeans(Nbits::B2).with_granularity(grouped(4, None)),
        kmeans(Nbits::B3).with_granularity(grouped(1, None)),
        kmeans(Nbits::B4).with_granularity(grouped(2, Some(1))),
        kmeans(Nbits::B6).with_lut_dtype(LutDtype::Int8),
        kmeans(Nbits::B8).with_lut_dtype(LutDtype::Uint8),
        kmeans(Nbits::B4).with_per_channel_scale(true),
        kmeans(Nbits::B2)
            .with_per_channel_scale(true)
            .with_lut_dtype(LutDtype::Uint8)
            .with_granularity(grouped(8, Some(-1))),
        kmeans(Nbits::B4).with_cluster_dim(2),
        kmeans(Nbits::B3)
            .with_cluster_dim(4)
            .with_granularity(grouped(8, Some(1)))
            .with_lut_dtype(LutDtype::Int8),
        PaletteSpec::new(Mode::Uniform(Nbits::B6)),
    ];
    let weights = [
        weight("a", "F32", &[64, 48], 1),
        weight("b", "F16", &[48, 64], 2),
        weight("c", "BF16", &[16, 8, 4, 8], 3),
    ];
    for spec in specs {
        let scratch = Scratch::new();
        let checkpoint = scratch.checkpoint(&weights);
        let out = scratch.path("out.safetensors");
        compress(&checkpoint, &config(spec.clone()), &out).unwrap();
        let small = Checkpoint::open(&out).unwrap();
        small
            .decompress_to(
                scratch.path("dense.safetensors"),
                SaveOptions::overwriting(false),
                &(),
            )
            .unwrap();
        let back = Checkpoint::open(scratch.path("dense.safetensors")).unwrap();
        for weight in &weights {
            let expected = expected(weight, &spec);
            let found = small.get(&weight.0).unwrap();
            assert_eq!(
                found,
                Content::Palette(Box::new(expected.clone())),
                "{spec:?}"
            );
            assert_eq!(dense(&back, &weight.0), expected.decompress(), "{spec:?}");
        }
    }
}

#[test]
fn a_lossless_palette_gives_the_very_file_back() {
    let scratch = Scratch::new();
    let few = |name: &str, shape: &[usize]| {
        let bytes = (0..shape.iter().product::<usize>())
            .flat_map(|i| ((i * i % 11) as f32 - 3.0).to_le_bytes());
        (name.to_owned(), "F32", shape.to_vec(), bytes.collect())
    };
    // In the order, and with the padding, of the safetensors library.
    let tensors: Vec<Tensor> = vec![
        ("n".to_owned(), "I64", vec![1], vec![1; 8]),
        few("a.weight", &[50, 60]),
        weight("b.bias", "F32", &[60], 2),
        few("c.weight", &[8, 9, 7, 7]),
        weight("d.weight", "F16", &[10, 10], 3),
    ];
    let bytes = file(&tensors, &[("format", "pt")]);
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
    let (header, data) = rest.split_at(length);
    let value: serde_json::Value = serde_json::from_slice(header).unwrap();
    let mut parts = vec!["\"__metadata__\":{\"format\":\"pt\"}".to_owned()];
    for (name, ..) in &tensors {
        let entry = &value[name];
        parts.push(format!(
            "\"{name}\":{{\"dtype\":{},\"shape\":{},\"data_offsets\":{}}}",
            entry["dtype"], entry["shape"], entry["data_offsets"]
        ));
    }
    let mut header = format!("{{{}}}", parts.join(","));
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let path = scratch.write("in.safetensors", crate::support::raw(&header, data));

    let checkpoint = Checkpoint::open(path).unwrap();
    let unique = config(PaletteSpec::new(Mode::Unique));
    let outcome = compress(&checkpoint, &unique, &scratch.path("small.safetensors")).unwrap();
    assert_eq!(
        outcome.weights[1].figures().map(|figures| figures.nbits),
        Some(3)
    );
    assert!(outcome.bytes_after * 3 < outcome.bytes_before);
    let small = Checkpoint::open(scratch.path("small.safetensors")).unwrap();
    small
        .decompress_to(
            scratch.path("dense.safetensors"),
            SaveOptions::overwriting(false),
            &(),
        )
        .unwrap();
    assert_eq!(
        scratch.read("dense.safetensors"),
        scratch.read("in.safetensors")
    );
}

#[test]
fn threads_change_nothing() {
    let specs = [
        PaletteSpec::new(Mode::Kmeans(Nbits::B4)),
        PaletteSpec::new(Mode::Kmeans(Nbits::B2)).with_cluster_dim(4),
        PaletteSpec::new(Mode::Kmeans(Nbits::B3))
            .with_per_channel_scale(true)
            .with_granularity(grouped(4, None)),
    ];
    // More than a batch holds, so that batches follow one another.
    let mut weights = tensors();
    weights.push(weight("large.weight", "F32", &[512, 1024], 7));
    weights.push(weight("larger.weight", "F16", &[4096, 2100], 8));
    weights.push(weight("last.weight", "F32", &[64, 64], 9));
    let scratch = Scratch::new();
    let checkpoint = scratch.checkpoint(&weights);
    for spec in specs {
        let mut outputs = Vec::new();
        for threads in [1, 2, 7] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let (small, large) = (scratch.path("s.safetensors"), scratch.path("d.safetensors"));
            let outcome = pool.install(|| {
                let mut config = config(spec.clone());
                if spec.cluster_dim() > 1 {
                    config = config.with_op_name("larger.*", None);
                }
                let outcome = checkpoint
                    .palettize_to(&config, &small, SaveOptions::overwriting(true), &())
                    .unwrap();
                let opened = Checkpoint::open(&small).unwrap();
                opened
                    .decompress_to(&large, SaveOptions::overwriting(true), &())
                    .unwrap();
                outcome
            });
            outputs.push((
                outcome.weights,
                std::fs::read(&small).unwrap(),
                std::fs::read(&large).unwrap(),
            ));
        }
        assert!(
            outputs.windows(2).all(|pair| pair[0] == pair[1]),
            "{spec:?}"
        );
    }
}

#[test]
fn what_cannot_be_written_is_refused() {
    let scratch = Scratch::new();
    let bytes = [0; 8];
    let dense =
        |shape: &[usize]| Content::Dense(DenseTensor::new(ElementType::U8, shape.to_vec(), &bytes));
    let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4));
    let palette = expected(&weight("w", "F32", &[8, 8], 1), &spec);
    let broken = |edit: &dyn Fn(&mut Palette)| {
        let mut palette = palette.clone();
        edit(&mut palette);
        Content::Palette(Box::new(palette))
    };
    let table: Vec<(Vec<(&str, Content<'_>)>, &str)> = vec![
        (vec![("a", dense(&[7]))], "does not have 8 bytes"),
        (
            vec![("a", dense(&[usize::MAX, 9]))],
            "does not have 8 bytes",
        ),
        (
            vec![("a", dense(&[8])), ("a", dense(&[2, 4]))],
            "the name is there twice",
        ),
        (
            vec![("a", dense(&[8])), ("a", broken(&|_| {}))],
            "the name is there twice",
        ),
        (
            vec![("a.palette.lut", dense(&[8])), ("a", broken(&|_| {}))],
            "the name is there twice",
        ),
        (
            vec![("a", broken(&|palette| palette.indices.truncate(31)))],
            "packed indices",
        ),
        (
            vec![("a", broken(&|palette| palette.shape = vec![64]))],
            "shape",
        ),
        (
            vec![("a", broken(&|palette| palette.mask = Some(vec![0xff; 8])))],
            "a mask",
        ),
        (
            vec![("a", broken(&|palette| palette.dtype = Dtype::I8))],
            "no float weight",
        ),
    ];
    let out = scratch.path("out.safetensors");
    for (contents, message) in table {
        let error = Checkpoint::write(
            &out,
            &contents,
            &BTreeMap::new(),
            SaveOptions::overwriting(false),
        )
        .unwrap_err();
        assert!(matches!(&error, Error::BadTensor { .. }), "{error:?}");
        assert!(error.to_string().contains(message), "{error}");
    }
    assert!(scratch.names().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_written_is_read(
        names in prop::collection::btree_set("\\PC{0,12}", 1..6),
        shapes in prop::collection::vec(prop::collection::vec(0usize..5, 0..4), 6),
        palettized in prop::collection::vec(any::<bool>(), 6),
        metadata in prop::collection::btree_map("[a-z]{1,8}", "\\PC{0,16}", 0..3),
        nbits in prop::sample::select(Nbits::ALL.to_vec()),
    ) {
        let scratch = Scratch::new();
        let out = scratch.path("out.safetensors");
        let names: Vec<String> = names.into_iter().filter(|name| name != "__metadata__").collect();
        let weights: Vec<Tensor> = names.iter().zip(&shapes).enumerate()
            .map(|(at, (name, shape))| weight(name, ["F16", "BF16", "F32"][at % 3], shape, at as u64))
            .collect();
        let spec = PaletteSpec::new(Mode::Kmeans(nbits));
        let contents: Vec<(&String, Content<'_>)> = weights.iter().zip(&palettized)
            .map(|(tensor, &palettized)| {
                let (name, dtype, shape, bytes) = tensor;
                if palettized && !shape.is_empty() && !shape.contains(&0) {
                    return (name, Content::Palette(Box::new(expected(tensor, &spec))));
                }
                let element = ElementType::from_name(dtype).unwrap();
                (name, Content::Dense(DenseTensor::new(element, shape.clone(), bytes)))
            })
            .collect();
        Checkpoint::write(&out, &contents, &metadata, SaveOptions::overwriting(false)).unwrap();
        let checkpoint = Checkpoint::open(&out).unwrap();
        prop_assert_eq!(checkpoint.metadata(), metadata);
        prop_assert_eq!(checkpoint.names().len(), contents.len());
        for (name, content) in &contents {
            prop_assert_eq!(&checkpoint.get(name).unwrap(), content);
        }
        checkpoint.decompress_to(scratch.path("dense.safetensors"), SaveOptions::overwriting(false), &()).unwrap();
        let back = Checkpoint::open(scratch.path("dense.safetensors")).unwrap();
        for (name, _) in &contents {
            prop_assert_eq!(dense(&back, name), dense(&checkpoint, name));
        }
    }
}
