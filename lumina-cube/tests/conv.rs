//! Convolutions, group norms, attention over images and codebooks, against `f64`.
#![cfg(any(feature = "wgpu", feature = "cuda"))]
#![allow(clippy::unwrap_used, reason = "a panic is the failure")]

mod support;

use lumina_cube::conv::{Codebook, ConvOptions, ConvWeights, Input, Maps, NOT_FINITE, Resize, attention, conv};
use lumina_cube::norm::{affine, group_norm, scaled};
use lumina_cube::{Error, Gpu};
use lumina_testing::{numbers, worst_difference};
use support::gpu;

/// Of the largest number of a result.
const TOLERANCE: f64 = 2e-6;

const EPSILON: f64 = 1e-6;

/// `[batch, channels, height, width]` in `f64`.
#[derive(Clone)]
struct Planes {
    values: Vec<f64>,
    shape: [usize; 4],
}

impl Planes {
    fn new(values: &[f32], shape: [usize; 4]) -> Self {
        Self { values: values.iter().map(|&value| f64::from(value)).collect(), shape }
    }

    fn plane(&self) -> usize {
        self.shape[2] * self.shape[3]
    }

    fn map(&self, change: impl Fn(usize, f64) -> f64) -> Self {
        let values = self.values.iter().enumerate().map(|(index, value)| change(index, *value)).collect();
        Self { values, ..*self }
    }

    fn doubled(&self) -> Self {
        let [batch, channels, height, width] = self.shape;
        let at = |plane, y, x| self.values[(plane * height + y / 2) * width + x / 2];
        let rows = (0..batch * channels).flat_map(|plane| (0..2 * height).map(move |y| (plane, y)));
        let values = rows.flat_map(|(plane, y)| (0..2 * width).map(move |x| at(plane, y, x))).collect();
        Self { values, shape: [batch, channels, 2 * height, 2 * width] }
    }

    /// A convolution by its definition. `halve`: stride 2, zeros to the right and below.
    fn conv(&self, layer: &Layer, halve: bool) -> Self {
        let [batch, inputs, height, width] = self.shape;
        let (kernel, outputs) = (layer.kernel, layer.outputs);
        let (pad, stride) = if halve { (0, 2) } else { (kernel / 2, 1) };
        let [out_height, out_width] = [height, width].map(|side| side / stride);
        let mut values = Vec::new();
        for image in 0..batch {
            for output in 0..outputs {
                for y in 0..out_height {
                    for x in 0..out_width {
                        let mut sum = f64::from(layer.bias[output]);
                        for tap in 0..kernel * kernel {
                            let (row, column) = (y * stride + tap / kernel, x * stride + tap % kernel);
                            if (pad..height + pad).contains(&row) && (pad..width + pad).contains(&column) {
                                let inside = (row - pad) * width + column - pad;
                                sum += (0..inputs)
                                    .map(|input| {
                                        let weight = layer.weight[(output * inputs + input) * kernel * kernel + tap];
                                        let plane = image * inputs + input;
                                        f64::from(weight) * self.values[plane * height * width + inside]
                                    })
                                    .sum::<f64>();
                            }
                        }
                        values.push(sum);
                    }
                }
            }
        }
        Self { values, shape: [batch, outputs, out_height, out_width] }
    }

    fn group_norm(&self, groups: usize, weight: &[f32], bias: &[f32]) -> Self {
        let channels = self.shape[1];
        let mut values = self.values.clone();
        for (index, group) in values.chunks_exact_mut(channels / groups * self.plane()).enumerate() {
            let n = group.len() as f64;
            let mean = group.iter().sum::<f64>() / n;
            let variance = group.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n;
            for (at, value) in group.iter_mut().enumerate() {
                let channel = index % groups * (channels / groups) + at / self.plane();
                let scale = f64::from(weight[channel]) / (variance + EPSILON).sqrt();
                *value = (*value - mean) * scale + f64::from(bias[channel]);
            }
        }
        Self { values, ..*self }
    }

    fn swish(&self) -> Self {
        self.map(|_, value| value / (1.0 + (-value).exp()))
    }
}

/// A convolution on the host.
struct Layer {
    weight: Vec<f32>,
    bias: Vec<f32>,
    inputs: usize,
    outputs: usize,
    kernel: usize,
}

impl Layer {
    fn new(inputs: usize, outputs: usize, kernel: usize) -> Self {
        let weight = numbers(outputs * inputs * kernel * kernel, 7);
        Self { weight, bias: numbers(outputs, 8), inputs, outputs, kernel }
    }

    /// A layer of one tap that changes nothing.
    fn identity(channels: usize) -> Self {
        let weight = (0..channels * channels).map(|at| f32::from(u8::from(at / channels == at % channels))).collect();
        Self { weight, bias: vec![0.0; channels], inputs: channels, outputs: channels, kernel: 1 }
    }

    fn on(&self, gpu: &Gpu) -> ConvWeights {
        let shape = [self.outputs, self.inputs, self.kernel, self.kernel];
        ConvWeights::new(gpu, shape, &self.weight, &self.bias).unwrap()
    }
}

fn maps(gpu: &Gpu, values: &[f32], shape: [usize; 4]) -> Maps {
    Maps::from_planes(gpu, &gpu.upload_f32(values), shape)
}

fn planes(gpu: &Gpu, maps: &Maps) -> Vec<f32> {
    gpu.read_f32(&maps.to_planes(gpu)).unwrap()
}

fn random_planes(shape: [usize; 4], seed: u32) -> Vec<f32> {
    numbers(shape.iter().product(), seed)
}

#[test]
fn maps_are_their_planes() {
    let Some(gpu) = gpu() else { return };
    for shape in [[1, 3, 1, 1], [2, 3, 5, 7], [2, 8, 3, 1], [1, 1, 1, 9]] {
        let x = random_planes(shape, 1);
        let maps = maps(&gpu, &x, shape);
        assert_eq!(maps.shape(), shape);
        assert_eq!(planes(&gpu, &maps), x);
        // What fills the last load is zeros.
        let row = shape[1].next_multiple_of(4);
        let values = gpu.read_f32(maps.values()).unwrap();
        assert!(values.chunks(row).all(|position| position[shape[1]..].iter().all(|&value| value == 0.0)));
    }
}

#[test]
fn convolutions_are_those_of_f64() {
    let Some(gpu) = gpu() else { return };
    let mut most = 0.0f64;
    for (shape, outputs) in [
        ([1, 3, 1, 1], 5),
        ([2, 3, 5, 7], 32),
        ([1, 32, 6, 9], 3),
        ([2, 36, 4, 3], 68),
        ([1, 1, 9, 2], 1),
        // A sum of 4,608 products.
        ([1, 512, 3, 3], 66),
        // The larger tile.
        ([1, 4, 129, 130], 4),
    ] {
        let x = random_planes(shape, 1);
        let on_gpu = maps(&gpu, &x, shape);
        let exact = Planes::new(&x, shape);
        for (kernel, resize) in
            [(3, Resize::Same), (3, Resize::Halve), (3, Resize::Double), (1, Resize::Same), (1, Resize::Double)]
        {
            let layer = Layer::new(shape[1], outputs, kernel);
            let expected = match resize {
                Resize::Same => exact.conv(&layer, false),
                Resize::Halve => exact.conv(&layer, true),
                Resize::Double => exact.doubled().conv(&layer, false),
            };
            let found = conv(&gpu, &on_gpu, &layer.on(&gpu), ConvOptions { resize, ..ConvOptions::default() });
            assert_eq!(found.shape(), expected.shape);
            let error = worst_difference(&planes(&gpu, &found), &expected.values);
            assert!(error < TOLERANCE, "{shape:?} → {outputs}, kernel {kernel}, {resize:?}: {error:.2e}");
            most = most.max(error);
            // A residual is added to the same sums.
            let residual = maps(&gpu, &random_planes(expected.shape, 3), expected.shape);
            let added = conv(
                &gpu,
                &on_gpu,
                &layer.on(&gpu),
                ConvOptions { resize, residual: Some(&residual), ..ConvOptions::default() },
            );
            let sums = planes(&gpu, &found).into_iter().zip(random_planes(expected.shape, 3)).map(|(x, y)| x + y);
            assert_eq!(planes(&gpu, &added), sums.collect::<Vec<_>>());
        }
    }
    println!("convolutions: {most:.2e}");
}

/// Many positions are computed in larger tiles: the result is the same to the bit.
#[test]
fn an_image_does_not_depend_on_its_batch() {
    let Some(gpu) = gpu() else { return };
    let (one, many) = ([1, 8, 60, 70], [4, 8, 60, 70]);
    let layer = Layer::new(8, 8, 3).on(&gpu);
    let x = random_planes(many, 1);
    let alone = conv(&gpu, &maps(&gpu, &x[..x.len() / 4], one), &layer, ConvOptions::default());
    let batch = conv(&gpu, &maps(&gpu, &x, many), &layer, ConvOptions::default());
    assert_eq!(planes(&gpu, &batch)[..x.len() / 4], planes(&gpu, &alone));
}

/// Norm, swish and doubled pixels while loading are those in memory, to the bit.
#[test]
fn fused_inputs_are_unfused_ones() {
    let Some(gpu) = gpu() else { return };
    for shape in [[2, 32, 3, 5], [1, 64, 1, 1], [1, 128, 4, 2]] {
        let channels = shape[1];
        let x = maps(&gpu, &random_planes(shape, 1), shape);
        let [weight, bias] = [2, 3].map(|seed| gpu.upload_f32(&numbers(channels, seed)));
        let norm = group_norm(&gpu, &x, 32, &weight, &bias);
        let (layer, identity) = (Layer::new(channels, 12, 3).on(&gpu), Layer::identity(channels).on(&gpu));
        for (swish, input) in [(false, Input::Normed(&norm)), (true, Input::NormedSwish(&norm))] {
            let alone = scaled(&gpu, &x, &norm, swish);
            for resize in [Resize::Same, Resize::Double] {
                let inner = conv(&gpu, &alone, &identity, ConvOptions { resize, ..ConvOptions::default() });
                let unfused = conv(&gpu, &inner, &layer, ConvOptions::default());
                let fused = conv(&gpu, &x, &layer, ConvOptions { resize, input, ..ConvOptions::default() });
                assert_eq!(planes(&gpu, &fused), planes(&gpu, &unfused), "{shape:?}, {resize:?}");
            }
        }
    }
}

/// The norm of `x`, by a layer that changes nothing.
fn normed(gpu: &Gpu, x: &[f32], shape: [usize; 4], groups: usize, swish: bool) -> (f64, f64) {
    let channels = shape[1];
    let (weight, bias) = (numbers(channels, 2), numbers(channels, 3));
    let on_gpu = maps(gpu, x, shape);
    let norm = group_norm(gpu, &on_gpu, groups, &gpu.upload_f32(&weight), &gpu.upload_f32(&bias));
    let input = if swish { Input::NormedSwish(&norm) } else { Input::Normed(&norm) };
    let found = conv(gpu, &on_gpu, &Layer::identity(channels).on(gpu), ConvOptions { input, ..ConvOptions::default() });
    let expected = Planes::new(x, shape).group_norm(groups, &weight, &bias);
    let expected = if swish { expected.swish() } else { expected };
    let largest = expected.values.iter().fold(0.0f64, |most, value| most.max(value.abs()));
    (worst_difference(&planes(gpu, &found), &expected.values), largest)
}

#[test]
fn group_norms_are_those_of_f64() {
    let Some(gpu) = gpu() else { return };
    let mut most = 0.0f64;
    for (shape, groups) in [
        ([1, 32, 1, 1], 32),
        ([2, 64, 3, 5], 32),
        ([1, 96, 7, 3], 32),
        ([2, 512, 2, 2], 32),
        ([1, 8, 150, 140], 2),
        ([1, 2048, 1, 2], 32),
        ([3, 12, 5, 1], 3),
    ] {
        for swish in [false, true] {
            let (error, _) = normed(&gpu, &random_planes(shape, 1), shape, groups, swish);
            assert!(error < TOLERANCE, "{shape:?}, {groups} groups, swish {swish}: {error:.2e}");
            most = most.max(error);
        }
    }
    println!("group norms: {most:.2e}");
}

/// Numbers whose spread is a ten-thousandth of their mean, and one that is far from all others.
#[test]
fn group_norms_keep_the_digits_of_nearly_equal_numbers() {
    let Some(gpu) = gpu() else { return };
    for shape in [[1, 64, 1, 1], [2, 64, 2, 2], [1, 64, 33, 31], [1, 128, 64, 64]] {
        let near: Vec<f32> = random_planes(shape, 1).iter().map(|x| 100.0 + 0.01 * x).collect();
        let (error, largest) = normed(&gpu, &near, shape, 32, false);
        assert!(largest > 0.5 && error < TOLERANCE, "{shape:?}: {error:.2e}");
        let mut outlier = near.clone();
        outlier[0] = -50.0;
        let (error, _) = normed(&gpu, &outlier, shape, 32, false);
        assert!(error < TOLERANCE, "{shape:?} with an outlier: {error:.2e}");
    }
    // Equal ones have no spread, and are their bias.
    let shape = [1, 32, 3, 3];
    assert!(normed(&gpu, &vec![7.3; 288], shape, 32, false).0 < TOLERANCE);
}

/// A scale and a shift of each channel: alone, and while a convolution loads.
#[test]
fn affine_norms_are_those_of_f64() {
    let Some(gpu) = gpu() else { return };
    for shape in [[3, 32, 1, 1], [2, 64, 3, 5], [70, 12, 4, 2]] {
        let channels = shape[1];
        let (weight, bias) = (numbers(channels, 2), numbers(channels, 3));
        let x = random_planes(shape, 1);
        let on_gpu = maps(&gpu, &x, shape);
        let norm = affine(&gpu, &on_gpu, &gpu.upload_f32(&weight), &gpu.upload_f32(&bias));
        let plain = Planes::new(&x, shape).map(|index, value| {
            let channel = index / (shape[2] * shape[3]) % channels;
            value * f64::from(weight[channel]) + f64::from(bias[channel])
        });
        for (swish, input) in [(false, Input::Normed(&norm)), (true, Input::NormedSwish(&norm))] {
            let expected = if swish { plain.swish() } else { plain.map(|_, value| value) };
            let identity = Layer::identity(channels).on(&gpu);
            let options = ConvOptions { input, ..ConvOptions::default() };
            for found in [scaled(&gpu, &on_gpu, &norm, swish), conv(&gpu, &on_gpu, &identity, options)] {
                let error = worst_difference(&planes(&gpu, &found), &expected.values);
                assert!(error < TOLERANCE, "{shape:?}, swish {swish}: {error:.2e}");
            }
        }
    }
}

/// Squares of an image are images, and what has one position each is an image again.
#[test]
fn patches_are_squares_of_images() {
    let Some(gpu) = gpu() else { return };
    for ([batch, channels, height, width], side) in [([2, 3, 8, 12], 4), ([1, 6, 3, 5], 1), ([3, 5, 4, 4], 4)] {
        let x = random_planes([batch, channels, height, width], 1);
        let on_gpu = maps(&gpu, &x, [batch, channels, height, width]);
        let (rows, columns) = (height / side, width / side);
        let found = on_gpu.to_patches(&gpu, side);
        assert_eq!(found.shape(), [batch * rows * columns, channels, side, side]);
        let mut expected = Vec::new();
        for patch in 0..batch * rows * columns {
            let (image, row, column) = (patch / (rows * columns), patch / columns % rows, patch % columns);
            for plane in image * channels..(image + 1) * channels {
                for line in row * side..(row + 1) * side {
                    expected.extend_from_slice(&x[(plane * height + line) * width + column * side..][..side]);
                }
            }
        }
        assert_eq!(planes(&gpu, &found), expected);
        if side == 1 {
            let back = found.into_grids([batch, rows, columns]);
            assert_eq!((back.shape(), planes(&gpu, &back)), (on_gpu.shape(), x));
        }
    }
}

fn softmax_attention([q, k, v]: &[Planes; 3]) -> Vec<f64> {
    let [batch, channels, height, width] = q.shape;
    let n = height * width;
    let mut out = vec![0.0; q.values.len()];
    for image in 0..batch {
        let at = |x: &Planes, channel, position| x.values[(image * channels + channel) * n + position];
        for query in 0..n {
            let score = |key| (0..channels).map(|c| at(q, c, query) * at(k, c, key)).sum::<f64>();
            let scores: Vec<f64> = (0..n).map(|key| score(key) / (channels as f64).sqrt()).collect();
            let greatest = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - greatest).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for channel in 0..channels {
                let value: f64 = (0..n).map(|key| weights[key] * at(v, channel, key)).sum();
                out[(image * channels + channel) * n + query] = value / sum;
            }
        }
    }
    out
}

#[test]
fn attention_is_that_of_f64() {
    let Some(gpu) = gpu() else { return };
    let mut most = 0.0f64;
    for (shape, scale) in
        [([1, 32, 1, 1], 1.0), ([2, 32, 3, 5], 1.0), ([1, 64, 9, 8], 2.0), ([2, 40, 1, 2], 1.0), ([1, 6, 20, 21], 2.0)]
    {
        let inputs = [1, 2, 3].map(|seed| random_planes(shape, seed).iter().map(|x| x * scale).collect::<Vec<f32>>());
        let expected = softmax_attention(&inputs.each_ref().map(|values| Planes::new(values, shape)));
        let [q, k, v] = inputs.map(|values| maps(&gpu, &values, shape));
        let found = attention(&gpu, &q, &k, &v);
        let error = worst_difference(&planes(&gpu, &found), &expected);
        assert!(error < TOLERANCE, "{shape:?}: {error:.2e}");
        most = most.max(error);
    }
    println!("attention: {most:.2e}");
}

#[test]
fn nearest_codes_are_those_of_f64() {
    let Some(gpu) = gpu() else { return };
    for (codes, width, shape) in
        [(1, 4, [1, 4, 1, 1]), (513, 16, [2, 16, 3, 5]), (1000, 5, [1, 5, 7, 9]), (8192, 16, [1, 16, 33, 34])]
    {
        let (entries, z) = (numbers(codes * width, 4), random_planes(shape, 5));
        let codebook = Codebook::new(&gpu, [codes, width], &entries).unwrap();
        assert_eq!(codebook.read(&gpu).unwrap(), entries);
        let latents = maps(&gpu, &z, shape);
        let found = gpu.read(&codebook.nearest(&gpu, &latents)).unwrap();
        let plane = shape[2] * shape[3];
        let exact = Planes::new(&z, shape);
        for (position, code) in found.iter().enumerate() {
            let at = |channel| exact.values[(position / plane * width + channel) * plane + position % plane];
            let distance = |code: usize| {
                let entry = &entries[code * width..][..width];
                entry.iter().enumerate().map(|(c, e)| f64::from(*e) * (f64::from(*e) - 2.0 * at(c))).sum::<f64>()
            };
            let least = (0..codes).map(distance).fold(f64::INFINITY, f64::min);
            // In `f32` codes may be exchanged whose distances differ in the last digits.
            assert!(distance(*code as usize) - least < 1e-5, "{position}: {code}");
        }
        // And entries are nearest to themselves.
        let own: Vec<u32> = (0..codes as u32).step_by(7).collect();
        let entries = codebook.lookup(&gpu, &own, [1, 1, own.len()]);
        assert_eq!(entries.shape(), [1, width, 1, own.len()]);
        assert_eq!(gpu.read(&codebook.nearest(&gpu, &entries)).unwrap(), own);
    }
}

#[test]
fn of_equal_codes_the_smaller_one_is_nearest_and_what_is_not_finite_has_none() {
    let Some(gpu) = gpu() else { return };
    let mut entries = numbers(600 * 4, 1);
    let last = entries[..4].to_vec();
    for code in [3, 255, 256, 599] {
        entries[code * 4..][..4].copy_from_slice(&[2.0, -2.0, 2.0, -2.0]);
    }
    entries[20 * 4..][..4].copy_from_slice(&last);
    let codebook = Codebook::new(&gpu, [600, 4], &entries).unwrap();
    let mut z = vec![1.5f32, f32::NAN, f32::INFINITY, 0.0];
    z.extend([-1.5, 0.0, 0.0, 0.0]);
    z.extend([1.5, 0.0, 0.0, f32::NEG_INFINITY]);
    z.extend([-1.5, 0.0, 0.0, 0.0]);
    z[3] = last[0];
    z[7] = last[1];
    z[11] = last[2];
    z[15] = last[3];
    let found = gpu.read(&codebook.nearest(&gpu, &maps(&gpu, &z, [1, 4, 1, 4]))).unwrap();
    assert_eq!(found, [3, NOT_FINITE, NOT_FINITE, 0]);
}

#[test]
fn weights_of_another_size_are_an_error() {
    let Some(gpu) = gpu() else { return };
    for (shape, weight, bias) in [
        ([2, 3, 3, 3], 53, 2),
        ([2, 3, 3, 3], 54, 3),
        ([2, 3, 2, 2], 24, 2),
        ([0, 3, 1, 1], 0, 0),
        ([1, 1, 1, 3], 3, 1),
    ] {
        let error = ConvWeights::new(&gpu, shape, &numbers(weight, 1), &numbers(bias, 2)).unwrap_err();
        assert!(matches!(error, Error::Weights { .. }), "{error}");
    }
    assert!(matches!(Codebook::new(&gpu, [2, 4], &numbers(7, 1)).unwrap_err(), Error::Weights { .. }));
    assert!(matches!(Codebook::new(&gpu, [0, 4], &[]).unwrap_err(), Error::Weights { .. }));
}
