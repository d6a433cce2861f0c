//! A palette with wider indices than it needs, for a format that has no narrower ones.

use crate::encode::entries::ZERO_POINT;
use crate::{Lut, Nbits, Palette};
use palettizer_kernels::{pack, unpack};

impl Palette {
    /// The same palette with indices of `nbits` bits, tables padded with zeros; unchanged if that is no wider.
    ///
    /// The 3-bit indices of [`Mode::Unique`](crate::Mode::Unique), say, where only 1, 2, 4, 6 and 8 bits exist.
    ///
    /// ```
    /// use palettizer_palette::{Context, Dtype, Mode, Nbits, PaletteSpec, Tensor, palettize};
    ///
    /// let bytes: Vec<u8> = (0..5).flat_map(|v| (v as f32).to_le_bytes()).collect();
    /// let tensor = Tensor::new(Dtype::F32, &[1, 5], &bytes).map_err(|e| e.to_string())?;
    /// let spec = PaletteSpec::new(Mode::Unique);
    /// let palette = palettize(&tensor, &spec, &Context::default()).map_err(|e| e.to_string())?;
    /// assert_eq!(palette.nbits, Nbits::B3);
    /// let wider = palette.widened(Nbits::B4);
    /// assert_eq!(wider.lut_shape, [1, 1, 16, 1]);
    /// assert_eq!(wider.decompress(), bytes);
    /// # Ok::<(), String>(())
    /// ```
    #[must_use]
    pub fn widened(&self, nbits: Nbits) -> Palette {
        let mut wide = self.clone();
        // Eight indices of n bits are n bytes; the last ones may be padding, which stays behind the end.
        let mut indices = vec![0; self.indices.len() * 8 / self.nbits.bits() as usize];
        let entries_axis = self.lut_shape.len().wrapping_sub(2);
        let entries = wide.lut_shape.get_mut(entries_axis);
        let (Some(entries), true) = (
            entries,
            unpack(&self.indices, self.nbits.bits(), &mut indices),
        ) else {
            return wide;
        };
        if nbits.entries() <= *entries {
            return wide;
        }
        let count = match &self.mask {
            None => self.index_shape.iter().product(),
            Some(mask) => mask.iter().map(|byte| byte.count_ones() as usize).sum(),
        };
        indices.truncate(count);
        wide.indices.clear();
        pack(&indices, nbits.bits(), &mut wide.indices);
        let (from, to) = (*entries, nbits.entries());
        *entries = to;
        wide.nbits = nbits;
        let tables = self.luts();
        let (data, zero) = match &mut wide.lut {
            Lut::Quantized {
                data,
                offset: Some(_),
                ..
            } => (data, ZERO_POINT),
            Lut::Float(data) | Lut::Quantized { data, .. } => (data, 0),
        };
        let table = data.len() / tables.max(1);
        let mut padded = Vec::with_capacity(data.len() / from * to);
        for entries in data.chunks(table.max(1)) {
            padded.extend_from_slice(entries);
            padded.resize(padded.len() + table / from * (to - from), zero);
        }
        *data = padded;
        wide
    }
}
