//! What weights a model has: sizes, sparsity, distinct values, users, and how they are compressed already.

use crate::Error;
use crate::compression::{Compression, compression};
use crate::decompress::constexpr::{Dense, evaluate};
use crate::decompress::numbers::collected;
use crate::package::Package;
use crate::program::constant::{Constant, palette_dtype, release};
use crate::program::graph::{Graph, Node};
use crate::program::mil::{element_count, is_constexpr, op_name};
use crate::program::walk::values;
use crate::proto::{Model, NamedValueType, Operation, Value};
use palettizer_palette::{Statistics, Tensor, statistics};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

/// One constant of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WeightInfo {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its element type, when it is dense.
    pub dtype: String,
    /// The number of elements.
    pub elements: u64,
    /// Bytes that it takes, compressed or not.
    pub bytes: u64,
    /// The fraction of elements of a magnitude of at most 1e-12.
    pub sparsity: f64,
    /// Distinct values.
    pub unique_values: u64,
    /// The ops that use it.
    pub consumers: Vec<Consumer>,
    /// How it is compressed already.
    pub compression: Option<Compression>,
}

impl WeightInfo {
    /// A dense weight with no users: what else is known goes into the fields.
    ///
    /// ```
    /// let mut info = palettizer_coreml::WeightInfo::new("weight", &[8, 4], "fp16");
    /// info.consumers.push(palettizer_coreml::Consumer::new("fc", "linear"));
    /// assert_eq!((info.elements, info.unique_values), (32, 0));
    /// ```
    pub fn new(name: impl Into<String>, shape: &[usize], dtype: impl Into<String>) -> Self {
        let sizes = shape.iter().map(|&size| size as u64);
        Self {
            name: name.into(),
            shape: shape.to_vec(),
            dtype: dtype.into(),
            elements: sizes.fold(1, u64::saturating_mul),
            bytes: 0,
            sparsity: 0.0,
            unique_values: 0,
            consumers: Vec::new(),
            compression: None,
        }
    }
}

/// An op that uses a constant.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Consumer {
    /// The op's name.
    pub name: String,
    /// The op's type.
    pub op_type: String,
    /// The constants that it takes, by parameter.
    pub params: BTreeMap<String, String>,
}

impl Consumer {
    /// An op of a name and a type.
    pub fn new(name: impl Into<String>, op_type: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            op_type: op_type.into(),
            params: BTreeMap::new(),
        }
    }
}

/// A constant as it is used: what a compressed one stands for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WeightValues<'a> {
    /// The element type, such as `fp16`.
    pub dtype: &'static str,
    /// The shape.
    pub shape: Vec<usize>,
    /// Little-endian elements, row-major; those of less than a byte packed from the least significant bit. Borrowed
    /// from the weight file if they lie there as they are.
    pub bytes: Cow<'a, [u8]>,
}

/// The values of the constant of a name.
pub(crate) fn values_of<'a>(
    package: &'a Package,
    spec: &'a Model,
    name: &str,
) -> Result<WeightValues<'a>, Error> {
    let graph = Graph::build(spec)?;
    let inspector = Inspector::new(package, &graph, 0);
    let called = |node: &Node<'_>| {
        let output = node.op.outputs.last();
        op_name(node.op) == name || output.is_some_and(|output| output.name == name)
    };
    let index = graph.nodes.iter().position(called);
    let index = index.ok_or_else(|| Error::NoConstant {
        name: name.to_owned(),
    })?;
    inspector.values(index)
}

/// Every constant of `spec` with more than `threshold` elements, in the order of the program.
pub(crate) fn weights(
    package: &Package,
    spec: &Model,
    threshold: usize,
) -> Result<Vec<WeightInfo>, Error> {
    let graph = Graph::build(spec)?;
    let inspector = Inspector::new(package, &graph, threshold);
    let mut found = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        if inspector.is_listed(node) {
            found.extend(inspector.weight(index)?);
        }
    }
    Ok(found)
}

struct Inspector<'a, 'g> {
    package: &'a Package,
    graph: &'g Graph<'a>,
    threshold: usize,
    /// The nodes that an op takes, by the op's address, with the parameter.
    taken: HashMap<*const Operation, Vec<(&'a str, usize)>>,
}

impl<'a, 'g> Inspector<'a, 'g> {
    fn new(package: &'a Package, graph: &'g Graph<'a>, threshold: usize) -> Self {
        let mut taken: HashMap<_, Vec<_>> = HashMap::new();
        for (index, node) in graph.nodes.iter().enumerate() {
            for user in &node.users {
                let op = std::ptr::from_ref(user.op);
                taken.entry(op).or_default().push((user.param, index));
            }
        }
        Self {
            package,
            graph,
            threshold,
            taken,
        }
    }

    /// Whether a node is a constant that something other than a `constexpr_` op uses, and large enough.
    fn is_listed(&self, node: &Node<'_>) -> bool {
        let mut users = node.users.iter();
        let part = users.len() > 0 && users.all(|user| user.node.is_some());
        self.is_large(node) && !(is_constexpr(node.op) && part)
    }

    fn is_large(&self, node: &Node<'_>) -> bool {
        let elements = self.elements(node);
        elements.is_some_and(|elements| elements > self.threshold)
    }

    fn elements(&self, node: &Node<'_>) -> Option<usize> {
        let (dtype, shape) = node.op.outputs.last()?.known_tensor()?;
        dtype.bits()?;
        element_count(&shape)
    }

    fn weight(&self, index: usize) -> Result<Option<WeightInfo>, Error> {
        let node = &self.graph.nodes[index];
        let name = op_name(node.op);
        let output = node.op.outputs.last();
        let Some((dtype, shape)) = output.and_then(NamedValueType::known_tensor) else {
            return Ok(None);
        };
        let elements = element_count(&shape).unwrap_or(0);
        let (found, bytes, compression) = if is_constexpr(node.op) {
            let chain = self.chain(index);
            let dense = self.decompressed(&chain)?;
            let found = dense.map_or(NOTHING, |dense| {
                constant_statistics(&Constant {
                    dtype: dense.numbers.dtype(),
                    shape: dense.shape,
                    bytes: dense.numbers.bytes().into(),
                })
            });
            let ops: Vec<_> = chain.iter().map(|&at| self.graph.nodes[at].op).collect();
            (found, self.stored(&chain), Some(compression(&ops, &shape)))
        } else {
            let Some(value) = node.op.attributes.get("val") else {
                return Ok(None);
            };
            let constant = Constant::read(self.package, name, value)?;
            let bytes = constant.bytes.len() as u64;
            let found = constant_statistics(&constant);
            if let Some(place) = &value.blob_file {
                release(self.package, place);
            }
            (found, bytes, None)
        };
        Ok(Some(WeightInfo {
            name: name.to_owned(),
            shape,
            dtype: dtype.name().to_owned(),
            elements: elements as u64,
            bytes,
            sparsity: found.zeros as f64 / elements.max(1) as f64,
            unique_values: found.distinct as u64,
            consumers: self.consumers(index),
            compression,
        }))
    }

    fn values(&self, index: usize) -> Result<WeightValues<'a>, Error> {
        let op = self.graph.nodes[index].op;
        let name = op_name(op);
        if is_constexpr(op) {
            let dense = self.decompressed(&self.chain(index))?;
            let dense = dense.ok_or_else(|| Error::bad_value(name, "it makes no value"))?;
            let bytes = dense.numbers.bytes();
            let copy = collected(bytes.iter().copied());
            let copy = copy.map_err(|_| Error::no_memory(name, bytes.len()))?;
            return Ok(WeightValues {
                dtype: dense.numbers.dtype().name(),
                shape: dense.shape,
                bytes: Cow::Owned(copy),
            });
        }
        let value = op.attributes.get("val");
        let value = value.ok_or_else(|| Error::bad_value(name, "it has no value"))?;
        let constant = Constant::read(self.package, name, value)?;
        Ok(WeightValues {
            dtype: constant.dtype.name(),
            shape: constant.shape,
            bytes: constant.bytes,
        })
    }

    /// The `constexpr_` nodes that a node is made from, in order, itself the last.
    fn chain(&self, index: usize) -> Vec<usize> {
        let mut chain = Vec::new();
        let mut seen = HashSet::from([index]);
        let mut waiting = vec![index];
        while let Some(at) = waiting.pop() {
            chain.push(at);
            let op = std::ptr::from_ref(self.graph.nodes[at].op);
            let made_from = self.taken.get(&op).into_iter().flatten();
            let nodes = made_from.map(|&(_, node)| node);
            waiting.extend(
                nodes.filter(|&node| is_constexpr(self.graph.nodes[node].op) && seen.insert(node)),
            );
        }
        // An operation comes after those that it takes from.
        chain.sort_unstable();
        chain
    }

    fn decompressed(&self, chain: &[usize]) -> Result<Option<Dense>, Error> {
        let mut made: HashMap<&str, Dense> = HashMap::new();
        let mut last = "";
        for &at in chain {
            let op = self.graph.nodes[at].op;
            let lookup = |name: &str| made.get(name);
            let outputs = evaluate(self.package, op, &lookup, None)?;
            for (output, dense) in op.outputs.iter().zip(outputs) {
                last = &output.name;
                made.insert(last, dense);
            }
        }
        Ok(made.remove(last))
    }

    fn stored(&self, chain: &[usize]) -> u64 {
        let values = chain.iter().flat_map(|&at| values(self.graph.nodes[at].op));
        values.filter_map(Value::stored_bytes).sum()
    }

    fn consumers(&self, index: usize) -> Vec<Consumer> {
        let mut consumers: Vec<Consumer> = Vec::new();
        let mut seen = HashSet::new();
        for user in &self.graph.nodes[index].users {
            let op = std::ptr::from_ref(user.op);
            if !seen.insert(op) {
                continue;
            }
            let taken = self.taken.get(&op).into_iter().flatten();
            let params = taken.filter_map(|&(param, at)| {
                let node = &self.graph.nodes[at];
                let name = op_name(node.op).to_owned();
                self.is_large(node).then(|| (param.to_owned(), name))
            });
            consumers.push(Consumer {
                name: op_name(user.op).to_owned(),
                op_type: user.op.r#type.clone(),
                params: params.collect(),
            });
        }
        consumers
    }
}

/// The statistics of what makes no value.
const NOTHING: Statistics = Statistics {
    zeros: 0,
    distinct: 0,
};

fn constant_statistics(constant: &Constant<'_>) -> Statistics {
    let tensor = palette_dtype(constant.dtype)
        .and_then(|dtype| Tensor::new(dtype, &constant.shape, &constant.bytes).ok());
    if let Some(tensor) = tensor {
        return statistics(&tensor);
    }
    // Some other type: equal bytes are equal values, and no bits are zero.
    let bits = constant.dtype.bits().unwrap_or(8) as usize;
    let chunks = constant.bytes.chunks(bits.div_ceil(8));
    let zeros = chunks
        .clone()
        .filter(|chunk| chunk.iter().all(|&byte| byte == 0));
    Statistics {
        zeros: zeros.count(),
        distinct: chunks.collect::<HashSet<_>>().len(),
    }
}
