//! The kernels of this tier with instructions that are computed number by number: indices, orders and tails are those
//! of the kernels that run on tensor cores.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a panic is the failure")]

use half::{bf16, f16};
use lumina_kernels::Format as HostFormat;
use lumina_testing::{numbers, worst_difference};

use super::fragments::Q8_ORDER;
use super::many::Tile;
use super::pack::pack_rows;
use super::{Kind, Launch, Runs, few, many, pack};
use crate::gpu::ALIGNMENT;
use crate::matmul::{MAX_GROUP, MatmulPrecision, Part};
use crate::{Arena, DeviceChoice, Format, Gpu, Matrix, MatrixRows};

/// Which kernel multiplies.
#[derive(Clone, Copy, Debug)]
enum Way {
    Few,
    Many(Tile, bool),
}

/// Tiles of few planes and few tiles a plane, as barriers make programs large on a software driver.
const WIDE: Tile = Tile { outputs: 2, rows: 1, output_planes: 1, row_planes: 4 };
const TALL: Tile = Tile { outputs: 1, rows: 2, output_planes: 2, row_planes: 2 };

fn gpu() -> Option<Gpu> {
    match Gpu::open(DeviceChoice::Wgpu) {
        Ok(gpu) => Some(gpu),
        Err(error) if std::env::var_os("LUMINA_REQUIRE_GPU").is_none() => {
            eprintln!("left out: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// For matrices of so many columns.
fn kinds(columns: usize) -> [Kind; 6] {
    let kind = |format, precision| Kind { emulated: true, ..Kind::new(format, columns, precision) };
    [
        kind(Format::BF16, MatmulPrecision::High),
        kind(Format::BF16, MatmulPrecision::Fast),
        kind(Format::F16, MatmulPrecision::High),
        kind(Format::F16, MatmulPrecision::Fast),
        kind(Format::Q8_0, MatmulPrecision::High),
        kind(Format::Q4_0, MatmulPrecision::High),
    ]
}

/// A matrix of random numbers, and those as they are stored.
fn matrix(arena: &mut Arena, format: Format, [rows, columns]: [usize; 2], seed: u32) -> (Matrix, Vec<f32>) {
    let host = match format {
        Format::F32 => HostFormat::F32,
        Format::F16 => HostFormat::F16,
        Format::BF16 => HostFormat::BF16,
        Format::Q8_0 => HostFormat::Q8_0,
        Format::Q4_0 => HostFormat::Q4_0,
    };
    let row_bytes = host.row_bytes(columns).unwrap();
    let mut bytes = vec![0; rows * row_bytes];
    let mut stored = vec![0.0; rows * columns];
    for (index, row) in numbers(rows * columns, seed).chunks(columns).enumerate() {
        let bytes = &mut bytes[index * row_bytes..][..row_bytes];
        host.quantise_row(row, bytes).unwrap();
        host.dequantise_row(bytes, &mut stored[index * columns..][..columns]).unwrap();
    }
    (arena.matrix(format, [rows, columns], bytes.into()).unwrap(), stored)
}

fn run(gpu: &Gpu, kind: Kind, weights: &[MatrixRows<'_>], x: &[f32], n: usize, way: Way) -> Vec<Vec<f32>> {
    let matrix = weights[0].matrix;
    let mut parts = [Part::default(); MAX_GROUP];
    let mut end = 0;
    for (part, MatrixRows { matrix, rows }) in parts.iter_mut().zip(weights) {
        part.first_load = matrix.load_of(rows.start) as u32;
        part.first_scale = matrix.scale_of(rows.start) as u32;
        part.outputs = rows.len() as u32;
        part.out = end as u32;
        end = (end + n * rows.len()).next_multiple_of(ALIGNMENT);
    }
    let out = gpu.empty(end);
    let x = pack(gpu, kind, &gpu.upload_f32(x), n, matrix.columns());
    let launch = Launch { gpu, kind, matrix, parts, n, x: &x, out: &out };
    match way {
        Way::Few => few::launch(&launch),
        Way::Many(tile, split) => many::launch_with(&launch, tile, split),
    }
    let found = gpu.read_f32(&out).unwrap();
    let place = |part: &Part| found[part.out as usize..][..n * part.outputs as usize].to_vec();
    parts[..weights.len()].iter().map(place).collect()
}

/// Activations as the instructions see them, in the order of k.
fn rounded(x: &[f32], kind: Kind) -> Vec<f64> {
    if kind.format.has_scales() {
        let round = |block: &[f32]| {
            let scale = block.iter().fold(0.0f32, |most, x| most.max(x.abs())) / 127.0;
            block.iter().map(|x| f64::from((x / scale).round_ties_even()) * f64::from(scale)).collect::<Vec<_>>()
        };
        return x.chunks(32).flat_map(round).collect();
    }
    let round = |x: f32| {
        if kind.format == Format::BF16 { bf16::from_f32(x).to_f32() } else { f16::from_f32(x).to_f32() }
    };
    let value = |&x: &f32| {
        let high = round(x);
        f64::from(high) + if kind.parts == 2 { f64::from(round(x - high)) } else { 0.0 }
    };
    x.iter().map(value).collect()
}

fn product(x: &[f64], w: &[f32], columns: usize) -> Vec<f64> {
    let dot = |x: &[f64], w: &[f32]| x.iter().zip(w).map(|(x, w)| x * f64::from(*w)).sum::<f64>();
    x.chunks(columns).flat_map(|x| w.chunks(columns).map(move |w| dot(x, w))).collect()
}

/// Each format by each kernel, with one block, an odd number of blocks, and runs that end beyond k.
#[test]
fn products_are_those_of_f64() {
    let Some(gpu) = gpu() else { return };
    let mut arena = Arena::new(&gpu);
    for [rows, columns] in [[5, 96], [70, 576]] {
        for kind in kinds(columns) {
            let (w, stored) = matrix(&mut arena, kind.format, [rows, columns], 7);
            for (n, way) in [(3, Way::Few), (11, Way::Few), (17, Way::Many(WIDE, false))] {
                let x = numbers(n * columns, n as u32);
                let found = run(&gpu, kind, &[w.all()], &x, n, way).concat();
                let expected = product(&rounded(&x, kind), &stored, columns);
                let worst = worst_difference(&found, &expected);
                assert!(worst < 2e-6, "{kind:?} [{rows}, {columns}], {n} rows, {way:?}: {worst:e}");
            }
        }
    }
}

/// The sums have one order in all kernels and for any number of rows.
#[test]
fn a_row_has_the_same_result_in_any_company() {
    let Some(gpu) = gpu() else { return };
    let mut arena = Arena::new(&gpu);
    let (columns, most) = (1056, 83);
    // One part or two make no difference to the order.
    for kind in kinds(columns).into_iter().filter(|kind| kind.parts == 2 || kind.format.has_scales()) {
        let (a, _) = matrix(&mut arena, kind.format, [70, columns], 1);
        let (b, _) = matrix(&mut arena, kind.format, [33, columns], 2);
        let (c, _) = matrix(&mut arena, kind.format, [128, columns], 3);
        let weights = [MatrixRows { matrix: &a, rows: 13..58 }, b.all(), c.all()];
        let x = numbers(most * columns, 5);
        let together = run(&gpu, kind, &weights, &x, most, Way::Few);
        for (n, way) in [
            (1, Way::Few),
            (9, Way::Few),
            (32, Way::Few),
            (40, Way::Many(WIDE, false)),
            (most, Way::Many(WIDE, true)),
            (most, Way::Many(TALL, false)),
        ] {
            let found = run(&gpu, kind, &weights, &x[..n * columns], n, way);
            for (part, (found, expected)) in found.iter().zip(&together).enumerate() {
                assert_eq!(found, &expected[..found.len()], "{kind:?}, {n} rows, {way:?}, matrix {part}");
            }
        }
    }
}

/// Beside `f16` rows of any size are scaled, and what is not finite stays visible in its row alone.
#[test]
fn rows_of_any_size_are_packed() {
    let Some(gpu) = gpu() else { return };
    let mut arena = Arena::new(&gpu);
    let columns = 96;
    for kind in kinds(columns).into_iter().filter(|kind| kind.format != Format::F16 || kind.parts == 2) {
        let (w, stored) = matrix(&mut arena, kind.format, [16, columns], 4);
        for factor in [1e-30f32, 1e-5, 1.0, 3e5, 1e30] {
            let x: Vec<f32> = numbers(columns, 6).iter().map(|x| x * factor).collect();
            let found = run(&gpu, kind, &[w.all()], &x, 1, Way::Few).concat();
            let exact: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            let expected = product(&exact, &stored, columns);
            // Numbers of 8 or 16 bits, and bytes of 7: their rounding is that of a random walk.
            let bound = match (kind.format, kind.parts) {
                (Format::F16, _) => 1e-6,
                (Format::BF16, 2) => 1e-5,
                (Format::BF16, _) => 4e-3,
                _ => 1e-2,
            };
            let worst = worst_difference(&found, &expected);
            assert!(worst < bound, "{kind:?}, numbers of {factor:e}: {worst:e}");
        }
    }
    for kind in kinds(columns).into_iter().filter(|kind| kind.format == Format::BF16 || kind.format.has_scales()) {
        let (w, _) = matrix(&mut arena, kind.format, [16, columns], 4);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = numbers(2 * columns, 3);
            x[40] = bad;
            let found = run(&gpu, kind, &[w.all()], &x, 2, Way::Few).concat();
            assert!(found[..16].iter().all(|y| y.is_nan()), "{kind:?}: {found:?}");
            assert!(found[16..].iter().all(|y| y.is_finite()), "{kind:?}: {found:?}");
        }
    }
}

/// The numbers of `f16` and `bf16` nearest to all kinds of `f32`, to the bit, as `half` has them.
#[test]
fn packed_numbers_are_rounded_as_on_the_host() {
    let Some(gpu) = gpu() else { return };
    let columns = 4096;
    let mut x: Vec<f32> =
        numbers(columns, 8).iter().enumerate().map(|(i, x)| x * 2f32.powi(-(i as i32 % 40))).collect();
    // The largest of the row is 2¹⁴, so that its numbers are not scaled. Halves between two numbers go to the even one.
    x[0] = 16384.0;
    x[1] = 1.0 + 2f32.powi(-11);
    x[2] = 1.0 + 3.0 * 2f32.powi(-11);
    x[3] = 2f32.powi(-25);
    x[4] = 3.0 * 2f32.powi(-25);
    x[5] = 1.0 + 2f32.powi(-8);
    for kind in kinds(columns).into_iter().filter(|kind| kind.parts == 2) {
        let packed = pack_rows(&gpu, kind, &gpu.upload_f32(&x), 1, columns);
        let words = gpu.read(&packed.words).unwrap();
        let round = |x: f32| {
            if kind.format == Format::BF16 {
                (bf16::from_f32(x).to_bits(), bf16::from_f32(x).to_f32())
            } else {
                (f16::from_f32(x).to_bits(), f16::from_f32(x).to_f32())
            }
        };
        for (column, &x) in x.iter().enumerate() {
            let [step, lane, number] = [column / 32, column % 32 / 8, column % 8];
            let at = |part: usize| {
                let word = words[((step * 2 + part) * 32 + lane) * 4 + number / 2];
                (word >> (16 * (number % 2))) as u16
            };
            let (high, value) = round(x);
            assert_eq!([at(0), at(1)], [high, round(x - value).0], "{kind:?}, {x:e}");
        }
    }
}

/// Registers are words of a tile as the instructions index them: those of CubeCL's own functions.
#[test]
fn fragments_are_those_of_the_instructions() {
    use cubecl::cmma::MatrixIdent;
    use cubecl::prelude::polyfills::mma::{col_index, row_index};
    for lane in 0..32u32 {
        let (g, t) = (lane / 4, lane % 4);
        for per_word in [2usize, 4] {
            let per = per_word as u32;
            for i in 0..4 * per {
                let (word, inside) = (i / per, i % per);
                let at = |f: fn(u32, u32, usize, MatrixIdent) -> u32, ident| f(lane, i, per_word, ident);
                assert_eq!(at(row_index, MatrixIdent::A), g + word % 2 * 8);
                assert_eq!(at(col_index, MatrixIdent::A), (t + word / 2 * 4) * per + inside);
                if i < 2 * per {
                    assert_eq!(at(row_index, MatrixIdent::B), (t + word * 4) * per + inside);
                    assert_eq!(at(col_index, MatrixIdent::B), g);
                }
            }
        }
        for i in 0..4u32 {
            assert_eq!(row_index(lane, i, 2, MatrixIdent::Accumulator), g + i / 2 * 8);
            assert_eq!(col_index(lane, i, 2, MatrixIdent::Accumulator), t * 2 + i % 2);
        }
    }
    let mut order = Q8_ORDER;
    order.sort_unstable();
    assert_eq!(order, [0, 1, 2, 3]);
}

/// Runs cover k, and no run is empty.
#[test]
fn runs_cover_all_steps() {
    for columns in (32..12_000).step_by(32) {
        for kind in kinds(columns) {
            let runs = Runs::new(kind, columns);
            let steps = columns.div_ceil(kind.step());
            assert!(runs.steps() >= steps && (runs.count - 1) * runs.len < steps, "{kind:?}, {columns}: {runs:?}");
            assert!(runs.count <= super::MAX_RUNS && runs.len.is_multiple_of(kind.unroll()));
        }
    }
}
