//! Settings by name, in the order in which they were set.

use crate::config::OpPalettizerConfig;
use std::ops::Index;

/// Settings by the name of an op, of a type of op or of a constant, or by a pattern of names, in the order in which they
/// were set. `None` skips.
///
/// ```
/// use palettizer_pipeline::config::OptimizationConfig;
///
/// let config = OptimizationConfig::new().with_op_name("b", None).with_op_name("a.*", None);
/// assert_eq!(config.op_names().keys().collect::<Vec<_>>(), ["b", "a.*"]);
/// assert_eq!(config.op_names()["b"], None);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entries(Vec<(String, Option<OpPalettizerConfig>)>);

impl Entries {
    /// The settings of a key; `None` if there is no such key.
    pub fn get(&self, key: &str) -> Option<&Option<OpPalettizerConfig>> {
        let mut entries = self.0.iter();
        entries.find_map(|(found, config)| (found == key).then_some(config))
    }

    /// Every key with its settings.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&OpPalettizerConfig>)> {
        let entries = self.0.iter();
        entries.map(|(key, config)| (key.as_str(), config.as_ref()))
    }

    /// Every key.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets what a key says. One that was there keeps its place.
    pub(crate) fn set(&mut self, key: String, config: Option<OpPalettizerConfig>) {
        match self.0.iter_mut().find(|(found, _)| *found == key) {
            Some((_, old)) => *old = config,
            None => self.0.push((key, config)),
        }
    }
}

impl Index<&str> for Entries {
    type Output = Option<OpPalettizerConfig>;

    /// # Panics
    /// If there is no such key, as a map does.
    fn index(&self, key: &str) -> &Self::Output {
        match self.get(key) {
            Some(config) => config,
            #[expect(
                clippy::panic,
                reason = "what indexing means; `get` is there for the rest"
            )]
            None => panic!("no settings for {key:?}"),
        }
    }
}
