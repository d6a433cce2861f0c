//! What a weight holds, before anything is done to it: zeros and distinct values.

use bytemuck::Pod;
use half::{bf16, f16};
use palettizer_kernels::{Element, Precision, ValueHistogram, Weights};

use crate::decode::DenseError;
use crate::tensor::elements;
use crate::{Dtype, Palette, Tensor};

/// A magnitude of at most this counts as zero, as in coremltools' weight metadata.
const ZERO: f32 = 1e-12;

/// What a weight holds.
///
/// ```
/// use palettizer_palette::{Dtype, Tensor, statistics};
///
/// let bytes: Vec<u8> = [0.0_f32, 2.0, -0.0, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
/// let tensor = Tensor::new(Dtype::F32, &[4], &bytes).map_err(|e| e.to_string())?;
/// let found = statistics(&tensor);
/// assert_eq!((found.zeros, found.distinct), (2, 2));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Elements of a magnitude of at most 1e-12.
    pub zeros: usize,
    /// Distinct values; +0 and −0 are one, and so are all NaN.
    pub distinct: usize,
}

/// Counts zeros and distinct values.
pub fn statistics(tensor: &Tensor<'_>) -> Statistics {
    let bytes = tensor.bytes();
    match tensor.dtype() {
        Dtype::F16 => of_floats::<f16>(bytes),
        Dtype::BF16 => of_floats::<bf16>(bytes),
        Dtype::F32 => of_floats::<f32>(bytes),
        Dtype::I8 | Dtype::U8 => {
            let mut counts = [0usize; 256];
            for &byte in bytes {
                counts[usize::from(byte)] += 1;
            }
            Statistics {
                zeros: counts[0],
                distinct: counts.iter().filter(|&&count| count > 0).count(),
            }
        }
    }
}

fn of_floats<T: Element + Pod>(bytes: &[u8]) -> Statistics {
    let values = elements::<T>(bytes);
    let zeros = values.iter().filter(|value| value.to_f32().abs() <= ZERO);
    Statistics {
        zeros: zeros.count(),
        distinct: ValueHistogram::new(&values, Weights::Equal, Precision::Exact).distinct_count(),
    }
}

impl Palette {
    /// What the weight holds, counted in the tables and the indices: the weight is not made for it.
    ///
    /// ```
    /// use palettizer_palette::{Context, Dtype, Mode, Nbits, PaletteSpec, Tensor, palettize, statistics};
    ///
    /// let bytes: Vec<u8> = [0.5_f32, 0.0, 0.5, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    /// let tensor = Tensor::new(Dtype::F32, &[2, 2], &bytes).map_err(|e| e.to_string())?;
    /// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B2));
    /// let palette = palettize(&tensor, &spec, &Context::default()).map_err(|e| e.to_string())?;
    /// assert_eq!(palette.statistics().map_err(|e| e.to_string())?, statistics(&tensor));
    /// # Ok::<(), String>(())
    /// ```
    ///
    /// # Errors
    /// [`DenseError::IntegerScale`] for a palette with a scale or a mask, whose values are not those of its tables, and what
    /// contradicts each other as in [`try_decompress`](Self::try_decompress).
    pub fn statistics(&self) -> Result<Statistics, DenseError> {
        if self.scale.is_some() || self.mask.is_some() {
            return Err(DenseError::IntegerScale);
        }
        let entries = self.entries()?;
        let uses = self.uses()?;
        let size = self.dtype.size();
        let vector = self.lut_shape.last().copied().unwrap_or(1);
        let (mut used, mut zeros) = (Vec::new(), 0);
        for (entry, &count) in entries.chunks_exact(size * vector).zip(&uses) {
            if count == 0 {
                continue;
            }
            used.extend_from_slice(entry);
            // One vector as a weight of its own: its zeros are there once for each of its indices.
            if let Ok(one) = Tensor::new(self.dtype, &[vector], entry) {
                zeros += statistics(&one).zeros * count;
            }
        }
        let values = [used.len() / size];
        let distinct = match Tensor::new(self.dtype, &values, &used) {
            Ok(used) => statistics(&used).distinct,
            Err(_) => 0,
        };
        Ok(Statistics { zeros, distinct })
    }
}
