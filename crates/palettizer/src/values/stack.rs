//! The outputs of several samples as one.

use super::write::arrays;
use crate::runtime::{Elements, Named, Tensor, Value};
use std::collections::BTreeMap;

/// The outputs of several samples together, as arrays: along their first axis where that has one element, else along a new one.
///
/// # Errors
/// Which outputs have other shapes in other samples, in words.
pub fn stacked(samples: &[Named]) -> Result<Named, String> {
    let mut columns: BTreeMap<String, Vec<Tensor>> = BTreeMap::new();
    for sample in samples {
        for (name, tensor) in arrays(sample) {
            columns.entry(name).or_default().push(tensor);
        }
    }
    let mut found = Named::new();
    for (name, tensors) in columns {
        let whole = stack(&tensors).ok_or_else(|| {
            format!("\"{name}\" has other shapes in other samples, and cannot be stacked; run these one by one")
        })?;
        found.insert(name, Value::Tensor(whole));
    }
    Ok(found)
}

fn stack(tensors: &[Tensor]) -> Option<Tensor> {
    let first = tensors.first()?;
    let same =
        |tensor: &&Tensor| tensor.shape() == first.shape() && tensor.dtype() == first.dtype();
    if !tensors.iter().all(|tensor| same(&tensor)) {
        return None;
    }
    let rest = match first.shape() {
        [1, rest @ ..] => rest,
        shape => shape,
    };
    let shape: Vec<usize> = std::iter::once(tensors.len())
        .chain(rest.iter().copied())
        .collect();
    fn joined<'a, T: Clone + 'a>(
        tensors: &'a [Tensor],
        elements: fn(&'a Tensor) -> Option<&'a [T]>,
    ) -> Vec<T> {
        let all = tensors.iter().filter_map(elements);
        all.flat_map(|values| values.iter().cloned()).collect()
    }
    let elements: Elements = match first.elements() {
        Elements::Floats(_) => joined(tensors, Tensor::floats).into(),
        Elements::Ints(_) => joined(tensors, Tensor::ints).into(),
        Elements::Bools(_) => joined(tensors, Tensor::bools).into(),
        Elements::Texts(_) => joined(tensors, Tensor::texts).into(),
    };
    Tensor::new(first.dtype(), &shape, elements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Dtype;

    #[test]
    fn samples_become_rows() {
        let sample = |shape: &[usize], values: &[f32]| -> Named {
            let tensor = Tensor::new(Dtype::F32, shape, values.to_vec()).unwrap();
            [("y".to_owned(), Value::Tensor(tensor))].into()
        };
        let one = stacked(&[sample(&[1, 2], &[1.0, 2.0]), sample(&[1, 2], &[3.0, 4.0])]).unwrap();
        let Value::Tensor(one) = &one["y"] else {
            panic!()
        };
        assert_eq!(
            (one.shape(), one.floats().unwrap()),
            (&[2, 2][..], &[1.0, 2.0, 3.0, 4.0][..])
        );
        let two = stacked(&[sample(&[2], &[1.0, 2.0]), sample(&[2], &[3.0, 4.0])]).unwrap();
        assert!(matches!(&two["y"], Value::Tensor(two) if two.shape() == [2, 2]));
        assert!(stacked(&[sample(&[2], &[1.0, 2.0]), sample(&[1], &[3.0])]).is_err());
    }
}
