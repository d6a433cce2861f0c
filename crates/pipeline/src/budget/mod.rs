//! Bits allocated to a budget: which form each weight takes, so that all fit into so many bytes and lose least.
//!
//! | module | idea |
//! |---|---|
//! | `goal`, `choices` | what is asked: a size or a quality, and the forms that a weight may take |
//! | `response` | what a weight's error does to outputs, where that was measured |
//! | `curves` | what each form of each weight costs: bytes as they will be written, and harm |
//! | `knapsack` | one form for each weight, proven to be the best |
//! | `room` | what a goal means in bytes, and what is in the way |
//! | `choose`, `report` | a form chosen for each weight, and what is to be said of that |
//! | `allot` | the same for the weights of a plan |

mod allot;
mod choices;
mod choose;
mod curves;
mod goal;
mod knapsack;
mod report;
mod response;
mod room;

pub(crate) use allot::allot;
pub use choices::{Choices, ChoicesError};
pub use choose::{Candidate, Choice, choose};
pub use curves::{Curve, Curves, Priced, curves};
pub(crate) use goal::Specs;
pub use goal::{Budget, Goal, GoalError, GoalName};
pub use knapsack::{Allocation, Form, allocate};
pub use report::{Allotted, BudgetReport, Chosen, Measure, Neighbour, check_promise};
pub use response::{Response, telling};
pub use room::Room;
