//! Where the entries of a lookup table come from.

use std::fmt;
use std::sync::Arc;

use crate::spec::names;
use crate::{Dtype, Nbits};

names! {
    /// How the entries of a lookup table are found, by name alone.
    ///
    /// ```
    /// use palettizer_palette::ModeName;
    ///
    /// assert_eq!("KMeans".parse(), Ok(ModeName::Kmeans));
    /// assert_eq!(ModeName::Unique.name(), "unique");
    /// ```
    ModeName as "mode" {
        /// The values with the least squared error
        Kmeans = "kmeans",
        /// Evenly spaced values
        Uniform = "uniform",
        /// The distinct values themselves, when at most 256: lossless
        Unique = "unique",
    }
    unlisted {
        /// Whatever a function says, which no text can be
        Custom = "custom",
    }
}

impl From<&Mode> for ModeName {
    fn from(mode: &Mode) -> Self {
        match mode {
            Mode::Kmeans(_) => ModeName::Kmeans,
            Mode::Uniform(_) => ModeName::Uniform,
            Mode::Unique => ModeName::Unique,
            Mode::Custom(_) => ModeName::Custom,
        }
    }
}

/// How the entries of a lookup table are found.
///
/// ```
/// use palettizer_palette::{Mode, Nbits};
///
/// assert_eq!(Mode::Kmeans(Nbits::B4).name(), "kmeans");
/// assert_eq!(Mode::Unique.nbits(), None);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Mode {
    /// The entries that minimise the squared error.
    Kmeans(Nbits),
    /// Evenly spaced entries from the smallest to the largest value.
    Uniform(Nbits),
    /// The distinct values themselves, when at most 256. −0 is the same value as +0 and becomes it, and one NaN the same
    /// as another; nothing else is lost.
    Unique,
    /// Whatever the caller's function says.
    Custom(LutFunction),
}

impl Mode {
    /// The name users write: `kmeans`, `uniform`, `unique` or `custom`.
    pub fn name(&self) -> &'static str {
        ModeName::from(self).name()
    }

    /// The width asked for; `None` where the data decide.
    pub fn nbits(&self) -> Option<Nbits> {
        match self {
            Mode::Kmeans(nbits) | Mode::Uniform(nbits) => Some(*nbits),
            Mode::Unique | Mode::Custom(_) => None,
        }
    }
}

/// What a [`LutFunction`] returns for one group.
///
/// ```
/// let two = palettizer_palette::CustomLut::new(vec![-1.0, 1.0], vec![0, 1, 1]);
/// assert_eq!(two.lut.len(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct CustomLut {
    /// 1 to 256 finite entries, in any order; they are rounded to the weight's dtype.
    pub lut: Vec<f32>,
    /// One index for each value of the group, in the order the values came.
    pub indices: Vec<u8>,
}

impl CustomLut {
    /// A table and the index of each value in it.
    pub fn new(lut: Vec<f32>, indices: Vec<u8>) -> Self {
        CustomLut { lut, indices }
    }
}

/// What a [`LutFunction`] is told of a group beside its values.
///
/// ```
/// use palettizer_palette::{Dtype, LutGroup};
///
/// let rows = LutGroup::new(&[16, 3], Some(0), Dtype::F16);
/// assert_eq!(rows.shape[0], 16);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LutGroup<'a> {
    /// The weight's shape, with the group size on the channel axis.
    pub shape: &'a [usize],
    /// The axis of the groups, or else that of the output channels; `None` when neither is known.
    pub channel_axis: Option<usize>,
    /// The weight's dtype, from which the values were widened.
    pub dtype: Dtype,
}

impl<'a> LutGroup<'a> {
    /// What is said of a group, to call a [`LutFunction`] with.
    pub fn new(shape: &'a [usize], channel_axis: Option<usize>, dtype: Dtype) -> Self {
        LutGroup {
            shape,
            channel_axis,
            dtype,
        }
    }
}

/// What a [`LutFunction`] wraps.
type LutFn = dyn Fn(&[f32], &LutGroup<'_>) -> Result<CustomLut, String> + Send + Sync;

/// A caller's own way to find a lookup table.
///
/// It is given the values of one group, row-major and widened to `f32` (divided by the per-channel scale, if
/// that is on; with zeros where a pruned weight has none), and what the group is. It may be called from several threads at once. An `Err` becomes
/// [`Refusal::Custom`](crate::Refusal::Custom). Two are equal when they are the same function object.
///
/// ```
/// use palettizer_palette::{CustomLut, Dtype, LutFunction, LutGroup};
///
/// let signs = LutFunction::new(|values, _group| {
///     Ok(CustomLut::new(vec![-1.0, 1.0], values.iter().map(|&v| u8::from(v > 0.0)).collect()))
/// });
/// let group = LutGroup::new(&[2], Some(0), Dtype::F32);
/// assert_eq!(signs.call(&[-3.0, 2.0], &group)?.indices, [0, 1]);
/// assert_eq!(signs, signs.clone());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone)]
pub struct LutFunction(Arc<LutFn>);

impl LutFunction {
    /// Wraps a function of (values, group).
    pub fn new(
        function: impl Fn(&[f32], &LutGroup<'_>) -> Result<CustomLut, String> + Send + Sync + 'static,
    ) -> Self {
        LutFunction(Arc::new(function))
    }

    /// Calls it on one group.
    ///
    /// # Errors
    /// Whatever the function says.
    pub fn call(&self, values: &[f32], group: &LutGroup<'_>) -> Result<CustomLut, String> {
        (self.0)(values, group)
    }
}

impl fmt::Debug for LutFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LutFunction({:p})", Arc::as_ptr(&self.0).cast::<()>())
    }
}

impl PartialEq for LutFunction {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn custom() -> Mode {
        Mode::Custom(LutFunction::new(|_, _| Ok(CustomLut::default())))
    }

    #[test]
    fn functions_are_equal_by_identity() {
        let (a, b) = (custom(), custom());
        assert_eq!(a, a.clone());
        assert_ne!(a, b);
        assert!(format!("{a:?}").starts_with("Custom(LutFunction(0x"));
    }
}
