//! The names in use in a function, to find new ones.

use crate::program::mil::op_name;
use crate::proto::{Block, NamedValueType};
use std::collections::HashSet;
use std::sync::Arc;

/// The names of a function's values and operations: another function may have the same.
#[derive(Debug, Default)]
pub(crate) struct Names {
    own: HashSet<String>,
    others: Option<Arc<Names>>,
}

impl Names {
    /// The names of `inputs`, and those of the values and operations of `blocks` and of the blocks within.
    pub(crate) fn of<'a>(
        inputs: &[NamedValueType],
        blocks: impl IntoIterator<Item = &'a Block>,
    ) -> Self {
        let mut names = Self::default();
        names.add(inputs);
        blocks.into_iter().for_each(|block| names.add_block(block));
        names
    }

    /// No names beside those of `others`.
    pub(crate) fn beside(others: &Arc<Names>) -> Self {
        Self {
            own: HashSet::new(),
            others: Some(Arc::clone(others)),
        }
    }

    fn add(&mut self, values: &[NamedValueType]) {
        self.own
            .extend(values.iter().map(|value| value.name.clone()));
    }

    fn add_block(&mut self, block: &Block) {
        self.add(&block.inputs);
        for op in &block.operations {
            self.own.insert(op_name(op).to_owned());
            self.add(&op.outputs);
            op.blocks.iter().for_each(|block| self.add_block(block));
        }
    }

    /// A name that nothing has yet: `stem`, or `stem_1`, ….
    pub(crate) fn fresh(&mut self, stem: &str) -> String {
        let mut name = stem.to_owned();
        let mut count = 0;
        let others = self.others.as_ref();
        let taken = |name: &str| others.is_some_and(|others| others.own.contains(name));
        while taken(&name) || !self.own.insert(name.clone()) {
            count += 1;
            name = format!("{stem}_{count}");
        }
        name
    }
}
