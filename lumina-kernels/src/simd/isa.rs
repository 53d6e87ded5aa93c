//! The one place that detects what the processor has.

use std::fmt;

/// Instruction sets that the kernels are written for, each including those of its processors before it.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// The baseline of any processor.
    Portable,
    /// NEON, which AArch64 always has.
    Neon,
    /// NEON with the dot products of Armv8.2, of 8-bit integers.
    NeonDot,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, VL and DQ.
    Avx512,
    /// AVX-512 VNNI: dot products of 8-bit integers.
    Avx512Vnni,
    /// AVX-512 BF16: dot products of `bf16`.
    Avx512Bf16,
    /// AMX: matmul of tiles of 8-bit integers and of `bf16`, where the system lets the process use it (Linux).
    Amx,
}

impl Isa {
    /// Every instruction set, from the least to the most.
    pub const ALL: [Self; 8] = [
        Self::Portable,
        Self::Neon,
        Self::NeonDot,
        Self::Avx2,
        Self::Avx512,
        Self::Avx512Vnni,
        Self::Avx512Bf16,
        Self::Amx,
    ];

    /// Whether this processor has it.
    #[inline]
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            use std::is_x86_feature_detected as has;
            let avx2 = || has!("avx2") && has!("fma") && has!("f16c");
            let avx512 = || avx2() && has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq");
            let vnni = || avx512() && has!("avx512vnni");
            let bf16 = || vnni() && has!("avx512bf16");
            match self {
                Self::Portable => true,
                Self::Neon | Self::NeonDot => false,
                Self::Avx2 => avx2(),
                Self::Avx512 => avx512(),
                Self::Avx512Vnni => vnni(),
                Self::Avx512Bf16 => bf16(),
                Self::Amx => bf16() && amx_is_granted(),
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            match self {
                Self::Portable | Self::Neon => true,
                Self::NeonDot => std::arch::is_aarch64_feature_detected!("dotprod"),
                _ => false,
            }
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            self == Self::Portable
        }
    }

    /// The most that this processor has.
    pub fn best() -> Self {
        let available = Self::ALL.into_iter().rev().find(|isa| isa.is_available());
        available.unwrap_or(Self::Portable)
    }

    /// Whether kernels that are generic over a token may use it: as [`is_available`](Self::is_available), except in
    /// tests that name one instruction set in the environment. Small kernels ask at each call, so the answers are kept.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[inline]
    pub(super) fn is_enabled(self) -> bool {
        use std::sync::atomic::{AtomicU8, Ordering};
        const DETECTED: u8 = 1 << 7;
        static ENABLED: AtomicU8 = AtomicU8::new(0);
        #[cold]
        fn detect() -> u8 {
            let enabled = TOKENS.into_iter().filter(|isa| isa.is_available() && is_tested(*isa));
            let bits = enabled.fold(DETECTED, |bits, isa| bits | 1 << isa as u8);
            ENABLED.store(bits, Ordering::Relaxed);
            bits
        }
        let bits = ENABLED.load(Ordering::Relaxed);
        let bits = if bits == 0 { detect() } else { bits };
        bits & 1 << self as u8 != 0
    }
}

/// The instruction sets that have tokens.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const TOKENS: [Isa; 3] = [Isa::Neon, Isa::Avx2, Isa::Avx512];

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(test)))]
fn is_tested(_: Isa) -> bool {
    true
}

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), test))]
fn is_tested(isa: Isa) -> bool {
    std::env::var(ONLY).is_ok_and(|name| name == isa.to_string()) || std::env::var(ONLY).is_err()
}

/// The environment variable that names the only instruction set to test.
#[cfg(test)]
pub(super) const ONLY: &str = "LUMINA_TEST_INSTRUCTIONS";

/// Whether the processor has AMX for `bf16` and 8-bit integers, and the system saves its registers: on Linux a process
/// has to ask for that, once.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn amx_is_granted() -> bool {
    use std::arch::x86_64::__cpuid_count;
    use std::sync::OnceLock;
    /// AMX-BF16, AMX-TILE and AMX-INT8 in register EDX of leaf 7.
    const FEATURES: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    /// `ARCH_REQ_XCOMP_PERM` of `arch_prctl`.
    const REQUEST: libc::c_int = 0x1023;
    /// The component of the registers' state.
    const TILE_DATA: libc::c_ulong = 18;
    static GRANTED: OnceLock<bool> = OnceLock::new();
    *GRANTED.get_or_init(|| {
        let has_amx = __cpuid_count(7, 0).edx & FEATURES == FEATURES;
        #[allow(unsafe_code, reason = "a system call")]
        // SAFETY: it takes two numbers, and neither reads nor writes memory of the process.
        let request = || unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 };
        let is_granted = has_amx && request();
        // In tests, a processor that has everything else emulates it.
        #[cfg(test)]
        let is_granted = is_granted || crate::amx_emulation::install();
        is_granted
    })
}

/// On other systems nothing asks for AMX.
#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn amx_is_granted() -> bool {
    false
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::NeonDot => "neon-dot",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Avx512Bf16 => "avx512-bf16",
            Self::Amx => "amx",
        })
    }
}
