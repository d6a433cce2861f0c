//! Damaged files: each is refused with its own message.

use crate::support::{Scratch, Tensor, compress, config, file, raw, weight};
use palettizer_palette::{Granularity, LutDtype, Mode, Nbits, PaletteSpec};
use palettizer_pipeline::staged_output::SaveOptions;
use palettizer_safetensors::{Checkpoint, Error};
use serde_json::{Value, json};

fn error(scratch: &Scratch, bytes: &[u8]) -> Error {
    let path = scratch.write("in.safetensors", bytes);
    Checkpoint::open(path).unwrap_err()
}

#[test]
fn damaged_headers() {
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!("{{\"t\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}")
    };
    let good = entry("F32", "[1,2]", "[0,8]");
    let two = |first: &str, second: &str| {
        let tensor = |name: &str, offsets: &str| {
            format!("\"{name}\":{{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":{offsets}}}")
        };
        format!("{{{},{}}}", tensor("a", first), tensor("b", second))
    };
    let data = [0; 8];
    let huge = format!("[{0},{0},{0}]", u64::MAX);
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        ("an empty file", vec![], "0 bytes, too short"),
        ("seven bytes", vec![0; 7], "7 bytes, too short"),
        ("no header", vec![0; 8], "does not begin with {"),
        (
            "a huge header",
            u64::MAX.to_le_bytes().to_vec(),
            "readers accept 100000000",
        ),
        (
            "a header above the limit",
            100_000_001_u64.to_le_bytes().to_vec(),
            "readers accept 100000000",
        ),
        (
            "a cut header",
            raw(&good, &data)[..40].to_vec(),
            "truncated?",
        ),
        ("a list", raw("[]", &[]), "does not begin with {"),
        (
            "a space before it",
            raw(&format!(" {good}"), &data),
            "does not begin with {",
        ),
        ("cut JSON", raw(&good[..30], &data), "EOF"),
        (
            "two values",
            raw(&format!("{good}{{}}"), &data),
            "trailing characters",
        ),
        (
            "no UTF-8",
            [&3_u64.to_le_bytes()[..], b"{\"\xff"].concat(),
            "the header: ",
        ),
        (
            "deep JSON",
            raw(&format!("{{\"t\":{}", "[".repeat(100_000)), &[]),
            "the header: ",
        ),
        (
            "an unknown type",
            raw(&entry("F31", "[1,2]", "[0,8]"), &data),
            "type \"F31\"",
        ),
        (
            "a type in lower case",
            raw(&entry("f32", "[1,2]", "[0,8]"), &data),
            "type \"f32\"",
        ),
        (
            "a negative length",
            raw(&entry("F32", "[-1,2]", "[0,8]"), &data),
            "invalid value",
        ),
        (
            "a fraction",
            raw(&entry("F32", "[1.0,2]", "[0,8]"), &data),
            "invalid type",
        ),
        (
            "no shape",
            raw("{\"t\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", &data),
            "`shape`",
        ),
        (
            "no offsets",
            raw("{\"t\":{\"dtype\":\"F32\",\"shape\":[2]}}", &data),
            "`data_offsets`",
        ),
        (
            "one offset",
            raw(&entry("F32", "[1,2]", "[0]"), &data),
            "invalid length 1",
        ),
        (
            "three offsets",
            raw(&entry("F32", "[1,2]", "[0,8,9]"), &data),
            "the header: ",
        ),
        (
            "a shape that is too small",
            raw(&entry("F32", "[1]", "[0,8]"), &data),
            "have 4 bytes",
        ),
        (
            "a shape that overflows",
            raw(&entry("F32", &huge, "[0,8]"), &data),
            "no whole number",
        ),
        (
            "half a byte",
            raw(&entry("F4", "[3]", "[0,1]"), &data[..1]),
            "no whole number",
        ),
        (
            "offsets the wrong way",
            raw(&entry("F32", "[2]", "[8,0]"), &data),
            "begin at 8 and end at 0",
        ),
        (
            "data past the end",
            raw(&good, &data[..7]),
            "but the file at",
        ),
        (
            "data behind the last",
            raw(&good, &[0; 9]),
            "1 bytes after the last tensor",
        ),
        (
            "data of nobody",
            raw("{}", &[0]),
            "1 bytes after the last tensor",
        ),
        (
            "a late start",
            raw(&entry("F32", "[1]", "[4,8]"), &data),
            "4 bytes between the header and \"t\"",
        ),
        (
            "a hole",
            raw(&two("[0,4]", "[5,9]"), &[0; 9]),
            "1 bytes between a and \"b\"",
        ),
        (
            "an overlap",
            raw(&two("[0,4]", "[3,7]"), &[0; 7]),
            "the data of \"b\" overlap those of a",
        ),
        (
            "the same data",
            raw(&two("[0,4]", "[0,4]"), &[0; 4]),
            "the data of \"b\" overlap those of a",
        ),
        (
            "offsets at the end of all",
            raw(&entry("U8", "[0]", &format!("[{0},{0}]", u64::MAX)), &[]),
            "past every file's end",
        ),
        (
            "a tensor twice",
            raw(
                &format!("{},{}", &good[..good.len() - 1], &good[1..]),
                &data,
            ),
            "\"t\" is there twice",
        ),
        (
            "a key of a tensor twice",
            raw(
                &good.replace("\"shape\"", "\"dtype\":\"F32\",\"shape\""),
                &data,
            ),
            "duplicate field",
        ),
        (
            "strings twice",
            raw("{\"__metadata__\":{},\"__metadata__\":{}}", &[]),
            "is there twice",
        ),
        (
            "a string twice",
            raw("{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}", &[]),
            "\"a\" is there twice",
        ),
        (
            "a number for a string",
            raw("{\"__metadata__\":{\"a\":1}}", &[]),
            "expected a string",
        ),
        (
            "a list of strings",
            raw("{\"__metadata__\":[]}", &[]),
            "expected an object",
        ),
    ];
    let scratch = Scratch::new();
    for (what, bytes, message) in table {
        let error = error(&scratch, &bytes);
        assert!(matches!(error, Error::Damaged { .. }), "{what}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(message), "{what}: {text}");
        assert!(
            text.len() < 500 && text.contains("in.safetensors"),
            "{what}: {text}"
        );
    }
}

#[test]
fn odd_headers_that_are_right() {
    let table = [
        raw("{}", &[]),
        raw("{}      ", &[]),
        raw("{\"__metadata__\":null}", &[]),
        raw("{\"__metadata__\":{}}", &[]),
        // In another order than the data's, with tensors that have none.
        raw(
            "{\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]},\
              \"a\":{\"dtype\":\"BOOL\",\"shape\":[],\"data_offsets\":[0,1]},\
              \"n\":{\"dtype\":\"F64\",\"shape\":[0,5],\"data_offsets\":[1,1]},\
              \"m\":{\"dtype\":\"I8\",\"shape\":[0,18446744073709551615],\"data_offsets\":[3,3]}}",
            &[1, 2, 3],
        ),
    ];
    let scratch = Scratch::new();
    for bytes in table {
        let path = scratch.write("in.safetensors", bytes);
        let checkpoint = Checkpoint::open(path).unwrap();
        checkpoint.weights(0).unwrap();
    }
}

/// Takes a palettized file apart: its header, and its data.
fn parsed(bytes: &[u8]) -> (Value, Vec<u8>) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    (header, bytes[8 + length..].to_vec())
}

/// The tensors of a palettized file, in the order of their data.
fn tensors(header: &Value, data: &[u8]) -> Vec<Tensor> {
    let entries = header.as_object().unwrap().iter();
    let entries = entries.filter(|(name, _)| *name != "__metadata__");
    let mut tensors: Vec<(usize, Tensor)> = entries
        .map(|(name, entry)| {
            let offset = |at: usize| entry["data_offsets"][at].as_u64().unwrap() as usize;
            let shape = entry["shape"].as_array().unwrap().iter();
            let shape = shape.map(|dim| dim.as_u64().unwrap() as usize).collect();
            let dtype: &'static str = entry["dtype"].as_str().unwrap().to_owned().leak();
            let bytes = data[offset(0)..offset(1)].to_vec();
            (offset(0), (name.clone(), dtype, shape, bytes))
        })
        .collect();
    tensors.sort_by_key(|(start, _)| *start);
    tensors.into_iter().map(|(_, tensor)| tensor).collect()
}

/// The strings of a file.
type Strings<'a> = &'a [(&'a str, &'a str)];

/// A change of the tensors and of what the metadata say of the weight.
type Edit = fn(&mut Vec<Tensor>, &mut Value);

fn find<'t>(tensors: &'t mut [Tensor], role: &str) -> &'t mut Tensor {
    let name = format!("w.palette.{role}");
    tensors.iter_mut().find(|tensor| tensor.0 == name).unwrap()
}

fn remove(tensors: &mut Vec<Tensor>, role: &str) {
    let name = format!("w.palette.{role}");
    tensors.retain(|tensor| tensor.0 != name);
}

#[test]
fn damaged_palettes() {
    let scratch = Scratch::new();
    let granularity = Granularity::PerGroupedChannel {
        group_size: 16,
        channel_axis: None,
    };
    let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4))
        .with_granularity(granularity)
        .with_lut_dtype(LutDtype::Uint8)
        .with_per_channel_scale(true);
    let checkpoint = scratch.checkpoint(&[weight("w", "F16", &[64, 48], 1)]);
    let out = scratch.path("small.safetensors");
    compress(&checkpoint, &config(spec), &out).unwrap();
    let (header, data) = parsed(&scratch.read("small.safetensors"));
    let strings = &header["__metadata__"];
    let meta: Value =
        serde_json::from_str(strings["palettizer.weights"].as_str().unwrap()).unwrap();
    let rebuilt = |edit: Edit| {
        let mut tensors = tensors(&header, &data);
        let mut meta = meta["w"].clone();
        edit(&mut tensors, &mut meta);
        let weights = json!({ "w": meta }).to_string();
        file(
            &tensors,
            &[("palettizer.format", "1"), ("palettizer.weights", &weights)],
        )
    };
    Checkpoint::open(scratch.write("same.safetensors", rebuilt(|_, _| {}))).unwrap();

    let table: [(&str, Edit, &str); 24] = [
        (
            "no indices",
            |t, _| remove(t, "indices"),
            "\"w.palette.indices\" is missing",
        ),
        (
            "no tables",
            |t, _| remove(t, "lut"),
            "\"w.palette.lut\" is missing",
        ),
        (
            "no scale of the tables",
            |t, _| remove(t, "lut_scale"),
            "\"w.palette.lut_scale\" is missing",
        ),
        (
            "a dense twin",
            |t, _| t.push(weight("w", "F16", &[2, 2], 1)),
            "a tensor of its name too",
        ),
        (
            "indices of another type",
            |t, _| find(t, "indices").1 = "I8",
            "the indices' type",
        ),
        (
            "indices in rows",
            |t, _| find(t, "indices").2 = vec![64, 24],
            "the indices' shape",
        ),
        (
            "an index too few",
            |t, _| {
                let indices = find(t, "indices");
                indices.3.pop();
                indices.2[0] -= 1;
            },
            "the indices' shape",
        ),
        (
            "tables of another rank",
            |t, _| find(t, "lut").2 = vec![4, 16],
            "lut",
        ),
        (
            "more tables than rows",
            |t, _| find(t, "lut").2 = vec![1, 4, 1, 16],
            "w\"",
        ),
        (
            "tables that do not divide",
            |t, _| {
                let lut = find(t, "lut");
                lut.2[0] = 3;
                lut.3.truncate(48);
            },
            "lut",
        ),
        (
            "fewer entries",
            |t, _| {
                let lut = find(t, "lut");
                lut.2 = vec![8, 1, 8, 1];
            },
            "entries of a table",
        ),
        (
            "tables of floats",
            |t, _| {
                let lut = find(t, "lut");
                lut.1 = "F16";
                lut.3.resize(128, 0);
            },
            "but no table of integers",
        ),
        (
            "tables of longer integers",
            |t, _| {
                let lut = find(t, "lut");
                lut.1 = "I16";
                lut.3.resize(128, 0);
            },
            "the tables' type",
        ),
        (
            "a scale of the tables of another type",
            |t, _| find(t, "lut_scale").1 = "BF16",
            "the type of \"w.palette.lut_scale\"",
        ),
        (
            "a scale of the tables of another shape",
            |t, _| find(t, "lut_scale").2 = vec![1, 4, 1, 1],
            "the shape of \"w.palette.lut_scale\"",
        ),
        (
            "an offset of another type",
            |t, _| find(t, "lut_offset").1 = "I8",
            "the type of \"w.palette.lut_offset\"",
        ),
        (
            "a scale of another type",
            |t, _| find(t, "scale").1 = "I16",
            "the scale's type",
        ),
        (
            "a scale of another shape",
            |t, _| find(t, "scale").2 = vec![1, 64],
            "the scale's shape",
        ),
        (
            "a type that is none",
            |_, m| m["dtype"] = json!("I32"),
            "dtype is \"I32\"",
        ),
        (
            "another float type",
            |_, m| m["dtype"] = json!("F32"),
            "the type of \"w.palette.lut_scale\"",
        ),
        ("five bits", |_, m| m["nbits"] = json!(5), "nbits is 5"),
        (
            "three bits",
            |_, m| m["nbits"] = json!(3),
            "entries of a table",
        ),
        (
            "another shape",
            |_, m| m["shape"] = json!([48, 64]),
            "but indices and tables make",
        ),
        (
            "huge indices",
            |_, m| m["index_shape"] = json!([u64::MAX, 4]),
            "w\"",
        ),
    ];
    for (what, edit, message) in table {
        let error = error(&scratch, &rebuilt(edit));
        assert!(matches!(error, Error::Compact { .. }), "{what}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(message) && text.len() < 500, "{what}: {text}");
    }

    let tensors = tensors(&header, &data);
    let weights = meta.to_string();
    let twice = format!("{{{0},{0}}}", &weights[1..weights.len() - 1]);
    let shared = json!({"w": meta["w"], "w.palette.indices": meta["w"]}).to_string();
    let table: [(&str, Strings<'_>, &str); 7] = [
        (
            "a later format",
            &[("palettizer.format", "2")],
            "written by a newer version?",
        ),
        (
            "no list of weights",
            &[("palettizer.format", "1")],
            "palettizer.weights: missing",
        ),
        (
            "no JSON",
            &[("palettizer.format", "1"), ("palettizer.weights", "{")],
            "EOF",
        ),
        (
            "a list",
            &[("palettizer.format", "1"), ("palettizer.weights", "[]")],
            "expected an object",
        ),
        (
            "a weight twice",
            &[("palettizer.format", "1"), ("palettizer.weights", &twice)],
            "\"w\" is there twice",
        ),
        (
            "a field that is unknown",
            &[
                ("palettizer.format", "1"),
                ("palettizer.weights", "{\"w\":{\"bits\":4}}"),
            ],
            "unknown field",
        ),
        (
            "a weight that is an index",
            &[("palettizer.format", "1"), ("palettizer.weights", &shared)],
            "a tensor of its name too",
        ),
    ];
    for (what, strings, message) in table {
        let error = error(&scratch, &file(&tensors, strings)).to_string();
        assert!(error.contains(message), "{what}: {error}");
    }
}

/// A palettized weight of 65,536 indices of one bit, into two vectors of 32,768 elements: 140 kB that stand for 4 GB.
fn bomb() -> Vec<u8> {
    let meta = json!({"w": {
        "dtype": "F16", "shape": [65536, 32768], "nbits": 1, "index_shape": [65536, 1], "vector_axis": 1,
    }});
    let halves: Vec<u8> = [half::f16::ZERO, half::f16::ONE]
        .iter()
        .flat_map(|value| value.to_le_bytes().repeat(32768))
        .collect();
    let tensors: [Tensor; 2] = [
        (
            "w.palette.lut".to_owned(),
            "F16",
            vec![1, 1, 2, 32768],
            halves,
        ),
        (
            "w.palette.indices".to_owned(),
            "U8",
            vec![8192],
            vec![0b0111_0111; 8192],
        ),
    ];
    let metadata = [
        ("palettizer.format", "1"),
        ("palettizer.weights", &meta.to_string()),
    ];
    file(&tensors, &metadata)
}

#[test]
fn a_file_that_unfolds_is_listed_but_not_unfolded() {
    let scratch = Scratch::new();
    let path = scratch.write("in.safetensors", bomb());
    let checkpoint = Checkpoint::open(&path).unwrap();
    let listed = checkpoint.weights(0).unwrap();
    assert_eq!(listed[0].unique_values, Some(2));
    assert_eq!(listed[0].sparsity, Some(0.25));
    let out = scratch.path("out.safetensors");
    let errors = [
        checkpoint.get("w").map(drop).unwrap_err(),
        checkpoint
            .decompress_to(&out, SaveOptions::overwriting(false), &())
            .unwrap_err(),
    ];
    for error in errors {
        let message = error.to_string();
        assert!(
            message.starts_with("\"w\": unfolds to 4294967296 bytes"),
            "{message}"
        );
        assert!(message.contains("--max-expansion"), "{message}");
    }
    assert_eq!(scratch.names(), ["in.safetensors"]);
    let limits = palettizer_pipeline::Limits::default().with_max_expansion(40_000);
    let checkpoint = Checkpoint::open_with(&path, limits).unwrap();
    checkpoint.get("w").unwrap();
}

#[cfg(unix)]
#[test]
fn a_checkpoint_that_is_cut_short_is_an_error_that_names_it() {
    palettizer_pipeline::mapped_file::guard_mappings();
    let scratch = Scratch::new();
    let checkpoint = scratch.checkpoint(&[weight("w", "F32", &[1024, 1024], 1)]);
    let file = std::fs::File::options();
    let file = file
        .clone()
        .write(true)
        .open(scratch.path("in.safetensors"));
    file.unwrap().set_len(64).unwrap();
    let out = scratch.path("out.safetensors");
    let config = config(PaletteSpec::new(Mode::Uniform(Nbits::B4)));
    let errors = [
        compress(&checkpoint, &config, &out).map(drop).unwrap_err(),
        checkpoint.weights(0).map(drop).unwrap_err(),
        checkpoint
            .decompress_to(&out, SaveOptions::overwriting(false), &())
            .unwrap_err(),
    ];
    for error in errors {
        let message = error.to_string();
        assert!(
            message.contains("in.safetensors: changed while it was in use"),
            "{message}"
        );
    }
    assert_eq!(scratch.names(), ["in.safetensors"]);
}

#[cfg(unix)]
#[test]
fn pipes_are_refused_before_they_are_opened() {
    let scratch = Scratch::new();
    for name in ["in.safetensors", "x.safetensors.index.json"] {
        let path = scratch.path(name);
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let message = Checkpoint::open(&path).unwrap_err().to_string();
        assert!(message.contains("found a pipe"), "{message}");
    }
}
