//! Which configuration a weight falls under.

use crate::Error;
use crate::config::{
    Entry, Names, OpPalettizerConfig, OptimizationConfig, PresetEntries, Unmatched,
};
use crate::format::{Known, User, Weight};
use palettizer_palette::PaletteSpec;

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

/// The users of a weight are configured differently.
#[derive(Debug)]
pub(crate) struct Conflict {
    /// The least of the thresholds in question: under it the conflict does not matter.
    pub(crate) least_threshold: usize,
    /// The error if it does.
    pub(crate) error: Error,
}

/// The entries of a configuration, as they apply to one model.
#[derive(Debug)]
pub(crate) struct Rules<'c> {
    names: Names<'c>,
    types: Names<'c>,
    preset: Option<PresetEntries>,
    global: Option<&'c OpPalettizerConfig>,
}

impl<'c> Rules<'c> {
    /// # Errors
    /// [`Error::Pattern`] for a key that is neither a name in the model nor a pattern.
    pub(crate) fn new(config: &'c OptimizationConfig, known: &Known<'_>) -> Result<Self, Error> {
        let global = match config.budget() {
            // what a budget chooses for need not be said twice
            Some(budget) => Some(config.global().unwrap_or_else(|| budget.usual())),
            None => config.global(),
        };
        let preset = config.preset();
        let preset = preset.map(|preset| PresetEntries::new(preset, global));
        Ok(Self {
            names: Names::new(config.op_names(), &known.names)?,
            types: Names::new(config.op_types(), &known.types)?,
            preset: preset.transpose()?,
            global,
        })
    }

    /// Whether a spec is that of the global configuration itself, not of one that says the same.
    pub(crate) fn is_global(&self, spec: &PaletteSpec) -> bool {
        self.global
            .is_some_and(|global| std::ptr::eq(global.spec(), spec))
    }

    /// The keys that fit nothing in the model, with the names that were probably meant.
    pub(crate) fn unmatched(&self, known: &Known<'_>) -> Vec<Unmatched> {
        let of_types = self.types.unmatched();
        let of_types = of_types.map(|key| Unmatched::among(key, known.types.iter().copied()));
        let of_names = self.names.unmatched();
        let of_names = of_names.map(|key| Unmatched::among(key, known.names.iter().copied()));
        of_types.chain(of_names).collect()
    }

    /// The first that is set of: the weight's name, the name of its user, a pattern of names that fits either, the
    /// user's type, a pattern of types, the preset, the global one.
    pub(crate) fn resolve<P>(&self, weight: &Weight<P>) -> Result<Resolution<'_>, Box<Conflict>> {
        let own: Vec<&str> = weight.names.iter().map(String::as_str).collect();
        if let Some(entry) = own.iter().find_map(|name| self.names.exact(name)) {
            return Ok(of_entry(entry));
        }
        let preset = self.of_preset(&own, weight);
        let global = self.global.map_or(Resolution::Unset, Resolution::Config);
        let Some(users) = &weight.users else {
            let entry = self.names.pattern(&own).map(of_entry);
            return Ok(entry.or(preset).unwrap_or(global));
        };
        let said = users.iter().map(|user| (user, self.of_user(&own, user)));
        let resolutions: Vec<_> = match preset {
            // It is about the weight: users of whom nothing is said go by it, or by what is said of the others.
            Some(preset) => {
                let said: Vec<_> = said
                    .filter_map(|(user, said)| Some((user, said?)))
                    .collect();
                if said.is_empty() {
                    return Ok(preset);
                }
                said
            }
            None => said
                .map(|(user, said)| (user, said.unwrap_or(global)))
                .collect(),
        };
        let Some(&(first_user, first)) = resolutions.first() else {
            return Ok(Resolution::Unset);
        };
        let Some((other, _)) = resolutions.iter().find(|(_, other)| *other != first) else {
            return Ok(first);
        };
        let thresholds = resolutions.iter().map(|(_, resolution)| match resolution {
            Resolution::Config(config) => config.weight_threshold(),
            _ => usize::MAX,
        });
        Err(Box::new(Conflict {
            least_threshold: thresholds.min().unwrap_or(usize::MAX),
            error: Error::ConfigConflict {
                constant: weight.name().to_owned(),
                first: first_user.name.clone(),
                second: other.name.clone(),
            },
        }))
    }

    /// What is said of a user itself.
    fn of_user(&self, own: &[&str], user: &User) -> Option<Resolution<'_>> {
        let names: Vec<&str> = own.iter().copied().chain([user.name.as_str()]).collect();
        let entry = (self.names.exact(&user.name))
            .or_else(|| self.names.pattern(&names))
            .or_else(|| self.types.entry(&user.op_type));
        entry.map(of_entry)
    }

    /// What the preset says of a weight.
    fn of_preset<P>(&self, own: &[&str], weight: &Weight<P>) -> Option<Resolution<'_>> {
        let entry = self.preset.as_ref()?.entry(own, weight.role)?;
        Some(entry.map_or_else(Resolution::Leave, Resolution::Config))
    }
}

fn of_entry(entry: Entry<'_>) -> Resolution<'_> {
    entry.map_or(Resolution::Null, Resolution::Config)
}
