//! Every instruction set that this machine has, against sums in `f64` and against each other.

use super::*;
use crate::Format;

fn values(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|_| next()).collect()
}

/// Bytes of a matrix in any format, at an odd address: after `shift` other bytes.
fn weights(format: Format, rows: usize, columns: usize, shift: usize) -> Vec<u8> {
    let mut bytes = vec![0xFF; shift];
    for row in 0..rows {
        let from = bytes.len();
        bytes.resize(from + format.row_bytes(columns).unwrap(), 0);
        let values = values(columns, 7 + row as u32);
        match format.quantise_row(&values, &mut bytes[from..]) {
            Ok(()) => {}
            // Formats that are only read: any bytes but for the scales, which are made small and finite.
            Err(_) => {
                let scales: &[usize] = match format {
                    Format::Q6_K => &[208],
                    Format::Q5_0 => &[0],
                    Format::Q3_K => &[108],
                    Format::Q2_K => &[80, 82],
                    _ => &[0, 2],
                };
                for (block, bytes) in bytes[from..].chunks_mut(format.block_bytes()).enumerate() {
                    for (index, byte) in bytes.iter_mut().enumerate() {
                        *byte = (index * 31 + block * 7 + row * 13) as u8;
                    }
                    for &at in scales {
                        bytes[at..at + 2].copy_from_slice(&half::f16::from_f32(1e-3).to_le_bytes());
                    }
                }
            }
        }
    }
    bytes
}

/// The sum in `f64`, and the sum of magnitudes that bounds its rounding.
fn reference(x: &[f32], w: Matrix<'_>) -> Vec<(f64, f64)> {
    let mut row = vec![0.0; w.columns()];
    let mut result = Vec::new();
    for x in x.chunks_exact(w.columns()) {
        for index in 0..w.rows() {
            w.format().dequantise_row(w.row(index), &mut row).unwrap();
            let products = x.iter().zip(&row).map(|(a, b)| f64::from(*a) * f64::from(*b));
            result.push(products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs())));
        }
    }
    result
}

/// Each available instruction set with each precision.
fn all() -> impl Iterator<Item = Matmul> {
    let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    isas.flat_map(|isa| {
        [ActivationPrecision::F32, ActivationPrecision::Reduced]
            .into_iter()
            .filter_map(move |a| Matmul::with_isa(isa, a))
    })
}

fn run(matmul: Matmul, x: &[f32], w: Matrix<'_>) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len() / w.columns() * w.rows()];
    matmul.run(x, w, &mut y).unwrap();
    y
}

/// Numbers of columns that leave partial vectors and parts of every kind.
fn columns_of(format: Format) -> Vec<usize> {
    match format.block_elements() {
        1 => vec![1, 15, 33, 64, 255, 258, 289, 770],
        32 => vec![32, 96, 512, 544, 1120],
        _ => vec![256, 768],
    }
}

#[test]
fn every_kernel_is_near_the_exact_sum() {
    for format in Format::ALL {
        for columns in columns_of(format) {
            for (n, rows) in [(1, 1), (2, 33), (5, 16), (13, 47), (27, 3)] {
                let bytes = weights(format, rows, columns, 1);
                let w = Matrix::new(format, rows, columns, &bytes[1..]).unwrap();
                let x = values(n * columns, 3);
                let expected = reference(&x, w);
                for matmul in all() {
                    // Rounding of activations: 2⁻⁸ of each, or half a 127th of the block's largest, here 0.5.
                    let (relative, absolute) = match (matmul.precision(), format) {
                        (ActivationPrecision::Reduced, Format::BF16) => (1.0 / 256.0, 0.0),
                        (ActivationPrecision::Reduced, Format::Q8_0 | Format::Q4_0) => {
                            (0.0, 0.5 / 254.0 * 0.6 * columns as f64)
                        }
                        _ => (0.0, 0.0),
                    };
                    for (found, (sum, size)) in run(matmul, &x, w).iter().zip(&expected) {
                        let bound = size * (relative + 3e-5) + absolute + 1e-7;
                        let error = (f64::from(*found) - sum).abs();
                        assert!(error <= bound, "{matmul:?} {format} [{n}, {columns}] · [{rows}]: {found}, not {sum}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_batch() {
    for format in Format::ALL {
        let (rows, columns, n) = (70, 768, 40);
        let bytes = weights(format, rows, columns, 3);
        let w = Matrix::new(format, rows, columns, &bytes[3..]).unwrap();
        let x = values(n * columns, 5);
        for matmul in all() {
            let batch_result = run(matmul, &x, w);
            for batch in [1, 2, 3, 7, 8, 12, 20] {
                for (x, expected) in x.chunks(batch * columns).zip(batch_result.chunks(batch * rows)) {
                    assert_eq!(run(matmul, x, w), expected, "{matmul:?} {format} {batch}");
                }
            }
        }
    }
}

#[test]
fn blocks_of_integers_are_the_same_on_every_instruction_set() {
    for format in [Format::Q8_0, Format::Q4_0] {
        let (rows, columns) = (50, 1088);
        let bytes = weights(format, rows, columns, 1);
        let w = Matrix::new(format, rows, columns, &bytes[1..]).unwrap();
        let x = values(7 * columns, 9);
        let expected = run(Matmul::with_isa(Isa::Portable, ActivationPrecision::Reduced).unwrap(), &x, w);
        for matmul in all().filter(|matmul| matmul.precision() == ActivationPrecision::Reduced) {
            assert_eq!(run(matmul, &x, w), expected, "{matmul:?} {format}");
        }
    }
}

#[test]
fn the_largest_integers_do_not_overflow() {
    // Weights of −128, which no quantiser writes but a file may hold, and activations at the end of their range.
    let mut bytes = vec![0x80u8; 2 * 34];
    for block in bytes.chunks_mut(34) {
        block[..2].copy_from_slice(&[0x00, 0x3C]);
    }
    let w = Matrix::new(Format::Q8_0, 2, 32, &bytes).unwrap();
    for matmul in all() {
        let y = run(matmul, &[127.0; 64], w);
        assert_eq!(y, [-128.0 * 127.0 * 32.0; 4], "{matmul:?}");
    }
}

#[test]
fn values_that_are_not_finite_stay_in_their_row() {
    for format in Format::ALL {
        let (rows, columns) = (20, 512);
        let bytes = weights(format, rows, columns, 0);
        let w = Matrix::new(format, rows, columns, &bytes).unwrap();
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = values(3 * columns, 4);
            x[columns + 77] = bad;
            for matmul in all() {
                let y = run(matmul, &x, w);
                for (index, value) in y.iter().enumerate() {
                    assert_eq!(value.is_finite(), index / rows != 1, "{matmul:?} {format} {value}");
                }
            }
        }
    }
}

#[test]
fn matmuls_that_share_an_input_equal_single_ones() {
    let (n, columns) = (3, 512);
    let x = values(n * columns, 2);
    let parts = [(Format::Q8_0, 70), (Format::Q8_0, 0), (Format::Q4_0, 33), (Format::BF16, 40), (Format::Q8_0, 1)];
    let bytes: Vec<Vec<u8>> = parts.iter().map(|&(format, rows)| weights(format, rows, columns, 0)).collect();
    let matrices = || parts.iter().zip(&bytes).map(|(&(f, rows), b)| Matrix::new(f, rows, columns, b).unwrap());
    for matmul in all() {
        let mut found: Vec<Vec<f32>> = parts.iter().map(|(_, rows)| vec![0.0; n * rows]).collect();
        let mut tasks: Vec<_> = matrices().zip(&mut found).map(|(w, y)| MatmulTask::new(w, y)).collect();
        matmul.run_shared(&x, columns, &mut tasks).unwrap();
        drop(tasks);
        for (w, found) in matrices().zip(found) {
            assert_eq!(run(matmul, &x, w), found);
        }
    }
}

#[test]
fn threads_do_not_change_a_result() {
    let (n, rows, columns) = (2, 700, 768);
    let bytes = weights(Format::BF16, rows, columns, 0);
    let w = Matrix::new(Format::BF16, rows, columns, &bytes).unwrap();
    let x = values(n * columns, 6);
    let matmul = Matmul::new(ActivationPrecision::F32);
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(matmul, &x, w))
    };
    assert_eq!(on(1), on(3));
}

#[test]
fn empty_operands_have_empty_or_zero_results() {
    let matmul = Matmul::new(ActivationPrecision::F32);
    matmul.run(&[], Matrix::new(Format::F32, 3, 4, &[0; 48]).unwrap(), &mut []).unwrap();
    matmul.run(&[1.0; 4], Matrix::new(Format::F32, 0, 4, &[]).unwrap(), &mut []).unwrap();
    let mut y = [1.0; 6];
    matmul.run(&[], Matrix::new(Format::Q4_0, 3, 0, &[]).unwrap(), &mut y).unwrap();
    assert_eq!(y, [0.0; 6]);
}

#[test]
fn mismatches_are_errors() {
    let matmul = Matmul::new(ActivationPrecision::Reduced);
    let w = Matrix::new(Format::F32, 3, 4, &[0; 48]).unwrap();
    assert!(matches!(matmul.run(&[0.0; 5], w, &mut [0.0; 3]), Err(Error::Input { found: 5, columns: 4 })));
    assert!(matches!(matmul.run(&[0.0; 4], w, &mut [0.0; 4]), Err(Error::Output { n: 1, rows: 3, found: 4 })));
    let mut y = [0.0; 3];
    let shared = matmul.run_shared(&[0.0; 8], 8, &mut [MatmulTask::new(w, &mut y)]);
    assert!(matches!(shared, Err(Error::Columns { expected: 8, found: 4 })));
}
