//! Input for the properties, and the macro that stamps one property on every
//! instruction set of the machine.

use proptest::collection::vec;
use proptest::prelude::*;

/// States a property once and checks each random case on every instruction set
/// that this machine has. The body sees it under the name given first. `cases: n;`
/// ahead of all sets the number of cases.
macro_rules! on_every_isa {
    ($(cases: $cases:expr;)? $($(#[$meta:meta])* fn $name:ident($isa:ident, $($arg:pat in $strategy:expr),+ $(,)?) $body:block)+) => {
        proptest::proptest! {
            $(#![proptest_config(proptest::prelude::ProptestConfig::with_cases($cases))])?
            $(
                #[test]
                $(#[$meta])*
                fn $name($($arg in $strategy),+) {
                    for $isa in topshelf_kernels::Isa::available() {
                        $body
                    }
                }
            )+
        }
    };
}
pub(crate) use on_every_isa;

/// Whether a set multiplies and adds in one rounding. All that do so give the same bits.
pub(crate) fn fused(isa: topshelf_kernels::Isa) -> bool {
    isa != topshelf_kernels::Isa::Portable
        && topshelf_kernels::Isa::detect() != Ok(topshelf_kernels::Isa::Portable)
}

/// Lengths around every vector width in use, and between.
pub(crate) fn dims() -> impl Strategy<Value = usize> {
    prop_oneof![
        0_usize..=70,
        prop_oneof![Just(127_usize), Just(128), Just(129), Just(384), Just(385), Just(768)],
        0_usize..=600,
    ]
}

/// Values of mixed size and sign, zeros of both signs among them.
pub(crate) fn f32_value() -> impl Strategy<Value = f32> + Clone {
    prop_oneof![
        4 => -1.0_f32..1.0,
        1 => -1.0e6_f32..1.0e6,
        1 => -1.0e-6_f32..1.0e-6,
        1 => Just(0.0_f32),
        1 => Just(-0.0_f32),
    ]
}

/// All codes, the extreme ones often.
pub(crate) fn i8_value() -> impl Strategy<Value = i8> + Clone {
    prop_oneof![
        3 => any::<i8>(),
        1 => Just(i8::MIN),
        1 => Just(i8::MAX),
        1 => Just(-1_i8),
        1 => Just(0_i8),
    ]
}

/// `len` values that start `offset` elements into their allocation, so that they
/// are not aligned to a vector.
#[derive(Debug)]
pub(crate) struct Unaligned<T> {
    values: Vec<T>,
    offset: usize,
}

impl<T> Unaligned<T> {
    pub(crate) fn as_slice(&self) -> &[T] {
        &self.values[self.offset..]
    }
}

pub(crate) fn unaligned<T: std::fmt::Debug>(
    value: impl Strategy<Value = T> + Clone,
    len: usize,
) -> impl Strategy<Value = Unaligned<T>> {
    (0_usize..5).prop_flat_map(move |offset| {
        vec(value.clone(), len + offset).prop_map(move |values| Unaligned { values, offset })
    })
}

/// A query of d values and n rows of as many.
#[derive(Debug)]
pub(crate) struct Matrix<T> {
    pub(crate) query: Unaligned<T>,
    pub(crate) rows: Unaligned<T>,
    pub(crate) count: usize,
}

pub(crate) fn matrix<T: std::fmt::Debug>(
    value: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = Matrix<T>> {
    (dims(), 0_usize..=11).prop_flat_map(move |(dim, count)| {
        (unaligned(value.clone(), dim), unaligned(value.clone(), dim * count))
            .prop_map(move |(query, rows)| Matrix { query, rows, count })
    })
}
