//! How an array is cut into samples.

use crate::runtime::{
    ArrayKind, Dtype, Elements, Image, ImageKind, Kind, Pixels, Shapes, Tensor, Value,
};
use std::sync::Arc;

/// How an array is cut into samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// How many parts along the first axis; `None`: it is one whole sample.
    several: Option<usize>,
    /// Whether parts keep that axis, with one element.
    keep_axis: bool,
    /// Whether parts are pictures of bytes.
    picture: bool,
}

/// How an array is cut for an input; `None` if it does not fit.
pub(crate) fn cut(tensor: &Tensor, kind: &Kind) -> Option<Cut> {
    match kind {
        Kind::Array(array) => along(tensor.shape(), |shape| takes(array, shape), false),
        Kind::Image(image) if tensor.dtype() == Dtype::U8 => {
            along(tensor.shape(), |shape| is_picture(image, shape), true)
        }
        // the floats that the program sees
        Kind::Image(image) => {
            let channels = image.color.channels();
            let planes = |shape: &[usize]| match *shape {
                [1, found, height, width] => found == channels && image.allows(width, height),
                _ => false,
            };
            along(tensor.shape(), planes, false)
        }
        _ => None,
    }
}

fn along(shape: &[usize], fits: impl Fn(&[usize]) -> bool, picture: bool) -> Option<Cut> {
    let whole = Cut {
        several: None,
        keep_axis: false,
        picture,
    };
    if fits(shape) {
        return Some(whole);
    }
    let (&several, rest) = shape.split_first()?;
    let one: Vec<usize> = std::iter::once(1).chain(rest.iter().copied()).collect();
    let keep_axis = match (fits(rest), fits(&one)) {
        (true, _) => false,
        (false, true) if !picture => true,
        _ => return None,
    };
    Some(Cut {
        several: Some(several),
        keep_axis,
        picture,
    })
}

fn takes(array: &ArrayKind, shape: &[usize]) -> bool {
    match array.shapes {
        // a number alone is taken for an array of one
        Shapes::One => array.shape == shape || (array.shape == [1] && shape.is_empty()),
        _ => array.allows(shape),
    }
}

fn is_picture(image: &ImageKind, shape: &[usize]) -> bool {
    match *shape {
        [height, width] | [height, width, 3] => image.allows(width, height),
        _ => false,
    }
}

impl Cut {
    /// How many samples there are.
    pub(crate) fn parts(self) -> usize {
        self.several.unwrap_or(1)
    }

    /// Whether there are several, or one that could be several.
    pub(crate) fn is_several(self) -> bool {
        self.several.is_some()
    }

    /// One sample; the whole if it is one for all.
    pub(crate) fn part(self, tensor: &Tensor, at: usize) -> Value {
        let part = match self.several {
            None => tensor.clone(),
            Some(several) => {
                let rest = tensor.shape().get(1..).unwrap_or_default();
                let each = tensor.len() / several.max(1);
                let range = at.saturating_mul(each)..(at + 1).saturating_mul(each);
                let elements: Elements = match tensor.elements() {
                    Elements::Floats(values) => {
                        values.get(range).unwrap_or_default().to_vec().into()
                    }
                    Elements::Ints(values) => values.get(range).unwrap_or_default().to_vec().into(),
                    Elements::Bools(values) => {
                        values.get(range).unwrap_or_default().to_vec().into()
                    }
                    Elements::Texts(values) => {
                        values.get(range).unwrap_or_default().to_vec().into()
                    }
                };
                let shape: Vec<usize> = match self.keep_axis {
                    true => std::iter::once(1).chain(rest.iter().copied()).collect(),
                    false => rest.to_vec(),
                };
                Tensor::new(tensor.dtype(), &shape, elements).unwrap_or_else(|| tensor.clone())
            }
        };
        match self.picture.then(|| picture(&part)).flatten() {
            Some(image) => Value::Image(Arc::new(image)),
            None => Value::Tensor(part),
        }
    }
}

fn picture(tensor: &Tensor) -> Option<Image> {
    let bytes = tensor.ints()?.iter().map(|&value| value as u8).collect();
    match *tensor.shape() {
        [height, width] => Image::new(width, height, Pixels::Gray(bytes)),
        [height, width, 3] => Image::new(width, height, Pixels::Rgb(bytes)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Bounds, ColorSpace, Sizes};

    fn floats(shape: &[usize]) -> Tensor {
        let count = shape.iter().product();
        Tensor::new(
            Dtype::F32,
            shape,
            (0..count).map(|at| at as f32).collect::<Vec<_>>(),
        )
        .unwrap()
    }

    fn shapes(tensor: &Tensor, kind: &Kind) -> Option<(usize, Vec<usize>)> {
        let cut = cut(tensor, kind)?;
        let part = cut.part(tensor, cut.parts() - 1);
        Some((cut.parts(), part.tensor().unwrap().shape().to_vec()))
    }

    #[test]
    fn arrays_are_one_or_several() {
        let array = |shape: &[usize]| {
            Kind::Array(ArrayKind {
                shape: shape.to_vec(),
                ..ArrayKind::default()
            })
        };
        let one = array(&[1, 4]);
        assert_eq!(shapes(&floats(&[1, 4]), &one), Some((1, vec![1, 4])));
        assert_eq!(shapes(&floats(&[5, 4]), &one), Some((5, vec![1, 4])));
        assert_eq!(shapes(&floats(&[5, 1, 4]), &one), Some((5, vec![1, 4])));
        assert_eq!(shapes(&floats(&[5, 3]), &one), None);
        assert_eq!(shapes(&floats(&[]), &array(&[1])), Some((1, vec![])));
        assert_eq!(shapes(&floats(&[3]), &array(&[])), Some((3, vec![])));
        let tensor = floats(&[2, 4]);
        let part = cut(&tensor, &one).unwrap().part(&tensor, 1);
        assert_eq!(
            part.tensor().unwrap().floats().unwrap(),
            [4.0, 5.0, 6.0, 7.0]
        );
        let rows = Bounds {
            least: 1,
            largest: Some(8),
        };
        let four = Bounds {
            least: 4,
            largest: Some(4),
        };
        let flexible = Kind::Array(ArrayKind {
            shape: vec![1, 4],
            shapes: Shapes::Within(vec![rows, four]),
            ..ArrayKind::default()
        });
        assert_eq!(shapes(&floats(&[5, 4]), &flexible), Some((1, vec![5, 4])));
        assert_eq!(shapes(&floats(&[9, 4]), &flexible), Some((9, vec![1, 4])));
    }

    #[test]
    fn bytes_are_pictures() {
        let kind = Kind::Image(ImageKind {
            width: 3,
            height: 2,
            color: ColorSpace::Rgb,
            sizes: Sizes::One,
        });
        let bytes = |shape: &[usize]| {
            let count: usize = shape.iter().product();
            Tensor::new(Dtype::U8, shape, (0..count as i32).collect::<Vec<_>>()).unwrap()
        };
        for (shape, parts) in [
            (&[2, 3][..], 1),
            (&[2, 3, 3], 1),
            (&[4, 2, 3], 4),
            (&[4, 2, 3, 3], 4),
        ] {
            let tensor = bytes(shape);
            let cut = cut(&tensor, &kind).unwrap();
            assert_eq!(cut.parts(), parts);
            assert!(matches!(cut.part(&tensor, 0), Value::Image(image) if image.width() == 3));
        }
        assert_eq!(cut(&bytes(&[3, 2]), &kind), None);
        assert_eq!(
            shapes(&floats(&[7, 3, 2, 3]), &kind),
            Some((7, vec![1, 3, 2, 3]))
        );
    }
}
