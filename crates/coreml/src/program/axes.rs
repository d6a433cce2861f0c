//! Which axis of a weight holds the output channels: the one rule for it.
//!
//! | op | parameter | output channels |
//! |---|---|---|
//! | `conv_transpose` | `weight` | axis 1 |
//! | `matmul` | `y` | the last axis; the one before it when `transpose_y` |
//! | `matmul` | `x` | the last but one; the last when `transpose_x` |
//! | any other | any | axis 0 |
//!
//! The same as coremltools 9.0's, so that groups fall where its users expect them.

use crate::program::mil::{immediate_bool, immediate_int};
use crate::proto::{Operation, Value};

/// The output channel axis of a weight of rank `rank` that `op` takes as `param`.
///
/// `constant` looks up the value of a constant by name, for the parameters that decide.
pub(crate) fn output_axis<'a>(
    op: &'a Operation,
    param: &str,
    rank: usize,
    constant: &impl Fn(&str) -> Option<&'a Value>,
) -> Option<usize> {
    match (op.r#type.as_str(), param) {
        ("conv_transpose", _) => (rank > 1).then_some(1),
        ("matmul", "x" | "y") => {
            let flag = if param == "x" {
                "transpose_x"
            } else {
                "transpose_y"
            };
            let transposed = parameter(op, flag, constant)
                .and_then(immediate_bool)
                .unwrap_or(false);
            let from_end = if (param == "x") == transposed { 1 } else { 2 };
            rank.checked_sub(from_end)
        }
        _ => (rank > 0).then_some(0),
    }
}

/// The number of groups of a convolution; 1 for any other op.
pub(crate) fn conv_groups<'a>(
    op: &'a Operation,
    constant: &impl Fn(&str) -> Option<&'a Value>,
) -> usize {
    if !matches!(op.r#type.as_str(), "conv" | "conv_transpose") {
        return 1;
    }
    parameter(op, "groups", constant)
        .and_then(immediate_int)
        .and_then(|groups| usize::try_from(groups).ok())
        .map_or(1, |groups| groups.max(1))
}

fn parameter<'a>(
    op: &'a Operation,
    name: &str,
    constant: &impl Fn(&str) -> Option<&'a Value>,
) -> Option<&'a Value> {
    let binding = op.inputs.get(name)?.arguments.first()?;
    match &binding.value {
        Some(value) => Some(value),
        None => constant(&binding.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::mil::{bind_name, bind_value, bool_value, int32_values};

    #[test]
    fn the_table_holds() {
        let cases = [
            ("conv", "weight", false, 4, Some(0)),
            ("conv_transpose", "weight", false, 4, Some(1)),
            ("linear", "weight", false, 2, Some(0)),
            ("gather", "x", false, 2, Some(0)),
            ("matmul", "y", false, 3, Some(2)),
            ("matmul", "y", true, 3, Some(1)),
            ("matmul", "x", false, 3, Some(1)),
            ("matmul", "x", true, 3, Some(2)),
            ("matmul", "x", false, 1, None),
        ];
        for (op_type, param, transposed, rank, expected) in cases {
            let mut op = Operation {
                r#type: op_type.to_owned(),
                ..Default::default()
            };
            op.inputs
                .insert(format!("transpose_{param}"), bind_name("flag"));
            let flag = bool_value(&[], transposed);
            let axis = output_axis(&op, param, rank, &|name| (name == "flag").then_some(&flag));
            assert_eq!(axis, expected, "{op_type} {param} {transposed}");
        }
    }

    #[test]
    fn groups_of_a_convolution() {
        let mut op = Operation {
            r#type: "conv".to_owned(),
            ..Default::default()
        };
        assert_eq!(conv_groups(&op, &|_| None), 1);
        op.inputs
            .insert("groups".to_owned(), bind_value(int32_values(&[], vec![8])));
        assert_eq!(conv_groups(&op, &|_| None), 8);
        op.r#type = "linear".to_owned();
        assert_eq!(conv_groups(&op, &|_| None), 1);
    }
}
