//! From a program and a configuration to a smaller program: plan, palettize, put in place.
//!
//! [`plan`] decides (through [`resolve`], [`sensitivity`] and [`skip`]), [`apply`] carries the plan out, [`emit`] knows the
//! operations that hold a palette, [`units`] measures those of quantized weights, and [`splice`] puts them into the program.

pub(crate) mod apply;
mod emit;
mod plan;
mod resolve;
mod role;
mod sensitivity;
mod skip;
mod splice;
mod units;
