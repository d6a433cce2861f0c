//! Every compressed constant back to a dense one.
//!
//! A `constexpr_` operation that something other than a `constexpr_` operation uses becomes a `const` of the
//! same name with the value that it stands for; the others of its chain go. Constants that came from the
//! same blobs share one blob again.

pub(crate) mod constexpr;
pub(crate) mod numbers;

use crate::Error;
use crate::blob::WeightWriter;
use crate::decompress::constexpr::evaluate;
use crate::package::Package;
use crate::program::graph::{Graph, Node};
use crate::program::mil::{Param, constant, in_place, is_constexpr, op_name, param};
use crate::program::walk::{functions_mut, values_mut};
use crate::proto::{Block, Model, Operation, Value};
use crate::rewrite::{Rewriter, Written};
use palettizer_pipeline::{Progress, go_on};
use std::collections::HashMap;
use std::io::{Seek, Write};

/// The parameters that hold the data of a compressed constant.
const DATA: [&str; 5] = [
    "indices",
    "data",
    "quantized_data",
    "nonzero_data",
    "source_val",
];

/// A model made dense.
pub(crate) struct Dense<W> {
    /// The new model.
    pub spec: Model,
    /// Its weight files, by name and with their lengths; `None` if nothing was compressed.
    pub files: Option<Written<W>>,
    /// How many constants were compressed.
    pub weights: usize,
}

/// Makes every compressed constant of `spec` dense. `open` begins a new weight file of a name.
pub(crate) fn decompress<W: Write + Seek>(
    package: &Package,
    spec: &Model,
    open: &mut (dyn FnMut(&str) -> Result<WeightWriter<W>, Error> + Send),
    progress: &dyn Progress,
) -> Result<Dense<W>, Error> {
    let graph = Graph::build(spec)?;
    let nodes = graph.nodes.iter().filter(|node| is_constexpr(node.op));
    let nodes: HashMap<usize, &Node<'_>> = nodes.map(|node| (node.ordinal, node)).collect();
    if nodes.is_empty() {
        return Ok(Dense {
            spec: spec.clone(),
            files: None,
            weights: 0,
        });
    }
    progress.start(nodes.len(), 0);
    let weights = nodes.values().filter(|node| node.feeds_others()).count();
    let mut out = spec.clone();
    let mut decompressor = Decompressor {
        package,
        nodes,
        rewriter: Rewriter::new(package, open, progress.stop()),
        made: HashMap::new(),
        origins: HashMap::new(),
        stored: HashMap::new(),
        ordinal: 0,
        unfolded: 0,
        progress,
    };
    for function in functions_mut(&mut out) {
        for block in function.block_specializations.values_mut() {
            decompressor.made.clear();
            decompressor.block(block)?;
        }
    }
    let files = decompressor.rewriter.finish()?;
    go_on(progress.stop())?;
    progress.finish();
    Ok(Dense {
        spec: out,
        files: Some(files),
        weights,
    })
}

/// What a `constexpr_` operation made that another one needs.
struct Made {
    dense: constexpr::Dense,
    /// Where its data came from: equal for equal values.
    origin: usize,
}

struct Decompressor<'a, W> {
    package: &'a Package,
    nodes: HashMap<usize, &'a Node<'a>>,
    rewriter: Rewriter<'a, W>,
    made: HashMap<String, Made>,
    /// A number for each way that a value was made: a text for each would double with every link of a chain.
    origins: HashMap<String, usize>,
    /// Values stored already, by the origin of their data and the number of the output.
    stored: HashMap<(usize, usize), Value>,
    ordinal: usize,
    /// Bytes of all that was made dense.
    unfolded: u64,
    progress: &'a dyn Progress,
}

impl<W: Write + Seek> Decompressor<'_, W> {
    fn block(&mut self, block: &mut Block) -> Result<(), Error> {
        for mut op in std::mem::take(&mut block.operations) {
            let node = self.nodes.get(&self.ordinal).copied();
            self.ordinal += 1;
            if let Some(node) = node {
                go_on(self.progress.stop())?;
                let dense = self.constexpr(&op, node)?;
                block.operations.extend(dense);
                continue;
            }
            values_mut(&mut op).try_for_each(|value| self.rewriter.copy(value))?;
            for inner in &mut op.blocks {
                self.block(inner)?;
            }
            block.operations.push(op);
        }
        Ok(())
    }

    /// The `const` for each output of `op` that is used as a constant.
    fn constexpr(&mut self, op: &Operation, node: &Node<'_>) -> Result<Vec<Operation>, Error> {
        let origin = self.origin(op);
        let feeds_constexpr = node.users.iter().any(|user| user.node.is_some());
        let feeds_others = node.feeds_others();
        let known = |at: usize| self.stored.get(&(origin, at));
        let stored = (0..op.outputs.len()).map(known).collect::<Option<Vec<_>>>();
        let values: Vec<Value> = match stored {
            Some(values) if !feeds_constexpr => values.into_iter().cloned().collect(),
            _ => {
                let lookup = |name: &str| self.made.get(name).map(|made| &made.dense);
                let outputs = evaluate(self.package, op, &lookup, None)?;
                let mut values = Vec::new();
                for (at, (dense, output)) in outputs.into_iter().zip(&op.outputs).enumerate() {
                    if feeds_others {
                        let value = self.store(op, &dense)?;
                        self.stored.insert((origin, at), value.clone());
                        values.push(value);
                    }
                    if feeds_constexpr {
                        let made = Made { dense, origin };
                        self.made.insert(output.name.clone(), made);
                    }
                }
                values
            }
        };
        self.progress.advance(op_name(op), 0);
        if !feeds_others {
            return Ok(Vec::new());
        }
        let consts = op.outputs.iter().zip(values);
        let consts = consts.map(|(output, value)| constant(output.clone(), value));
        Ok(consts.collect())
    }

    fn store(&mut self, op: &Operation, dense: &constexpr::Dense) -> Result<Value, Error> {
        let bytes = dense.numbers.bytes();
        self.unfolded = self.unfolded.saturating_add(bytes.len() as u64);
        let (limits, stored) = (self.package.limits(), self.package.stored_len());
        limits.check(op_name(op), self.unfolded, stored)?;
        let mut data = DATA.into_iter().filter_map(|name| in_place(op, name));
        let file = data.find_map(|value| value.blob_file.as_ref());
        let file = file.map(|place| place.file_name.as_str());
        let dtype = dense.numbers.dtype();
        self.rewriter.store(file, dtype, &dense.shape, bytes)
    }

    /// A number that two operations share only if they make the same.
    fn origin(&mut self, op: &Operation) -> usize {
        let mut text = op.r#type.clone();
        let params = op.attributes.keys().chain(op.inputs.keys());
        for name in params.filter(|name| *name != "name") {
            let from = match param(op, name) {
                Some(Param::Value(value)) => match &value.blob_file {
                    Some(place) => {
                        format!("{}@{}:{:?}", place.file_name, place.offset, value.r#type)
                    }
                    None => format!("{value:?}"),
                },
                Some(Param::Name(from)) => match self.made.get(from) {
                    Some(made) => format!("#{}", made.origin),
                    None => from.to_owned(),
                },
                None => String::new(),
            };
            text.push_str(&format!(";{name}={from}"));
        }
        let next = self.origins.len();
        *self.origins.entry(text).or_insert(next)
    }
}
