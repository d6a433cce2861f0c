//! Which configuration a weight falls under.

use crate::Error;
use crate::config::{OpPalettizerConfig, OptimizationConfig};
use crate::program::graph::User;
use crate::program::mil::op_name;
use crate::proto::Operation;
use std::collections::BTreeSet;

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

/// Resolves configurations, and notes which entries were of use.
#[derive(Debug)]
pub(crate) struct Resolver<'c> {
    config: &'c OptimizationConfig,
    seen: BTreeSet<&'c str>,
}

impl<'c> Resolver<'c> {
    pub(crate) fn new(config: &'c OptimizationConfig) -> Self {
        Self {
            config,
            seen: BTreeSet::new(),
        }
    }

    /// Notes which entries of the configuration name this constant, or one of its users.
    pub(crate) fn mark_seen(&mut self, constant: &Operation, consumers: &[&User<'_>]) {
        let names = self.config.op_names();
        let own = constant_names(constant);
        let users = consumers.iter().map(|user| op_name(user.op));
        for name in own.into_iter().chain(users) {
            if let Some((name, _)) = names.get_key_value(name) {
                self.seen.insert(name);
            }
        }
        for user in consumers {
            if let Some((op_type, _)) = self.config.op_types().get_key_value(&user.op.r#type) {
                self.seen.insert(op_type);
            }
        }
    }

    /// The entries that named nothing in the model.
    pub(crate) fn unmatched(&self) -> Vec<String> {
        let keys = self
            .config
            .op_types()
            .keys()
            .chain(self.config.op_names().keys());
        keys.filter(|key| !self.seen.contains(key.as_str()))
            .cloned()
            .collect()
    }

    /// The first that is set of: the constant's name, the name of its user, the user's type, the global one.
    pub(crate) fn resolve(
        &self,
        constant: &Operation,
        consumers: &[&User<'_>],
    ) -> Result<Resolution<'c>, Box<Conflict>> {
        let own = constant_names(constant)
            .into_iter()
            .find_map(|name| self.config.op_names().get(name));
        if let Some(entry) = own {
            return Ok(of_entry(entry));
        }
        let mut resolutions = consumers.iter().map(|user| (user, self.of_user(user.op)));
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

    fn of_user(&self, op: &Operation) -> Resolution<'c> {
        if let Some(entry) = self.config.op_names().get(op_name(op)) {
            return of_entry(entry);
        }
        if let Some(entry) = self.config.op_types().get(&op.r#type) {
            return of_entry(entry);
        }
        self.config
            .global()
            .map_or(Resolution::Unset, Resolution::Config)
    }
}

/// A constant goes by the name of its op and by that of its output.
fn constant_names(constant: &Operation) -> [&str; 2] {
    let output = constant.outputs.last().map_or("", |output| &output.name);
    [op_name(constant), output]
}

fn of_entry(entry: &Option<OpPalettizerConfig>) -> Resolution<'_> {
    entry.as_ref().map_or(Resolution::Null, Resolution::Config)
}

fn threshold(resolution: Resolution<'_>) -> usize {
    match resolution {
        Resolution::Config(config) => config.weight_threshold(),
        Resolution::Null | Resolution::Unset => usize::MAX,
    }
}
