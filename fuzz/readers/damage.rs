//! Valid files, damaged: the generator that the bounded harness and the seeds of the unbounded one share.

/// Numbers at limits, as a binary file has them.
const NUMBERS: [u64; 12] = [
    0,
    1,
    63,
    64,
    0x7f,
    0xffff,
    0xdead_beef,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 40,
    i64::MAX as u64,
    u64::MAX,
];

/// Numbers at limits, as a text has them.
const DIGITS: [&str; 10] = [
    "0",
    "1",
    "-1",
    "63",
    "64",
    "1e3",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "99999999999999999999",
];

/// Xorshift: random enough for this, and the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`; 0 if that is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// A copy of one seed with one to four damages.
pub(crate) fn damaged(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        damage(&mut bytes, seeds, random);
    }
    bytes
}

fn damage(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len());
    let end = (at + random.below(64)).min(bytes.len());
    match random.below(10) {
        // One bit, one byte.
        0 => bytes
            .iter_mut()
            .skip(at)
            .take(1)
            .for_each(|byte| *byte ^= 1 << random.below(8)),
        1 => bytes
            .iter_mut()
            .skip(at)
            .take(1)
            .for_each(|byte| *byte = random.next() as u8),
        // Cut short; a piece gone; a piece doubled, here or elsewhere; a piece of another seed.
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..end)),
        4 => {
            let piece = bytes[at..end].to_vec();
            let to = match random.below(2) {
                0 => at,
                _ => random.below(bytes.len()),
            };
            bytes.splice(to..to, piece);
        }
        5 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len());
            let to = (from + random.below(256)).min(other.len());
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        // Numbers at limits: little-endian, as protobuf has them, as digits.
        6 | 7 => {
            let value = NUMBERS[random.below(NUMBERS.len())].to_le_bytes();
            let width = [4, 8][random.below(2)];
            let at = if random.below(2) == 0 { at } else { at & !7 };
            for (place, byte) in bytes.iter_mut().skip(at).zip(&value[..width]) {
                *place = *byte;
            }
        }
        8 => {
            let mut value = NUMBERS[random.below(NUMBERS.len())];
            let mut varint = Vec::new();
            while value >= 0x80 {
                varint.push(value as u8 | 0x80);
                value >>= 7;
            }
            varint.push(value as u8);
            bytes.splice(at..(at + 1).min(bytes.len()), varint);
        }
        _ => {
            let digit = |at: &usize| bytes.get(*at).is_some_and(u8::is_ascii_digit);
            let from = (at..bytes.len()).find(digit).unwrap_or(at);
            let to = (from..bytes.len()).find(|at| !digit(at)).unwrap_or(from);
            let number = DIGITS[random.below(DIGITS.len())];
            bytes.splice(from..to, number.bytes());
        }
    }
}
