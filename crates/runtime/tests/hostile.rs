//! Programs that no converter makes: each is an error that says what is wrong, and none runs for ever.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../../coreml/tests/support/mod.rs"]
mod support;

use palettizer_coreml::Model;
use palettizer_coreml::proto::{self, DataType};
use palettizer_runtime::{Dtype, Error, Named, RunOptions, Session, Tensor};
use prost::Message as _;
use support::{Builder, Parts, by_name, named, tensor_type, values};

fn input(shape: &[usize]) -> Named {
    let count = shape.iter().product();
    let tensor = Tensor::new(Dtype::F32, shape, vec![0.5; count]).unwrap();
    [("x".to_owned(), tensor.into())].into()
}

/// The program of `parts`, changed.
fn changed(parts: Parts, change: impl FnOnce(&mut proto::Block)) -> Model {
    opened(parts, change).unwrap()
}

fn opened(
    parts: Parts,
    change: impl FnOnce(&mut proto::Block),
) -> Result<Model, palettizer_coreml::Error> {
    let mut spec = proto::Model::decode(parts.model.as_slice()).unwrap();
    let function = spec
        .ml_program
        .as_mut()
        .unwrap()
        .functions
        .get_mut("main")
        .unwrap();
    change(function.block_specializations.values_mut().next().unwrap());
    Model::from_parts(&spec.encode_to_vec(), parts.weights)
}

fn run(model: &Model, options: RunOptions<'_>) -> Result<Named, Error> {
    let session = Session::new(model)?;
    let mut state = session.state(None)?;
    session.run_with(None, input(&[1, 4]), &mut state, options, None)
}

fn small() -> Parts {
    Builder::new("CoreML7")
        .input("x", &[1, 4])
        .op("relu", "first", &[("x", "x")], &[1, 4])
        .op("tanh", "second", &[("x", "first")], &[1, 4])
        .output("second")
        .build()
}

fn said(result: Result<Named, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_loop_that_never_ends_ends() {
    let yes = Builder::new("CoreML7").boolean("yes", true).message().0;
    let yes = yes.ml_program.unwrap().functions["main"].block_specializations["CoreML7"].operations
        [0]
    .clone();
    let model = changed(small(), |block| {
        let fp16 = || tensor_type(DataType::Float16, &[1, 4]);
        let inner = |name: &str, outputs: &str, operations| proto::Block {
            inputs: vec![named(name, fp16())],
            outputs: vec![outputs.to_owned()],
            operations,
            ..Default::default()
        };
        let mut body = block.operations[0].clone();
        body.outputs[0].name = "in_loop".to_owned();
        body.inputs = [("x".to_owned(), by_name("b"))].into();
        block.operations[0] = proto::Operation {
            r#type: "while_loop".to_owned(),
            inputs: [("loop_vars".to_owned(), by_name("x"))].into(),
            outputs: vec![named("first", fp16())],
            blocks: vec![
                inner("a", "yes", vec![yes]),
                inner("b", "in_loop", vec![body]),
            ],
            ..Default::default()
        };
    });
    let options = RunOptions {
        max_steps: 5000,
        ..RunOptions::default()
    };
    let error = run(&model, options).unwrap_err();
    assert!(matches!(error, Error::MaxSteps { limit: 5000 }), "{error}");
}

#[test]
fn a_cycle_is_a_name_that_is_used_before_it_is_defined() {
    let error = opened(small(), |block| {
        block.operations[0].inputs = [("x".to_owned(), by_name("second"))].into();
    });
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("\"second\"") && error.contains("nothing before it defines"),
        "{error}"
    );
}

#[test]
fn a_promised_shape_that_is_not_kept_is_an_error() {
    let model = changed(small(), |block| {
        block.operations[0].outputs[0].r#type = Some(tensor_type(DataType::Float16, &[2, 2]));
    });
    let error = said(run(&model, RunOptions::default()));
    assert!(
        error.contains("[1, 4]") && error.contains("[2, 2]"),
        "{error}"
    );
}

#[test]
fn an_argument_of_another_kind_is_an_error() {
    let parts = Builder::new("CoreML7")
        .input("x", &[1, 4])
        .string("text", "relu")
        .op("relu", "first", &[("x", "text")], &[1, 4])
        .output("first")
        .build();
    let model = Model::from_parts(&parts.model, parts.weights).unwrap();
    let error = said(run(&model, RunOptions::default()));
    assert!(
        error.contains("x is a tensor of string") && error.contains("expected"),
        "{error}"
    );
}

#[test]
fn a_missing_argument_is_an_error() {
    let model = changed(small(), |block| block.operations[1].inputs.clear());
    let error = said(run(&model, RunOptions::default()));
    assert!(
        error.contains("tanh \"second\"") && error.contains("parameter x is missing"),
        "{error}"
    );
}

#[test]
fn all_unknown_operations_are_listed_before_anything_runs() {
    let parts = Builder::new("CoreML7")
        .input("x", &[1, 4])
        .op("frobnicate", "a", &[("x", "x")], &[1, 4])
        .op("relu", "b", &[("x", "a")], &[1, 4])
        .op("defenestrate", "c", &[("x", "b")], &[1, 4])
        .op("frobnicate", "d", &[("x", "c")], &[1, 4])
        .output("d")
        .build();
    let model = Model::from_parts(&parts.model, parts.weights).unwrap();
    let error = Session::new(&model).unwrap_err();
    assert!(
        matches!(&error, Error::UnknownOps { ops, .. } if ops == &["defenestrate", "frobnicate"]),
        "{error}"
    );
}

#[test]
fn shapes_whose_product_overflows_or_is_larger_than_memory_are_errors() {
    for shape in [
        &[i32::MAX, i32::MAX, i32::MAX, i32::MAX][..],
        &[-5, 2],
        &[1 << 20, 1 << 20],
    ] {
        let parts = Builder::new("CoreML7")
            .input("x", &[1, 4])
            .ints("shape", &[shape.len() as u64], shape)
            .weight("zero", &[1], &values(1))
            .op(
                "fill",
                "much",
                &[("shape", "shape"), ("value", "zero")],
                &[1],
            )
            .output("much")
            .build();
        let model = Model::from_parts(&parts.model, parts.weights).unwrap();
        let error = said(run(&model, RunOptions::default()));
        assert!(error.contains("fill \"much\""), "{error}");
    }
}

#[test]
fn a_run_keeps_to_its_memory() {
    let parts = Builder::new("CoreML7")
        .input("x", &[1, 4])
        .ints("reps", &[2], &[1 << 10, 1 << 10])
        .op(
            "tile",
            "much",
            &[("x", "x"), ("reps", "reps")],
            &[1 << 10, 1 << 12],
        )
        .output("much")
        .build();
    let model = Model::from_parts(&parts.model, parts.weights).unwrap();
    let options = RunOptions {
        max_memory: 1 << 20,
        ..RunOptions::default()
    };
    let error = run(&model, options).unwrap_err();
    assert!(
        matches!(
            error,
            Error::MaxMemory {
                asked: 16_777_216,
                ..
            }
        ),
        "{error}"
    );
    let enough = RunOptions {
        max_memory: 1 << 25,
        ..RunOptions::default()
    };
    assert_eq!(run(&model, enough).unwrap().len(), 1);
}

#[test]
fn inputs_that_do_not_fit_are_errors() {
    let parts = small();
    let model = Model::from_parts(&parts.model, parts.weights).unwrap();
    let session = Session::new(&model).unwrap();
    for (inputs, expected) in [
        (Named::new(), "\"x\" is missing"),
        (input(&[4, 1]), "[4, 1]"),
        (
            [
                input(&[1, 4]),
                [("y".to_owned(), Tensor::scalar(1.0).into())].into(),
            ]
            .into_iter()
            .flatten()
            .collect(),
            "\"y\"",
        ),
    ] {
        let error = session.run(inputs).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(
        session
            .run_named("other", input(&[1, 4]))
            .unwrap_err()
            .to_string()
            .contains("main")
    );
}
