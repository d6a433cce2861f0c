//! What a palette says of itself, compared with the twin.

use palettizer_palette::{Layout, Lut, Mode, Nbits, Palette, PaletteSpec, Tensor, statistics};

/// Compares a palette with the twin and with what it says of itself.
pub fn check(tensor: &Tensor<'_>, spec: &PaletteSpec, plan: &Layout, palette: &Palette) {
    let dtype = tensor.dtype();
    let dense = palette.decompress();
    assert_eq!(dense.len(), tensor.bytes().len(), "{spec:?}");
    assert_eq!(palette.index_shape, plan.index_shape);
    assert_eq!(palette.lut_shape, plan.lut_shape(palette.nbits));
    assert_eq!(palette.vector_axis, plan.vector_axis);
    let channels = plan.output_axis.map_or(1, |axis| plan.shape[axis]);
    let luts = match (plan.folded, plan.group_axis == plan.output_axis) {
        (false, _) => plan.groups,
        (true, true) => channels,
        (true, false) => plan.groups * channels,
    };
    assert_eq!(palette.luts(), luts);
    assert_eq!(
        palette.scale.is_some(),
        spec.per_channel_scale() && !plan.folded
    );
    assert_eq!(palette.error.elements, tensor.len());
    if palette.scale.is_none() && palette.mask.is_none() {
        let dense = Tensor::new(dtype, &palette.shape, &dense).unwrap();
        assert_eq!(palette.statistics(), Ok(statistics(&dense)), "{spec:?}");
    }
    let (mut lost, mut energy) = (0.0, 0.0);
    for at in 0..tensor.len() {
        let found = super::read(dtype, &dense, at);
        assert_eq!(
            found,
            super::element(palette, at),
            "element {at} of {spec:?}"
        );
        if palette
            .mask
            .as_ref()
            .is_none_or(|mask| super::bit(mask, at))
        {
            let original = super::read(dtype, tensor.bytes(), at);
            lost += (original - found).powi(2);
            energy += original * original;
        }
    }
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-9);
    assert!(
        near(lost, palette.error.squared_error),
        "{lost} {palette:?} {spec:?}"
    );
    assert!(
        near(energy, palette.error.energy),
        "{energy} {:?} {spec:?}",
        palette.error
    );
    let wide = palette.widened(Nbits::B8);
    assert_eq!(wide.nbits, Nbits::B8);
    assert_eq!(wide.decompress(), dense);
    if palette.scale.is_none() && plan.cluster_dim == 1 && !matches!(spec.mode(), Mode::Custom(_)) {
        nearest(tensor, palette);
    }
}

/// The tables of scalars, as a runtime computes them.
fn tables(palette: &Palette) -> Vec<Vec<f64>> {
    let entries = palette.nbits.entries();
    (0..palette.luts())
        .map(|group| {
            (group * entries..(group + 1) * entries)
                .map(|at| match &palette.lut {
                    Lut::Float(bytes) => super::read(palette.dtype, bytes, at),
                    Lut::Quantized {
                        dtype,
                        data,
                        scale,
                        offset,
                        ..
                    } => {
                        let zero = offset.as_ref().map_or(0.0, |o| f64::from(o[group]));
                        let product = super::read(palette.dtype, scale, group)
                            * (super::read(*dtype, data, at) - zero);
                        super::read(palette.dtype, &super::encode(palette.dtype, &[product]), 0)
                    }
                })
                .collect()
        })
        .collect()
}

/// No element has an entry of its own table that is nearer; tables ascend, and end in zeros.
fn nearest(tensor: &Tensor<'_>, palette: &Palette) {
    let tables = tables(palette);
    let groups = &palette.lut_shape[..palette.shape.len()];
    let mut used: Vec<Vec<f64>> = tables.iter().map(|_| Vec::new()).collect();
    let mut assigned = Vec::new();
    for at in 0..tensor.len() {
        if palette
            .mask
            .as_ref()
            .is_some_and(|mask| !super::bit(mask, at))
        {
            continue;
        }
        let place = super::coordinates(at, &palette.shape);
        let group: Vec<usize> = (0..place.len())
            .map(|a| place[a] / (palette.shape[a] / groups[a]))
            .collect();
        let group = super::flat(&group, groups);
        let (original, found) = (
            super::read(palette.dtype, tensor.bytes(), at),
            super::element(palette, at),
        );
        used[group].push(found);
        assigned.push((group, original, found));
    }
    for (group, original, found) in assigned {
        let real = tables[group].iter().take_while({
            let mut last = f64::NEG_INFINITY;
            move |&&entry| std::mem::replace(&mut last, entry) < entry
        });
        // A zero that nothing uses may be the first of those at the end.
        let best = real
            .filter(|&&entry| entry != 0.0 || used[group].contains(&0.0))
            .map(|entry| (entry - original).abs())
            .fold(f64::INFINITY, f64::min);
        assert!(
            (original - found).abs() <= best,
            "{original} {found} {best}"
        );
    }
    for (table, used) in tables.iter().zip(used) {
        let ascending = table.windows(2).take_while(|w| w[0] < w[1]).count() + 1;
        assert!(
            table[ascending..].iter().all(|&entry| entry == 0.0),
            "{table:?}"
        );
        let most = used.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        assert!(used.is_empty() || table[..ascending].contains(&most));
    }
}
