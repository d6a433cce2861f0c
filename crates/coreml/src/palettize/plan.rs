//! What will happen to every weight, and why, decided before anything changes.
//!
//! The plan is read only: it looks at types, shapes, names and users, not at the weights' values. What only
//! the values can tell (too many distinct ones, NaN) is found while the plan is carried out and ends as a
//! skip in the report too; the model that came in is never touched either way.

use crate::Error;
use crate::config::{DEFAULT_WEIGHT_THRESHOLD, OpPalettizerConfig, OptimizationConfig, Unmatched};
use crate::opset::Target;
use crate::palettize::resolve::{Resolution, Resolver};
use crate::palettize::sensitivity;
use crate::palettize::skip::Skip;
use crate::program::constant::palette_dtype;
use crate::program::graph::{Graph, Node, User};
use crate::program::mil::{
    Param, element_count, is_constexpr, known_tensor, op_name, param, stored_bytes,
};
use crate::proto::{DataType, Model, Operation, Value};
use palettizer_palette::{Granularity, LutDtype, Mode, Nbits, PaletteSpec, Refusal, layout, suits};
use std::collections::HashMap;

/// The plan of a whole model.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// Every weight, in the order of the program.
    pub weights: Vec<Planned<'a>>,
    /// Op types and names of the configuration that fit nothing in the model.
    pub unmatched: Vec<Unmatched>,
}

/// What will happen to one weight.
#[derive(Debug)]
pub(crate) struct Planned<'a> {
    /// Where it stands. Several constants that share one blob and one fate are one weight.
    pub sites: Vec<Site>,
    /// The types of its consumers, each once.
    pub op_types: Vec<String>,
    /// The names of its consumers.
    pub op_names: Vec<String>,
    /// The element type of its data.
    pub dtype: DataType,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Bytes that it takes now.
    pub bytes: u64,
    /// Its fate.
    pub decision: Decision<'a>,
}

/// One place in the program that holds a weight.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// The `const` or `constexpr_` operation, as [`Node::ordinal`] counts.
    pub ordinal: usize,
    /// Its name.
    pub name: String,
    /// Whether a function gives it as an output.
    pub is_output: bool,
}

/// The fate of a weight.
#[derive(Debug)]
pub(crate) enum Decision<'a> {
    /// It is palettized.
    Compress(Job<'a>),
    /// It is left alone.
    Skip(Skip),
}

/// One weight to palettize.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// Its data.
    pub value: &'a Value,
    /// How it stands in the program.
    pub slot: Slot<'a>,
    /// How it is palettized.
    pub spec: PaletteSpec,
    /// The axis of its output channels.
    pub output_axis: Option<usize>,
    /// The target of the opset that it is written in.
    pub target: Target,
    /// What its sensitivities are called, if it has any.
    pub sensitivity: Option<String>,
}

/// How a weight stands in the program.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slot<'a> {
    /// As the value of a `const`.
    Const,
    /// As the `nonzero_data` of a `constexpr_sparse_to_dense` with this mask.
    NonzeroData {
        /// The mask of the positions that are kept: uint1, of the weight's shape.
        mask: &'a Value,
    },
    /// As the int8 or uint8 `data` of a `constexpr_blockwise_shift_scale`.
    QuantizedData {
        /// The operation.
        op: &'a Operation,
    },
}

/// Plans what `config` asks of `model`, that `graph` was built from.
///
/// # Errors
/// [`Error::Pattern`] for a key that is neither name nor pattern, [`Error::ConfigConflict`] if the users of one constant are configured differently,
/// [`Error::OpsetTooOld`] if a weight needs an op that its program's opset lacks, [`Error::Sensitivities`] if those
/// that were given do not fit.
pub(crate) fn plan<'a>(
    graph: &Graph<'a>,
    model: &'a Model,
    config: &OptimizationConfig,
) -> Result<Plan<'a>, Error> {
    let resolver = Resolver::new(config, graph, model)?;
    let mut weights: Vec<Planned<'a>> = Vec::new();
    let mut shared: HashMap<(&str, u64), Vec<usize>> = HashMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let Some((planned, place)) = plan_node(graph, index, config, &resolver)? else {
            continue;
        };
        let same_blob = place.map(|place| shared.entry(place).or_default());
        let twin = same_blob.as_ref().and_then(|twins| {
            twins
                .iter()
                .copied()
                .find(|&at| same_fate(&weights[at], &planned))
        });
        match twin {
            Some(at) => weights[at].join(planned),
            None => {
                if let Some(twins) = same_blob {
                    twins.push(weights.len());
                }
                weights.push(planned);
            }
        }
        debug_assert!(node.op.r#type == "const" || is_constexpr(node.op));
    }
    if let Some(sensitivities) = config.sensitivity() {
        sensitivity::assign(&mut weights, sensitivities)?;
    }
    Ok(Plan {
        weights,
        unmatched: resolver.unmatched(graph),
    })
}

impl Planned<'_> {
    fn join(&mut self, other: Self) {
        self.sites.extend(other.sites);
        for op_type in other.op_types {
            if !self.op_types.contains(&op_type) {
                self.op_types.push(op_type);
            }
        }
        for op_name in other.op_names {
            if !self.op_names.contains(&op_name) {
                self.op_names.push(op_name);
            }
        }
    }
}

/// Whether two weights in one blob can be palettized once for both.
fn same_fate(a: &Planned<'_>, b: &Planned<'_>) -> bool {
    if (a.dtype, &a.shape) != (b.dtype, &b.shape) {
        return false;
    }
    match (&a.decision, &b.decision) {
        (Decision::Skip(a), Decision::Skip(b)) => a == b,
        (Decision::Compress(a), Decision::Compress(b)) => {
            let same_slot = match (a.slot, b.slot) {
                (Slot::Const, Slot::Const) => true,
                (Slot::QuantizedData { op: a }, Slot::QuantizedData { op: b }) => {
                    let same = |name| param(a, name) == param(b, name);
                    same("scale") && same("offset")
                }
                (Slot::NonzeroData { mask: a }, Slot::NonzeroData { mask: b }) => a == b,
                _ => false,
            };
            same_slot
                && a.spec == b.spec
                && a.output_axis == b.output_axis
                && (a.target >= Target::IOS18) == (b.target >= Target::IOS18)
        }
        _ => false,
    }
}

type BlobPlace<'a> = (&'a str, u64);

fn plan_node<'a>(
    graph: &Graph<'a>,
    index: usize,
    config: &OptimizationConfig,
    resolver: &Resolver<'_, 'a>,
) -> Result<Option<(Planned<'a>, Option<BlobPlace<'a>>)>, Error> {
    let node = &graph.nodes[index];
    let consumers = graph.consumers(index);
    let Some(candidate) = candidate(node, config) else {
        return Ok(None);
    };
    let output_type = node.op.outputs.last().and_then(|out| out.r#type.as_ref());
    let Some((_, shape)) = known_tensor(output_type) else {
        return Ok(None);
    };
    let Some(elements) = element_count(&shape) else {
        return Ok(None);
    };

    let resolution = resolver.resolve(node.op, &shape, &consumers);
    let threshold = match &resolution {
        Ok(Resolution::Config(config)) => config.weight_threshold(),
        Ok(Resolution::Null | Resolution::Leave(_) | Resolution::Unset) => DEFAULT_WEIGHT_THRESHOLD,
        Err(conflict) => conflict.least_threshold,
    };
    if elements <= threshold {
        return Ok(None);
    }

    let place = candidate.value.and_then(|value| value.blob_file.as_ref());
    let dtype = match candidate.value {
        Some(value) => match known_tensor(value.r#type.as_ref()) {
            Some((dtype, _)) => dtype,
            None => return Ok(None),
        },
        None => known_tensor(output_type).map_or(DataType::Float16, |(dtype, _)| dtype),
    };
    let decision = match (
        candidate.skip.clone(),
        ineligible(graph, index, &shape, &consumers),
    ) {
        (Some(skip), _) | (None, Some(skip)) => Decision::Skip(skip),
        (None, None) => match resolution.map_err(|conflict| conflict.error)? {
            Resolution::Null => Decision::Skip(Skip::Null),
            Resolution::Leave(reason) => Decision::Skip(Skip::Preset(reason)),
            Resolution::Unset => Decision::Skip(Skip::Unset),
            Resolution::Config(op_config) => {
                decide(node, &candidate, dtype, &shape, &consumers, op_config)?
            }
        },
    };

    let mut planned = Planned {
        sites: vec![Site {
            ordinal: node.ordinal,
            name: op_name(node.op).to_owned(),
            is_output: node.feeds_output,
        }],
        op_types: Vec::new(),
        op_names: Vec::new(),
        dtype,
        bytes: candidate.bytes(dtype, elements),
        shape,
        decision,
    };
    for consumer in &consumers {
        if !planned.op_types.contains(&consumer.op.r#type) {
            planned.op_types.push(consumer.op.r#type.clone());
        }
        planned.op_names.push(op_name(consumer.op).to_owned());
    }
    planned.op_names.dedup();
    let place = place.map(|place| (place.file_name.as_str(), place.offset));
    Ok(Some((planned, place)))
}

/// A node that holds a weight.
struct Candidate<'a> {
    slot: Slot<'a>,
    /// The data to palettize; `None` if it is compressed in a way that stays as it is.
    value: Option<&'a Value>,
    skip: Option<Skip>,
    /// Every value that the weight is stored in.
    stored: Vec<&'a Value>,
}

impl Candidate<'_> {
    fn bytes(&self, dtype: DataType, elements: usize) -> u64 {
        if self.stored.is_empty() {
            return stored_bytes(dtype, elements).unwrap_or(0) as u64;
        }
        let bytes = |value: &&Value| {
            let (dtype, shape) = known_tensor(value.r#type.as_ref())?;
            stored_bytes(dtype, element_count(&shape)?)
        };
        self.stored.iter().filter_map(bytes).sum::<usize>() as u64
    }
}

/// Whether a node holds a float weight, and how; `None` if it is something else.
fn candidate<'a>(node: &Node<'a>, config: &OptimizationConfig) -> Option<Candidate<'a>> {
    let op = node.op;
    let (dtype, _) = known_tensor(op.outputs.last()?.r#type.as_ref())?;
    let float = matches!(
        dtype,
        DataType::Float16 | DataType::BFloat16 | DataType::Float32
    );
    if !float {
        return None;
    }
    if op.r#type == "const" {
        // A constant that a constexpr op takes is a part of a compressed weight, not a weight.
        if node.users.iter().any(|user| user.node.is_some()) {
            return None;
        }
        return Some(Candidate {
            slot: Slot::Const,
            value: Some(op.attributes.get("val")?),
            skip: None,
            stored: Vec::new(),
        });
    }
    // In the middle of a chain of constexpr ops: the one at its end speaks for it.
    let last = node.users.iter().any(|user| user.node.is_none()) || node.feeds_output;
    if !last {
        return None;
    }
    let mut stored = Vec::new();
    for (name, value) in &op.attributes {
        if name != "name" {
            stored.push(value);
        }
    }
    for argument in op.inputs.values() {
        stored.extend(argument.arguments.iter().filter_map(|b| b.value.as_ref()));
    }
    let already = Skip::AlreadyCompressed {
        op_type: op.r#type.clone(),
    };
    let (slot, value) = match joint(op) {
        Some(found) if config.joint_compression() => found,
        _ => {
            return Some(Candidate {
                slot: Slot::Const,
                value: None,
                skip: Some(already),
                stored,
            });
        }
    };
    Some(Candidate {
        slot,
        value: Some(value),
        skip: None,
        stored,
    })
}

/// The data of a pruned or quantized weight that can be palettized in its turn.
fn joint(op: &crate::proto::Operation) -> Option<(Slot<'_>, &Value)> {
    let value = |name| match param(op, name)? {
        Param::Value(value) => Some(value),
        Param::Name(_) => None,
    };
    let (slot, data) = match op.r#type.as_str() {
        "constexpr_sparse_to_dense" => (
            Slot::NonzeroData {
                mask: value("mask")?,
            },
            value("nonzero_data")?,
        ),
        "constexpr_blockwise_shift_scale" => {
            // The error of the palette is measured in units of the scale.
            value("scale")?;
            (Slot::QuantizedData { op }, value("data")?)
        }
        _ => return None,
    };
    let (dtype, shape) = known_tensor(data.r#type.as_ref())?;
    // a weight of zeros alone keeps no value: there is nothing to find a table for
    if shape.contains(&0) {
        return None;
    }
    let fits = match slot {
        Slot::QuantizedData { .. } => matches!(dtype, DataType::Int8 | DataType::UInt8),
        _ => palette_dtype(dtype).is_some(),
    };
    fits.then_some((slot, data))
}

/// Why a constant is no weight that could be palettized, whatever the configuration says.
fn ineligible(
    graph: &Graph<'_>,
    index: usize,
    shape: &[usize],
    consumers: &[&User<'_>],
) -> Option<Skip> {
    if shape.len() < 2 {
        return Some(Skip::OneDimensional);
    }
    if graph.leaves_inner_block(index) {
        return Some(Skip::LeavesInnerBlock);
    }
    if consumers.is_empty() {
        return Some(Skip::Unused);
    }
    let control_flow = ["while_loop", "cond", "make_list", "list_write"];
    let user = consumers
        .iter()
        .find(|user| control_flow.contains(&user.op.r#type.as_str()))?;
    Some(Skip::NoWeight {
        op_type: user.op.r#type.clone(),
    })
}

fn decide<'a>(
    node: &Node<'a>,
    candidate: &Candidate<'a>,
    dtype: DataType,
    shape: &[usize],
    consumers: &[&User<'_>],
    config: &OpPalettizerConfig,
) -> Result<Decision<'a>, Error> {
    let (Some(value), Some(palette_dtype)) = (candidate.value, palette_dtype(dtype)) else {
        return Ok(Decision::Skip(Skip::AlreadyCompressed {
            op_type: node.op.r#type.clone(),
        }));
    };
    let spec = config.spec();
    let target = node.target.ok_or_else(|| Error::UnknownOpset {
        op: op_name(node.op).to_owned(),
    })?;
    let (needed, feature) = needs(spec, candidate.slot);
    if target < needed {
        return Err(Error::OpsetTooOld {
            weight: op_name(node.op).to_owned(),
            feature,
            needed,
            found: target,
        });
    }
    let first = consumers.first().and_then(|user| user.output_axis);
    let agreed = consumers.iter().all(|user| user.output_axis == first);
    let output_axis = first.filter(|_| agreed);
    let masked = matches!(candidate.slot, Slot::NonzeroData { .. });
    let refusal = suits(palette_dtype, masked, spec)
        .and_then(|()| layout(shape, output_axis, spec))
        .and_then(|layout| whole_vectors(layout.vector_axis, shape, consumers, spec));
    if let Err(refusal) = refusal {
        return Ok(Decision::Skip(Skip::Refused(refusal)));
    }
    Ok(Decision::Compress(Job {
        value,
        slot: candidate.slot,
        spec: spec.clone(),
        output_axis,
        target,
        sensitivity: None,
    }))
}

/// In a grouped convolution no vector may lie across two groups of channels.
fn whole_vectors(
    vector_axis: Option<usize>,
    shape: &[usize],
    consumers: &[&User<'_>],
    spec: &PaletteSpec,
) -> Result<(), Refusal> {
    // Both kinds of convolution have the channels of all groups on axis 0 of the weight.
    let (Some(0), Some(&all)) = (vector_axis, shape.first()) else {
        return Ok(());
    };
    for user in consumers {
        let channels = all / user.groups.max(1);
        if channels % spec.cluster_dim() != 0 {
            return Err(Refusal::ClusterDim {
                channels,
                axis: 0,
                cluster_dim: spec.cluster_dim(),
            });
        }
    }
    Ok(())
}

/// The oldest target whose ops can hold what `spec` makes, and what it is that needs it.
fn needs(spec: &PaletteSpec, slot: Slot<'_>) -> (Target, &'static str) {
    let ios18 = |feature| (Target::IOS18, feature);
    if !matches!(slot, Slot::Const) {
        return ios18("joint compression");
    }
    if matches!(spec.granularity(), Granularity::PerGroupedChannel { group_size, .. } if group_size > 0)
    {
        return ios18("per_grouped_channel palettization");
    }
    if spec.cluster_dim() > 1 {
        return ios18("vector palettization");
    }
    if spec.per_channel_scale() {
        return ios18("a per-channel scale");
    }
    if spec.lut_dtype() != LutDtype::Float {
        return ios18("an int8 or uint8 LUT");
    }
    match spec.mode() {
        Mode::Kmeans(Nbits::B3) | Mode::Uniform(Nbits::B3) => ios18("3 bits"),
        _ => (Target::IOS16, "palettization"),
    }
}
