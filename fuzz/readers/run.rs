//! A program: planned, run on zeros within small limits, and differentiated.
//!
//! An input is a serialized model; its weight file is whole. Whatever it says, a run ends, in bounded memory.

use crate::support::{Builder, Parts, values};
use palettizer_coreml::Model;
use palettizer_runtime::{Dtype, Loss, Named, RunOptions, Session, Tensor};
use std::collections::BTreeMap;

/// Runs the main function of a program.
pub(crate) fn read(data: &[u8]) -> bool {
    let Ok(model) = Model::from_parts(data, program().weights) else {
        return false;
    };
    let Ok(session) = Session::new(&model) else {
        return false;
    };
    let options = RunOptions {
        max_steps: 1000,
        max_memory: 1 << 26,
        ..RunOptions::default()
    };
    let inputs = |shape: &[usize]| -> Named {
        let zeros = vec![0.25; shape.iter().product()];
        let tensor = Tensor::new(Dtype::F16, shape, zeros).unwrap();
        [("x".to_owned(), tensor.into())].into()
    };
    let mut ran = false;
    for shape in [&[1, 2, 8, 8][..], &[1, 4]] {
        let Ok(mut state) = session.state(None) else {
            return false;
        };
        let Ok(outputs) = session.run_with(None, inputs(shape), &mut state, options, None) else {
            continue;
        };
        ran = true;
        let floats = outputs
            .iter()
            .filter_map(|(name, value)| Some((name, value.tensor()?.floats()?)));
        let ones: BTreeMap<_, _> = floats
            .map(|(name, floats)| (name.clone(), vec![1.0; floats.len()]))
            .collect();
        // some operations have no gradient
        let _ = session.grad_with(
            &Loss::Projection(ones),
            &["x"],
            None,
            inputs(shape),
            options,
        );
    }
    ran
}

/// A program with operations of most families.
fn program() -> Parts {
    Builder::new("CoreML7")
        .input("x", &[1, 2, 8, 8])
        .weight("kernel", &[4, 2, 3, 3], &values(72))
        .weight("w", &[6, 16], &values(96))
        .weight("table", &[5, 4], &values(20))
        .string("same", "same")
        .string("valid", "valid")
        .ints("pads", &[4], &[0, 0, 0, 0])
        .ints("twos", &[2], &[2, 2])
        .ints("ones", &[2], &[1, 1])
        .ints("one", &[], &[1])
        .ints("last", &[], &[-1])
        .ints("axes", &[2], &[2, 3])
        .ints("flat", &[2], &[4, -1])
        .ints("perm", &[2], &[1, 0])
        .ints("begin", &[2], &[0, 1])
        .ints("end", &[2], &[3, 5])
        .ints("rows", &[3], &[0, 2, 3])
        .ints("reps", &[2], &[2, 1])
        .boolean("yes", true)
        .boolean("no", false)
        .op(
            "conv",
            "conv",
            &[
                ("x", "x"),
                ("weight", "kernel"),
                ("pad_type", "same"),
                ("pad", "pads"),
                ("strides", "ones"),
                ("dilations", "ones"),
                ("groups", "one"),
            ],
            &[1, 4, 8, 8],
        )
        .op("relu", "relu", &[("x", "conv")], &[1, 4, 8, 8])
        .op(
            "max_pool",
            "pool",
            &[
                ("x", "relu"),
                ("kernel_sizes", "twos"),
                ("strides", "twos"),
                ("pad_type", "valid"),
                ("pad", "pads"),
            ],
            &[1, 4, 4, 4],
        )
        .op(
            "reshape",
            "rows_of",
            &[("x", "pool"), ("shape", "flat")],
            &[4, 16],
        )
        .op(
            "linear",
            "fc",
            &[("x", "rows_of"), ("weight", "w")],
            &[4, 6],
        )
        .op("softmax", "soft", &[("x", "fc"), ("axis", "last")], &[4, 6])
        .op(
            "transpose",
            "turned",
            &[("x", "soft"), ("perm", "perm")],
            &[6, 4],
        )
        .op(
            "slice_by_index",
            "part",
            &[("x", "soft"), ("begin", "begin"), ("end", "end")],
            &[3, 4],
        )
        .op(
            "gather",
            "picked",
            &[("x", "table"), ("indices", "rows"), ("axis", "one")],
            &[5, 3],
        )
        .op("tile", "tiled", &[("x", "part"), ("reps", "reps")], &[6, 4])
        .op("add", "sum", &[("x", "turned"), ("y", "tiled")], &[6, 4])
        .op(
            "matmul",
            "product",
            &[
                ("x", "sum"),
                ("y", "sum"),
                ("transpose_x", "no"),
                ("transpose_y", "yes"),
            ],
            &[6, 6],
        )
        .op(
            "reduce_mean",
            "mean",
            &[("x", "relu"), ("axes", "axes"), ("keep_dims", "no")],
            &[1, 4],
        )
        .output("product")
        .output("mean")
        .output("picked")
        .build()
}

/// Valid programs.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    vec![program().model]
}
