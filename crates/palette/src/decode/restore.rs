//! The dense weight of a palette, written where it is wanted.
//!
//! When tables and scales lie along the first axis (or there is one), each is for a run of the weight, and the weight is
//! written a piece at a time from the packed indices: nothing of its size is needed beside it. Every other palette is
//! made dense by the rules of [`crate::decode`] and copied. Both give the same bits.

use std::borrow::Cow;
use std::iter;

use bytemuck::Pod;
use half::{bf16, f16};
use rayon::prelude::*;

use super::{DenseError, Float};
use crate::tensor::elements;
use crate::{Dtype, Palette, decode, unpack};

/// Elements of one piece: a multiple of 8, so that its indices begin with a byte.
const PIECE: usize = 1 << 14;

impl Palette {
    /// Writes the dense weight: little-endian, row-major, in [`dtype`](Palette::dtype).
    ///
    /// ```
    /// use palettizer_palette::{Context, Dtype, Mode, Nbits, PaletteSpec, Tensor, palettize};
    ///
    /// let bytes: Vec<u8> = [0.5_f32, -1.0, 0.5, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    /// let tensor = Tensor::new(Dtype::F32, &[2, 2], &bytes).map_err(|e| e.to_string())?;
    /// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B2));
    /// let palette = palettize(&tensor, &spec, &Context::default()).map_err(|e| e.to_string())?;
    /// let mut dense = [0; 16];
    /// palette.decompress_into(&mut dense).map_err(|e| e.to_string())?;
    /// assert_eq!(dense.as_slice(), bytes);
    /// # Ok::<(), String>(())
    /// ```
    ///
    /// # Errors
    /// A [`DenseError`] when `out` is not as long as the weight, or shapes and lengths contradict each other.
    pub fn decompress_into(&self, out: &mut [u8]) -> Result<(), DenseError> {
        let expected = decode::count(&self.shape)?.saturating_mul(self.dtype.size());
        if out.len() != expected {
            return Err(DenseError::Length {
                what: "out",
                expected,
                found: out.len(),
            });
        }
        let written = match self.dtype {
            Dtype::F16 => self.write_runs::<f16>(out)?,
            Dtype::BF16 => self.write_runs::<bf16>(out)?,
            Dtype::F32 => self.write_runs::<f32>(out)?,
            Dtype::I8 | Dtype::U8 => false,
        };
        if !written {
            out.copy_from_slice(&self.try_decompress()?);
        }
        Ok(())
    }

    /// Writes the weight run by run, if it is made of runs; says whether it did.
    fn write_runs<F: Float + Pod + Send + Sync>(&self, out: &mut [u8]) -> Result<bool, DenseError> {
        let Ok(out) = bytemuck::try_cast_slice_mut::<u8, F>(out) else {
            return Ok(false);
        };
        let Some(runs) = Runs::<F>::of(self, out.len())? else {
            return Ok(false);
        };
        let bits = self.nbits.bits();
        let packed = self.indices.par_chunks(PIECE / 8 * bits as usize);
        let pieces = out.par_chunks_mut(PIECE).zip(packed).enumerate();
        pieces.for_each(|(piece, (out, packed))| {
            let mut indices = [0; PIECE];
            let indices = &mut indices[..out.len()];
            let whole = unpack(packed, bits, indices);
            debug_assert!(whole, "the number of packed bytes was checked");
            runs.write(piece * PIECE, indices, out);
        });
        Ok(true)
    }
}

/// The tables and scales of a palette, each for a run of the weight.
struct Runs<'a, F: Copy> {
    /// All tables, and the entries of one.
    entries: Vec<F>,
    table: usize,
    factors: Option<Cow<'a, [F]>>,
    /// Elements that share a table, and a scale.
    table_run: usize,
    scale_run: usize,
}

impl<'a, F: Float + Pod> Runs<'a, F> {
    /// Of a palette whose weight has so many elements; `None` if it is not made of runs.
    fn of(palette: &'a Palette, len: usize) -> Result<Option<Self>, DenseError> {
        let (luts, table) = (palette.luts(), palette.nbits.entries());
        let entries = palette.entries_as::<F>()?;
        let scale = palette.scale.as_ref();
        let factors = scale.map(|scale| elements::<F>(&scale.bytes));
        let rows = factors.as_ref().map_or(1, |factors| factors.len());
        // One number for each part of the first axis, and ones for the others.
        let parts = |parts: usize| {
            let others = palette.shape.len().saturating_sub(1);
            iter::once(parts).chain(iter::repeat_n(1, others))
        };
        let channels = palette.shape.first().copied().unwrap_or(0);
        let divides = |parts: usize| parts > 0 && channels.is_multiple_of(parts);
        let packed = (len as u128 * u128::from(palette.nbits.bits())).div_ceil(8);
        let fits = len > 0
            && palette.mask.is_none()
            && palette.index_shape == palette.shape
            && (palette.lut_shape.iter().copied()).eq(parts(luts).chain([table, 1]))
            && entries.len() == luts.saturating_mul(table)
            && scale.is_none_or(|scale| scale.shape.iter().copied().eq(parts(rows)))
            && divides(luts)
            && divides(rows)
            && palette.indices.len() == packed as usize;
        Ok(fits.then(|| Runs {
            entries,
            table,
            factors,
            table_run: len / luts,
            scale_run: len / rows,
        }))
    }

    /// Writes the elements from `start` on, given their indices.
    fn write(&self, start: usize, indices: &[u8], out: &mut [F]) {
        let mut at = 0;
        while at < out.len() {
            let place = start + at;
            let (group, channel) = (place / self.table_run, place / self.scale_run);
            let border = ((group + 1) * self.table_run).min((channel + 1) * self.scale_run);
            let end = out.len().min(border - start);
            let entries = &self.entries[group * self.table..][..self.table];
            let run = out[at..end].iter_mut().zip(&indices[at..end]);
            match &self.factors {
                None => run.for_each(|(out, &index)| *out = entries[usize::from(index)]),
                Some(factors) => {
                    let scale = factors[channel].to_f32();
                    run.for_each(|(out, &index)| {
                        let entry = entries[usize::from(index)].to_f32();
                        *out = F::from_f32_rounded(scale * entry);
                    });
                }
            }
            at = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, Granularity, LutDtype, Mode, Nbits, PaletteSpec, Tensor, palettize};

    #[test]
    fn the_same_bits_as_the_rules_give() {
        // More than one piece, and runs that end inside of pieces.
        let (rows, columns) = (24, 1531);
        let shape = [rows, columns];
        let values = (0..rows * columns).map(|i| ((i * i) as f32 * 0.37).sin());
        let bytes: Vec<u8> = values
            .clone()
            .flat_map(|value| f16::from_f32(value).to_le_bytes())
            .collect();
        let wide: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        for (dtype, bytes) in [(Dtype::F16, &bytes), (Dtype::F32, &wide)] {
            for nbits in [Nbits::B1, Nbits::B3, Nbits::B8] {
                for (group_size, axis) in [(24, 0), (6, 0), (1, 0), (1531, 1)] {
                    for (scale, lut_dtype, vector) in [
                        (false, LutDtype::Float, 1),
                        (true, LutDtype::Float, 1),
                        (true, LutDtype::Uint8, 1),
                        (false, LutDtype::Int8, 1),
                        (false, LutDtype::Float, if group_size == 6 { 2 } else { 1 }),
                    ] {
                        let spec = PaletteSpec::new(Mode::Kmeans(nbits))
                            .with_granularity(Granularity::PerGroupedChannel {
                                group_size,
                                channel_axis: Some(axis),
                            })
                            .with_per_channel_scale(scale)
                            .with_cluster_dim(vector)
                            .with_lut_dtype(lut_dtype);
                        let tensor = Tensor::new(dtype, &shape, bytes).unwrap();
                        let context = Context {
                            output_axis: Some(0),
                            ..Context::default()
                        };
                        let palette = palettize(&tensor, &spec, &context).unwrap();
                        let mut out = vec![0xAA; bytes.len()];
                        palette.decompress_into(&mut out).unwrap();
                        assert!(out == palette.try_decompress().unwrap(), "{spec:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_wrong_length_is_refused() {
        let bytes = [0_u8; 64];
        let tensor = Tensor::new(Dtype::F32, &[4, 4], &bytes).unwrap();
        let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B2));
        let palette = palettize(&tensor, &spec, &Context::default()).unwrap();
        let error = palette.decompress_into(&mut [0; 63]).unwrap_err();
        assert!(matches!(
            error,
            DenseError::Length {
                expected: 64,
                found: 63,
                ..
            }
        ));
    }
}
