use super::*;
use crate::program::mil::{
    bind_name, bind_value, bytes_value, int32_values, output, string_value, tensor_type,
};
use crate::proto::{Block, Function, Program};
use std::collections::BTreeMap;

type Parameter<'a> = (&'a str, DataType, &'a [usize]);

/// An operation with parameters of such types in place, and outputs of such types.
fn operation(
    op_type: &str,
    params: &[Parameter<'_>],
    outputs: &[(DataType, &[usize])],
) -> Operation {
    let typed = |dtype, shape: &[usize]| Value {
        r#type: Some(tensor_type(dtype, shape)),
        ..Default::default()
    };
    let inputs = params
        .iter()
        .map(|&(name, dtype, shape)| (name.to_owned(), bind_value(typed(dtype, shape))));
    let outputs = outputs.iter().enumerate();
    Operation {
        r#type: op_type.to_owned(),
        inputs: inputs.collect(),
        outputs: outputs
            .map(|(at, (dtype, shape))| output(&format!("out{at}"), *dtype, shape))
            .collect(),
        attributes: BTreeMap::from([("name".to_owned(), string_value("op"))]),
        ..Default::default()
    }
}

fn with(mut op: Operation, name: &str, value: Value) -> Operation {
    op.inputs.insert(name.to_owned(), bind_value(value));
    op
}

fn shape_value(shape: &[u32]) -> Value {
    let bytes: Vec<u8> = shape.iter().flat_map(|dim| dim.to_le_bytes()).collect();
    bytes_value(DataType::UInt32, &[shape.len()], &bytes)
}

fn model(operations: Vec<Operation>) -> Model {
    let block = Block {
        operations,
        ..Default::default()
    };
    let function = Function {
        opset: "CoreML8".to_owned(),
        block_specializations: BTreeMap::from([("CoreML8".to_owned(), block)]),
        ..Default::default()
    };
    let program = Program {
        functions: BTreeMap::from([("main".to_owned(), function)]),
        ..Default::default()
    };
    Model {
        ml_program: Some(program),
        ..Default::default()
    }
}

use DataType::{Float16, Float32, Int8, Int32, UInt1, UInt2, UInt3, UInt4, UInt8};

/// Each valid operation of the family, in small.
fn valid() -> Vec<Operation> {
    let lut: &[usize] = &[4, 1, 16, 1];
    vec![
        operation(
            "constexpr_lut_to_dense",
            &[("indices", UInt4, &[8, 6]), ("lut", Float16, lut)],
            &[(Float16, &[8, 6])],
        ),
        with(
            operation(
                "constexpr_lut_to_dense",
                &[("indices", UInt2, &[8, 3]), ("lut", Int8, &[1, 1, 4, 2])],
                &[(Int8, &[8, 6])],
            ),
            "vector_axis",
            int32_values(&[], vec![-1]),
        ),
        with(
            operation(
                "constexpr_lut_to_dense",
                &[("indices", UInt8, &[24]), ("lut", Float32, &[16])],
                &[(Float32, &[8, 6])],
            ),
            "shape",
            shape_value(&[8, 6]),
        ),
        operation(
            "constexpr_lut_to_sparse",
            &[
                ("indices_mask", UInt1, &[8, 6]),
                ("indices_nonzero_data", UInt4, &[7]),
                ("lut", Float16, lut),
            ],
            &[(UInt1, &[8, 6]), (Float16, &[7])],
        ),
        operation(
            "constexpr_sparse_blockwise_shift_scale",
            &[
                ("data_mask", UInt1, &[8, 6]),
                ("nonzero_data", Float16, &[7]),
                ("scale", Float16, &[8, 1]),
            ],
            &[(UInt1, &[8, 6]), (Float16, &[7])],
        ),
        operation(
            "constexpr_sparse_to_dense",
            &[("mask", UInt1, &[8, 6]), ("nonzero_data", Int8, &[7])],
            &[(Int8, &[8, 6])],
        ),
        with(
            operation(
                "constexpr_sparse_to_dense",
                &[("mask", UInt8, &[6]), ("nonzero_data", Float16, &[7])],
                &[(Float16, &[8, 6])],
            ),
            "shape",
            shape_value(&[8, 6]),
        ),
        operation(
            "constexpr_blockwise_shift_scale",
            &[
                ("data", Int8, &[8, 6]),
                ("scale", Float16, &[8, 2]),
                ("offset", Int8, &[8, 2]),
            ],
            &[(Float16, &[8, 6])],
        ),
        with(
            operation(
                "constexpr_affine_dequantize",
                &[
                    ("quantized_data", UInt8, &[8, 6]),
                    ("scale", Float16, &[6]),
                    ("zero_point", UInt8, &[]),
                ],
                &[(Float16, &[8, 6])],
            ),
            "axis",
            int32_values(&[], vec![-1]),
        ),
        operation(
            "constexpr_cast",
            &[("source_val", Float16, &[8, 6])],
            &[(Float32, &[8, 6])],
        ),
    ]
}

fn refusal(op: Operation) -> Option<String> {
    let error = check_written(&model(Vec::new()), &model(vec![op])).err()?;
    Some(error.to_string())
}

#[test]
fn what_is_valid_passes() {
    for op in valid() {
        assert_eq!(refusal(op.clone()), None, "{op:?}");
    }
    let other = operation("linear", &[("x", Float16, &[3])], &[(Float16, &[4])]);
    assert_eq!(refusal(other), None);
}

/// Whatever type of an operation is another one, the operation is refused: nothing is left unchecked.
#[test]
fn every_type_counts() {
    let elsewhere = tensor_type(Int32, &[5, 7, 11]);
    for op in valid() {
        for name in op
            .inputs
            .keys()
            .filter(|name| !["axis", "vector_axis", "shape"].contains(&name.as_str()))
        {
            let mut changed = op.clone();
            if let Some(value) = changed
                .inputs
                .get_mut(name)
                .and_then(|argument| argument.arguments[0].value.as_mut())
            {
                value.r#type = Some(elsewhere.clone());
            }
            assert!(refusal(changed).is_some(), "{name} of {op:?}");
            if name != "offset" {
                let mut without = op.clone();
                without.inputs.remove(name);
                let error = refusal(without).unwrap_or_default();
                assert!(error.contains("is missing"), "{name} of {op:?}: {error}");
            }
        }
        for at in 0..op.outputs.len() {
            let mut changed = op.clone();
            changed.outputs[at].r#type = Some(elsewhere.clone());
            let error = refusal(changed).unwrap_or_default();
            assert!(
                error.contains("it says that it gives"),
                "{at} of {op:?}: {error}"
            );
        }
    }
}

#[test]
fn what_is_wrong_is_said() {
    let dense: &[(DataType, &[usize])] = &[(Float16, &[8, 6])];
    let sparse: &[(DataType, &[usize])] = &[(UInt1, &[8, 6]), (Float16, &[7])];
    let cases = [
        // A scale of the weight's rank on values without axes.
        (
            operation(
                "constexpr_blockwise_shift_scale",
                &[("data", Float16, &[7]), ("scale", Float16, &[8, 1])],
                dense,
            ),
            "scale of shape [8, 1] does not divide data of shape [7]",
        ),
        (
            operation(
                "constexpr_lut_to_dense",
                &[
                    ("indices", UInt3, &[8, 6]),
                    ("lut", Float16, &[1, 1, 16, 1]),
                ],
                dense,
            ),
            "lut has 16 entries, which uint3 indices do not fit",
        ),
        (
            operation(
                "constexpr_lut_to_dense",
                &[
                    ("indices", UInt4, &[8, 6]),
                    ("lut", Float16, &[3, 1, 16, 1]),
                ],
                dense,
            ),
            "lut of shape [3, 1] does not divide the indices of shape [8, 6]",
        ),
        (
            operation(
                "constexpr_lut_to_dense",
                &[("indices", UInt4, &[8, 6]), ("lut", Float16, &[16])],
                dense,
            ),
            "lut has the shape [16], expected 2 axes more",
        ),
        (
            operation(
                "constexpr_lut_to_dense",
                &[
                    ("indices", UInt4, &[8, 3]),
                    ("lut", Float16, &[1, 1, 16, 2]),
                ],
                dense,
            ),
            "vector_axis is missing",
        ),
        (
            with(
                operation(
                    "constexpr_lut_to_dense",
                    &[
                        ("indices", UInt4, &[8, 3]),
                        ("lut", Float16, &[1, 1, 16, 2]),
                    ],
                    dense,
                ),
                "vector_axis",
                int32_values(&[], vec![2]),
            ),
            "vector_axis is 2, out of range for rank 2",
        ),
        (
            with(
                operation(
                    "constexpr_lut_to_dense",
                    &[("indices", UInt8, &[23]), ("lut", Float16, &[16])],
                    dense,
                ),
                "shape",
                shape_value(&[8, 6]),
            ),
            "indices has the shape [23], which does not fit the shape [8, 6]",
        ),
        (
            with(
                operation(
                    "constexpr_lut_to_dense",
                    &[("indices", UInt8, &[18]), ("lut", Float16, &[8])],
                    dense,
                ),
                "shape",
                shape_value(&[8, 6]),
            ),
            "expected 2, 4, 16, 64 or 256",
        ),
        (
            operation(
                "constexpr_lut_to_sparse",
                &[
                    ("indices_mask", UInt1, &[8, 6]),
                    ("indices_nonzero_data", UInt4, &[7, 1]),
                    ("lut", Float16, &[1, 1, 16, 1]),
                ],
                sparse,
            ),
            "indices_nonzero_data has the shape [7, 1], expected one axis",
        ),
        (
            operation(
                "constexpr_blockwise_shift_scale",
                &[
                    ("data", Int8, &[8, 6]),
                    ("scale", Float16, &[8, 1]),
                    ("offset", UInt8, &[8, 1]),
                ],
                dense,
            ),
            "offset is of type uint8, the data of int8",
        ),
        (
            operation(
                "constexpr_blockwise_shift_scale",
                &[
                    ("data", Int8, &[8, 6]),
                    ("scale", Float16, &[8, 1]),
                    ("offset", Int8, &[1, 1]),
                ],
                dense,
            ),
            "offset has the shape [1, 1], scale [8, 1]",
        ),
    ];
    for (op, words) in cases {
        let error = refusal(op.clone()).unwrap_or_default();
        assert!(error.contains(words), "{words}: {error}");
        assert!(error.contains("please report it"), "{error}");
    }
}

#[test]
fn a_chain_is_followed_by_the_names_of_outputs() {
    let mut lut = valid().swap_remove(3);
    for (output, name) in lut.outputs.iter_mut().zip(["mask", "data"]) {
        output.name = name.to_owned();
    }
    let mut dense = valid().swap_remove(5);
    dense
        .attributes
        .insert("name".to_owned(), string_value("dense"));
    dense.outputs = vec![output("w", Float16, &[8, 6])];
    let mut chained = |mask: &str, data: &str| {
        dense.inputs.insert("mask".to_owned(), bind_name(mask));
        dense
            .inputs
            .insert("nonzero_data".to_owned(), bind_name(data));
        check_written(&model(Vec::new()), &model(vec![lut.clone(), dense.clone()]))
    };
    assert!(chained("mask", "data").is_ok());
    let error = chained("data", "mask").unwrap_err();
    assert!(
        matches!(&error, Error::Emitted { name, .. } if name == "dense"),
        "{error}"
    );
}

#[test]
fn what_was_wrong_before_is_left_alone() {
    let mut wrong = valid().swap_remove(0);
    wrong.outputs[0].r#type = None;
    let mut ours = valid().swap_remove(1);
    ours.attributes
        .insert("name".to_owned(), string_value("ours"));
    ours.outputs = vec![output("ours", Float16, &[8, 6])];
    let before = model(vec![wrong.clone()]);
    assert!(check_written(&before, &before).is_ok());
    let error = check_written(&before, &model(vec![wrong, ours])).unwrap_err();
    assert!(
        matches!(&error, Error::Emitted { name, .. } if name == "ours"),
        "{error}"
    );
}
