//! Safetensors files written by other code than the crate's, and runs of it in a scratch folder.

use palettizer_palette::{Mode, Nbits, PaletteSpec};
use palettizer_pipeline::Report;
use palettizer_pipeline::config::{OpPalettizerConfig, OptimizationConfig};
use palettizer_pipeline::staged_output::SaveOptions;
use palettizer_safetensors::{Checkpoint, Content, Error};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A tensor of a test file: name, type, shape, bytes.
pub(crate) type Tensor = (String, &'static str, Vec<usize>, Vec<u8>);

/// A file of a header and data.
pub(crate) fn raw(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

/// A file of tensors, in this order, and strings.
pub(crate) fn file(tensors: &[Tensor], metadata: &[(&str, &str)]) -> Vec<u8> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        let strings = metadata
            .iter()
            .map(|(key, value)| (key.to_string(), json!(value)));
        header.insert("__metadata__".to_owned(), Value::Object(strings.collect()));
    }
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let start = data.len();
        data.extend_from_slice(bytes);
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name.clone(), entry);
    }
    raw(&Value::Object(header).to_string(), &data)
}

/// A weight of pseudo-random values: a sum of uniform numbers, which is near to a normal one.
pub(crate) fn weight(name: &str, dtype: &'static str, shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let elements: usize = shape.iter().product();
    let mut bytes = Vec::new();
    for _ in 0..elements {
        let value: f32 = (0..4).map(|_| uniform()).sum();
        match dtype {
            "F16" => bytes.extend(half::f16::from_f32(value).to_le_bytes()),
            "BF16" => bytes.extend(half::bf16::from_f32(value).to_le_bytes()),
            "F32" => bytes.extend(value.to_le_bytes()),
            "F64" => bytes.extend(f64::from(value).to_le_bytes()),
            _ => panic!("{dtype}"),
        }
    }
    (name.to_owned(), dtype, shape.to_vec(), bytes)
}

/// Three weights, a bias, a buffer of integers and a small matrix.
pub(crate) fn tensors() -> Vec<Tensor> {
    vec![
        weight("fc1.weight", "F32", &[64, 48], 1),
        weight("fc1.bias", "F32", &[64], 2),
        weight("fc2.weight", "F16", &[48, 64], 3),
        weight("conv.weight", "BF16", &[16, 8, 5, 5], 4),
        (
            "steps".to_owned(),
            "I64",
            vec![],
            7_i64.to_le_bytes().to_vec(),
        ),
        weight("small", "F32", &[4, 4], 5),
    ]
}

pub(crate) struct Scratch(pub(crate) TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Scratch(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file and gives its path.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A checkpoint in one file.
    pub(crate) fn checkpoint(&self, tensors: &[Tensor]) -> Checkpoint {
        let path = self.write("in.safetensors", file(tensors, &[("format", "pt")]));
        Checkpoint::open(path).unwrap()
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// The names in the folder.
    pub(crate) fn names(&self) -> Vec<String> {
        names(self.0.path())
    }
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub(crate) fn kmeans(nbits: Nbits) -> OptimizationConfig {
    config(PaletteSpec::new(Mode::Kmeans(nbits)))
}

pub(crate) fn config(spec: PaletteSpec) -> OptimizationConfig {
    OptimizationConfig::new().with_global(OpPalettizerConfig::new(spec))
}

pub(crate) fn compress(
    checkpoint: &Checkpoint,
    config: &OptimizationConfig,
    out: &Path,
) -> Result<Report, Error> {
    checkpoint.palettize_to(config, out, SaveOptions::overwriting(false), &())
}

/// The dense bytes of a weight, palettized or not.
pub(crate) fn dense(checkpoint: &Checkpoint, name: &str) -> Vec<u8> {
    match checkpoint.get(name).unwrap() {
        Content::Dense(tensor) => tensor.bytes.to_vec(),
        Content::Palette(palette) => palette.try_decompress().unwrap(),
    }
}

/// The reasons of the rows that were skipped; of the others, the word `compressed`.
pub(crate) fn fates(outcome: &Report) -> Vec<(&str, &str)> {
    let rows = outcome.weights.iter();
    rows.map(|row| (row.name.as_str(), row.reason().unwrap_or("compressed")))
        .collect()
}
