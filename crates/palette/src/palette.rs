//! A palettized weight: indices, tables and scales, exactly as a file will hold them.

use palettizer_kernels::pack;

use crate::{Dtype, ErrorFigures, LayerwiseFit, Nbits};

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
    /// How far the layer's outputs are from what they were, if it was fitted to them.
    pub fit: Option<LayerwiseFit>,
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
            fit: None,
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
}

/// Packs row-major indices.
pub(crate) fn packed(indices: &[u8], nbits: Nbits) -> Vec<u8> {
    let mut out = Vec::with_capacity((indices.len() * nbits.bits() as usize).div_ceil(8));
    pack(indices, nbits.bits(), &mut out);
    out
}
