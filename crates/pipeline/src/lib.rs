//! Palettizing the weights of a model, whatever its format: the configuration, what becomes of each weight, the work in
//! bounded memory, the report, and the output's way to its place. No file format is known here.

mod batch;
pub mod config;
mod error;
mod execute;
mod format;
mod info;
mod limits;
pub mod mapped_file;
mod plan;
mod progress;
mod report;
mod rules;
mod sensitivity;
pub mod staged_output;
mod visible;

pub use batch::in_batches;
pub use error::{Error, FormatError};
pub use execute::{Done, execute};
pub use format::{Format, Known, Source, User, Values, Weight};
pub use info::PaletteInfo;
pub use limits::{DEFAULT_MAX_EXPANSION, Limits};
pub use plan::{Decision, Job, Plan, Planned, SkipReason, plan};
pub use progress::{Progress, go_on};
pub use report::{Decompressed, Fate, Figures, Note, REPORT_VERSION, Report, WeightReport};
pub use sensitivity::{MissingSensitivity, Sensitivities, SensitivitySource};
pub use visible::{visible, visible_lines};
