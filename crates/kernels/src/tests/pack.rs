//! Packing, bit by bit.

use proptest::prelude::*;

use crate::{pack, unpack};

fn naive(indices: &[u8], nbits: u32) -> Vec<u8> {
    let nbits = nbits as usize;
    let mut out = vec![0; (indices.len() * nbits).div_ceil(8)];
    for (i, index) in indices.iter().enumerate() {
        for bit in 0..nbits {
            let at = i * nbits + bit;
            out[at / 8] |= ((index >> bit) & 1) << (at % 8);
        }
    }
    out
}

proptest! {
    #[test]
    fn as_bit_by_bit(indices in prop::collection::vec(any::<u8>(), 0..200), nbits in 1_u32..9, prefix in 0_usize..3) {
        let mut out = vec![7; prefix];
        pack(&indices, nbits, &mut out);
        prop_assert_eq!(&out[prefix..], &naive(&indices, nbits)[..]);
        let mut back = vec![0; indices.len()];
        prop_assert!(unpack(&out[prefix..], nbits, &mut back));
        let mask = (1_u32 << nbits) - 1;
        let wanted: Vec<u8> = indices.iter().map(|&i| (u32::from(i) & mask) as u8).collect();
        prop_assert_eq!(back, wanted);
    }
}

#[test]
fn in_several_pieces() {
    let indices: Vec<u8> = (0..1_200_003_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for nbits in [1, 3, 6] {
        let mut out = Vec::new();
        pack(&indices, nbits, &mut out);
        assert_eq!(out, naive(&indices, nbits));
        let mut back = vec![0; indices.len()];
        assert!(unpack(&out, nbits, &mut back));
        assert!(
            back.iter()
                .zip(&indices)
                .all(|(a, b)| *a == b & ((1 << nbits) - 1))
        );
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let mut out = [9; 4];
    assert!(!unpack(&[0], 3, &mut out));
    assert!(!unpack(&[0; 8], 0, &mut out));
    assert!(!unpack(&[0; 8], 9, &mut out));
    assert_eq!(out, [9; 4]);
    assert!(unpack(&[], 4, &mut []));
}
