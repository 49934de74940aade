//! Which instruction set the kernels run on.
//!
//! [`Isa::detect`] asks the CPU once per process and takes the best set it has.
//! The environment variable `TOPSHELF_ISA` forces one by name (`portable`,
//! `avx2`, `avx-vnni`, `avx512-vnni`, `neon`), so that tests and benchmarks reach
//! every path that a machine has; unset or empty means "the best".
//!
//! | name | needs |
//! | --- | --- |
//! | `portable` | nothing: plain Rust, vectorised by the compiler as it can |
//! | `avx2` | AVX2, FMA |
//! | `avx-vnni` | AVX2, FMA, AVX-VNNI (the 256-bit int8 dot product without AVX-512) |
//! | `avx512-vnni` | AVX2, FMA, AVX-512 F, BW, DQ, VL, VNNI |
//! | `neon` | aarch64, whose baseline it is |
//!
//! Errors: [`IsaError`], for a name that is not in the table and for a set that
//! this machine lacks.

use std::fmt;
use std::sync::OnceLock;

/// The environment variable that forces an instruction set.
pub const ENV_VAR: &str = "TOPSHELF_ISA";

/// An instruction set that the kernels have code for; from the plainest to the
/// fastest within one architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust; on every machine.
    Portable,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX2 and the 256-bit AVX-VNNI.
    Avx2Vnni,
    /// x86-64 with AVX-512 and its VNNI.
    Avx512Vnni,
    /// aarch64 with NEON.
    Neon,
}

impl Isa {
    /// Every instruction set that the kernels have code for, on any machine.
    pub const ALL: [Self; 5] =
        [Self::Portable, Self::Avx2, Self::Avx2Vnni, Self::Avx512Vnni, Self::Neon];

    /// The instruction set of this process: the one that `TOPSHELF_ISA` names, or
    /// else the best of the machine. Decided at the first call and kept.
    ///
    /// A program calls this when it starts, so that a wrong `TOPSHELF_ISA` becomes
    /// an error message instead of a panic in the first kernel.
    ///
    /// # Errors
    /// [`IsaError`] where `TOPSHELF_ISA` names no set, or one that this machine
    /// lacks.
    ///
    /// ```
    /// use topshelf_kernels::Isa;
    /// let isa = Isa::detect()?;
    /// assert!(Isa::available().contains(&isa));
    /// # Ok::<(), topshelf_kernels::IsaError>(())
    /// ```
    pub fn detect() -> Result<Self, IsaError> {
        static DETECTED: OnceLock<Result<Isa, IsaError>> = OnceLock::new();
        DETECTED
            .get_or_init(|| {
                let forced = std::env::var_os(ENV_VAR).unwrap_or_default();
                choose(&forced.to_string_lossy(), &Self::available())
            })
            .clone()
    }

    /// What this machine can run, from the plainest to the fastest. Never empty:
    /// [`Isa::Portable`] comes first.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Vnni => Self::Avx2.is_available() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => true,
            // The sets of the other architectures.
            _ => false,
        }
    }

    /// The name that `TOPSHELF_ISA` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx2Vnni => "avx-vnni",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Neon => "neon",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The decision behind [`Isa::detect`]; `available` runs from the plainest to the
/// fastest.
fn choose(forced: &str, available: &[Isa]) -> Result<Isa, IsaError> {
    if forced.is_empty() {
        return Ok(available.last().copied().unwrap_or(Isa::Portable));
    }
    let Some(isa) = Isa::ALL.into_iter().find(|isa| isa.name() == forced) else {
        return Err(IsaError::Unknown { value: forced.to_owned(), available: available.to_vec() });
    };
    if !available.contains(&isa) {
        return Err(IsaError::Unavailable { isa, available: available.to_vec() });
    }
    Ok(isa)
}

/// Why `TOPSHELF_ISA` cannot be obeyed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum IsaError {
    /// The value is the name of no instruction set.
    Unknown {
        /// What `TOPSHELF_ISA` says (bytes that are not UTF-8 replaced).
        value: String,
        /// What this machine can run.
        available: Vec<Isa>,
    },
    /// The instruction set exists, but not on this machine.
    Unavailable {
        /// What `TOPSHELF_ISA` asks for.
        isa: Isa,
        /// What this machine can run.
        available: Vec<Isa>,
    },
}

impl fmt::Display for IsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let available = match self {
            Self::Unknown { value, available } => {
                write!(f, "{ENV_VAR} is {value:?}, which names no instruction set")?;
                available
            }
            Self::Unavailable { isa, available } => {
                write!(f, "{ENV_VAR} asks for {isa}, which this CPU does not have")?;
                available
            }
        };
        let names: Vec<&str> = available.iter().map(|isa| isa.name()).collect();
        write!(f, "; unset it to use the best one, or set it to one of: {}", names.join(", "))
    }
}

impl std::error::Error for IsaError {}

/// Proof that this machine runs an [`Isa`]: what makes the calls of `on_isa!`
/// sound. Only the two constructors below make one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Supported(Isa);

impl Supported {
    /// The instruction set of this process.
    ///
    /// # Panics
    /// Where [`Isa::detect`] fails, with its message.
    pub(crate) fn detected() -> Self {
        match Isa::detect() {
            Ok(isa) => Self(isa),
            Err(error) => panic!("{error}"),
        }
    }

    /// The given instruction set.
    ///
    /// # Panics
    /// Where this machine lacks it.
    pub(crate) fn checked(isa: Isa) -> Self {
        assert!(
            isa.is_available(),
            "the kernels were asked to run on {isa}, which this CPU does not have; \
             `Isa::available()` lists what it has"
        );
        Self(isa)
    }

    pub(crate) const fn isa(self) -> Isa {
        self.0
    }
}

/// Calls `portable::f(..)`, `avx2::f(..)`, `avx_vnni::f(..)`, `avx512::f(..)` or
/// `neon::f(..)`, as the [`Supported`] says. The modules are those in scope, or
/// those of `in PATH`. Each may require exactly the features that [`Isa`] checks.
macro_rules! on_isa {
    ($supported:expr, $f:ident $args:tt) => {
        match $supported.isa() {
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            // SAFETY: a `Supported` exists only for a set whose features this CPU reported.
            $crate::isa::Isa::Avx2 => unsafe { avx2::$f $args },
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            // SAFETY: as above.
            $crate::isa::Isa::Avx2Vnni => unsafe { avx_vnni::$f $args },
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            // SAFETY: as above.
            $crate::isa::Isa::Avx512Vnni => unsafe { avx512::$f $args },
            #[cfg(target_arch = "aarch64")]
            #[allow(unsafe_code)]
            // SAFETY: as above.
            $crate::isa::Isa::Neon => unsafe { neon::$f $args },
            // Portable; the sets of other architectures are never `Supported`.
            _ => portable::$f $args,
        }
    };
}
pub(crate) use on_isa;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_taken_unless_one_is_forced() {
        let machine = [Isa::Portable, Isa::Avx2, Isa::Avx512Vnni];
        assert_eq!(choose("", &machine), Ok(Isa::Avx512Vnni));
        assert_eq!(choose("", &[]), Ok(Isa::Portable));
        for isa in machine {
            assert_eq!(choose(isa.name(), &machine), Ok(isa));
        }
    }

    #[test]
    fn an_unknown_name_lists_the_possible_ones() {
        let error = choose("avx1024", &[Isa::Portable, Isa::Avx2Vnni]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "TOPSHELF_ISA is \"avx1024\", which names no instruction set; \
             unset it to use the best one, or set it to one of: portable, avx-vnni"
        );
    }

    #[test]
    fn a_set_that_the_machine_lacks_is_refused() {
        let error = choose("neon", &[Isa::Portable, Isa::Avx2]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "TOPSHELF_ISA asks for neon, which this CPU does not have; \
             unset it to use the best one, or set it to one of: portable, avx2"
        );
    }

    #[test]
    fn the_machine_runs_portable_code_and_one_architecture_only() {
        let available = Isa::available();
        assert_eq!(available[0], Isa::Portable);
        let x86 = available.contains(&Isa::Avx2);
        assert!(!(x86 && available.contains(&Isa::Neon)));
        for needs_avx2 in [Isa::Avx2Vnni, Isa::Avx512Vnni] {
            assert!(x86 || !available.contains(&needs_avx2));
        }
    }

    #[test]
    fn a_set_of_another_architecture_panics_with_its_name() {
        let foreign = if cfg!(target_arch = "x86_64") { Isa::Neon } else { Isa::Avx2 };
        let message = *std::panic::catch_unwind(|| Supported::checked(foreign))
            .unwrap_err()
            .downcast::<String>()
            .unwrap();
        assert!(message.contains(foreign.name()), "{message}");
    }
}
