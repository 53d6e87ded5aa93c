//! Norms and functions of single numbers, against `f64`.
#![cfg(any(feature = "wgpu", feature = "cuda"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is the failure")]

mod support;

use lumina_cube::{elementwise, norm};
use lumina_testing::{numbers, worst_difference};
use support::gpu;

fn rms_norm(x: &[f64], weight: &[f32], epsilon: f64) -> Vec<f64> {
    let width = weight.len();
    let row = |x: &[f64]| {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / width as f64;
        let factor = 1.0 / (mean + epsilon).sqrt();
        x.iter().zip(weight).map(|(x, w)| x * factor * f64::from(*w)).collect::<Vec<_>>()
    };
    x.chunks(width).flat_map(row).collect()
}

#[test]
fn norms_are_those_of_f64() {
    let Some(gpu) = gpu() else { return };
    for (n, width) in [(1, 4096), (3, 96), (2, 1000), (5, 8)] {
        let (x, y, w) = (numbers(n * width, 1), numbers(n * width, 2), numbers(width, 3));
        let [gx, gy, gw] = [&x, &y, &w].map(|values| gpu.upload_f32(values));
        let exact: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let found = gpu.read_f32(&norm::rms_norm(&gpu, &gx, &gw, 1e-5)).unwrap();
        assert!(worst_difference(&found, &rms_norm(&exact, &w, 1e-5)) < 1e-6);
        let [sum, normed] = norm::add_rms_norm(&gpu, &gx, &gy, &gw, 1e-5);
        let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
        assert_eq!(gpu.read_f32(&sum).unwrap(), expected);
        let exact: Vec<f64> = expected.iter().map(|&x| f64::from(x)).collect();
        assert!(worst_difference(&gpu.read_f32(&normed).unwrap(), &rms_norm(&exact, &w, 1e-5)) < 1e-6);
    }
}

#[test]
fn swiglu_is_that_of_f64() {
    let Some(gpu) = gpu() else { return };
    let mut gate: Vec<f32> = numbers(1000, 1).iter().map(|x| x * 20.0).collect();
    gate[..4].copy_from_slice(&[0.0, -200.0, 200.0, -88.0]);
    let up = numbers(1000, 2);
    let found = elementwise::swiglu(&gpu, &gpu.upload_f32(&gate), &gpu.upload_f32(&up));
    let exact = |(g, u): (&f32, &f32)| f64::from(*g) / (1.0 + (-f64::from(*g)).exp()) * f64::from(*u);
    let expected: Vec<f64> = gate.iter().zip(&up).map(exact).collect();
    assert!(worst_difference(&gpu.read_f32(&found).unwrap(), &expected) < 1e-6);
}

#[test]
fn sums_repeat_the_shorter_one() {
    let Some(gpu) = gpu() else { return };
    let (x, y) = (numbers(60, 1), numbers(20, 2));
    let found = elementwise::add_scaled(&gpu, &gpu.upload_f32(&x), &gpu.upload_f32(&y), 0.5);
    let expected: Vec<f64> = x.iter().enumerate().map(|(i, x)| f64::from(*x) + 0.5 * f64::from(y[i % 20])).collect();
    assert!(worst_difference(&gpu.read_f32(&found).unwrap(), &expected) < 1e-6);
}

/// Clones share memory, parts are views, and a later write is not seen by what was launched before.
#[test]
fn buffers_are_memory_in_order() {
    let Some(gpu) = gpu() else { return };
    let words: Vec<u32> = (0..200).collect();
    let buffer = gpu.upload(&words);
    let part = buffer.part(64..130);
    assert_eq!(gpu.read(&part).unwrap(), words[64..130]);
    let x = gpu.upload_f32(&[1.0; 64]);
    let sum = elementwise::add_scaled(&gpu, &x, &x, 1.0);
    gpu.write(&x, &[5.0f32.to_bits(); 64]);
    assert_eq!(gpu.read_f32(&sum).unwrap(), [2.0; 64]);
    assert_eq!(gpu.read_f32(&x).unwrap(), [5.0; 64]);
    assert!(gpu.read(&gpu.empty(0)).unwrap().is_empty());
}

#[test]
fn too_much_is_an_error() {
    let Some(gpu) = gpu() else { return };
    let huge = gpu.empty(1 << 42);
    let error = gpu.read(&huge.part(0..4)).unwrap_err();
    assert!(matches!(error, lumina_cube::Error::OutOfMemory { .. }), "{error}");
    // And the device goes on.
    assert_eq!(gpu.read(&gpu.upload(&[7])).unwrap(), [7]);
}

/// Only CUDA says what is free.
#[test]
fn free_memory_is_a_part_of_all() {
    let Some(gpu) = gpu() else { return };
    match gpu.free_memory_bytes() {
        Some(free) => assert!(free > 0 && gpu.memory_bytes().is_some_and(|all| free <= all), "{free}"),
        None => assert_ne!(gpu.name(), "cuda"),
    }
}

/// A recording computes on what its buffers hold when it is replayed.
#[test]
fn recordings_compute_anew() {
    let Some(gpu) = gpu() else { return };
    let (x, weight) = (gpu.upload_f32(&[1.0; 64]), gpu.upload_f32(&[2.0; 64]));
    let turn = gpu.turn();
    let run = || {
        let doubled = elementwise::add_scaled(&gpu, &x, &x, 1.0);
        norm::add_rms_norm(&gpu, &doubled, &weight, &weight, 0.0)
    };
    let (recording, [sum, normed]) = gpu.record(run).unwrap();
    drop(turn);
    for value in [3.0f32, -5.0, 0.5] {
        // Memory that is taken and given back in between is not that of the recording.
        let other = gpu.upload_f32(&[9.0; 64]);
        gpu.write(&x, &[value.to_bits(); 64]);
        recording.replay().unwrap();
        let sums = gpu.read_f32(&sum).unwrap();
        assert_eq!(sums, [2.0 * value + 2.0; 64]);
        let sign = sums[0].signum() * 2.0;
        assert!(gpu.read_f32(&normed).unwrap().iter().all(|found| (found - sign).abs() < 1e-6));
        assert_eq!(gpu.read_f32(&other).unwrap(), [9.0; 64]);
    }
}

#[test]
fn what_cannot_be_recorded_is_an_error() {
    let Some(gpu) = gpu() else { return };
    let turn = gpu.turn();
    let error = gpu.record(|| gpu.upload(&[1, 2, 3])).unwrap_err();
    assert!(matches!(error, lumina_cube::Error::Device { .. }), "{error}");
    drop(turn);
    assert_eq!(gpu.read(&gpu.upload(&[7])).unwrap(), [7]);
}
