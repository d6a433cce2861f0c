//! One body, several instruction sets.
//!
//! A kernel is written once, as plain Rust that the compiler can vectorize (fixed arrays of lanes, no branches inside).
//! `dispatch!` compiles it a second time with AVX2 enabled and chooses at run time. Both forms do the same float
//! operations in the same order (Rust never fuses a multiplication with an addition on its own; where `mul_add` is written, both
//! do), so they agree bit for bit; on other machines (NEON) only the plain form exists.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
pub(crate) mod f64x8;
pub(crate) mod portable;

/// Defines `$name`, which runs `$body` with the best instruction set there is. The body must be `#[inline(always)]`.
/// With two bodies, the second is for AVX2. Type parameters have one bound each.
macro_rules! dispatch {
    (
        $(#[$meta:meta])* $vis:vis fn $name:ident $(<$($param:ident: $bound:path),+>)?
        ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path $(, $avx2:path)?
    ) => {
        $(#[$meta])*
        #[allow(unsafe_code)]
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<$($param: $bound),+>)? ($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,lzcnt")]
                fn avx2 $(<$($param: $bound),+>)? ($($arg: $ty),*) $(-> $ret)? {
                    $crate::simd::dispatch!(@last $body $(, $avx2)?; $($arg),*)
                }
                if !$crate::simd::force_portable()
                    && std::arch::is_x86_feature_detected!("avx2")
                    && std::arch::is_x86_feature_detected!("fma")
                    && std::arch::is_x86_feature_detected!("bmi1")
                    && std::arch::is_x86_feature_detected!("bmi2")
                    && std::arch::is_x86_feature_detected!("popcnt")
                    && std::arch::is_x86_feature_detected!("lzcnt")
                {
                    // SAFETY: the features that `avx2` was compiled for have just been detected.
                    return unsafe { avx2 $(::<$($param),+>)? ($($arg),*) };
                }
            }
            $body($($arg),*)
        }
    };
    (@last $body:path; $($arg:ident),*) => { $body($($arg),*) };
    (@last $body:path, $avx2:path; $($arg:ident),*) => { $avx2($($arg),*) };
}

pub(crate) use dispatch;

/// Whether the portable form is to be used although there is a better one: in the tests that compare them, and in a build with
/// `--cfg portable`, which tells how fast a machine without a form of its own would be.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn force_portable() -> bool {
    cfg!(portable)
}

#[cfg(test)]
pub(crate) use crate::tests::force_portable;

/// The nearest whole number, of one from 0 to 2^22; anything for others. A conversion would look out for those.
#[inline(always)]
pub(crate) fn nearest_whole(x: f32) -> usize {
    const SHIFT: f32 = (1_u32 << 23) as f32;
    ((x + SHIFT).to_bits() & 0x7f_ffff) as usize
}

#[cfg(test)]
mod lanes {
    #[cfg(target_arch = "x86_64")]
    use super::avx2::Avx2;
    use super::f64x8::{F64x8, LANES};
    use super::portable::Portable;
    use crate::tests::Noise;

    dispatch! {
        fn best(a: &[f64], b: &[f64]) -> Vec<[f64; LANES]> = all::<Portable>, all::<Avx2>
    }
    #[inline(always)]
    fn all<V: F64x8>(a: &[f64], b: &[f64]) -> Vec<[f64; LANES]> {
        let (a, b) = (V::load(a, 0), V::load(b, 0));
        let (hi, lo) = a.product(b);
        let picked = V::pick(a.less(b), a, b);
        let sums = [a + b, a - b, a * b, a / b, a.mul_add(b, a), hi, lo];
        let others = [a.lesser(b), picked, a.positive(), a.running(), a.reversed()];
        let mut out = vec![V::count(3.0).array()];
        for lanes in sums {
            out.push(lanes.array());
        }
        for lanes in others {
            out.push(lanes.array());
        }
        out
    }

    #[test]
    fn both_forms_give_the_same_bits() {
        let mut noise = Noise(5);
        let bits =
            |lanes: Vec<[f64; LANES]>| lanes.concat().into_iter().map(f64::to_bits).collect();
        for round in 0..20_000 {
            let spread = f64::from(round % 60);
            let mut draw = || noise.normal() * (spread * noise.normal()).exp();
            let (a, b) = ([(); LANES].map(|()| draw()), [(); LANES].map(|()| draw()));
            let plain: Vec<u64> = bits(all::<Portable>(&a, &b));
            assert_eq!(plain, bits(best(&a, &b)), "{a:?} {b:?}");
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use object::{Object, ObjectSymbol};

    /// A closure in a kernel that is not inlined is compiled without the instruction set of the kernel: then each of its instructions is a
    /// function, called with its arguments in memory.
    #[test]
    fn no_instruction_is_a_call() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let program = object::File::parse(&*program).unwrap();
        let names: Vec<&str> = program.symbols().filter_map(|s| s.name().ok()).collect();
        assert!(names.iter().any(|name| name.contains("avx2")));
        let called: Vec<_> = names
            .iter()
            .filter(|name| name.contains("_mm256_"))
            .collect();
        assert!(called.is_empty(), "{called:?}");
    }
}
