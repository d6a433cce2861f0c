//! Which configuration a weight falls under.

use crate::Error;
use crate::config::{Entry, Names, OpPalettizerConfig, OptimizationConfig};
use crate::program::graph::{Graph, User};
use crate::program::mil::op_name;
use crate::proto::Operation;
use std::collections::HashSet;

/// What the configuration says of a weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Resolution<'c> {
    /// Palettize it so.
    Config(&'c OpPalettizerConfig),
    /// Skip it: an entry of its own is null.
    Null,
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
pub(crate) struct Resolver<'c> {
    names: Names<'c>,
    types: Names<'c>,
    global: Option<&'c OpPalettizerConfig>,
}

impl<'c> Resolver<'c> {
    /// # Errors
    /// [`Error::Pattern`] for a key that is neither a name in the model nor a pattern.
    pub(crate) fn new(config: &'c OptimizationConfig, graph: &Graph<'_>) -> Result<Self, Error> {
        let (mut names, mut types) = (HashSet::new(), HashSet::new());
        for (index, node) in graph.nodes.iter().enumerate() {
            names.extend(constant_names(node.op));
            for user in graph.consumers(index) {
                names.insert(op_name(user.op));
                types.insert(user.op.r#type.as_str());
            }
        }
        Ok(Self {
            names: Names::new(config.op_names(), &names)?,
            types: Names::new(config.op_types(), &types)?,
            global: config.global(),
        })
    }

    /// The keys that fit nothing in the model.
    pub(crate) fn unmatched(&self) -> Vec<String> {
        let keys = self.types.unmatched().chain(self.names.unmatched());
        keys.map(str::to_owned).collect()
    }

    /// The first that is set of: the constant's name, the name of its user, a pattern of names that fits either, the
    /// user's type, a pattern of types, the global one.
    pub(crate) fn resolve(
        &self,
        constant: &Operation,
        consumers: &[&User<'_>],
    ) -> Result<Resolution<'c>, Box<Conflict>> {
        let own = constant_names(constant);
        if let Some(entry) = own.iter().find_map(|name| self.names.exact(name)) {
            return Ok(of_entry(entry));
        }
        let mut resolutions = consumers
            .iter()
            .map(|user| (user, self.of_user(own, user.op)));
        let Some((first_user, first)) = resolutions.next() else {
            return Ok(Resolution::Unset);
        };
        let mut least = threshold(first);
        let mut other = None;
        for (user, resolution) in resolutions {
            least = least.min(threshold(resolution));
            if resolution != first && other.is_none() {
                other = Some(user);
            }
        }
        match other {
            None => Ok(first),
            Some(other) => Err(Box::new(Conflict {
                least_threshold: least,
                error: Error::ConfigConflict {
                    constant: op_name(constant).to_owned(),
                    first: op_name(first_user.op).to_owned(),
                    second: op_name(other.op).to_owned(),
                },
            })),
        }
    }

    fn of_user(&self, [name, output]: [&str; 2], op: &Operation) -> Resolution<'c> {
        let user = op_name(op);
        let entry = (self.names.exact(user))
            .or_else(|| self.names.pattern(&[name, output, user]))
            .or_else(|| self.types.entry(&op.r#type));
        match entry {
            Some(entry) => of_entry(entry),
            None => self.global.map_or(Resolution::Unset, Resolution::Config),
        }
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
        Resolution::Null | Resolution::Unset => usize::MAX,
    }
}
