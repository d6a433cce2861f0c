//! Runs the MIL program of a Core ML model on the CPU, on any machine.
//!
//! | module | idea |
//! |---|---|
//! | `session` | a model made ready to run; its states |
//! | `pipeline` | what a model consists of: functions, or stages |
//! | `interface`, `given`, `image` | what users see of a function; what they give and get, as the program has it; pictures |
//! | `random_inputs` | inputs for a look at a function without data |
//! | `plan` | a function with names resolved, operations looked up, last uses known |
//! | `constant` | constants, expanded when they are needed |
//! | `execute` | operation after operation; blocks, states, limits |
//! | `call` | one operation's arguments and outputs |
//! | `element`, `view`, `axis` | what moves elements about, whatever their type |
//! | `grad`, `loss` | gradients in reverse; losses |
//! | `registry`, `ops` | the operations, by name |
//! | `broadcast`, `reduce`, `pointwise` | tensors gone through together, folded along axes, element by element |
//! | `tensor`, `value` | what they compute with |

mod axis;
mod broadcast;
mod call;
mod constant;
mod element;
mod error;
mod execute;
mod given;
mod grad;
mod image;
mod interface;
mod loss;
mod ops;
mod options;
mod pipeline;
mod plan;
mod pointwise;
mod random_inputs;
mod reduce;
mod registry;
mod session;
mod sought;
mod tensor;
mod value;
mod view;

pub use error::Error;
pub use image::{ColorSpace, Image, Pixels};
pub use interface::{ArrayKind, Bounds, Feature, ImageKind, Interface, Kind, Shapes, Sizes};
pub use loss::{Differentiated, Loss};
pub use options::{DEFAULT_MAX_MEMORY, DEFAULT_MAX_STEPS, Observer, Precision, RunOptions};
pub use registry::{KnownOp, known_ops};
pub use session::{Named, Session, State};
pub use tensor::{Dtype, Elements, Floats, Tensor};
pub use value::{Label, List, Value};
