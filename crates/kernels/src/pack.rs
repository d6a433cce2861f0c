//! Indices of a few bits, packed least significant bit first, across byte borders.
//!
//! Eight indices are read as one 64-bit word and folded in three steps: neighbouring bytes, then pairs, then fours.
//! Unpacking runs the steps backwards. Cost: about 0.1 ns an index. `pext` would do it in one step, but takes hundreds
//! of cycles on some processors and is not faster than memory on the others.

use rayon::prelude::*;

/// Indices handled by one task; a multiple of eight.
const CHUNK: usize = 1 << 19;

/// Calls what is compiled for each width with one that is known at run time.
macro_rules! by_width {
    ($function:ident, $nbits:expr, $($arg:expr),*) => {
        match $nbits {
            1 => $function::<1>($($arg),*),
            2 => $function::<2>($($arg),*),
            3 => $function::<3>($($arg),*),
            4 => $function::<4>($($arg),*),
            5 => $function::<5>($($arg),*),
            6 => $function::<6>($($arg),*),
            7 => $function::<7>($($arg),*),
            _ => $function::<8>($($arg),*),
        }
    };
}

/// Appends `indices`, `nbits` bits each (1 to 8), to `out`: `ceil(len * nbits / 8)` bytes, the last one padded with
/// zeros.
///
/// Higher bits of an index are ignored; `nbits` out of range is brought into it.
///
/// ```
/// let mut out = Vec::new();
/// palettizer_kernels::pack(&[1, 2, 3], 4, &mut out);
/// assert_eq!(out, [0x21, 0x03]);
/// ```
pub fn pack(indices: &[u8], nbits: u32, out: &mut Vec<u8>) {
    let nbits = nbits.clamp(1, 8) as usize;
    if nbits == 8 {
        out.extend_from_slice(indices);
        return;
    }
    let start = out.len();
    out.resize(
        start + (indices.len() / 8) * nbits + (indices.len() % 8 * nbits).div_ceil(8),
        0,
    );
    let target = &mut out[start..];
    if indices.len() <= CHUNK {
        return by_width!(pack_width, nbits, indices, target);
    }
    let parts = indices
        .par_chunks(CHUNK)
        .zip(target.par_chunks_mut(CHUNK / 8 * nbits));
    parts.for_each(|(indices, target)| by_width!(pack_width, nbits, indices, target));
}

fn pack_width<const BITS: usize>(indices: &[u8], out: &mut [u8]) {
    let (field, steps) = (fields(8, BITS), steps(BITS));
    let squeeze = |bytes: [u8; 8]| {
        let x = u64::from_le_bytes(bytes) & field;
        let x = steps.iter().fold(x, |x, step| {
            (x & step.low) | ((x & step.high) >> step.shift)
        });
        x.to_le_bytes()
    };
    let whole = indices.len() / 8;
    for (eight, out) in indices
        .as_chunks::<8>()
        .0
        .iter()
        .zip(out.as_chunks_mut::<BITS>().0)
    {
        out.copy_from_slice(&squeeze(*eight)[..BITS]);
    }
    let (rest, out) = (&indices[whole * 8..], &mut out[whole * BITS..]);
    let mut bytes = [0; 8];
    bytes[..rest.len()].copy_from_slice(rest);
    out.copy_from_slice(&squeeze(bytes)[..out.len()]);
}

/// Two neighbouring fields become one, in every lane of a word: the high one is moved down to the low one.
struct Step {
    low: u64,
    high: u64,
    shift: usize,
}

/// The three steps from eight fields of `nbits` bits, each in a byte, to one field of eight times as many.
fn steps(nbits: usize) -> [Step; 3] {
    [0, 1, 2].map(|step| {
        let (lane, width) = (16 << step, nbits << step);
        let low = fields(lane, width);
        Step {
            low,
            high: low << (lane / 2),
            shift: lane / 2 - width,
        }
    })
}

/// A mask of the lowest `width` bits of every lane.
fn fields(lane: usize, width: usize) -> u64 {
    (0..64 / lane).fold(0, |mask, i| mask | ((1_u64 << width) - 1) << (i * lane))
}

/// Fills `out` with indices of `nbits` bits. Returns false, and leaves `out` alone, when `bytes` is too short or
/// `nbits` is not in 1..=8.
///
/// ```
/// let mut out = [0; 3];
/// assert!(palettizer_kernels::unpack(&[0x21, 0x03], 4, &mut out));
/// assert_eq!(out, [1, 2, 3]);
/// assert!(!palettizer_kernels::unpack(&[0x21], 4, &mut out));
/// ```
#[must_use]
pub fn unpack(bytes: &[u8], nbits: u32, out: &mut [u8]) -> bool {
    let Some(needed) = out.len().checked_mul(nbits as usize) else {
        return false;
    };
    if !(1..=8).contains(&nbits) || bytes.len() < needed.div_ceil(8) {
        return false;
    }
    let nbits = nbits as usize;
    if out.len() <= CHUNK {
        by_width!(unpack_width, nbits, bytes, out);
    } else {
        let parts = out
            .par_chunks_mut(CHUNK)
            .zip(bytes.par_chunks(CHUNK / 8 * nbits));
        parts.for_each(|(out, bytes)| by_width!(unpack_width, nbits, bytes, out));
    }
    true
}

fn unpack_width<const BITS: usize>(bytes: &[u8], out: &mut [u8]) {
    let steps = steps(BITS);
    let spread = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        let x = u64::from_le_bytes(word);
        let x = steps.iter().rev().fold(x, |x, step| {
            (x & step.low) | ((x << step.shift) & step.high)
        });
        x.to_le_bytes()
    };
    let whole = out.len() / 8;
    for (eight, bytes) in out
        .as_chunks_mut::<8>()
        .0
        .iter_mut()
        .zip(bytes.as_chunks::<BITS>().0)
    {
        *eight = spread(bytes);
    }
    let rest = &mut out[whole * 8..];
    if !rest.is_empty() {
        let bytes = &bytes[whole * BITS..];
        let word = spread(&bytes[..bytes.len().min(BITS)]);
        rest.copy_from_slice(&word[..rest.len()]);
    }
}
