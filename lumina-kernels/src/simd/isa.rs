//! Which instructions the processor has.

use std::fmt;

/// Instruction sets that the kernels are written for, each with those of its processors before it.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// What any processor does: plain code.
    Portable,
    /// NEON, which AArch64 always has.
    Neon,
    /// NEON with the dot products of Armv8.2: products of bytes.
    NeonDot,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, VL and DQ.
    Avx512,
    /// AVX-512 VNNI: products of bytes.
    Avx512Vnni,
    /// AVX-512 BF16: products of `bf16`.
    Avx512Bf16,
    /// AMX: products of tiles of bytes and of `bf16`, where the system lets the process use it (Linux).
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
}

/// Whether the processor has tiles of `bf16` and bytes, and the system saves them: on Linux a process has to ask, once.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn amx_is_granted() -> bool {
    use std::arch::x86_64::__cpuid_count;
    use std::sync::OnceLock;
    /// Of leaf 7, register EDX: AMX-BF16, AMX-TILE, AMX-INT8.
    const FEATURES: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    /// `ARCH_REQ_XCOMP_PERM` of `arch_prctl`, and the component of the tiles' data.
    const REQUEST: libc::c_int = 0x1023;
    const TILE_DATA: libc::c_ulong = 18;
    static GRANTED: OnceLock<bool> = OnceLock::new();
    *GRANTED.get_or_init(|| {
        let has = __cpuid_count(7, 0).edx & FEATURES == FEATURES;
        #[allow(unsafe_code, reason = "a call of the system")]
        // SAFETY: it takes two numbers, and reads and writes no memory of the process.
        let granted = || unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 };
        let granted = has && granted();
        // A processor that has all the rest runs the tests of it, too.
        #[cfg(test)]
        let granted = granted || crate::amx_emulation::install();
        granted
    })
}

/// Elsewhere nothing here asks the system for them.
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
