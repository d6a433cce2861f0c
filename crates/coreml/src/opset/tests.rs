//! The tables agree with each other, and each rule does what it says on hand-built programs.

use super::definitions::{DEFINITIONS, Definition, TABLE, definitions, input_name};
use super::redefinitions::{REDEFINITIONS, Redefinition, Verdict};
use super::*;
use crate::program::mil::{
    argument, blob_value, by_name, bytes_value, constant as constant_of, int32_values, output,
    string_value,
};
use crate::proto::*;
use palettizer_pipeline::config::Target;

mod rules;
mod tables;

const F16: DataType = DataType::Float16;
const F32: DataType = DataType::Float32;
const I32: DataType = DataType::Int32;
const U8: DataType = DataType::UInt8;

/// An op `o` with inputs bound by name, and an fp32 output of the same name.
fn op(op_type: &str, inputs: &[(&str, &str)]) -> Operation {
    Operation {
        r#type: op_type.to_owned(),
        inputs: inputs
            .iter()
            .map(|(input, name)| ((*input).to_owned(), argument(by_name(name))))
            .collect(),
        outputs: vec![output("o", F32, &[2])],
        attributes: [("name".to_owned(), string_value("o"))].into(),
        ..Operation::default()
    }
}

/// A `const` of the type of its value.
fn constant(name: &str, value: Value) -> Operation {
    let output = NamedValueType {
        name: name.to_owned(),
        r#type: value.r#type.clone(),
        ..NamedValueType::default()
    };
    constant_of(output, value)
}

/// A compressed constant in its iOS16 form.
fn compressed(op_type: &str, attributes: Vec<(&str, Value)>) -> Operation {
    let mut made = op(op_type, &[]);
    for (name, value) in attributes {
        made.attributes.insert(name.to_owned(), value);
    }
    made
}

fn shape_u32(shape: &[u32]) -> Value {
    let bytes: Vec<u8> = shape.iter().flat_map(|size| size.to_le_bytes()).collect();
    bytes_value(DataType::UInt32, &[shape.len()], &bytes)
}

fn blob(dtype: DataType, shape: &[usize]) -> Value {
    blob_value(dtype, shape, "@model_path/weights/weight.bin", 64)
}

fn function(from: Target, operations: Vec<Operation>) -> Function {
    let block = Block {
        operations,
        outputs: vec!["o".to_owned()],
        ..Block::default()
    };
    Function {
        inputs: vec![output("x", F32, &[2, 3, 4]), output("i", I32, &[5, 2])],
        opset: from.opset().to_owned(),
        block_specializations: [(from.opset().to_owned(), block)].into(),
        ..Function::default()
    }
}

fn model(from: Target, operations: Vec<Operation>) -> Model {
    let program = Program {
        version: 1,
        functions: [("main".to_owned(), function(from, operations))].into(),
        ..Program::default()
    };
    Model {
        specification_version: from.specification_version(),
        ml_program: Some(program),
        ..Model::default()
    }
}

fn main_of(model: &Model) -> &Function {
    &model.ml_program.as_ref().unwrap().functions["main"]
}

fn ops_of(model: &Model) -> &[Operation] {
    let main = main_of(model);
    &main.block_specializations[&main.opset].operations
}

fn types_of(model: &Model) -> Vec<&str> {
    ops_of(model).iter().map(|op| op.r#type.as_str()).collect()
}

/// The ops in the way of raising a program of one op; the model must stay as it was.
fn refused(from: Target, to: Target, operations: Vec<Operation>) -> Vec<OpInTheWay> {
    let mut model = model(from, operations);
    let before = model.clone();
    let error = raise(&mut model, to).unwrap_err();
    assert_eq!(model, before, "all or nothing");
    match error {
        OpsetError::OpsInTheWay { target, ops } => {
            assert_eq!(target, to);
            ops
        }
        other => panic!("{other}"),
    }
}

/// The reason why one op of a program is in the way.
fn reason(from: Target, to: Target, operations: Vec<Operation>) -> String {
    match &refused(from, to, operations)[..] {
        [one] => one.reason.clone(),
        ops => panic!("{ops:?}"),
    }
}

#[test]
fn opset_key_and_versions_follow() {
    let mut raised = model(Target::IOS15, vec![op("relu", &[("x", "x")])]);
    assert!(raise(&mut raised, Target::IOS26).unwrap());
    assert_eq!(raised.specification_version, 10);
    assert_eq!(main_of(&raised).opset, "CoreML9");
    let keys: Vec<_> = main_of(&raised).block_specializations.keys().collect();
    assert_eq!(keys, ["CoreML9"]);
}

#[test]
fn what_is_at_the_target_or_above_stays() {
    let mut model = model(Target::IOS18, vec![op("relu", &[("x", "x")])]);
    let before = model.clone();
    for target in [Target::IOS16, Target::IOS18] {
        assert!(!raise(&mut model, target).unwrap());
        assert_eq!(model, before);
    }
}

#[test]
fn functions_may_differ_and_every_one_is_raised() {
    let mut model = model(Target::IOS16, vec![op("relu", &[("x", "x")])]);
    let program = model.ml_program.as_mut().unwrap();
    let newer = function(Target::IOS18, vec![op("relu", &[("x", "x")])]);
    program.functions.insert("newer".to_owned(), newer);
    assert!(raise(&mut model, Target::IOS17).unwrap());
    let program = model.ml_program.as_ref().unwrap();
    assert_eq!(program.functions["main"].opset, "CoreML7");
    assert_eq!(program.functions["newer"].opset, "CoreML8");
}

#[test]
fn other_blocks_stay_and_one_for_the_target_is_used() {
    let mut model = model(Target::IOS15, vec![op("relu", &[("x", "x")])]);
    let main = model
        .ml_program
        .as_mut()
        .unwrap()
        .functions
        .get_mut("main")
        .unwrap();
    let ready = Block {
        operations: vec![op("tanh", &[("x", "x")])],
        ..Block::default()
    };
    main.block_specializations
        .insert("CoreML7".to_owned(), ready.clone());
    main.block_specializations
        .insert("CoreML6".to_owned(), Block::default());
    raise(&mut model, Target::IOS17).unwrap();
    let keys: Vec<_> = main_of(&model).block_specializations.keys().collect();
    assert_eq!(keys, ["CoreML6", "CoreML7"]);
    assert_eq!(main_of(&model).block_specializations["CoreML7"], ready);
}

#[test]
fn pipelines_are_raised_within() {
    let inner = model(Target::IOS16, vec![op("relu", &[("x", "x")])]);
    let other_kind = Model {
        specification_version: 4,
        ..Model::default()
    };
    let pipeline = Pipeline {
        models: vec![other_kind, inner],
        ..Pipeline::default()
    };
    let typed = TypedPipeline {
        pipeline: Some(pipeline.clone()),
        ..TypedPipeline::default()
    };
    for mut model in [
        Model {
            pipeline: Some(pipeline),
            ..Model::default()
        },
        Model {
            pipeline_classifier: Some(typed.clone()),
            ..Model::default()
        },
        Model {
            pipeline_regressor: Some(typed),
            ..Model::default()
        },
    ] {
        raise(&mut model, Target::IOS18).unwrap();
        assert_eq!(model.specification_version, 9);
        let typed = model.pipeline_classifier.or(model.pipeline_regressor);
        let pipeline = typed
            .map_or(model.pipeline, |typed| typed.pipeline)
            .unwrap();
        let versions: Vec<_> = pipeline
            .models
            .iter()
            .map(|m| m.specification_version)
            .collect();
        assert_eq!(versions, [4, 9]);
        assert_eq!(main_of(&pipeline.models[1]).opset, "CoreML8");
    }
}

#[test]
fn a_model_without_a_program_stays() {
    let mut model = Model::default();
    assert!(!raise(&mut model, Target::IOS18).unwrap());
    assert_eq!(model, Model::default());
}

#[test]
fn unknown_opsets_and_missing_blocks_are_errors() {
    let mut unknown = model(Target::IOS16, vec![]);
    let main = |model: &mut Model| {
        let program = model.ml_program.as_mut().unwrap();
        program.functions.remove("main").unwrap()
    };
    let mut function = main(&mut unknown);
    function.opset = "CoreML42".to_owned();
    unknown
        .ml_program
        .as_mut()
        .unwrap()
        .functions
        .insert("main".to_owned(), function);
    let error = raise(&mut unknown, Target::IOS18).unwrap_err();
    assert!(error.to_string().contains("CoreML42") && error.to_string().contains("main"));

    let mut missing = model(Target::IOS16, vec![]);
    let mut function = main(&mut missing);
    function.block_specializations.clear();
    missing
        .ml_program
        .as_mut()
        .unwrap()
        .functions
        .insert("main".to_owned(), function);
    let error = raise(&mut missing, Target::IOS18).unwrap_err();
    assert!(matches!(error, OpsetError::NoBlock { .. }), "{error}");

    let mut empty = model(Target::IOS16, vec![]);
    main(&mut empty);
    assert_eq!(
        raise(&mut empty, Target::IOS18),
        Err(OpsetError::NoFunction)
    );
}

#[test]
fn ops_in_the_way_are_counted_and_said() {
    let nms = op(
        "non_maximum_suppression",
        &[("boxes", "x"), ("scores", "x")],
    );
    let custom = op("custom_layer", &[]);
    let ops = refused(Target::IOS15, Target::IOS17, vec![nms.clone(), custom, nms]);
    let said: Vec<_> = ops
        .iter()
        .map(|op| (op.op_type.as_str(), op.count))
        .collect();
    assert_eq!(said, [("custom_layer", 1), ("non_maximum_suppression", 2)]);
    let error = OpsetError::OpsInTheWay {
        target: Target::IOS17,
        ops,
    };
    let text = error.to_string();
    for word in [
        "iOS17",
        "custom_layer \"o\"",
        "2 non_maximum_suppression",
        "minimum_deployment_target",
    ] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn an_op_that_the_opset_lacks_is_in_the_way() {
    let too_new = reason(
        Target::IOS15,
        Target::IOS18,
        vec![op("resize", &[("x", "x")])],
    );
    assert!(too_new.contains("CoreML5"), "{too_new}");
    let input = reason(
        Target::IOS15,
        Target::IOS16,
        vec![op("gather", &[("batch_dims", "x")])],
    );
    assert!(input.contains("`batch_dims`"), "{input}");
    let state = op("write_state", &[("input", "s"), ("data", "x")]);
    assert!(raise(&mut model(Target::IOS18, vec![state]), Target::IOS26).is_ok());
}
