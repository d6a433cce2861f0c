//! From a program and a configuration to a smaller program.
//!
//! [`weights`] says which weights there are, to the pipeline, which plans and palettizes; [`apply`] has the palettes
//! stored; [`emit`] knows the operations that hold a palette, [`units`] measures those of quantized weights, [`role`] sees
//! what a weight is to the model, [`prices`] tells the bytes of all that before it is there, and [`splice`] puts the operations into the program.

pub(crate) mod apply;
mod emit;
mod prices;
mod role;
mod splice;
mod units;
mod weights;
