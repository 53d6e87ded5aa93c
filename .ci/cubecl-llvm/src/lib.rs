//! What `cubecl-cuda` names of `cubecl-llvm`, without LLVM.
//!
//! `cubecl-cuda` links two compilers, and `cubecl-cuda/cpp` (our feature `cuda`) chooses NVRTC. The other one needs an
//! LLVM, which the published crate downloads. This crate has its types and no compiler, so that programs with the
//! feature `cuda` link on a machine without a network, a toolkit and a C++ compiler:
//!
//! ```text
//! cargo --config 'patch.crates-io.cubecl-llvm.path=".ci/cubecl-llvm"' build --features cuda
//! ```
//!
//! Without `cubecl-cuda/cpp` each kernel fails with an error that says so.

use std::ffi::c_char;
use std::fmt;

use cubecl_core::ir::nvidia::SmArch;
use cubecl_core::prelude::KernelDefinition;
use cubecl_environment::backtrace::BackTrace;
use cubecl_runtime::compiler::{CompilationError, Compiler};
use cubecl_runtime::kernel::BufferIOAttr;

use crate::nvptx::ptx_version::PtxVersion;

/// The target NVPTX.
pub mod nvptx {
    /// Versions of PTX.
    pub mod ptx_version {
        use std::fmt;

        /// A version of PTX to emit: there is none.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum PtxVersion {}

        impl PtxVersion {
            /// The newest version for a driver.
            pub fn for_driver(_driver: i32) -> Option<Self> {
                None
            }
        }

        impl fmt::Display for PtxVersion {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {}
            }
        }
    }
}

/// What the targets share.
pub mod shared {
    /// What the compiler can lower.
    pub mod lowered_features {
        use cubecl_core::ir::DeviceProperties;

        /// A kind of GPU.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum GpuTarget {
            /// NVIDIA's.
            Nvptx,
        }

        /// Withdraws features that LLVM cannot lower. It is called where LLVM compiles, that is never with success.
        pub fn restrict_features(_: &mut DeviceProperties, _: GpuTarget) {}
    }
}

/// A target of the compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LlvmTarget {
    /// NVIDIA's GPUs.
    Nvptx,
}

/// The compiler, which compiles nothing.
#[derive(Clone, Debug)]
pub struct PlironCompiler {
    /// What it would compile for.
    pub target: LlvmTarget,
}

/// Options of the compiler.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// An architecture of AMD.
    pub arch: Option<()>,
    /// An architecture of NVIDIA.
    pub sm_arch: Option<SmArch>,
    /// The version of PTX to emit.
    pub ptx_version: Option<PtxVersion>,
    /// Whether scalars are passed in the block of parameters.
    pub grid_constants: bool,
    /// The published crate has more options, and `cubecl-cuda` takes their defaults.
    pub others: (),
}

/// A compiled kernel for NVIDIA.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// PTX that ends with NUL.
    pub ptx: Vec<c_char>,
    /// The name of the kernel.
    pub entrypoint: String,
    /// The representation before it, for logs.
    pub ir: String,
    /// Bytes of shared memory.
    pub shared_memory_size: usize,
    /// How each buffer is used.
    pub io: Vec<BufferIOAttr>,
}

/// A compiled kernel: there is none.
#[derive(Clone, Debug)]
pub enum PlironArtifact {
    /// For NVIDIA.
    NvptxCode(NvptxModule),
    /// The published crate has more targets.
    Other,
}

impl fmt::Display for PlironArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no kernel")
    }
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    fn compile(&mut self, _: KernelDefinition, _: &PlironOptions) -> Result<PlironArtifact, CompilationError> {
        Err(CompilationError::Generic {
            reason: "this program was built without LLVM; build it with the feature `cubecl-cuda/cpp`".to_owned(),
            backtrace: BackTrace::capture(),
        })
    }

    fn extension(&self) -> &'static str {
        "ll"
    }

    fn lang_tag(&self) -> &'static str {
        "llvm"
    }
}
