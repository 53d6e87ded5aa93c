//! Every kernel becomes source in each language, without a device. A new kernel has its lines in [`list`].
//!
//! With `LUMINA_SOURCES=<folder>` the sources are written there: `benches/gpu/sass.py` compiles those for CUDA to
//! machine code.
#![allow(clippy::expect_used, clippy::panic, reason = "a panic is the failure")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cubecl::prelude::*;
use cubecl::server::Handle;
use cubecl_core::cmma::MatrixLayout;
use cubecl_core::device::{DeviceId, ServiceId};
use cubecl_core::environment::stream::StreamId;
use cubecl_core::ir::{ContiguousElements, DeviceIdentity, HardwareProperties, MemoryDeviceProperties, MmaProperties};
use cubecl_core::profile::TimingMethod;
use cubecl_core::{Compiler, CubeKernel, define_kernel};
use cubecl_cpp::cuda::mma::manual::contiguous_elements_cuda;
use cubecl_cpp::shared::{CompilationOptions, CppCompiler, CppSupportedFeatures};
use cubecl_cpp::target::{Cuda, Metal};

use crate::conv::input::{Loading, Size, Transform};
use crate::conv::{ConvPrecision, Resize};
use crate::matmul::mma::{few, many, pack};
use crate::matmul::{MatmulPrecision, PartLaunch, bytes, floats, mma};
use crate::{Format, conv, elementwise, embedding, norm};

mod attention;

/// A language that kernels are compiled to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Cuda,
    Metal,
    Wgsl,
}

const EVERYWHERE: &[Language] = &[Language::Cuda, Language::Metal, Language::Wgsl];

/// What names registers of matrix instructions is for CUDA alone.
const CUDA: &[Language] = &[Language::Cuda];

/// What the compilers are told of a device of compute capability 9.0, and of one without its features.
struct Sources {
    cuda: Arc<DeviceProperties>,
    other: Arc<DeviceProperties>,
    target: Arc<TargetProperties>,
    folder: Option<PathBuf>,
    kernels: Vec<&'static str>,
    failures: Vec<String>,
}

fn properties() -> DeviceProperties {
    let hardware = HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 32,
        max_shared_memory_size: 227 * 1024,
        max_cube_count: (1 << 30, 65_535, 65_535),
        max_units_per_cube: 1024,
        max_cube_dim: (1024, 1024, 64),
        num_streaming_multiprocessors: Some(132),
        num_cpu_cores: None,
        last_level_cache_size: None,
        num_tensor_cores: Some(4),
        min_tensor_cores_dim: Some(8),
        max_vector_size: VectorSize::MAX,
        cube_mma_reserved_shared_memory: 0,
    };
    let identity = DeviceIdentity { name: "none".to_owned(), fingerprint: "none".to_owned(), physical: None };
    let memory = MemoryDeviceProperties::new(1 << 34, 512);
    let mut properties = DeviceProperties::new(Default::default(), memory, hardware, TimingMethod::Device, identity);
    cubecl_cpp::register_supported_types(&mut properties);
    properties
}

impl Sources {
    fn new() -> Self {
        let mut cuda = properties();
        cuda.features.memory_reinterpret = true;
        let target = TargetProperties {
            mma: MmaProperties {
                register_size_bits: 32,
                const_plane_size: 32,
                register_layout_a: MatrixLayout::RowMajor,
                register_layout_b: MatrixLayout::ColMajor,
                register_layout_acc: MatrixLayout::RowMajor,
                register_duplication_a: 1,
                register_duplication_b: 1,
                register_duplication_acc: 1,
                contiguous_elements: ContiguousElements::new(contiguous_elements_cuda),
            },
        };
        let folder = std::env::var_os("LUMINA_SOURCES").map(PathBuf::from);
        if let Some(folder) = &folder {
            std::fs::create_dir_all(folder).expect("the folder of LUMINA_SOURCES can be made");
        }
        Self {
            cuda: Arc::new(cuda),
            other: Arc::new(properties()),
            target: Arc::new(target),
            folder,
            kernels: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Compiles a variant of a kernel. `kernel` is its path, `variant` what tells it from the others.
    fn add<K: CubeKernel>(
        &mut self,
        languages: &[Language],
        kernel: &'static str,
        variant: &str,
        make: impl Fn(Arc<DeviceProperties>, Arc<TargetProperties>) -> K,
    ) {
        self.kernels.push(kernel);
        let name = format!("{}{}{variant}", kernel.replace("::", "_"), if variant.is_empty() { "" } else { "_" });
        for &language in languages {
            let properties = if language == Language::Cuda { &self.cuda } else { &self.other };
            let kernel = make(properties.clone(), self.target.clone());
            match compile(language, &kernel) {
                Ok(source) => self.write(&name, language, &source),
                Err(error) => {
                    let error: String = error.chars().take(400).collect();
                    self.failures.push(format!("{name} in {language:?}: {error}"));
                }
            }
        }
    }

    fn write(&self, name: &str, language: Language, source: &str) {
        if let Some(folder) = &self.folder {
            let extension = match language {
                Language::Cuda => "cu",
                Language::Metal => "metal",
                Language::Wgsl => "wgsl",
            };
            std::fs::write(folder.join(format!("{name}.{extension}")), source).expect("a source can be written");
        }
    }
}

fn compile(language: Language, kernel: &dyn CubeKernel) -> Result<String, String> {
    let defined = define_kernel(kernel).map_err(|error| error.to_string())?;
    let features = CppSupportedFeatures {
        fast_math: true,
        dp4a: true,
        grid_constants: true,
        clusters: true,
        elect_sync: true,
        fast_tanh: true,
    };
    let options = CompilationOptions { supports_features: features, ..Default::default() };
    let source = match language {
        Language::Cuda => CppCompiler::<Cuda>::default()
            .compile(defined, &options)
            .map(|source| format!("// shared memory: {} bytes\n{source}", source.shared_memory_size)),
        Language::Metal => {
            let options = CompilationOptions::default();
            CppCompiler::<Metal>::default().compile(defined, &options).map(|source| source.to_string())
        }
        Language::Wgsl => {
            let mut compiler = cubecl::wgpu::WgslCompiler;
            compiler.compile(defined, &Default::default()).map(|source| source.to_string())
        }
    };
    source.map_err(|error| error.to_string())
}

/// A buffer of so many elements, on no device.
fn buffer(len: usize) -> BufferArg {
    let service = ServiceId::of::<()>(DeviceId { type_id: 0, index_id: 0 });
    let handle = Handle::new(service, StreamId { value: 0 }, 1 << 20);
    // SAFETY: the kernel is never launched.
    unsafe { BufferArg::from_raw_parts(handle, len) }
}

fn part() -> PartLaunch {
    PartLaunch::new(0, 0, 4096, 0, 64)
}

/// Every kernel in its variants.
fn list(s: &mut Sources) {
    let count = || CubeCount::Static(1, 1, 1);
    let line = || CubeDim::new_1d(256);
    let planes = || CubeDim::new_2d(32, 8);
    let b = || buffer(1 << 16);
    s.add(EVERYWHERE, "elementwise::swiglu_kernel", "", |p, t| {
        elementwise::swiglu_kernel::create_dummy_kernel(p, t, count(), line(), b(), b(), b(), 9)
    });
    s.add(EVERYWHERE, "elementwise::add_kernel", "", |p, t| {
        elementwise::add_kernel::create_dummy_kernel(p, t, count(), line(), b(), b(), b(), 1.0, 9, 9)
    });
    s.add(EVERYWHERE, "elementwise::copy_kernel", "", |p, t| {
        elementwise::copy_kernel::create_dummy_kernel(p, t, count(), line(), b(), b(), 9)
    });
    s.add(EVERYWHERE, "embedding::select_kernel", "", |p, t| {
        embedding::select_kernel::create_dummy_kernel(p, t, count(), line(), b(), b(), b(), 9, 9)
    });
    for add in [false, true] {
        s.add(EVERYWHERE, "norm::rms_norm::kernel", if add { "add" } else { "" }, |p, t| {
            norm::rms_norm::kernel::create_dummy_kernel(
                p,
                t,
                count(),
                line(),
                b(),
                b(),
                b(),
                b(),
                b(),
                4096,
                1e-5,
                add,
                32,
            )
        });
    }
    s.add(EVERYWHERE, "matmul::floats::pad_kernel", "", |p, t| {
        floats::pad_kernel::create_dummy_kernel(p, t, count(), line(), b(), b(), 9, 12, 12)
    });
    s.add(EVERYWHERE, "matmul::bytes::quantise_kernel", "", |p, t| {
        bytes::quantise_kernel::create_dummy_kernel(p, t, count(), line(), b(), b(), b(), 9, 0)
    });
    for format in [Format::F32, Format::F16, Format::BF16, Format::Q8_0, Format::Q4_0] {
        s.add(EVERYWHERE, "embedding::kernel", &format.to_string(), |p, t| {
            embedding::kernel::create_dummy_kernel(
                p,
                t,
                count(),
                line(),
                b(),
                b(),
                b(),
                b(),
                0,
                0,
                64,
                9,
                64,
                64,
                format,
            )
        });
        for rows in [1usize, 2, 4, 8] {
            let per_team = if rows >= 4 { 4 } else { 2 };
            let variant = format!("{format}_{rows}");
            if format.has_scales() {
                s.add(EVERYWHERE, "matmul::bytes::kernel", &variant, |p, t| {
                    bytes::kernel::create_dummy_kernel(
                        p,
                        t,
                        count(),
                        planes(),
                        b(),
                        b(),
                        b(),
                        b(),
                        b(),
                        4096,
                        9,
                        part(),
                        part(),
                        part(),
                        rows,
                        format,
                        per_team,
                        32,
                    )
                });
            } else {
                s.add(EVERYWHERE, "matmul::floats::kernel", &variant, |p, t| {
                    floats::kernel::create_dummy_kernel(
                        p,
                        t,
                        count(),
                        planes(),
                        b(),
                        b(),
                        b(),
                        4096,
                        9,
                        part(),
                        part(),
                        part(),
                        rows,
                        format,
                        per_team,
                        32,
                    )
                });
            }
        }
    }
    attention::draws(s);
    attention::attention(s);
    tensor_cores(s);
    images(s);
}

/// Kernels of `conv` and of group norms.
fn images(s: &mut Sources) {
    let count = || CubeCount::Static(1, 1, 1);
    let line = || CubeDim::new_1d(256);
    let square = || CubeDim::new_2d(16, 16);
    let b = || buffer(1 << 16);
    for to_planes in [false, true] {
        s.add(EVERYWHERE, "conv::planes::kernel", if to_planes { "back" } else { "" }, |p, t| {
            conv::planes::kernel::create_dummy_kernel(p, t, count(), line(), b(), b(), 3, 4, 9, 36, to_planes)
        });
    }
    s.add(EVERYWHERE, "conv::attention::transpose_kernel", "", |p, t| {
        conv::attention::transpose_kernel::create_dummy_kernel(p, t, count(), square(), b(), b(), 9, 32, 12)
    });
    s.add(EVERYWHERE, "conv::attention::softmax_kernel", "", |p, t| {
        conv::attention::softmax_kernel::create_dummy_kernel(p, t, count(), line(), b(), 9, 12, 9, 1.0, 32)
    });
    s.add(EVERYWHERE, "conv::nearest::kernel", "", |p, t| {
        conv::nearest::kernel::create_dummy_kernel(p, t, count(), line(), b(), b(), b(), 9, 12, 0, 9)
    });
    let split = || norm::group_norm::SplitLaunch::new(9, 32, 32, 32, 1, 4);
    s.add(EVERYWHERE, "norm::group_norm::parts_kernel", "", |p, t| {
        norm::group_norm::parts_kernel::create_dummy_kernel(p, t, count(), line(), b(), b(), b(), split())
    });
    s.add(EVERYWHERE, "norm::group_norm::table_kernel", "", |p, t| {
        let dim = line();
        norm::group_norm::table_kernel::create_dummy_kernel(
            p,
            t,
            count(),
            dim,
            b(),
            b(),
            b(),
            b(),
            b(),
            split(),
            1e-6,
            32,
        )
    });
    s.add(EVERYWHERE, "norm::affine::kernel", "", |p, t| {
        norm::affine::kernel::create_dummy_kernel(p, t, count(), line(), b(), b(), b(), 32, 64)
    });
    s.add(EVERYWHERE, "conv::patches::kernel", "", |p, t| {
        conv::patches::kernel::create_dummy_kernel(p, t, count(), line(), b(), b(), 4, 8, 4, 1, 256)
    });
    for swish in [false, true] {
        s.add(EVERYWHERE, "norm::group_norm::scaled_kernel", if swish { "swish" } else { "" }, |p, t| {
            norm::group_norm::scaled_kernel::create_dummy_kernel(p, t, count(), line(), b(), b(), b(), 8, 72, 72, swish)
        });
    }
    let mut loadings = vec![("product", Loading::PLAIN)];
    for (name, kernel, resize, transform) in [
        ("same", 3, Resize::Same, Transform::None),
        ("halve", 3, Resize::Halve, Transform::None),
        ("double", 3, Resize::Double, Transform::None),
        ("norm", 1, Resize::Same, Transform::Norm),
        ("swish", 3, Resize::Same, Transform::NormSwish),
    ] {
        loadings.push((name, Loading { kernel, resize, transform }));
    }
    for (name, loading) in loadings {
        for (positions, residual) in [(1usize << 10, false), (1 << 18, true)] {
            let variant = format!("{name}_{positions}");
            let kind = conv::tiles::Kind::new(loading, loading != Loading::PLAIN, residual, positions as u32);
            s.add(EVERYWHERE, "conv::tiles::kernel", &variant, |p, t| {
                let size = Size::default().arg();
                conv::tiles::kernel::create_dummy_kernel(
                    p,
                    t,
                    count(),
                    square(),
                    b(),
                    b(),
                    b(),
                    b(),
                    b(),
                    b(),
                    size,
                    kind,
                )
            });
            for precision in [ConvPrecision::F32, ConvPrecision::F16] {
                let shape = [positions, 256];
                let kind = conv::mma::Kind::new(loading, residual, precision, shape, false);
                s.add(CUDA, "conv::mma::kernel", &format!("{variant}_{precision:?}"), |p, t| {
                    let size = Size::default().arg();
                    conv::mma::kernel::create_dummy_kernel(
                        p,
                        t,
                        count(),
                        line(),
                        b(),
                        b(),
                        b(),
                        b(),
                        b(),
                        b(),
                        size,
                        kind,
                    )
                });
            }
        }
    }
}

/// Kernels of `matmul::mma`.
fn tensor_cores(s: &mut Sources) {
    let count = || CubeCount::Static(1, 1, 1);
    let b = || buffer(1 << 16);
    s.add(EVERYWHERE, "matmul::mma::many::add_runs_kernel", "", |p, t| {
        many::add_runs_kernel::create_dummy_kernel(p, t, count(), CubeDim::new_1d(256), b(), b(), 0, 9, 8)
    });
    for (format, precision) in [
        (Format::BF16, MatmulPrecision::High),
        (Format::BF16, MatmulPrecision::Fast),
        (Format::F16, MatmulPrecision::High),
        (Format::F16, MatmulPrecision::Fast),
        (Format::Q8_0, MatmulPrecision::High),
        (Format::Q4_0, MatmulPrecision::High),
    ] {
        let kind = mma::Kind::new(format, 4096, precision);
        let name = if format.has_scales() { format.to_string() } else { format!("{format}_{precision:?}") };
        if format.has_scales() {
            s.add(EVERYWHERE, "matmul::mma::pack::bytes_kernel", &name, |p, t| {
                let dim = CubeDim::new_1d(256);
                pack::bytes_kernel::create_dummy_kernel(p, t, count(), dim, b(), b(), b(), 9, 9, 9, 0, format)
            });
        } else {
            let parts = if precision == MatmulPrecision::High { 2 } else { 1 };
            s.add(EVERYWHERE, "matmul::mma::pack::floats_kernel", &name, |p, t| {
                let dim = CubeDim::new_1d(256);
                pack::floats_kernel::create_dummy_kernel(p, t, count(), dim, b(), b(), b(), 96, 8, format, parts)
            });
        }
        for tiles in [1usize, 2, 4] {
            s.add(CUDA, "matmul::mma::few::kernel", &format!("{name}_{tiles}"), |p, t| {
                few::kernel::create_dummy_kernel(
                    p,
                    t,
                    count(),
                    CubeDim::new_2d(32, 8),
                    b(),
                    b(),
                    b(),
                    b(),
                    b(),
                    512,
                    16,
                    9,
                    part(),
                    part(),
                    part(),
                    kind,
                    tiles,
                    8,
                    few::takes_plain(kind, tiles * 8),
                )
            });
        }
        for (n, split) in [(64, false), (64, true), (512, false), (512, true)] {
            let tile = many::Tile::new(kind, n);
            let variant = format!("{name}_{n}{}", if split { "_split" } else { "" });
            s.add(CUDA, "matmul::mma::many::kernel", &variant, |p, t| {
                many::kernel::create_dummy_kernel(
                    p,
                    t,
                    count(),
                    CubeDim::new_2d(32, 8),
                    b(),
                    b(),
                    b(),
                    b(),
                    b(),
                    512,
                    16,
                    8,
                    0,
                    99,
                    part(),
                    part(),
                    part(),
                    kind,
                    tile,
                    split,
                )
            });
        }
    }
}

/// Names of the kernels in the sources of this crate: functions after `#[cube(launch`, with their modules.
fn kernels_in(folder: &Path, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("the sources are there") {
        let path = entry.expect("a file of the sources").path();
        // Kernels of tests run where tests do.
        if path.file_name().is_some_and(|name| name == "tests.rs") {
            continue;
        }
        if path.is_dir() {
            kernels_in(&path, names);
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a file of the sources");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let module = path.strip_prefix(root).expect("inside").with_extension("");
        let module = module.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "::");
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.starts_with("#[cube(launch") {
                let function = lines.by_ref().find_map(|line| line.split_once("fn ")).expect("a function").1;
                let name = function.split(['(', '<']).next().unwrap_or(function);
                names.push(format!("{}::{name}", module.trim_end_matches("::mod")));
            }
        }
    }
}

#[test]
fn every_kernel_is_compiled_to_each_language() {
    let mut sources = Sources::new();
    list(&mut sources);
    assert!(sources.failures.is_empty(), "{}", sources.failures.join("\n"));
    let mut expected = Vec::new();
    kernels_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut expected);
    expected.sort_unstable();
    sources.kernels.sort_unstable();
    sources.kernels.dedup();
    assert_eq!(sources.kernels, expected, "kernels of `list`, and kernels of the crate");
}
