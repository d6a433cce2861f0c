//! Bits allocated to a budget: which form each weight takes, so that all fit into so many bytes and lose least.

mod knapsack;

pub use knapsack::{Allocation, Form, allocate};
