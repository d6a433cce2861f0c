//! A MIL program as it is read: its values and types, its blocks, and who uses which constant.
//!
//! Nothing here changes a program, and nothing knows what palettization is.

pub(crate) mod axes;
pub(crate) mod constant;
pub(crate) mod graph;
pub(crate) mod mil;
pub(crate) mod names;
pub(crate) mod typing;
pub(crate) mod walk;
