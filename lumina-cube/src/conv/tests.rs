//! Convolutions by tensor cores, whose instruction is emulated, against those in `f32`.
#![allow(clippy::unwrap_used, reason = "a panic is the failure")]

use lumina_testing::numbers;

use super::*;
use crate::DeviceChoice;
use crate::norm::group_norm;

/// The worst difference of two results, as a share of the largest number.
fn difference(gpu: &Gpu, found: &Maps, expected: &Maps) -> f32 {
    assert_eq!(found.shape, expected.shape);
    let [found, expected] = [found, expected].map(|maps| gpu.read_f32(&maps.values).unwrap());
    let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let differences = found.iter().zip(&expected).map(|(a, b)| if a.is_finite() { (a - b).abs() } else { f32::MAX });
    differences.fold(0.0, f32::max) / largest
}

#[test]
fn tensor_cores_are_as_exact_as_f32() {
    // `LUMINA_REQUIRE_GPU` makes other tests fail where there is none.
    let Ok(gpu) = Gpu::open(DeviceChoice::Wgpu) else { return };
    let mut most = [0.0f32; 2];
    for (shape, outputs, kernel, resize) in [
        ([2, 3, 5, 7], 40, 1, Resize::Same),
        ([1, 64, 6, 5], 3, 3, Resize::Halve),
        ([1, 96, 3, 2], 72, 3, Resize::Double),
    ] {
        let [batch, inputs, height, width] = shape;
        // Weights of all magnitudes.
        let weight: Vec<f32> =
            numbers(outputs * inputs * kernel * kernel, 1).iter().map(|x| x * x * x * 0.02).collect();
        let bias = numbers(outputs, 2);
        let [floats, halves] = [Form::Floats, Form::EmulatedTensorCores]
            .map(|form| ConvWeights::in_form(&gpu, [outputs, inputs, kernel, kernel], &weight, &bias, form).unwrap());
        let x = gpu.upload_f32(&numbers(batch * inputs * height * width, 3));
        let x = Maps::from_planes(&gpu, &x, shape);
        let [weight, bias] = [4, 5].map(|seed| gpu.upload_f32(&numbers(inputs, seed)));
        let norm = inputs.is_multiple_of(32).then(|| group_norm(&gpu, &x, 32, &weight, &bias));
        let input = norm.as_ref().map_or(Input::Plain, Input::NormedSwish);
        let expected = conv(&gpu, &x, &floats, ConvOptions { resize, input, ..ConvOptions::default() });
        let run = |precision, residual| {
            let options = ConvOptions { resize, input, residual, precision };
            conv(&gpu, &x, &halves, options)
        };
        let found = run(ConvPrecision::F32, None);
        most[0] = most[0].max(difference(&gpu, &found, &expected));
        // Each kernel takes seconds to compile.
        if inputs == 3 {
            most[1] = most[1].max(difference(&gpu, &run(ConvPrecision::F16, None), &expected));
            // A residual is added to the same sums.
            let added = run(ConvPrecision::F32, Some(&expected));
            let sums = crate::elementwise::add_scaled(&gpu, &found.values, &expected.values, 1.0);
            assert_eq!(gpu.read(&added.values).unwrap(), gpu.read(&sums).unwrap());
        }
    }
    println!("three products: {:.2e}, one: {:.2e}", most[0], most[1]);
    assert!(most[0] < 2e-6 && most[1] < 2e-3, "{most:?}");
}

/// The larger tiles of many positions sum in the same order.
#[test]
fn tiles_of_tensor_cores_are_equal() {
    let Ok(gpu) = Gpu::open(DeviceChoice::Wgpu) else { return };
    let (few, many) = ([1, 8, 16, 16], [33, 8, 16, 16]);
    let weights = ConvWeights::in_form(&gpu, [16, 8, 1, 1], &numbers(128, 1), &[0.5; 16], Form::EmulatedTensorCores);
    let weights = weights.unwrap();
    let x = numbers(many.iter().product(), 2);
    for precision in [ConvPrecision::F32, ConvPrecision::F16] {
        let run = |values: &[f32], shape| {
            let maps = Maps::from_planes(&gpu, &gpu.upload_f32(values), shape);
            let options = ConvOptions { precision, ..ConvOptions::default() };
            gpu.read(&conv(&gpu, &maps, &weights, options).values).unwrap()
        };
        assert_eq!(run(&x[..8 * 256], few), run(&x, many)[..16 * 256]);
    }
}
