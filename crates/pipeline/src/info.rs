//! How a weight is palettized already.

use serde::Serialize;

/// How a weight is palettized.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PaletteInfo {
    /// Bits of an index.
    pub nbits: u32,
    /// The number of lookup tables.
    pub luts: u64,
    /// Channels of a table; `null` where there is one table, or where tables differ along several axes.
    pub group_size: Option<u64>,
    /// Weights for an index.
    pub cluster_dim: u64,
    /// The element type of the tables: the weight's, `int8` or `uint8`.
    pub lut_dtype: String,
    /// Whether what is looked up is scaled afterwards, as by a scale of each output channel.
    pub per_channel_scale: bool,
}

impl PaletteInfo {
    /// The palette of a weight of the shape `shape` with tables of the shape `lut_shape`: the tables along each axis, the
    /// entries of one, and the length of an entry; or the entries alone. `None` if this is no shape of tables.
    ///
    /// ```
    /// use palettizer_pipeline::PaletteInfo;
    ///
    /// let info = PaletteInfo::of_tables(&[8, 1, 16, 2], &[32, 64], "fp16", false);
    /// let info = info.ok_or("no tables")?;
    /// assert_eq!((info.nbits, info.luts), (4, 8));
    /// assert_eq!((info.group_size, info.cluster_dim), (Some(4), 2));
    /// # Ok::<(), &str>(())
    /// ```
    pub fn of_tables(
        lut_shape: &[usize],
        shape: &[usize],
        lut_dtype: &str,
        per_channel_scale: bool,
    ) -> Option<Self> {
        let (tables, entries, vector) = match *lut_shape {
            [entries] => (&[][..], entries, 1),
            [ref tables @ .., entries, vector] => (tables, entries, vector),
            [] => return None,
        };
        let axes = tables.iter().zip(shape);
        let mut grouped = axes.filter(|&(&tables, _)| tables > 1);
        let group_size = match (grouped.next(), grouped.next()) {
            (Some((&tables, &channels)), None) => Some((channels / tables) as u64),
            _ => None,
        };
        Some(Self {
            nbits: entries.checked_ilog2()?,
            luts: tables
                .iter()
                .try_fold(1, |n: u64, &d| n.checked_mul(d as u64))?,
            group_size,
            cluster_dim: vector as u64,
            lut_dtype: lut_dtype.to_owned(),
            per_channel_scale,
        })
    }
}
