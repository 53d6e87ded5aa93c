//! Products with weights, and rows of tables, against `f64`.
#![cfg(any(feature = "wgpu", feature = "cuda"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is the failure")]

mod support;

use lumina_cube::matmul::{MatmulPrecision, matmul, matmul_with};
use lumina_cube::{Arena, Format, Gpu, Matrix, MatrixRows, embedding};
use lumina_kernels::Format as HostFormat;
use lumina_testing::{numbers, worst_difference};
use support::gpu;

const FORMATS: [(Format, HostFormat); 5] = [
    (Format::F32, HostFormat::F32),
    (Format::F16, HostFormat::F16),
    (Format::BF16, HostFormat::BF16),
    (Format::Q8_0, HostFormat::Q8_0),
    (Format::Q4_0, HostFormat::Q4_0),
];

/// A matrix of random numbers, and those as they are stored.
fn matrix(arena: &mut Arena, format: (Format, HostFormat), shape: [usize; 2], seed: u32) -> (Matrix, Vec<f32>) {
    let [rows, columns] = shape;
    let row_bytes = format.1.row_bytes(columns).unwrap();
    let mut bytes = vec![0; rows * row_bytes];
    let mut stored = vec![0.0; rows * columns];
    let numbers = numbers(rows * columns, seed);
    for (index, row) in numbers.chunks(columns).enumerate() {
        let bytes = &mut bytes[index * row_bytes..][..row_bytes];
        format.1.quantise_row(row, bytes).unwrap();
        format.1.dequantise_row(bytes, &mut stored[index * columns..][..columns]).unwrap();
    }
    (arena.matrix(format.0, shape, bytes.into()).unwrap(), stored)
}

/// Activations as the kernels see them: rounded to bytes beside 8- and 4-bit weights.
fn rounded(x: &[f32], format: Format) -> Vec<f64> {
    if !matches!(format, Format::Q8_0 | Format::Q4_0) {
        return x.iter().map(|&x| f64::from(x)).collect();
    }
    let round = |block: &[f32]| {
        let scale = block.iter().fold(0.0f32, |most, x| most.max(x.abs())) / 127.0;
        block.iter().map(|x| f64::from((x / scale).round_ties_even()) * f64::from(scale)).collect::<Vec<_>>()
    };
    x.chunks(32).flat_map(round).collect()
}

/// Sums in `f32`. Tensor cores see 17 or 22 bits of an activation beside 16-bit weights, and drop what lies below the
/// last bit of the largest term of a sum; blocks of bytes are exact there, too.
fn bound(gpu: &Gpu, format: Format) -> f64 {
    if gpu.has_tensor_cores() && matches!(format, Format::F16 | Format::BF16) { 1e-5 } else { 2e-6 }
}

fn product(x: &[f64], w: &[f32], columns: usize) -> Vec<f64> {
    let dot = |x: &[f64], w: &[f32]| x.iter().zip(w).map(|(x, w)| x * f64::from(*w)).sum::<f64>();
    x.chunks(columns).flat_map(|x| w.chunks(columns).map(move |w| dot(x, w))).collect()
}

fn run<const N: usize>(gpu: &Gpu, x: &[f32], n: usize, weights: [MatrixRows<'_>; N]) -> [Vec<f32>; N] {
    matmul(gpu, &gpu.upload_f32(x), n, weights).map(|y| gpu.read_f32(&y).unwrap())
}

/// Each format, for numbers of rows on both sides of each group, and with rows and columns that fill no team and no
/// load.
#[test]
fn products_are_those_of_f64() {
    let Some(gpu) = gpu() else { return };
    let mut arena = Arena::new(&gpu);
    for (format, shapes) in FORMATS.map(|format| {
        let odd = if matches!(format.0, Format::Q8_0 | Format::Q4_0) { [5, 96] } else { [5, 20] };
        (format, [[70, 288], [64, 1024], odd, [1, 32]])
    }) {
        for [rows, columns] in shapes {
            let (w, stored) = matrix(&mut arena, format, [rows, columns], 7);
            for n in [1, 2, 3, 4, 8, 11] {
                let x = numbers(n * columns, n as u32);
                let [found] = run(&gpu, &x, n, [w.all()]);
                let expected = product(&rounded(&x, format.0), &stored, columns);
                let worst = worst_difference(&found, &expected);
                assert!(worst < bound(&gpu, format.0), "{} [{rows}, {columns}], {n} rows: {worst:e}", format.0);
            }
        }
    }
}

/// What exact decoding of several tokens rests on.
#[test]
fn a_row_has_the_same_result_in_any_company() {
    let Some(gpu) = gpu() else { return };
    let mut arena = Arena::new(&gpu);
    for format in FORMATS {
        let columns = 544;
        let (a, _) = matrix(&mut arena, format, [70, columns], 1);
        let (b, _) = matrix(&mut arena, format, [33, columns], 2);
        let (c, _) = matrix(&mut arena, format, [128, columns], 3);
        // Tensor cores have other kernels for more than 32 and more than 64 rows.
        let (most, more) = if gpu.has_tensor_cores() { (150, vec![33, 64, 65, 150]) } else { (19, vec![]) };
        let x = numbers(most * columns, 5);
        let alone: Vec<[Vec<f32>; 3]> =
            x.chunks(columns).map(|x| [&a, &b, &c].map(|w| run(&gpu, x, 1, [w.all()]).concat())).collect();
        for n in [1, 2, 3, 5, 8, 9, 19].into_iter().chain(more) {
            let together = run(&gpu, &x[..n * columns], n, [a.all(), b.all(), c.all()]);
            for (index, w) in [&a, &b, &c].into_iter().enumerate() {
                for row in 0..n {
                    let found = &together[index][row * w.rows()..][..w.rows()];
                    assert_eq!(found, alone[row][index], "{}, {n} rows, matrix {index}, row {row}", format.0);
                }
            }
        }
        let rows = 13..58;
        let [part] = run(&gpu, &x[..columns], 1, [MatrixRows { matrix: &a, rows: rows.clone() }]);
        assert_eq!(part, alone[0][0][rows], "{}", format.0);
    }
}

/// On the shapes of a network: sums of 4,096 numbers and more, in runs that end beyond k, and tiles of each size.
/// Without tensor cores there is nothing to compare.
#[test]
fn tensor_cores_compute_what_other_kernels_do() {
    let Some(gpu) = gpu().filter(Gpu::has_tensor_cores) else { return };
    let plain = gpu.without_tensor_cores();
    let mut arena = Arena::new(&gpu);
    for format in &FORMATS[1..] {
        for [rows, columns] in [[4096, 4096], [300, 11_008], [1000, 4128]] {
            let (w, _) = matrix(&mut arena, *format, [rows, columns], 7);
            let most = 300;
            let x = numbers(most * columns, 3);
            let [expected] = run(&plain, &x, most, [w.all()]);
            let exact: Vec<f64> = expected.iter().map(|&y| f64::from(y)).collect();
            for precision in [MatmulPrecision::High, MatmulPrecision::Fast] {
                let run = |n: usize| {
                    let x = gpu.upload_f32(&x[..n * columns]);
                    gpu.read_f32(&matmul_with(&gpu, &x, n, [w.all()], precision)[0]).unwrap()
                };
                let together = run(most);
                let bound = match (format.0, precision) {
                    (Format::BF16, MatmulPrecision::Fast) => 4e-3,
                    (Format::F16, MatmulPrecision::Fast) => 5e-4,
                    // Chains of 64 and more sums that are rounded downwards.
                    (Format::F16 | Format::BF16, _) => 3e-5,
                    _ => 4e-6,
                };
                let worst = worst_difference(&together, &exact);
                assert!(worst < bound, "{} [{rows}, {columns}], {precision:?}: {worst:e}", format.0);
                for n in [1, 8, 17, 40, 100] {
                    let same = run(n) == together[..n * rows];
                    assert!(same, "{} [{rows}, {columns}], {precision:?}, {n} rows", format.0);
                }
            }
        }
    }
}

/// Matrices of different formats and buffers have launches of their own.
#[test]
fn formats_side_by_side() {
    let Some(gpu) = gpu() else { return };
    let (mut arena, mut other) = (Arena::new(&gpu), Arena::new(&gpu));
    let columns = 96;
    let x = numbers(2 * columns, 3);
    let (a, stored_a) = matrix(&mut arena, FORMATS[4], [5, columns], 1);
    let (b, stored_b) = matrix(&mut arena, FORMATS[0], [37, columns], 2);
    let (c, stored_c) = matrix(&mut other, FORMATS[0], [16, columns], 3);
    let found = run(&gpu, &x, 2, [a.all(), b.all(), c.all()]);
    for ((found, stored), format) in found.iter().zip([&stored_a, &stored_b, &stored_c]).zip([4, 0, 0]) {
        let expected = product(&rounded(&x, FORMATS[format].0), stored, columns);
        assert!(worst_difference(found, &expected) < bound(&gpu, FORMATS[format].0));
    }
}

/// A number that is not finite spoils its row, and no other.
#[test]
fn what_is_not_finite_stays_visible() {
    let Some(gpu) = gpu() else { return };
    let mut arena = Arena::new(&gpu);
    for format in FORMATS {
        let (w, _) = matrix(&mut arena, format, [5, 64], 1);
        let mut x = numbers(2 * 64, 3);
        x[40] = f32::NAN;
        let [found] = run(&gpu, &x, 2, [w.all()]);
        assert!(found[..5].iter().all(|y| y.is_nan()), "{}: {found:?}", format.0);
        assert!(found[5..].iter().all(|y| y.is_finite()), "{}: {found:?}", format.0);
    }
}

#[test]
fn rows_of_a_table_are_as_stored() {
    let Some(gpu) = gpu() else { return };
    let mut arena = Arena::new(&gpu);
    for format in FORMATS {
        let (w, stored) = matrix(&mut arena, format, [40, 96], 9);
        let indices = [0u32, 39, 7, 7];
        let found = gpu.read_f32(&embedding::embedding(&gpu, &w, &gpu.upload(&indices))).unwrap();
        let expected: Vec<f32> = indices.iter().flat_map(|&i| stored[i as usize * 96..][..96].to_vec()).collect();
        assert_eq!(found, expected, "{}", format.0);
    }
}

#[test]
fn bytes_of_another_length_are_no_matrix() {
    let Some(gpu) = gpu() else { return };
    let mut arena = Arena::new(&gpu);
    assert!(arena.matrix(Format::Q4_0, [2, 32], vec![0; 36].into()).is_ok());
    for (shape, bytes) in [([3, 32], 36), ([2, 33], 36), ([2, 32], 35)] {
        let error = arena.matrix(Format::Q4_0, shape, vec![0; bytes].into()).unwrap_err();
        assert!(error.to_string().contains("q4_0"), "{error}");
    }
}
