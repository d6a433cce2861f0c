//! What an operation takes and gives: tensors, and the few things that are none.

use crate::image::Image;
use crate::tensor::Tensor;
use std::ops::Deref;
use std::sync::Arc;

/// What an operation takes or gives.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A tensor.
    Tensor(Tensor),
    /// A list of tensors.
    List(Arc<List>),
    /// A state, by the name of the function's input.
    State(Arc<str>),
    /// What a classifier gives: each class and its probability, in the order of the program.
    Dictionary(Arc<Vec<(Label, f32)>>),
    /// A picture, as users give and get it; to a program it is a tensor.
    Image(Arc<Image>),
}

/// A list of tensors; an element that was never written is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct List {
    pub(crate) items: Vec<Option<Tensor>>,
    /// Whether it stays as long as it is.
    pub(crate) fixed: bool,
}

impl Deref for List {
    type Target = [Option<Tensor>];

    fn deref(&self) -> &[Option<Tensor>] {
        &self.items
    }
}

/// A class of a classifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Label {
    /// A name.
    Text(String),
    /// A number.
    Int(i64),
}

impl Value {
    /// The tensor that it is.
    pub fn tensor(&self) -> Option<&Tensor> {
        match self {
            Value::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// What it is, for messages.
    pub(crate) fn kind(&self) -> String {
        match self {
            Value::Tensor(tensor) => {
                format!("a tensor of {} {:?}", tensor.dtype().name(), tensor.shape())
            }
            Value::List(items) => format!("a list of {}", items.len()),
            Value::State(name) => format!("the state \"{name}\""),
            Value::Dictionary(_) => "a dictionary".to_owned(),
            Value::Image(image) => format!("an image of {}×{}", image.width(), image.height()),
        }
    }

    /// Bytes of memory that its elements take.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Value::Tensor(tensor) => tensor.bytes(),
            Value::List(items) => items.iter().flatten().map(Tensor::bytes).sum(),
            Value::State(_) => 0,
            Value::Dictionary(entries) => entries.len() as u64 * 32,
            Value::Image(image) => image.bytes(),
        }
    }
}

impl From<Tensor> for Value {
    fn from(tensor: Tensor) -> Self {
        Value::Tensor(tensor)
    }
}
