//! Small but valid ML Programs, built from scratch: what the tests read, damage and write.
//!
//! ```ignore
//! let model = Builder::new("CoreML7")
//!     .input("x", &[1, 4])
//!     .weight("w", &[8, 4], &weights(32))
//!     .op("linear", "fc", &[("x", "x"), ("weight", "w")], &[1, 8])
//!     .output("fc");
//! let (package, model) = model.open();
//! ```
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test target uses a part of it"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

use half::f16;
use palettizer_coreml::blob::WeightWriter;
use palettizer_coreml::package::Package;
use palettizer_coreml::proto::*;
use prost::Message;
use prost::encoding;
use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What programs call their weight file.
pub const WEIGHTS: &str = "@model_path/weights/weight.bin";

/// The identifier of the model in [`manifest`].
pub const MODEL_ID: &str = "da159e07-ce63-4795-a877-0240c1327c00";

/// The identifier of the weights in [`manifest`].
pub const WEIGHTS_ID: &str = "a1eab221-65ea-46eb-8d99-f8fd3bcb089d";

/// A model's bytes and its weight files.
#[derive(Clone, Debug)]
pub struct Parts {
    pub model: Vec<u8>,
    pub weights: BTreeMap<String, Vec<u8>>,
}

impl Parts {
    /// Opens it in memory.
    pub fn open(&self) -> (Package, Model) {
        Package::from_parts(&self.model, self.weights.clone()).unwrap()
    }

    /// Writes it as a package at `path`, without the code under test.
    pub fn write(&self, path: &Path) -> PathBuf {
        let data = path.join("Data/com.apple.CoreML");
        fs::create_dir_all(data.join("weights")).unwrap();
        fs::write(path.join("Manifest.json"), manifest()).unwrap();
        fs::write(data.join("model.mlmodel"), &self.model).unwrap();
        for (name, bytes) in &self.weights {
            fs::write(data.join(name.strip_prefix("@model_path/").unwrap()), bytes).unwrap();
        }
        path.to_owned()
    }
}

/// A manifest as coremltools writes it, with an entry that nobody knows.
pub fn manifest() -> String {
    format!(
        r#"{{
    "fileFormatVersion": "1.0.0",
    "itemInfoEntries": {{
        "{WEIGHTS_ID}": {{
            "author": "com.apple.CoreML",
            "description": "CoreML Model Weights",
            "name": "weights",
            "path": "com.apple.CoreML/weights"
        }},
        "{MODEL_ID}": {{
            "author": "com.apple.CoreML",
            "description": "CoreML Model Specification",
            "name": "model.mlmodel",
            "path": "com.apple.CoreML/model.mlmodel"
        }}
    }},
    "rootModelIdentifier": "{MODEL_ID}",
    "unknownKey": [1, 2.50, "three"]
}}
"#
    )
}

/// A model with one function of one block, op by op.
pub struct Builder {
    opset: String,
    version: i32,
    inputs: Vec<(String, Vec<u64>)>,
    outputs: Vec<String>,
    types: BTreeMap<String, ValueType>,
    operations: Vec<Operation>,
    weights: WeightWriter<Cursor<Vec<u8>>>,
}

impl Builder {
    /// A program in this opset: `CoreML5` to `CoreML9`.
    pub fn new(opset: &str) -> Self {
        let number: i32 = opset.strip_prefix("CoreML").unwrap().parse().unwrap();
        Self {
            opset: opset.to_owned(),
            version: number + 1,
            inputs: Vec::new(),
            outputs: Vec::new(),
            types: BTreeMap::new(),
            operations: Vec::new(),
            weights: WeightWriter::new(Cursor::new(Vec::new())).unwrap(),
        }
    }

    /// An fp16 input.
    pub fn input(mut self, name: &str, shape: &[u64]) -> Self {
        self.inputs.push((name.to_owned(), shape.to_vec()));
        let input_type = tensor_type(DataType::Float16, shape);
        self.types.insert(name.to_owned(), input_type);
        self
    }

    /// An fp16 constant in the weight file.
    pub fn weight(self, name: &str, shape: &[u64], values: &[f32]) -> Self {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|&value| f16::from_f32(value).to_le_bytes())
            .collect();
        self.blob(name, DataType::Float16, shape, &bytes)
    }

    /// An fp32 constant in the weight file.
    pub fn weight_f32(self, name: &str, shape: &[u64], values: &[f32]) -> Self {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.blob(name, DataType::Float32, shape, &bytes)
    }

    /// A constant of any type in the weight file, of whole bytes.
    pub fn blob(mut self, name: &str, dtype: DataType, shape: &[u64], bytes: &[u8]) -> Self {
        let offset = self.weights.append(dtype, bytes, 0).unwrap();
        self.blob_at(name, dtype, shape, offset)
    }

    /// A constant that refers to a blob that is there already, or to nothing good.
    pub fn blob_at(self, name: &str, dtype: DataType, shape: &[u64], offset: u64) -> Self {
        let value = Value {
            r#type: Some(tensor_type(dtype, shape)),
            blob_file: Some(BlobFileValue {
                file_name: WEIGHTS.to_owned(),
                offset,
                ..Default::default()
            }),
            ..Default::default()
        };
        self.constant(name, value)
    }

    /// An int32 constant in place: a scalar, or a vector.
    pub fn ints(self, name: &str, shape: &[u64], values: &[i32]) -> Self {
        let tensor = TensorValue {
            ints: Some(RepeatedInts {
                values: values.to_vec(),
                ..Default::default()
            }),
            ..Default::default()
        };
        self.constant(name, immediate(tensor_type(DataType::Int32, shape), tensor))
    }

    /// A boolean constant.
    pub fn boolean(self, name: &str, value: bool) -> Self {
        let tensor = TensorValue {
            bools: Some(RepeatedBools {
                values: vec![value],
                ..Default::default()
            }),
            ..Default::default()
        };
        self.constant(name, immediate(tensor_type(DataType::Bool, &[]), tensor))
    }

    /// A string constant.
    pub fn string(self, name: &str, value: &str) -> Self {
        self.constant(name, string_value(value))
    }

    /// A `const` op of any value.
    pub fn constant(mut self, name: &str, value: Value) -> Self {
        let value_type = value.r#type.clone().unwrap();
        self.types.insert(name.to_owned(), value_type.clone());
        self.operations.push(Operation {
            r#type: "const".to_owned(),
            outputs: vec![named(name, value_type)],
            attributes: [
                ("name".to_owned(), string_value(name)),
                ("val".to_owned(), value),
            ]
            .into(),
            ..Default::default()
        });
        self
    }

    /// An op with an fp16 output of its own name; inputs are pairs of parameter and value.
    pub fn op(mut self, kind: &str, name: &str, inputs: &[(&str, &str)], shape: &[u64]) -> Self {
        let output_type = tensor_type(DataType::Float16, shape);
        self.types.insert(name.to_owned(), output_type.clone());
        self.operations.push(Operation {
            r#type: kind.to_owned(),
            inputs: inputs
                .iter()
                .map(|(parameter, value)| ((*parameter).to_owned(), by_name(value)))
                .collect(),
            outputs: vec![named(name, output_type)],
            attributes: [("name".to_owned(), string_value(name))].into(),
            ..Default::default()
        });
        self
    }

    /// Makes a value an output of the model.
    pub fn output(mut self, name: &str) -> Self {
        self.outputs.push(name.to_owned());
        self
    }

    /// The model and its weight file.
    pub fn message(self) -> (Model, Vec<u8>) {
        let block = Block {
            outputs: self.outputs.clone(),
            operations: self.operations,
            ..Default::default()
        };
        let inputs = self.inputs.iter();
        let function = Function {
            inputs: inputs
                .clone()
                .map(|(name, _)| named(name, self.types[name].clone()))
                .collect(),
            opset: self.opset.clone(),
            block_specializations: [(self.opset, block)].into(),
            ..Default::default()
        };
        // `ModelDescription`, which the messages under test do not look into.
        let mut description = Vec::new();
        for (name, shape) in inputs {
            encoding::bytes::encode(1, &feature(name, Some(shape)), &mut description);
        }
        for name in &self.outputs {
            encoding::bytes::encode(10, &feature(name, None), &mut description);
        }
        let mut unknown = Vec::new();
        encoding::bytes::encode(2, &description, &mut unknown);
        let model = Model {
            specification_version: self.version,
            ml_program: Some(Program {
                version: 1,
                functions: [("main".to_owned(), function)].into(),
                ..Default::default()
            }),
            unknown,
            ..Default::default()
        };
        (model, self.weights.finish().unwrap().into_inner())
    }

    /// The model in bytes.
    pub fn build(self) -> Parts {
        let (model, weights) = self.message();
        Parts {
            model: model.encode_to_vec(),
            weights: [(WEIGHTS.to_owned(), weights)].into(),
        }
    }
}

/// A linear layer, 4 inputs and 8 outputs.
pub fn linear_model() -> Parts {
    Builder::new("CoreML7")
        .input("x", &[1, 4])
        .weight("w", &[8, 4], &values(32))
        .weight("b", &[8], &values(8))
        .op(
            "linear",
            "fc",
            &[("x", "x"), ("weight", "w"), ("bias", "b")],
            &[1, 8],
        )
        .output("fc")
        .build()
}

/// A convolution with 3 × 3 kernels over a 16 × 16 image.
pub fn conv_model(opset: &str, inputs: u64, outputs: u64) -> Parts {
    let weights = values((outputs * inputs * 9) as usize);
    Builder::new(opset)
        .input("x", &[1, inputs, 16, 16])
        .weight("w", &[outputs, inputs, 3, 3], &weights)
        .string("pad_type", "same")
        .ints("pad", &[4], &[0, 0, 0, 0])
        .ints("strides", &[2], &[1, 1])
        .ints("dilations", &[2], &[1, 1])
        .ints("groups", &[], &[1])
        .op(
            "conv",
            "conv",
            &[
                ("x", "x"),
                ("weight", "w"),
                ("pad_type", "pad_type"),
                ("pad", "pad"),
                ("strides", "strides"),
                ("dilations", "dilations"),
                ("groups", "groups"),
            ],
            &[1, outputs, 16, 16],
        )
        .output("conv")
        .build()
}

/// Numbers between -1 and 1 that look like noise, the same ones each time.
pub fn values(count: usize) -> Vec<f32> {
    let mut random = Random::new(count as u64);
    let unit = |bits: u64| (bits >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    (0..count).map(|_| unit(random.next())).collect()
}

/// Xorshift: random enough for tests, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

pub fn tensor_type(dtype: DataType, shape: &[u64]) -> ValueType {
    let dimension = |&size| Dimension {
        constant: Some(ConstantDimension {
            size,
            ..Default::default()
        }),
        ..Default::default()
    };
    ValueType {
        tensor_type: Some(TensorType {
            data_type: dtype as i32,
            rank: shape.len() as i64,
            dimensions: shape.iter().map(dimension).collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn immediate(value_type: ValueType, tensor: TensorValue) -> Value {
    Value {
        r#type: Some(value_type),
        immediate: Some(ImmediateValue {
            tensor: Some(tensor),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn string_value(text: &str) -> Value {
    let tensor = TensorValue {
        strings: Some(RepeatedStrings {
            values: vec![text.to_owned()],
            ..Default::default()
        }),
        ..Default::default()
    };
    immediate(tensor_type(DataType::String, &[]), tensor)
}

pub fn named(name: &str, value_type: ValueType) -> NamedValueType {
    NamedValueType {
        name: name.to_owned(),
        r#type: Some(value_type),
        ..Default::default()
    }
}

pub fn by_name(value: &str) -> Argument {
    Argument {
        arguments: vec![Binding {
            name: value.to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A `FeatureDescription` of an fp16 multi-array.
fn feature(name: &str, shape: Option<&Vec<u64>>) -> Vec<u8> {
    const FLOAT16: i32 = 65552;
    let mut array = Vec::new();
    if let Some(shape) = shape {
        let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        encoding::int64::encode_packed(1, &shape, &mut array);
    }
    encoding::int32::encode(2, &FLOAT16, &mut array);
    let mut feature_type = Vec::new();
    encoding::bytes::encode(5, &array, &mut feature_type);
    let mut feature = Vec::new();
    encoding::string::encode(1, &name.to_owned(), &mut feature);
    encoding::bytes::encode(3, &feature_type, &mut feature);
    feature
}

const CHILD: &str = "PALETTIZER_TEST_CHILD";

/// Runs the test of this name once more, in a process of its own, below a shell command that ends in
/// `exec "$@"`. There, [`child`] gives the folder.
pub fn in_child(test: &str, shell: &str, folder: &Path) {
    let mut command = Command::new("sh");
    command
        .args(["-c", shell, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"]);
    let output = command.env(CHILD, folder).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.contains("1 passed"), "no test of this name: {text}");
}

/// The folder that [`in_child`] was given, in the process that it runs.
pub fn child() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(Into::into)
}
