//! The dense weight of a palette, as a runtime will compute it: every product rounded in the weight's dtype.

use bytemuck::Pod;
use half::{bf16, f16};
use palettizer_kernels::unpack;

use super::DenseError;
use crate::tensor::elements;
use crate::{Dtype, Lut, Palette, decode};

impl Palette {
    /// The dense weight: little-endian, row-major, in [`dtype`](Palette::dtype).
    ///
    /// A palette made by [`palettize`](crate::palettize) always has one. One whose public fields were changed until
    /// they contradict each other has none and gives no bytes; [`try_decompress`](Palette::try_decompress) says why.
    pub fn decompress(&self) -> Vec<u8> {
        self.try_decompress().unwrap_or_default()
    }

    /// The dense weight, or what is wrong with the fields.
    ///
    /// # Errors
    /// A [`DenseError`] when shapes and lengths contradict each other.
    pub fn try_decompress(&self) -> Result<Vec<u8>, DenseError> {
        match self.dtype {
            Dtype::F16 => self.float::<f16>(),
            Dtype::BF16 => self.float::<bf16>(),
            Dtype::F32 => self.float::<f32>(),
            Dtype::I8 | Dtype::U8 => match &self.lut {
                Lut::Float(entries) if self.scale.is_none() => self.look_up(entries),
                _ => Err(DenseError::IntegerScale),
            },
        }
    }

    /// The entries of all tables in the weight's dtype, shaped by `lut_shape`: those of a quantized LUT as the runtime
    /// computes them.
    ///
    /// ```
    /// use palettizer_palette::{Context, Dtype, LutDtype, Mode, Nbits, PaletteSpec, Tensor, palettize};
    ///
    /// let bytes: Vec<u8> = [-127.0_f32, 3.0, 3.0, 127.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    /// let tensor = Tensor::new(Dtype::F32, &[2, 2], &bytes).map_err(|e| e.to_string())?;
    /// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B1)).with_lut_dtype(LutDtype::Int8);
    /// let palette = palettize(&tensor, &spec, &Context::default()).map_err(|e| e.to_string())?;
    /// assert_eq!(palette.entries().map_err(|e| e.to_string())?.len(), 2 * 4);
    /// # Ok::<(), String>(())
    /// ```
    ///
    /// # Errors
    /// A [`DenseError`] when shapes and lengths contradict each other.
    pub fn entries(&self) -> Result<Vec<u8>, DenseError> {
        match (&self.lut, self.dtype) {
            (Lut::Float(bytes), _) => Ok(bytes.clone()),
            (_, Dtype::F16) => self.entries_as::<f16>().map(into_bytes),
            (_, Dtype::BF16) => self.entries_as::<bf16>().map(into_bytes),
            (_, Dtype::F32) => self.entries_as::<f32>().map(into_bytes),
            (_, Dtype::I8 | Dtype::U8) => Err(DenseError::IntegerScale),
        }
    }

    fn float<F: decode::Float + Pod>(&self) -> Result<Vec<u8>, DenseError> {
        let weight = self.look_up(&self.entries_as::<F>()?)?;
        let weight = match &self.scale {
            None => weight,
            Some(scale) => {
                let factors = elements::<F>(&scale.bytes);
                decode::shift_scale::<F, F, F>(&weight, &self.shape, &factors, &scale.shape, None)?
            }
        };
        Ok(into_bytes(weight))
    }

    pub(crate) fn entries_as<F: decode::Float + Pod>(&self) -> Result<Vec<F>, DenseError> {
        match &self.lut {
            Lut::Float(bytes) => Ok(elements::<F>(bytes).into_owned()),
            Lut::Quantized {
                dtype,
                data,
                scale,
                scale_shape,
                offset,
            } => {
                let scale = elements::<F>(scale);
                let offset = offset.as_deref();
                match dtype {
                    Dtype::I8 => decode::shift_scale(
                        bytemuck::cast_slice::<u8, i8>(data),
                        &self.lut_shape,
                        &scale,
                        scale_shape,
                        offset.map(bytemuck::cast_slice::<u8, i8>),
                    ),
                    _ => decode::shift_scale(data, &self.lut_shape, &scale, scale_shape, offset),
                }
            }
        }
    }

    /// How many indices there are of each entry of all tables, of a palette without a mask.
    pub(crate) fn uses(&self) -> Result<Vec<usize>, DenseError> {
        let indices = self.unpacked(decode::count(&self.index_shape)?)?;
        let axis = signed(self.vector_axis);
        decode::uses(&indices, &self.index_shape, &self.lut_shape, axis)
    }

    /// The indices, one a byte.
    fn unpacked(&self, count: usize) -> Result<Vec<u8>, DenseError> {
        let bits = self.nbits.bits();
        let mut indices = decode::room(count)?;
        indices.resize(count, 0);
        match unpack(&self.indices, bits, &mut indices) {
            true => Ok(indices),
            false => Err(DenseError::Length {
                what: "packed indices",
                expected: (count as u128 * u128::from(bits)).div_ceil(8) as usize,
                found: self.indices.len(),
            }),
        }
    }

    /// Entries for indices: dense, without the per-channel scale.
    fn look_up<T: Copy + Default + Send + Sync>(
        &self,
        entries: &[T],
    ) -> Result<Vec<T>, DenseError> {
        let (shape, lut_shape) = (&self.index_shape, &self.lut_shape);
        let axis = signed(self.vector_axis);
        let found = decode::dense_shape(shape, lut_shape, axis)?;
        if found != self.shape {
            let expected = self.shape.clone();
            return Err(DenseError::Shape { expected, found });
        }
        let Some(mask) = &self.mask else {
            let indices = decode::Packed {
                bytes: &self.indices,
                nbits: self.nbits.bits(),
            };
            let mut out = Vec::new();
            decode::lut_to_dense_in(&mut out, indices, shape, entries, lut_shape, axis)?;
            return Ok(out);
        };
        let indices = self.unpacked(decode::kept(mask, &self.shape)?)?;
        let sparse = decode::lut_to_sparse(mask, shape, &indices, entries, lut_shape, axis)?;
        decode::sparse_to_dense(&sparse.values, &sparse.mask, &self.shape)
    }
}

/// An axis as the ops have it.
pub(crate) fn signed(axis: Option<usize>) -> Option<i64> {
    axis.and_then(|axis| i64::try_from(axis).ok())
}

fn into_bytes<F: Pod>(values: Vec<F>) -> Vec<u8> {
    bytemuck::cast_slice(&values).to_vec()
}
