//! Which configuration a weight falls under.

use crate::Error;
use crate::config::{
    Entry, Names, OpPalettizerConfig, OptimizationConfig, PresetEntries, PresetEntry, Unmatched,
};
use crate::palettize::role::Flow;
use crate::program::graph::{Graph, User};
use crate::program::mil::op_name;
use crate::proto::{Model, Operation};
use std::collections::{BTreeSet, HashSet};

/// What the configuration says of a weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Resolution<'c> {
    /// Palettize it so.
    Config(&'c OpPalettizerConfig),
    /// Skip it: an entry of its own is null.
    Null,
    /// Skip it: the preset has this reason.
    Leave(&'static str),
    /// Nothing.
    Unset,
}

/// The users of a constant are configured differently.
#[derive(Debug)]
pub(crate) struct Conflict {
    /// The least of the thresholds in question: under it the conflict does not matter.
    pub least_threshold: usize,
    /// The error if it does.
    pub error: Error,
}

/// Resolves configurations for the weights of one model.
#[derive(Debug)]
pub(crate) struct Resolver<'c, 'm> {
    names: Names<'c>,
    types: Names<'c>,
    preset: Option<(PresetEntries, Flow<'m>)>,
    global: Option<&'c OpPalettizerConfig>,
}

impl<'c, 'm> Resolver<'c, 'm> {
    /// # Errors
    /// [`Error::Pattern`] for a key that is neither a name in the model nor a pattern.
    pub(crate) fn new(
        config: &'c OptimizationConfig,
        graph: &Graph<'_>,
        model: &'m Model,
    ) -> Result<Self, Error> {
        let (mut names, mut types) = (HashSet::new(), HashSet::new());
        for (index, node) in graph.nodes.iter().enumerate() {
            names.extend(constant_names(node.op));
            for user in graph.consumers(index) {
                names.insert(op_name(user.op));
                types.insert(user.op.r#type.as_str());
            }
        }
        let preset = match config.preset() {
            Some(preset) => Some((
                PresetEntries::new(preset, config.global())?,
                Flow::of(model),
            )),
            None => None,
        };
        Ok(Self {
            preset,
            names: Names::new(config.op_names(), &names)?,
            types: Names::new(config.op_types(), &types)?,
            global: config.global(),
        })
    }

    /// The keys that fit nothing in the model, with the names that were probably meant.
    pub(crate) fn unmatched(&self, graph: &Graph<'_>) -> Vec<Unmatched> {
        let users = || graph.nodes.iter().flat_map(|node| &node.users);
        let types: BTreeSet<&str> = users().map(|user| user.op.r#type.as_str()).collect();
        let own = graph.nodes.iter().flat_map(|node| constant_names(node.op));
        let names: BTreeSet<&str> = own.chain(users().map(|user| op_name(user.op))).collect();
        let of_types = self.types.unmatched();
        let of_types = of_types.map(|key| Unmatched::among(key, types.iter().copied()));
        let of_names = self.names.unmatched();
        let of_names = of_names.map(|key| Unmatched::among(key, names.iter().copied()));
        of_types.chain(of_names).collect()
    }

    /// The first that is set of: the constant's name, the name of its user, a pattern of names that fits either, the
    /// user's type, a pattern of types, the preset, the global one.
    pub(crate) fn resolve(
        &self,
        constant: &Operation,
        shape: &[usize],
        consumers: &[&User<'m>],
    ) -> Result<Resolution<'_>, Box<Conflict>> {
        let own = constant_names(constant);
        if let Some(entry) = own.iter().find_map(|name| self.names.exact(name)) {
            return Ok(of_entry(entry));
        }
        let users = consumers.iter();
        let users = users.map(|user| (user, self.of_user(own, user.op)));
        let preset = self.of_preset(own, shape, consumers);
        let resolutions: Vec<_> = match preset {
            // It is about the weight: users of whom nothing is said go by it, or by what is said of the others.
            Some(preset) => {
                let said = users.filter_map(|(user, said)| Some((user, said?)));
                let said: Vec<_> = said.collect();
                if said.is_empty() {
                    return Ok(preset);
                }
                said
            }
            None => {
                let global = self.global.map_or(Resolution::Unset, Resolution::Config);
                users
                    .map(|(user, said)| (user, said.unwrap_or(global)))
                    .collect()
            }
        };
        let Some(&(first_user, first)) = resolutions.first() else {
            return Ok(Resolution::Unset);
        };
        let least = resolutions
            .iter()
            .map(|(_, resolution)| threshold(*resolution));
        let least = least.min().unwrap_or(usize::MAX);
        match resolutions.iter().find(|(_, other)| *other != first) {
            None => Ok(first),
            Some((other, _)) => Err(Box::new(Conflict {
                least_threshold: least,
                error: Error::ConfigConflict {
                    constant: op_name(constant).to_owned(),
                    first: op_name(first_user.op).to_owned(),
                    second: op_name(other.op).to_owned(),
                },
            })),
        }
    }

    /// What is said of a user itself.
    fn of_user(&self, [name, output]: [&str; 2], op: &Operation) -> Option<Resolution<'_>> {
        let user = op_name(op);
        let entry = (self.names.exact(user))
            .or_else(|| self.names.pattern(&[name, output, user]))
            .or_else(|| self.types.entry(&op.r#type));
        entry.map(of_entry)
    }

    /// What the preset says of a weight.
    fn of_preset(
        &self,
        own: [&str; 2],
        shape: &[usize],
        consumers: &[&User<'m>],
    ) -> Option<Resolution<'_>> {
        let (entries, flow) = self.preset.as_ref()?;
        let entry = entries.entry(&own, flow.role(shape, consumers))?;
        Some(match entry {
            PresetEntry::Config(config) => Resolution::Config(config),
            PresetEntry::Leave(reason) => Resolution::Leave(reason),
        })
    }
}

/// A constant goes by the name of its op and by that of its output.
fn constant_names(constant: &Operation) -> [&str; 2] {
    let output = constant.outputs.last().map_or("", |output| &output.name);
    [op_name(constant), output]
}

fn of_entry(entry: Entry<'_>) -> Resolution<'_> {
    entry.map_or(Resolution::Null, Resolution::Config)
}

fn threshold(resolution: Resolution<'_>) -> usize {
    match resolution {
        Resolution::Config(config) => config.weight_threshold(),
        Resolution::Null | Resolution::Leave(_) | Resolution::Unset => usize::MAX,
    }
}
