//! Sorting by integers, digit by digit, and 32-bit floats as integers that sort like them.
//!
//! Cost: 5 to 20 ns an item, and a table for each digit. Wrong choice: fewer than a hundred items, which [`radix`] leaves to a sort that
//! compares.

use crate::stop::Stop;

/// An integer that sorts like the value.
#[inline(always)]
pub(crate) fn key(x: f32) -> u32 {
    let bits = x.to_bits();
    bits ^ (((bits as i32 >> 31) as u32) | 0x8000_0000)
}

#[inline(always)]
pub(crate) fn unkey(key: u32) -> f32 {
    f32::from_bits(key ^ (((!key as i32 >> 31) as u32) | 0x8000_0000))
}

/// Sorts by a 32-bit key, keeping the order of equals; digits that all keys share cost nothing. If it is stopped, they are in no order.
pub(crate) fn radix<T: Copy + Default>(
    mut items: Vec<T>,
    key: impl Fn(T) -> u32,
    stop: Stop<'_>,
) -> Vec<T> {
    match items.len() {
        0..128 => {
            items.sort_by_key(|&item| key(item));
            items
        }
        // Long tables take longer than few values.
        128..3072 => by_digits::<T, 4, 256>(items, key, stop),
        _ => by_digits::<T, 3, 2048>(items, key, stop),
    }
}

/// Sorts digit by digit, the last first.
pub(crate) fn by_digits<T: Copy + Default, const DIGITS: usize, const SIZE: usize>(
    mut items: Vec<T>,
    key: impl Fn(T) -> u32,
    stop: Stop<'_>,
) -> Vec<T> {
    let digit = |item: T, d: usize| (key(item) >> (d as u32 * SIZE.ilog2())) as usize & (SIZE - 1);
    let mut other = vec![T::default(); items.len()];
    let mut counts = [[0_usize; SIZE]; DIGITS];
    for &item in &items {
        for (d, counts) in counts.iter_mut().enumerate() {
            counts[digit(item, d)] += 1;
        }
    }
    let Some(&first) = items.first() else {
        return items;
    };
    for (d, counts) in counts.iter_mut().enumerate() {
        if counts[digit(first, d)] == items.len() {
            continue;
        }
        if stop.requested() {
            return items;
        }
        let mut at = 0;
        for start in counts.iter_mut() {
            at += std::mem::replace(start, at);
        }
        for &item in &items {
            let start = &mut counts[digit(item, d)];
            other[*start] = item;
            *start += 1;
        }
        std::mem::swap(&mut items, &mut other);
    }
    items
}
