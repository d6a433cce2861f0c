//! Palettizing the weights of a model, whatever its format: the configuration, what becomes of each weight, the work in
//! bounded memory, the report, and the output's way to its place. No file format is known here.
//!
//! A [`Format`] lists its weights; [`plan`] decides for each what will happen to it and why; [`execute`] palettizes in
//! batches and hands the palettes over in the order of the plan; [`Report`] says what became of each. The tests of this
//! crate run on a format of a few dozen lines (`tests/format/mod.rs`), which shows what one needs at least.
//!
//! | module | idea |
//! |---|---|
//! | [`config`] | what is asked: global, by type, by name, by pattern, by preset |
//! | `format` | what a format has to say: its weights and their values |
//! | `rules`, `plan`, `planned` | which entry decides about a weight; what follows; the plan |
//! | `sensitivity` | how much each element matters, found for the weights of a plan |
//! | `statistics` | what the inputs of layers look like, and which weights are fitted to them |
//! | [`budget`] | a form for each weight, so that all fit into so many bytes |
//! | `execute`, `batch` | the plan carried out in bounded memory |
//! | `report`, `progress` | what became of each weight; how far the work is, and whether it is still wanted |
//! | [`mapped_file`], `limits` | files that are read: mapped, watched for change, and what they may unfold to |
//! | [`staged_output`] | an output that is built beside its place and put there in one step |
//! | `info`, `visible`, `error` | palettes that are there already; text fit for a terminal; what can go wrong |

mod batch;
pub mod budget;
pub mod config;
mod error;
mod execute;
mod format;
mod info;
mod limits;
pub mod mapped_file;
mod plan;
mod planned;
mod progress;
mod report;
mod rules;
mod sensitivity;
pub mod staged_output;
mod statistics;
mod visible;

pub use batch::in_batches;
pub use budget::check_promise;
pub use error::{Error, FormatError};
pub use execute::{Done, execute};
pub use format::{Format, Known, Source, User, Values, Weight};
pub use info::PaletteInfo;
pub use limits::{DEFAULT_MAX_EXPANSION, Limits};
pub use plan::{chosen, curves, forms, plan};
pub use planned::{Decision, Job, Plan, Planned, SkipReason};
pub use progress::{Progress, go_on};
pub use report::{Decompressed, Fate, Figures, Note, REPORT_VERSION, Report, WeightReport};
pub use sensitivity::{MissingSensitivity, Sensitivities, SensitivitySource};
pub use statistics::{Inputs, Statistics, StatisticsOptions};
pub use visible::{visible, visible_lines};
