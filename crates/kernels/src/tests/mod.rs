//! Naive twins, and what every implementation must agree on with them.

mod line;
