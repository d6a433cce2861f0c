//! A palette from the tables and indices of its groups.

use super::entries::ZERO_POINT;
use super::rounding::Rounding;
use super::table::GroupTable;
use crate::palette::packed;
use crate::{ChannelScale, Dtype, ErrorFigures, Layout, Lut, LutDtype, Nbits, Palette};

/// What the groups of a weight came to.
pub(crate) struct Encoded<'a> {
    pub(crate) dtype: Dtype,
    pub(crate) layout: &'a Layout,
    pub(crate) nbits: Nbits,
    pub(crate) lut_dtype: LutDtype,
    /// One for each group.
    pub(crate) tables: &'a [GroupTable],
    /// All indices, row-major.
    pub(crate) indices: &'a [u8],
    /// The per-channel scale, if there is one: numbers of the dtype.
    pub(crate) scales: Option<&'a [f32]>,
    pub(crate) mask: Option<&'a [u8]>,
}

impl Encoded<'_> {
    /// The palette.
    pub(crate) fn palette(&self) -> Palette {
        let Encoded { layout, nbits, .. } = *self;
        let mut error = ErrorFigures {
            elements: layout.shape.iter().product(),
            ..ErrorFigures::default()
        };
        for GroupTable { error: own, .. } in self.tables {
            error.squared_error += own.squared_error;
            error.energy += own.energy;
            error.gap = error.gap.max(own.gap);
        }
        let scale = self.scales.zip(layout.scale_shape());
        Palette {
            dtype: self.dtype,
            shape: layout.shape.clone(),
            nbits,
            index_shape: layout.index_shape.clone(),
            indices: packed(self.indices, nbits),
            lut: self.lut(),
            lut_shape: layout.lut_shape(nbits),
            vector_axis: layout.vector_axis,
            scale: scale.map(|(scales, shape)| ChannelScale {
                shape,
                bytes: Rounding(self.dtype).bytes(scales),
            }),
            mask: self.mask.map(<[u8]>::to_vec),
            error,
            fit: None,
        }
    }

    /// All tables in one, padded to 2^n entries.
    fn lut(&self) -> Lut {
        let entries = self.nbits.entries() * self.layout.cluster_dim;
        let rounding = Rounding(self.dtype);
        if self.lut_dtype == LutDtype::Float {
            let mut bytes = Vec::with_capacity(self.tables.len() * entries * self.dtype.size());
            for (number, table) in (1..).zip(self.tables) {
                bytes.extend(rounding.bytes(&table.entries.values));
                bytes.resize(number * entries * self.dtype.size(), 0);
            }
            return Lut::Float(bytes);
        }
        let unsigned = self.lut_dtype == LutDtype::Uint8;
        let shift = if unsigned { ZERO_POINT } else { 0 };
        let count = self.layout.tables().iter().product();
        let mut data = Vec::with_capacity(count * entries);
        let mut scales = Vec::with_capacity(count);
        for number in 0..count {
            let (group, channel) = self.layout.place(number);
            let table = &self.tables[group];
            let quantized = table.entries.quantized.as_ref();
            if let Some(quantized) = quantized {
                let integers = quantized.integers.iter();
                data.extend(integers.map(|&q| (q as u8).wrapping_add(shift)));
            }
            let own = quantized.map_or(1.0, |quantized| quantized.scale);
            let folded = table.folded.get(channel);
            scales.push(folded.copied().unwrap_or(own));
            data.resize((number + 1) * entries, shift);
        }
        Lut::Quantized {
            dtype: if unsigned { Dtype::U8 } else { Dtype::I8 },
            data,
            scale: rounding.bytes(&scales),
            scale_shape: self.layout.lut_scale_shape(),
            offset: unsigned.then(|| vec![ZERO_POINT; count]),
        }
    }
}
