//! A palettized weight, and back: indices, tables, scales, and the dense weight they stand for.
//!
//! A palette says exactly what a file will hold, so [`Palette::decompress`] gives the weight as a runtime will
//! compute it: every product rounded in the weight's dtype, through the one set of rules in [`crate::decode`].

use crate::decode::{self, DenseError};
use crate::tensor::elements;
use crate::{Dtype, ErrorFigures, Nbits};
use bytemuck::Pod;
use half::{bf16, f16};
use palettizer_kernels::{pack, unpack};

/// One weight as indices into lookup tables.
///
/// ```
/// use palettizer_palette::{Context, Dtype, Mode, Nbits, PaletteSpec, Tensor, palettize};
///
/// let bytes: Vec<u8> = [0.5_f32, -1.0, 0.5, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
/// let tensor = Tensor::new(Dtype::F32, &[2, 2], &bytes).map_err(|e| e.to_string())?;
/// let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B2));
/// let palette = palettize(&tensor, &spec, &Context::default()).map_err(|e| e.to_string())?;
/// assert_eq!(palette.lut_shape, [1, 1, 4, 1]);
/// assert_eq!(palette.decompress(), bytes);
/// assert_eq!(palette.stored_bytes(), 1 + 4 * 4);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Palette {
    /// The weight's dtype, and that of its reconstruction.
    pub dtype: Dtype,
    /// The weight's shape.
    pub shape: Vec<usize>,
    /// Width of an index.
    pub nbits: Nbits,
    /// Shape of the index tensor: the weight's, with the vector axis divided by the vector's length.
    pub index_shape: Vec<usize>,
    /// The indices in row-major order, packed least-significant bits first across byte borders. With a mask:
    /// those of the kept positions only.
    pub indices: Vec<u8>,
    /// All tables.
    pub lut: Lut,
    /// Shape of all tables: the weight's rank plus 2: [groups per axis…, 2^n, vector length].
    pub lut_shape: Vec<usize>,
    /// The axis vectors lie along; `None` with scalars.
    pub vector_axis: Option<usize>,
    /// What each output channel is multiplied by afterwards.
    pub scale: Option<ChannelScale>,
    /// Of a pruned weight: the bitmap of kept positions of the dense weight, row-major, least-significant bit
    /// first.
    pub mask: Option<Vec<u8>>,
    /// How far the reconstruction is from the original.
    pub error: ErrorFigures,
}

/// The entries of all tables of a weight, shaped by [`Palette::lut_shape`]. Tables with fewer than 2^n entries end
/// in zeros; scalar k-means, uniform and unique tables ascend before that.
#[derive(Clone, Debug, PartialEq)]
pub enum Lut {
    /// Little-endian entries in the weight's dtype (an integer weight's tables hold its integers).
    Float(Vec<u8>),
    /// Integers with a scale for each table: entry = scale · (data − offset), rounded in the weight's dtype.
    Quantized {
        /// [`Dtype::I8`] or [`Dtype::U8`].
        dtype: Dtype,
        /// The integers.
        data: Vec<u8>,
        /// One scale for each table, little-endian, in the weight's dtype.
        scale: Vec<u8>,
        /// Shape of the scales, of the tables' rank: [groups per axis…, 1, 1].
        scale_shape: Vec<usize>,
        /// With `uint8`: one zero point for each table, all 127, shaped as the scales.
        offset: Option<Vec<u8>>,
    },
}

/// One factor for each output channel.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelScale {
    /// Of the weight's rank: the output channels on their axis, ones elsewhere.
    pub shape: Vec<usize>,
    /// Little-endian factors in the weight's dtype.
    pub bytes: Vec<u8>,
}

impl Palette {
    /// A palette without indices and tables, for a reader of some format to fill in.
    pub fn unfilled(dtype: Dtype, shape: Vec<usize>, nbits: Nbits) -> Self {
        Palette {
            dtype,
            index_shape: shape.clone(),
            shape,
            nbits,
            indices: Vec::new(),
            lut: Lut::Float(Vec::new()),
            lut_shape: Vec::new(),
            vector_axis: None,
            scale: None,
            mask: None,
            error: ErrorFigures::default(),
        }
    }

    /// Number of tables.
    pub fn luts(&self) -> usize {
        let groups = self.lut_shape.len().saturating_sub(2);
        self.lut_shape[..groups].iter().product()
    }

    /// Bytes that a file holds for this weight: indices, tables, scales, offsets and mask.
    pub fn stored_bytes(&self) -> usize {
        let lut = match &self.lut {
            Lut::Float(bytes) => bytes.len(),
            Lut::Quantized {
                data,
                scale,
                offset,
                ..
            } => data.len() + scale.len() + offset.as_ref().map_or(0, Vec::len),
        };
        let scale = self.scale.as_ref().map_or(0, |scale| scale.bytes.len());
        self.indices.len() + lut + scale + self.mask.as_ref().map_or(0, Vec::len)
    }

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
        let vector_axis = self.vector_axis.and_then(|axis| i64::try_from(axis).ok());
        let indices = self.wide(decode::count(&self.index_shape)?)?;
        decode::uses(&indices, &self.index_shape, &self.lut_shape, vector_axis)
    }

    /// The indices, one a byte.
    fn wide(&self, count: usize) -> Result<Vec<u8>, DenseError> {
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
    fn look_up<T: Copy + Default>(&self, entries: &[T]) -> Result<Vec<T>, DenseError> {
        let vector_axis = self.vector_axis.and_then(|axis| i64::try_from(axis).ok());
        let found = decode::dense_shape(&self.index_shape, &self.lut_shape, vector_axis)?;
        if found != self.shape {
            let expected = self.shape.clone();
            return Err(DenseError::Shape { expected, found });
        }
        let count = match &self.mask {
            None => decode::count(&self.index_shape)?,
            Some(mask) => decode::kept(mask, &self.shape)?,
        };
        let indices = self.wide(count)?;
        match &self.mask {
            None => decode::lut_to_dense(
                &indices,
                &self.index_shape,
                entries,
                &self.lut_shape,
                vector_axis,
            ),
            Some(mask) => {
                let sparse = decode::lut_to_sparse(
                    mask,
                    &self.index_shape,
                    &indices,
                    entries,
                    &self.lut_shape,
                    vector_axis,
                )?;
                decode::sparse_to_dense(&sparse.values, &sparse.mask, &self.shape)
            }
        }
    }
}

fn into_bytes<F: Pod>(values: Vec<F>) -> Vec<u8> {
    bytemuck::cast_slice(&values).to_vec()
}

/// Packs row-major indices.
pub(crate) fn packed(indices: &[u8], nbits: Nbits) -> Vec<u8> {
    let mut out = Vec::with_capacity((indices.len() * nbits.bits() as usize).div_ceil(8));
    pack(indices, nbits.bits(), &mut out);
    out
}
