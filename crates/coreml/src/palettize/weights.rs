//! Which weights a program has: as the pipeline asks, planned and read by their places in the program.

use crate::Error;
use crate::package::Package;
use crate::palettize::role::Flow;
use crate::palettize::units;
use crate::program::constant::{Constant, palette_dtype, release};
use crate::program::graph::{Graph, Node, User};
use crate::program::mil::{element_count, in_place, is_constexpr, op_name, param, stored_bytes};
use crate::program::names::Names;
use crate::program::walk::values;
use crate::proto::{BlobFileValue, DataType, Model, Operation, Value};
use palettizer_palette::decode::{DenseError, sparse_to_dense};
use palettizer_palette::{
    Granularity, Layout, LutDtype, Mode, Nbits, Palette, PaletteSpec, Refusal,
};
use palettizer_pipeline::config::{OptimizationConfig, Target};
use palettizer_pipeline::{Format, Known, Plan, Planned, Source, Values, Weight};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// The weights of a model, that `graph` was built from.
#[derive(Debug)]
pub(crate) struct Weights<'a> {
    pub(crate) package: &'a Package,
    pub(crate) model: &'a Model,
    pub(crate) graph: Graph<'a>,
    /// All names of the model, for what is still to be named.
    pub(crate) names: OnceLock<Arc<Names>>,
}

/// One place in the program that holds a weight.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    /// The `const` or `constexpr_` operation, as [`Node::ordinal`] counts.
    pub(crate) ordinal: usize,
    /// Whether a function gives it as an output.
    pub(crate) is_output: bool,
    /// How the weight stands there.
    pub(crate) slot: Slot<'a>,
    /// Its data, where it can be palettized.
    pub(crate) value: Option<&'a Value>,
    /// The target of the opset that it is written in; `None` for an opset that we do not know.
    target: Option<Target>,
    /// The groups of the convolutions that use it.
    conv_groups: Vec<usize>,
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

impl Slot<'_> {
    /// The parameter of the operation that stays which is bound to the palettized data; `None` if the operation goes.
    pub(crate) fn data_param(self) -> Option<&'static str> {
        match self {
            Slot::Const => None,
            Slot::NonzeroData { .. } => Some("nonzero_data"),
            Slot::QuantizedData { .. } => Some("data"),
        }
    }
}

impl<'a> Site<'a> {
    /// The target of the opset that it is written in, which is known of all that is palettized.
    pub(crate) fn target(&self) -> Target {
        self.target.unwrap_or(Target::IOS15)
    }

    /// Where its data is in a weight file.
    pub(crate) fn blob(&self) -> Option<&'a BlobFileValue> {
        self.value?.blob_file.as_ref()
    }

    /// Bytes of a weight of so many that stay when its data is palettized: a mask, or the scale of a quantization.
    pub(crate) fn kept_bytes(&self, all: u64) -> u64 {
        let data = self.value.and_then(Value::stored_bytes);
        match self.slot {
            Slot::Const => 0,
            _ => all.saturating_sub(data.unwrap_or(0)),
        }
    }
}

/// A constant goes by the name of its op and by that of its output.
fn constant_names(constant: &Operation) -> [&str; 2] {
    let output = constant.outputs.last().map_or("", |output| &output.name);
    [op_name(constant), output]
}

impl<'a> Format for Weights<'a> {
    type Place = Site<'a>;
    type Error = Error;
    const REPORTS_SMALL: bool = false;

    fn known(&self) -> Known<'_> {
        let mut known = Known::default();
        for (index, node) in self.graph.nodes.iter().enumerate() {
            known.names.extend(constant_names(node.op));
            for user in self.graph.consumers(index) {
                known.names.insert(op_name(user.op));
                known.types.insert(&user.op.r#type);
            }
        }
        known
    }

    fn weights(&self, config: &OptimizationConfig) -> Result<Vec<Weight<Site<'a>>>, Error> {
        let flow = config.preset().map(|_| Flow::of(self.model));
        let mut places = HashMap::new();
        let mut weights = Vec::new();
        for (index, node) in self.graph.nodes.iter().enumerate() {
            let Some(mut weight) = self.weight(index, node, config) else {
                continue;
            };
            if let Some(flow) = &flow {
                weight.role = flow.role(&weight.shape, &self.graph.consumers(index));
            }
            if let Some(place) = weight.place.blob() {
                let next = places.len();
                let place = (place.file_name.as_str(), place.offset);
                weight.data = Some(*places.entry(place).or_insert(next));
            }
            weights.push(weight);
        }
        Ok(weights)
    }

    fn accepts(
        &self,
        weight: &Weight<Site<'a>>,
        spec: &PaletteSpec,
        layout: Result<Layout, Refusal>,
    ) -> Result<Result<(), Refusal>, Error> {
        let site = &weight.place;
        let found = site.target.ok_or_else(|| Error::UnknownOpset {
            op: weight.name().to_owned(),
        })?;
        let (needed, feature) = needs(spec, site.slot);
        if found < needed {
            return Err(Error::OpsetTooOld {
                weight: weight.name().to_owned(),
                feature,
                needed,
                found,
            });
        }
        let whole = |layout: Layout| whole_vectors(layout.vector_axis, weight, spec);
        Ok(layout.and_then(whole))
    }

    fn same_place(&self, a: &Site<'a>, b: &Site<'a>) -> bool {
        let same_slot = match (a.slot, b.slot) {
            (Slot::Const, Slot::Const) => true,
            (Slot::QuantizedData { op: a }, Slot::QuantizedData { op: b }) => {
                let same = |name| param(a, name) == param(b, name);
                same("scale") && same("offset")
            }
            (Slot::NonzeroData { mask: a }, Slot::NonzeroData { mask: b }) => a == b,
            _ => false,
        };
        same_slot && (a.target() >= Target::IOS18) == (b.target() >= Target::IOS18)
    }

    fn values<'v>(&'v self, weight: &'v Weight<Site<'a>>) -> Result<Values<'v>, Error> {
        let (site, name) = (&weight.place, weight.name());
        let bad = |what: String| Error::bad_value(name, what);
        let value = site.value.ok_or_else(|| bad("it has no data".to_owned()))?;
        let data = Constant::read(self.package, name, value)?;
        let Slot::NonzeroData { mask } = site.slot else {
            if data.shape != weight.shape {
                return Err(bad(format!(
                    "its value has the shape {:?}, its output {:?}",
                    data.shape, weight.shape
                )));
            }
            return Ok(Values {
                bytes: data.bytes,
                mask: None,
            });
        };
        let mask = Constant::read_raised(self.package, name, mask)?;
        let dense = dense_bytes(&data, &mask).map_err(|error| bad(error.to_string()))?;
        Ok(Values {
            bytes: Cow::Owned(dense),
            mask: Some(mask.bytes),
        })
    }

    fn other_bytes(&self, plan: &Plan<Site<'a>>) -> Result<u64, Error> {
        self.bytes_without(plan)
    }

    fn palette_bytes(&self, planned: &Planned<Site<'a>>, palette: &Palette) -> Result<u64, Error> {
        self.bytes_of(planned, palette)
    }

    fn stored_len(&self) -> u64 {
        self.package.stored_len()
    }

    fn bytes_beside(&self, plan: &Plan<Site<'a>>) -> Result<u64, Error> {
        self.bytes_of_package(plan)
    }

    fn uses(&self, planned: &Planned<Site<'a>>) -> f64 {
        self.positions(planned)
    }

    fn finish(
        &self,
        weight: &Weight<Site<'a>>,
        values: &Values<'_>,
        palette: Option<&mut Palette>,
    ) -> Result<(), Error> {
        let site = &weight.place;
        if let (Slot::QuantizedData { op }, Some(palette)) = (site.slot, palette) {
            let data = site.value.and_then(Value::known_tensor);
            let dtype = data.map_or(DataType::Int8, |(dtype, _)| dtype);
            palette.error = units::error(self.package, op, dtype, &values.bytes, palette)?;
        }
        if let Some(place) = site.blob() {
            release(self.package, place);
        }
        Ok(())
    }
}

impl<'a> Weights<'a> {
    /// Those of a model of a package.
    ///
    /// # Errors
    /// [`Error::UndefinedName`] for a name that nothing defines before it is used.
    pub(crate) fn new(package: &'a Package, model: &'a Model) -> Result<Self, Error> {
        Ok(Self {
            package,
            model,
            graph: Graph::build(model)?,
            names: OnceLock::new(),
        })
    }

    /// The weight that a node holds; `None` if it holds something else.
    fn weight(
        &self,
        index: usize,
        node: &Node<'a>,
        config: &OptimizationConfig,
    ) -> Option<Weight<Site<'a>>> {
        let (slot, value) = candidate(node, config)?;
        let (output_dtype, shape) = node.op.outputs.last()?.known_tensor()?;
        let elements = element_count(&shape)?;
        let dtype = match value {
            Some(value) => value.known_tensor()?.0,
            None => output_dtype,
        };
        let consumers = self.graph.consumers(index);
        let first = consumers.first().and_then(|user| user.output_axis);
        let agreed = consumers.iter().all(|user| user.output_axis == first);
        let stored = values(node.op).filter_map(Value::stored_bytes);
        let dense = || stored_bytes(dtype, elements).unwrap_or(0) as u64;
        let bytes = stored.reduce(u64::saturating_add).unwrap_or_else(dense);
        let already = || format!("already compressed ({})", node.op.r#type);
        let source = match value.map(|_| self.no_weight(index, &shape, &consumers)) {
            None => Err(already()),
            Some(Some(reason)) => Err(reason),
            Some(None) => palette_dtype(dtype).ok_or_else(already),
        };
        let masked = matches!(slot, Slot::NonzeroData { .. });
        let user = |user: &&User<'a>| palettizer_pipeline::User {
            name: op_name(user.op).to_owned(),
            op_type: user.op.r#type.clone(),
        };
        Some(Weight {
            names: constant_names(node.op).map(str::to_owned).to_vec(),
            users: Some(consumers.iter().map(user).collect()),
            shape,
            dtype: dtype.name(),
            bytes,
            output_axis: first.filter(|_| agreed),
            data: None,
            role: None,
            source: source.map(|dtype| Source { dtype, masked }),
            place: Site {
                ordinal: node.ordinal,
                is_output: node.feeds_output,
                slot,
                value,
                target: node.target,
                conv_groups: consumers.iter().map(|user| user.groups).collect(),
            },
        })
    }

    /// Why a constant is no weight that could be palettized, whatever the configuration says.
    fn no_weight(&self, index: usize, shape: &[usize], consumers: &[&User<'a>]) -> Option<String> {
        if shape.len() < 2 {
            // Core ML takes no palettized constant of one dimension.
            return Some("one-dimensional".to_owned());
        }
        if self.graph.leaves_inner_block(index) {
            return Some(
                "it is no weight: it is an output of a block in a loop or a branch".to_owned(),
            );
        }
        if consumers.is_empty() {
            return Some("no op uses it".to_owned());
        }
        // What is in the flow of a loop or of a list.
        let control_flow = ["while_loop", "cond", "make_list", "list_write"];
        let mut types = consumers.iter().map(|user| user.op.r#type.as_str());
        let op_type = types.find(|op_type| control_flow.contains(op_type))?;
        Some(format!("it is no weight: it feeds {op_type}"))
    }
}

/// How a node holds a float weight, and the data to palettize; without data if it is compressed in a way that stays as
/// it is, and `None` if it holds something else.
fn candidate<'a>(
    node: &Node<'a>,
    config: &OptimizationConfig,
) -> Option<(Slot<'a>, Option<&'a Value>)> {
    let op = node.op;
    let (dtype, _) = op.outputs.last()?.known_tensor()?;
    if !matches!(
        dtype,
        DataType::Float16 | DataType::BFloat16 | DataType::Float32
    ) {
        return None;
    }
    if !is_constexpr(op) {
        // A constant that a constexpr op takes is a part of a compressed weight, not a weight.
        let part = node.users.iter().any(|user| user.node.is_some());
        let value = op.attributes.get("val")?;
        return (!part).then_some((Slot::Const, Some(value)));
    }
    // In the middle of a chain of constexpr ops: the one at its end speaks for it.
    if !node.feeds_others() {
        return None;
    }
    let found = joint(op).filter(|_| config.joint_compression());
    Some(match found {
        Some((slot, value)) => (slot, Some(value)),
        None => (Slot::Const, None),
    })
}

/// The data of a pruned or quantized weight that can be palettized in its turn.
fn joint(op: &Operation) -> Option<(Slot<'_>, &Value)> {
    let (slot, data) = match op.r#type.as_str() {
        "constexpr_sparse_to_dense" => (
            Slot::NonzeroData {
                mask: in_place(op, "mask")?,
            },
            in_place(op, "nonzero_data")?,
        ),
        "constexpr_blockwise_shift_scale" => {
            // The error of the palette is measured in units of the scale.
            in_place(op, "scale")?;
            (Slot::QuantizedData { op }, in_place(op, "data")?)
        }
        _ => return None,
    };
    let (dtype, shape) = data.known_tensor()?;
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

/// In a grouped convolution no vector may lie across two groups of channels.
fn whole_vectors(
    vector_axis: Option<usize>,
    weight: &Weight<Site<'_>>,
    spec: &PaletteSpec,
) -> Result<(), Refusal> {
    // Both kinds of convolution have the channels of all groups on axis 0 of the weight.
    let (Some(0), Some(&all)) = (vector_axis, weight.shape.first()) else {
        return Ok(());
    };
    let cluster_dim = spec.cluster_dim();
    let channels = weight.place.conv_groups.iter().map(|n| all / (*n).max(1));
    match channels.into_iter().find(|n| n % cluster_dim != 0) {
        None => Ok(()),
        Some(channels) => Err(Refusal::ClusterDim {
            channels,
            axis: 0,
            cluster_dim,
        }),
    }
}

/// The oldest target whose ops can hold what `spec` makes, and what it is that needs it.
fn needs(spec: &PaletteSpec, slot: Slot<'_>) -> (Target, &'static str) {
    let grouped = matches!(
        spec.granularity(),
        Granularity::PerGroupedChannel { group_size, .. } if group_size > 0
    );
    let three_bits = matches!(
        spec.mode(),
        Mode::Kmeans(Nbits::B3) | Mode::Uniform(Nbits::B3)
    );
    let ios18 = [
        (!matches!(slot, Slot::Const), "joint compression"),
        (grouped, "per_grouped_channel palettization"),
        (spec.cluster_dim() > 1, "vector palettization"),
        (spec.per_channel_scale(), "a per-channel scale"),
        (spec.lut_dtype() != LutDtype::Float, "an int8 or uint8 LUT"),
        (three_bits, "3 bits"),
    ];
    match ios18.into_iter().find(|(is, _)| *is) {
        Some((_, feature)) => (Target::IOS18, feature),
        None => (Target::IOS16, "palettization"),
    }
}

/// The dense bytes of a pruned weight, zeros where the mask has none.
fn dense_bytes(data: &Constant<'_>, mask: &Constant<'_>) -> Result<Vec<u8>, DenseError> {
    // The elements are moved, not looked into: an element is any `N` bytes.
    fn moved<const N: usize>(data: &[u8], mask: &Constant<'_>) -> Result<Vec<u8>, DenseError>
    where
        [u8; N]: Default,
    {
        let (elements, _) = data.as_chunks::<N>();
        Ok(sparse_to_dense(elements, &mask.bytes, &mask.shape)?.concat())
    }
    match palette_dtype(data.dtype).map(|dtype| dtype.size()) {
        Some(1) => moved::<1>(&data.bytes, mask),
        Some(2) => moved::<2>(&data.bytes, mask),
        _ => moved::<4>(&data.bytes, mask),
    }
}
