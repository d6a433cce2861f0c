//! What palettes cost: the bytes of a program and its weight files, known before either is written.
//!
//! Blobs lie at multiples of 64 whatever their order, so that each has a size of its own. In the program each operation has one
//! too, but for the offsets of its blobs, which take more bytes the larger they are: the largest that there can be is counted.

use crate::Error;
use crate::blob::HEADER_LEN;
use crate::palettize::emit::Stored;
use crate::palettize::splice::Replacement;
use crate::palettize::weights::{Site, Slot, Weights};
use crate::program::graph::{Node, User};
use crate::program::names::Names;
use crate::program::walk::{functions, functions_mut, operations, values, weight_files};
use crate::proto::{Block, DataType, NamedValueType, Operation};
use crate::rewrite::{Counter, DEFAULT_FILE, blob_bytes, retyped};
use palettizer_palette::Palette;
use palettizer_pipeline::{Plan, Planned, Weight};
use prost::{Message as _, length_delimiter_len};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Lengths that stand before the operations of a function: of the program, of the function and of the block, and of both as
/// entries in maps.
const LENGTHS: u64 = 5;

impl<'a> Weights<'a> {
    /// Bytes of the program and its files without the weights that a plan palettizes.
    pub(super) fn bytes_without(&self, plan: &Plan<Site<'a>>) -> Result<u64, Error> {
        let jobs = plan
            .weights
            .iter()
            .filter(|planned| planned.job().is_some());
        let places: Vec<&Weight<Site<'a>>> = jobs.flat_map(Planned::places).collect();
        let gone: HashMap<usize, Slot<'_>> = places
            .iter()
            .map(|weight| (weight.place.ordinal, weight.place.slot))
            .collect();
        let mut files: HashSet<&str> = places.iter().map(|weight| file_of(weight)).collect();
        let mut blobs = 0;
        let mut seen: HashSet<(&str, u64, DataType)> = HashSet::new();
        for (ordinal, op) in operations(self.model).into_iter().enumerate() {
            for value in values(op) {
                let Some(place) = &value.blob_file else {
                    continue;
                };
                if gone.get(&ordinal).is_some_and(|slot| slot.takes(op, value)) {
                    continue;
                }
                let blob = self
                    .package
                    .weight_file(&place.file_name)?
                    .blob(place.offset)?;
                let len = blob.data.len() as u64;
                let dtype =
                    retyped(len, value.r#type.as_ref()).map_or(blob.dtype, |(dtype, _)| dtype);
                if seen.insert((&place.file_name, place.offset, dtype)) {
                    blobs += blob_bytes(len);
                }
                files.insert(&place.file_name);
            }
        }
        let mut rest = self.model.clone();
        let mut ordinal = 0;
        for function in functions_mut(&mut rest) {
            for block in function.block_specializations.values_mut() {
                remove(block, &gone, &mut ordinal);
            }
        }
        let (all, rest) = (self.model.encoded_len(), rest.encoded_len() as u64);
        // a length takes a byte for every seven of its bits; no program grows to twice itself
        let longer = length_delimiter_len(2 * all) - length_delimiter_len(rest as usize);
        let lengths = functions(self.model).count() as u64 * LENGTHS * longer as u64;
        let headers = files.len() as u64 * HEADER_LEN;
        Ok(rest + lengths + headers + blobs)
    }

    /// Bytes of the package beside the program and its weight files.
    pub(super) fn bytes_of_package(&self, plan: &Plan<Site<'a>>) -> Result<u64, Error> {
        let mut files = weight_files(self.model);
        let jobs = plan
            .weights
            .iter()
            .filter(|planned| planned.job().is_some());
        files.extend(jobs.map(|planned| file_of(&planned.weight)));
        self.package.bytes_beside(&files)
    }

    /// Bytes of a palette in the places of all weights that go with one.
    pub(super) fn bytes_of(
        &self,
        planned: &Planned<Site<'a>>,
        palette: &Palette,
    ) -> Result<u64, Error> {
        let site = &planned.weight.place;
        let mut counter = Counter {
            // no form takes more than the weight did, and a record, and offsets of twice as many bytes are as long
            offset: self.package.stored_len().saturating_mul(2),
            file: site.blob().map(|place| place.file_name.as_str()),
            bytes: 0,
        };
        let store = |dtype, shape: &[usize], data: &[u8]| Ok(counter.store(dtype, shape, data));
        let stored = Stored::new(palette, site.slot, site.target(), store)?;
        let places = planned
            .places()
            .map(|weight| self.bytes_in(weight, &stored));
        Ok(counter.bytes + places.sum::<u64>())
    }

    /// Bytes of a palette's operations in one place, with what its users grow by.
    fn bytes_in(&self, weight: &Weight<Site<'a>>, stored: &Stored) -> u64 {
        let Some(node) = self.node(&weight.place) else {
            return 0;
        };
        let replacement = Replacement {
            name: weight.name(),
            data_param: weight.place.slot.data_param(),
            keeps_name: weight.place.is_output,
            stored,
        };
        let mut names = Names::beside(self.names());
        if replacement.data_param.is_some() {
            let mut op = node.op.clone();
            replacement.take_data(&mut op);
            let mut ops = replacement.feed(&mut op, &mut names);
            ops.push(op);
            return ops.iter().map(bytes_of_op).sum();
        }
        let ops = stored.operations(replacement.name, None, &mut names);
        let (old, new) = (output_name(Some(node.op)), output_name(ops.last()));
        let renamed = match replacement.keeps_name {
            true => 0,
            false => node
                .users
                .iter()
                .map(|user| growth(user.op, old, new))
                .sum(),
        };
        ops.iter().map(bytes_of_op).sum::<u64>() + renamed
    }

    /// The node of a place.
    fn node(&self, site: &Site<'a>) -> Option<&Node<'a>> {
        let nodes = &self.graph.nodes;
        // an operation counts before those nested in it, and is a node behind them
        nodes.iter().find(|node| node.ordinal == site.ordinal)
    }

    fn names(&self) -> &Arc<Names> {
        self.names.get_or_init(|| {
            let blocks = functions(self.model)
                .flat_map(|(_, function)| function.block_specializations.values());
            Arc::new(Names::of(&[], blocks))
        })
    }

    /// How often an element of a weight is multiplied in a run: for the outputs of each op that uses it, as often as there
    /// are outputs for each output channel.
    pub(super) fn positions(&self, planned: &Planned<Site<'a>>) -> f64 {
        let of_use = |weight: &Weight<Site<'a>>, user: &User<'_>| {
            let channels = *weight.shape.get(user.output_axis?)?;
            let (_, shape) = user
                .op
                .outputs
                .first()
                .and_then(NamedValueType::known_tensor)?;
            let outputs: f64 = shape.iter().map(|&dim| dim as f64).product();
            let looked_up = user.op.r#type.starts_with("gather");
            (!looked_up && channels > 0).then(|| (outputs / channels as f64).max(1.0))
        };
        let uses = planned.places().map(|weight| {
            let at = self
                .graph
                .nodes
                .iter()
                .position(|node| node.ordinal == weight.place.ordinal);
            let consumers = at.map_or_else(Vec::new, |at| self.graph.consumers(at));
            let uses = consumers
                .into_iter()
                .map(|user| of_use(weight, user).unwrap_or(1.0));
            uses.sum::<f64>()
        });
        uses.sum()
    }
}

/// The weight file that a palette goes to.
fn file_of<'a>(weight: &Weight<Site<'a>>) -> &'a str {
    let blob = weight.place.blob();
    blob.map_or(DEFAULT_FILE, |blob| &blob.file_name)
}

impl Slot<'_> {
    /// Whether a value of the operation that holds the weight gives way to the palette.
    fn takes(self, op: &Operation, value: &crate::proto::Value) -> bool {
        match self.data_param() {
            None => true,
            Some(data) => crate::program::mil::in_place(op, data)
                .is_some_and(|data| std::ptr::eq(data, value)),
        }
    }
}

/// The name of the last output of an operation.
fn output_name(op: Option<&Operation>) -> &str {
    let output = op.and_then(|op| op.outputs.last());
    output.map_or("", |output| &output.name)
}

/// Bytes by which an operation grows when it takes an input by another name.
fn growth(user: &Operation, old: &str, new: &str) -> u64 {
    let bare = |name: &dyn Fn(&str) -> String| {
        let mut op = user.clone();
        op.blocks.clear();
        let arguments = op.inputs.values_mut();
        for binding in arguments.flat_map(|argument| &mut argument.arguments) {
            binding.name = name(&binding.name);
        }
        bytes_of_op(&op)
    };
    let renamed = bare(&|name| if name == old { new } else { name }.to_owned());
    renamed.saturating_sub(bare(&str::to_owned))
}

/// Bytes of an operation in its block.
fn bytes_of_op(op: &Operation) -> u64 {
    // the field's key and its length come before it
    prost::encoding::message::encoded_len(1, op) as u64
}

/// Removes the operations of these ordinals.
fn remove(block: &mut Block, gone: &HashMap<usize, Slot<'_>>, ordinal: &mut usize) {
    block.operations.retain_mut(|op| {
        let own = *ordinal;
        *ordinal += 1;
        op.blocks
            .iter_mut()
            .for_each(|block| remove(block, gone, ordinal));
        !gone.contains_key(&own)
    });
}
