//! `cargo bench -p lumina-kernels [-- <word>…]`: products with the weights of a layer, as ratios to limits measured in
//! the same run.
//!
//! A pass multiplies with the seven matrices of a decoder layer of width 2048 (`mid` in the peers' scripts). There are
//! more layers than caches hold, so weights come from memory. Words choose formats (`bf16`), the precision of
//! activations (`exact` for `f32`, `reduced`), numbers of rows (`n=8`), and instruction sets (`avx2`).
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::hint::black_box;
use std::time::Instant;

use lumina_kernels::{ActivationPrecision, Format, Isa, Matmul, MatmulTask, Matrix};
use rayon::prelude::*;

const HIDDEN: usize = 2048;
const INTERMEDIATE: usize = 5504;
/// Rows and columns, in the groups that share an input.
const LAYER: [&[(usize, usize)]; 4] = [
    &[(HIDDEN, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, HIDDEN)],
    &[(HIDDEN, HIDDEN)],
    &[(INTERMEDIATE, HIDDEN), (INTERMEDIATE, HIDDEN)],
    &[(HIDDEN, INTERMEDIATE)],
];
/// Minimum bytes of weights: several times a large cache.
const BYTES: usize = 256 << 20;

fn main() {
    // From within the pool, as an app decodes: from outside, every matmul wakes another thread.
    rayon::scope(|_| run());
}

fn run() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let chosen = |kind: &[&str], word: &str| {
        let mut of_kind = words.iter().filter(|given| kind.iter().any(|prefix| given.starts_with(prefix))).peekable();
        of_kind.peek().is_none() || of_kind.any(|given| given == word)
    };
    let threads = rayon::current_num_threads();
    let memory = vec![1u8; BYTES];
    println!("{threads} threads, best instruction set {}", Isa::best());
    println!(
        "{:>6} {:>8} {:>12} {:>5} {:>9} {:>7} {:>12} {:>11} {:>9} {:>12}",
        "format", "activ.", "isa", "n", "ms/layer", "GB/s", "of bandwidth", "GMAC/s", "of peak", "time ÷ n=1"
    );
    for format in [Format::BF16, Format::Q8_0, Format::Q4_0, Format::F32, Format::F16, Format::Q4_K, Format::Q6_K] {
        if !chosen(&["f", "bf", "q"], &format.to_string()) || !fits_layer(format) {
            continue;
        }
        let layer: Vec<(usize, usize)> = LAYER.iter().flat_map(|group| group.iter().copied()).collect();
        let layer_bytes: usize = layer.iter().map(|&(r, c)| format.matrix_bytes(r, c).unwrap_or(0)).sum();
        let layers = BYTES.div_ceil(layer_bytes);
        let mut bytes = vec![0u8; layers * layer_bytes];
        fill(format, &mut bytes);
        for precision in [ActivationPrecision::Reduced, ActivationPrecision::F32] {
            let name = if precision == ActivationPrecision::F32 { "exact" } else { "reduced" };
            let blocks = format.block_elements() > 1;
            let same = matches!(format, Format::F32 | Format::F16 | Format::Q4_K | Format::Q6_K);
            if !chosen(&["exact", "reduced"], name) || (same && precision == ActivationPrecision::Reduced) {
                continue;
            }
            if blocks && precision == ActivationPrecision::F32 && words.is_empty() {
                continue;
            }
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
                let by_default = words.iter().all(|word| !is_isa(word)) && isa == Isa::best();
                if !by_default && !words.contains(&isa.to_string()) {
                    continue;
                }
                let Some(matmul) = Matmul::with_isa(isa, precision) else { continue };
                let mut one = None;
                for n in [1, 2, 4, 8, 512] {
                    if !chosen(&["n="], &format!("n={n}")) {
                        continue;
                    }
                    let (seconds, bandwidth) = measure(matmul, format, &bytes, layer_bytes, n, &memory);
                    let bandwidth = if n < 512 { bandwidth } else { f64::NAN };
                    let rate = layer_bytes as f64 / seconds / 1e9;
                    let weights: usize = layer.iter().map(|(r, c)| r * c).sum();
                    let macs = (weights * n) as f64 / seconds / 1e9;
                    let peak = if n == 512 { peak(matmul, format) } else { f64::NAN };
                    let relative = seconds / *one.get_or_insert(seconds);
                    let (of_bandwidth, of_peak) = (rate / bandwidth, macs / peak);
                    print!("{format:>6} {name:>8} {isa:>12} {n:>5} {:>9.3} {rate:>7.1}", seconds * 1e3);
                    println!(" {of_bandwidth:>12.3} {macs:>11.1} {of_peak:>9.3} {relative:>12.3}");
                }
            }
        }
    }
}

fn is_isa(word: &str) -> bool {
    Isa::ALL.iter().any(|isa| isa.to_string() == word)
}

/// Whether rows of the layer are whole numbers of blocks. 5504 is not one of blocks of 256.
fn fits_layer(format: Format) -> bool {
    HIDDEN.is_multiple_of(format.block_elements()) && INTERMEDIATE.is_multiple_of(format.block_elements())
}

/// Fills with ordinary numbers in every format.
fn fill(format: Format, bytes: &mut [u8]) {
    let width = 2048usize;
    let row: Vec<f32> = (0..width).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    let mut pattern = vec![0; format.row_bytes(width).expect("a whole number of blocks")];
    if format.quantise_row(&row, &mut pattern).is_err() {
        pattern.fill(0x11);
    }
    for chunk in bytes.chunks_mut(pattern.len()) {
        chunk.copy_from_slice(&pattern[..chunk.len()]);
    }
}

/// Seconds of a layer, and GB/s at which all threads together read memory, measured in turn.
fn measure(matmul: Matmul, format: Format, bytes: &[u8], layer_bytes: usize, n: usize, memory: &[u8]) -> (f64, f64) {
    let x: Vec<f32> = (0..n * INTERMEDIATE).map(|i| ((i * 29 % 97) as f32 - 48.0) / 48.0).collect();
    let mut out: Vec<Vec<f32>> = (0..3).map(|_| vec![0.0; n * INTERMEDIATE]).collect();
    let (begun, count) = (Instant::now(), if n < 64 { 60 } else { 5 });
    let (mut times, mut reads) = (Vec::new(), Vec::new());
    let mut parts = memory.chunks_exact(layer_bytes.min(memory.len() / 2)).cycle();
    for layer in bytes.chunks_exact(layer_bytes).cycle() {
        if times.len() >= count && begun.elapsed().as_secs_f64() > 1.0 {
            break;
        }
        let start = Instant::now();
        let mut rest = layer;
        for group in LAYER {
            let columns = group[0].1;
            let mut tasks = Vec::new();
            for (&(rows, columns), out) in group.iter().zip(&mut out) {
                let len = format.matrix_bytes(rows, columns).expect("sizes of a model");
                let (matrix, others) = rest.split_at(len);
                rest = others;
                let matrix = Matrix::new(format, rows, columns, matrix).expect("cut to its length");
                tasks.push(MatmulTask::new(matrix, &mut out[..n * rows]));
            }
            matmul.run_shared(&x[..n * columns], columns, &mut tasks).expect("shapes of a model");
        }
        times.push(start.elapsed().as_secs_f64());
        if let Some(part) = parts.next() {
            let start = Instant::now();
            read(part);
            reads.push(start.elapsed().as_secs_f64() / part.len() as f64);
        }
    }
    black_box(&out);
    (fastest_tenth(times), 1e-9 / fastest_tenth(reads))
}

/// The fastest tenth, so that other load on the machine matters little.
fn fastest_tenth(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 10]
}

/// Reads memory on all threads, each a contiguous part.
fn read(memory: &[u8]) {
    let words: &[[u8; 256]] = memory.as_chunks().0;
    let tasks = rayon::current_num_threads() * 8;
    let sum = words.par_chunks(words.len().div_ceil(tasks)).map(sum_of).reduce(|| 0, u64::wrapping_add);
    black_box(sum);
}

fn sum_of(words: &[[u8; 256]]) -> u64 {
    let mut sums = [0u64; 32];
    for word in words {
        for (sum, bytes) in sums.iter_mut().zip(word.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*bytes));
        }
    }
    sums.iter().fold(0, |total, sum| total.wrapping_add(*sum))
}

/// Multiply-adds a second, in 10⁹, of all threads, with the instruction of such a matmul on registers alone.
fn peak(matmul: Matmul, format: Format) -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        let reduced = matmul.precision() == ActivationPrecision::Reduced;
        let blocks = format.block_elements() > 1;
        let (run, macs): (unsafe fn(usize) -> f32, usize) = match matmul.isa() {
            Isa::Portable => return f64::NAN,
            // A block has 32 of the 64 columns of a tile.
            Isa::Amx if reduced && blocks => (peak::tiles::<true>, 16 * 16 * 32),
            Isa::Amx if reduced && format == Format::BF16 => (peak::tiles::<false>, 16 * 16 * 32),
            isa if reduced && blocks && isa >= Isa::Avx512Vnni => (peak::bytes, 64),
            Isa::Avx512Bf16 if reduced && format == Format::BF16 => (peak::bfloats, 32),
            isa if isa >= Isa::Avx512 => (peak::floats, 16),
            _ => (peak::floats_avx2, 8),
        };
        const ROUNDS: usize = 1 << 18;
        let threads = rayon::current_num_threads();
        let mut times = Vec::new();
        for _ in 0..40 {
            let start = Instant::now();
            let sum: f32 = (0..threads)
                .into_par_iter()
                // SAFETY: `matmul` exists only if the processor has its instruction set, for which the function is
                // compiled.
                .map(|_| unsafe { run(ROUNDS) })
                .sum();
            black_box(sum);
            times.push(start.elapsed().as_secs_f64());
        }
        (threads * ROUNDS * peak::CHAINS * macs) as f64 / fastest_tenth(times) / 1e9
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (matmul, format);
        f64::NAN
    }
}

#[cfg(target_arch = "x86_64")]
mod peak {
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Independent sums, enough to hide latency.
    pub(super) const CHAINS: usize = 12;

    #[target_feature(enable = "avx512f")]
    pub(super) fn floats(rounds: usize) -> f32 {
        let x = _mm512_set1_ps(black_box(1.0));
        let mut sums = [x; CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(x, x, *sum);
            }
        }
        sums.iter().map(|sum| _mm512_reduce_add_ps(*sum)).sum()
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn bfloats(rounds: usize) -> f32 {
        let one = _mm512_set1_ps(black_box(1.0));
        let x = _mm512_cvtne2ps_pbh(one, one);
        let mut sums = [one; CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, x, x);
            }
        }
        sums.iter().map(|sum| _mm512_reduce_add_ps(*sum)).sum()
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn bytes(rounds: usize) -> f32 {
        let x = _mm512_set1_epi8(black_box(1));
        let mut sums = [x; CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, x, x);
            }
        }
        sums.iter().map(|sum| _mm512_reduce_add_epi32(*sum) as f32).sum()
    }

    /// Tiles of 16 rows of 32 `bf16` or integers each, into four tiles in turn.
    pub(super) fn tiles<const INT8: bool>(rounds: usize) -> f32 {
        #[repr(align(64))]
        struct Shapes([u8; 64]);
        let mut shapes = Shapes([0; 64]);
        shapes.0[0] = 1;
        for tile in 0..6 {
            let (rows, bytes) = if INT8 && tile == 5 { (8, 64) } else { (16, if INT8 && tile == 4 { 32 } else { 64 }) };
            (shapes.0[48 + tile], shapes.0[16 + 2 * tile]) = (rows, bytes);
        }
        macro_rules! run {
            ($multiply:literal) => {
                // SAFETY: called where AMX is available; registers of the shapes above, and no memory but these.
                unsafe {
                    asm!(
                        "ldtilecfg [{shapes}]",
                        "tilezero tmm0",
                        "tilezero tmm1",
                        "tilezero tmm2",
                        "tilezero tmm3",
                        "tilezero tmm4",
                        "tilezero tmm5",
                        "2:",
                        concat!($multiply, " tmm0, tmm4, tmm5"),
                        concat!($multiply, " tmm1, tmm4, tmm5"),
                        concat!($multiply, " tmm2, tmm4, tmm5"),
                        concat!($multiply, " tmm3, tmm4, tmm5"),
                        "dec {n}",
                        "jnz 2b",
                        "tilerelease",
                        shapes = in(reg) shapes.0.as_ptr(),
                        n = inout(reg) rounds * CHAINS / 4 => _,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _,
                        options(nostack),
                    );
                }
            };
        }
        if INT8 {
            run!("tdpbssd");
        } else {
            run!("tdpbf16ps");
        }
        0.0
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn floats_avx2(rounds: usize) -> f32 {
        let x = _mm256_set1_ps(black_box(1.0));
        let mut sums = [x; CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(x, x, *sum);
            }
        }
        sums.iter().map(|sum| _mm_cvtss_f32(_mm256_castps256_ps128(*sum))).sum()
    }
}
