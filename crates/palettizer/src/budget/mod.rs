//! A size or a quality that bits are chosen for, and what the forms of weights cost.
//!
//! ```no_run
//! use palettizer::budget::{Budget, Goal};
//! use palettizer::{Model, OptimizationConfig, SaveOptions};
//!
//! let config = OptimizationConfig::new().with_budget(Budget::new(Goal::Size(20_000_000)));
//! let model = Model::open("Model.mlpackage")?;
//! let report = model.palettize_to(&config, "Small.mlpackage", SaveOptions::default(), &())?;
//! assert!(report.bytes_after <= 20_000_000);
//! # Ok::<(), palettizer::Error>(())
//! ```

mod calibrate;
mod file;
mod inform;
mod recipe;
mod recommend;

pub use calibrate::{CALIBRATION_SAMPLES, Calibration, calibrate};
pub use file::{read_curves, write_curves};
pub use inform::{Informed, inform};
pub use palettizer_pipeline::budget::{
    Allotted, Budget, BudgetReport, Candidate, Choice, Choices, ChoicesError, Chosen, Curve,
    Curves, Goal, GoalError, GoalName, Measure, Neighbour, Priced, Response, Room, choose, telling,
};
pub use recipe::recipe;
pub use recommend::{RECOMMENDATIONS, RecommendOptions, Recommendation, recommend};
