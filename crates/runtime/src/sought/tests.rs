#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../../coreml/tests/support/mod.rs"]
mod support;

use super::Sought;
use crate::call::Slot;
use crate::options::RunOptions;
use crate::session::{Run, Session};
use crate::tensor::{Dtype, Tensor};
use palettizer_coreml::Model;
use support::{Builder, values};

const WIDE: usize = 80;

/// Two layers of fp16 weights, which are expanded, with a relu between them.
fn session() -> Session {
    let square = [WIDE as u64, WIDE as u64];
    let row = [1, WIDE as u64];
    let model = Builder::new("CoreML7")
        .input("x", &row)
        .weight("first", &square, &values(WIDE * WIDE))
        .weight("second", &square, &values(WIDE * WIDE))
        .op("linear", "a", &[("x", "x"), ("weight", "first")], &row)
        .op("relu", "b", &[("x", "a")], &row)
        .op("linear", "c", &[("x", "b"), ("weight", "second")], &row)
        .output("c")
        .build();
    let model = Model::from_parts(&model.model, model.weights).unwrap();
    Session::new(&model).unwrap()
}

/// How many floats are noted for each operation after a run: of its arguments and of its outputs.
fn noted(session: &Session, wrt: &[&str]) -> Vec<(usize, usize)> {
    let x = Tensor::new(Dtype::F32, &[1, WIDE], vec![0.5; WIDE]).unwrap();
    let mut state = session.state(None).unwrap();
    let sought = Sought::new(&session.root, None, wrt).unwrap();
    let inputs = sought.placed([("x".to_owned(), x.into())].into());
    let mut run = Run::new(RunOptions::default(), &mut state, None);
    run.sought = Some(sought);
    let outputs = session.run_stage(&session.root, None, inputs, &mut run);
    assert_eq!(outputs.unwrap().len(), 1);
    let floats = |slot: &Slot| {
        slot.value
            .tensor()
            .unwrap()
            .floats()
            .map_or(0, <[f32]>::len)
    };
    let entries = run.sought.unwrap().tape.entries.into_iter();
    let counts = entries.map(|entry| {
        let arguments = entry.args.items.iter().flat_map(|(_, slots)| slots);
        let arguments = arguments.map(floats).sum();
        (arguments, entry.outputs.iter().map(floats).sum())
    });
    counts.collect()
}

#[test]
fn nothing_is_noted_but_what_gradients_are_made_of() {
    let session = session();
    let both = noted(&session, &["first", "second"]);
    assert_eq!(both, [(WIDE, 0), (0, WIDE), (WIDE, 0)]);
    assert_eq!(noted(&session, &["x"]), [(0, 0), (0, WIDE), (0, 0)]);
    assert_eq!(noted(&session, &["second"]), [(WIDE, 0)]);
}

#[test]
fn constants_that_are_kept_are_kept_once() {
    let session = session().keep_constants(true);
    let noted = noted(&session, &["x"]);
    assert_eq!(noted, [(WIDE * WIDE, 0), (0, WIDE), (WIDE * WIDE, 0)]);
}
