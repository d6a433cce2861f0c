//! K-means of scalars, which has an optimum that can be found.
//!
//! | module | answers |
//! |---|---|
//! | `histogram` | what values a group holds, and how often |
//! | `radix_sort` | values in order |
//! | `points` | the distinct values in order, with their weights |
//! | `prefix_sums` | the cost of any interval of them in O(1) |
//! | `double_double` | the same with twice the digits |
//! | `least_weight_path` | the cheapest partition into intervals when each has a price λ beside its cost |
//! | `lagrangian` | the λ at which exactly k intervals are the cheapest: the optimum |
//! | `branch_and_bound` | which of very many values matter for that |

pub(crate) mod branch_and_bound;
pub(crate) mod double_double;
pub(crate) mod histogram;
pub(crate) mod lagrangian;
pub(crate) mod least_weight_path;
pub(crate) mod points;
pub(crate) mod prefix_sums;
pub(crate) mod radix_sort;
