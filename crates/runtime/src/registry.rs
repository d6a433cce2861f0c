//! The operations that can be run, by their names in MIL.

use crate::call::{Call, Outcome};
use crate::grad::{Backward, Gradients};
use crate::ops;
use std::collections::HashMap;
use std::sync::LazyLock;

/// How an operation is run.
pub(crate) enum Run {
    /// From its arguments alone.
    Op(fn(&mut Call<'_>) -> Outcome),
    /// One of two blocks.
    Cond,
    /// Two blocks, in turn.
    WhileLoop,
    /// What a state holds.
    ReadState,
    /// A new content of a state.
    UpdateState,
}

/// An operation.
pub(crate) struct Def {
    pub name: &'static str,
    pub run: Run,
    /// The gradients of its arguments; `None` where there is none, or none of use.
    pub backward: Option<BackwardFn>,
    /// Whether it only moves elements about: what it gives is as exact as what it was given, and is not rounded again.
    pub moves: bool,
    /// The parameter that it takes rows of, and reads itself where that is a large constant.
    pub reads_rows: Option<&'static str>,
    /// What its gradients are made of, beside the shapes: all else is let go before they are taken.
    pub keeps: Keeps,
}

/// Elements that the gradients of an operation are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keeps {
    pub arguments: bool,
    pub outputs: bool,
    /// Of two parameters, each is needed for the gradient of the other alone.
    pub factors: Option<[&'static str; 2]>,
}

impl Def {
    /// The same, as one that only moves elements about; its gradients are made of shapes alone.
    pub(crate) const fn moving(self) -> Self {
        Def {
            moves: true,
            ..self.by_shapes()
        }
    }

    /// The same, as one that reads rows of a large constant itself.
    pub(crate) const fn reading_rows(self, of: &'static str) -> Self {
        Def {
            reads_rows: Some(of),
            ..self
        }
    }

    /// The same, with gradients that are made of shapes alone.
    pub(crate) const fn by_shapes(self) -> Self {
        self.keeping(false, false)
    }

    /// The same, with gradients that are made of its arguments.
    pub(crate) const fn by_arguments(self) -> Self {
        self.keeping(true, false)
    }

    /// The same, with gradients that are made of what it gave.
    pub(crate) const fn by_outputs(self) -> Self {
        self.keeping(false, true)
    }

    /// The same, with gradients that are made of its arguments and of what it gave.
    pub(crate) const fn by_both(self) -> Self {
        self.keeping(true, true)
    }

    /// The same, with gradients that are made of its arguments; each of these two, of which it is a product, is needed for the
    /// gradient of the other alone.
    pub(crate) const fn by_factors(self, x: &'static str, y: &'static str) -> Self {
        let keeps = Keeps {
            factors: Some([x, y]),
            ..KEEPS
        };
        Def { keeps, ..self }
    }

    const fn keeping(self, arguments: bool, outputs: bool) -> Self {
        let keeps = Keeps {
            arguments,
            outputs,
            ..KEEPS
        };
        Def { keeps, ..self }
    }
}

/// The gradients of an operation's arguments from those of its outputs.
pub(crate) type BackwardFn = fn(&Backward<'_>) -> Result<Gradients, crate::call::Fault>;

impl std::fmt::Debug for Def {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

const KEEPS: Keeps = Keeps {
    arguments: true,
    outputs: false,
    factors: None,
};

/// An operation that is run from its arguments alone.
pub(crate) const fn op(name: &'static str, run: fn(&mut Call<'_>) -> Outcome) -> Def {
    Def {
        name,
        run: Run::Op(run),
        backward: None,
        moves: false,
        reads_rows: None,
        keeps: KEEPS,
    }
}

/// The same, for one that can be differentiated, by its arguments if nothing else is said.
pub(crate) const fn differentiable(
    name: &'static str,
    run: fn(&mut Call<'_>) -> Outcome,
    backward: BackwardFn,
) -> Def {
    Def {
        name,
        run: Run::Op(run),
        backward: Some(backward),
        moves: false,
        reads_rows: None,
        keeps: KEEPS,
    }
}

/// One that the executor itself runs.
pub(crate) const fn executed(name: &'static str, run: Run) -> Def {
    Def {
        name,
        run,
        backward: None,
        moves: false,
        reads_rows: None,
        keeps: KEEPS,
    }
}

/// The operation of this name.
pub(crate) fn find(name: &str) -> Option<&'static Def> {
    static BY_NAME: LazyLock<HashMap<&str, &Def>> = LazyLock::new(|| {
        let all = ops::ALL.iter().flat_map(|defs| defs.iter());
        all.map(|def| (def.name, def)).collect()
    });
    BY_NAME.get(name).copied()
}

/// An operation that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct KnownOp {
    /// Its name in MIL.
    pub name: &'static str,
    /// Whether gradients of its outputs go on to its arguments.
    pub differentiable: bool,
}

/// All operations that can be run, sorted by name; constants and what they are made of are run as well.
///
/// ```
/// let known = palettizer_runtime::known_ops();
/// assert!(known.iter().any(|op| op.name == "conv" && op.differentiable));
/// ```
pub fn known_ops() -> Vec<KnownOp> {
    let all = ops::ALL.iter().flat_map(|defs| defs.iter());
    let known = all.map(|def| KnownOp {
        name: def.name,
        // what the executor runs itself notes what is run in it
        differentiable: def.backward.is_some() || !matches!(def.run, Run::Op(_)),
    });
    let mut known: Vec<KnownOp> = known.collect();
    known.sort_unstable();
    known
}
