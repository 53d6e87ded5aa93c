//! Attention and its cache, against `f64`.
#![cfg(any(feature = "wgpu", feature = "cuda"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is the failure")]

#[path = "support/layer.rs"]
mod layer;
mod support;

use layer::{Layer, Token, norm_rotated, rounded, row, shape, split};
use lumina_cube::attention::{KvFormat, Pass, attention};
use lumina_testing::worst_difference;
use support::gpu;

const FORMATS: [KvFormat; 4] = [KvFormat::F32, KvFormat::F16, KvFormat::BF16, KvFormat::Q8_0];

/// Queries and keys in `f32` are those of `f64`, and in other formats the cache has exactly what rounding on the host
/// gives.
#[test]
fn the_cache_has_what_is_written() {
    let Some(gpu) = gpu() else { return };
    for [heads, kv_heads, dim] in [[2, 2, 128], [4, 1, 2], [3, 3, 6], [8, 2, 24], [2, 1, 256], [2, 2, 90]] {
        let tokens = [row(0, 60, 9), row(1, 0, 1), row(2, 130, 3)].concat();
        let mut exact = None;
        for format in FORMATS {
            let layer = Layer::new(&gpu, shape(heads, kv_heads, dim, format), 3, 150);
            let inputs = layer.inputs(&tokens);
            let q = layer.queries(&layer.write(&inputs, &layer.pass(&tokens)));
            let cached = layer.cached(&tokens);
            let [q_weight, q_bias, k_weight, k_bias] = layer.norms.each_ref().map(Vec::as_slice);
            let (q32, keys, values) = exact.get_or_insert_with(|| {
                let expected = norm_rotated(&inputs.q, (q_weight, q_bias), &inputs, heads, dim);
                assert!(
                    worst_difference(&q, &expected) < 1e-6,
                    "queries [{heads}, {dim}]: {:e}",
                    worst_difference(&q, &expected)
                );
                let expected = norm_rotated(&inputs.k, (k_weight, k_bias), &inputs, kv_heads, dim);
                let found = worst_difference(&cached[0], &expected);
                assert!(found < 1e-6, "keys [{kv_heads}, {dim}]: {found:e}");
                (q.clone(), cached[0].clone(), inputs.v.clone())
            });
            assert_eq!(&q, q32, "queries do not depend on the format");
            assert_eq!(cached[0], rounded(keys, dim, format), "keys of {dim} in {format:?}");
            assert_eq!(cached[1], rounded(values, dim, format), "values of {dim} in {format:?}");
        }
    }
}

/// Numbers of all magnitudes, and those halfway between two: values are not computed with, so they can be any.
#[test]
fn halves_are_rounded_as_on_the_host() {
    let Some(gpu) = gpu() else { return };
    let tokens = row(0, 0, 16);
    for format in [KvFormat::F16, KvFormat::BF16] {
        let layer = Layer::new(&gpu, shape(2, 2, 256, format), 1, 16);
        let mut inputs = layer.inputs(&tokens);
        // Exponents from 2⁻⁴⁷ to 2¹⁶. Of three numbers one has zeros behind the last bit of an `f16`, and one a tie.
        let states = lumina_testing::lcg(11).zip(lumina_testing::lcg(12));
        for (index, (value, (state, exponent))) in inputs.v.iter_mut().zip(states).enumerate() {
            let fraction = match index % 3 {
                0 => state >> 9,
                1 => (state >> 9) & 0x7f_e000,
                _ => (state >> 9) & 0x7f_e000 | 0x1000,
            };
            *value = f32::from_bits((80 + (exponent >> 26)) << 23 | fraction | state << 31);
        }
        let edges = [0.0, -0.0, 65519.9, 65520.0, -1e30, 1e-45, 2.9802322e-8, 2.980233e-8, 5.9604645e-8, 6.1035156e-5];
        inputs.v[..edges.len()].copy_from_slice(&edges);
        layer.write(&inputs, &layer.pass(&tokens));
        let [_, found] = layer.cached(&tokens);
        let expected = rounded(&inputs.v, 256, format);
        for ((found, expected), value) in found.iter().zip(&expected).zip(&inputs.v) {
            assert_eq!(found.to_bits(), expected.to_bits(), "{value:e} in {format:?}: {found:e}, not {expected:e}");
        }
    }
}

/// Each format and shape, at positions on both sides of the borders of blocks and splits.
#[test]
fn attention_is_that_of_f64() {
    let Some(gpu) = gpu() else { return };
    let shapes = [[2, 2, 128], [4, 1, 128], [8, 1, 16], [2, 1, 2], [3, 3, 24], [10, 1, 10], [1, 1, 256]];
    for (index, [heads, kv_heads, dim]) in shapes.into_iter().enumerate() {
        // The size of the published models in all formats, others in two.
        for format in
            FORMATS.into_iter().skip(if index < 2 { 0 } else { index % 2 }).step_by(if index < 2 { 1 } else { 2 })
        {
            let layer = Layer::new(&gpu, shape(heads, kv_heads, dim, format), 2, 600);
            let all = [row(0, 0, 600), row(1, 0, 70)].concat();
            layer.write(&layer.inputs(&all), &layer.pass(&all));
            let words = gpu.read(&layer.cache).unwrap();
            for position in [0, 1, 63, 64, 255, 256, 257, 511, 512, 599] {
                let token = (0, position);
                let pass = layer.pass(&[token]);
                let q = layer.write(&layer.inputs(&[token]), &pass);
                let found = gpu.read_f32(&attention(&gpu, &q, &layer.shape, &layer.cache, &pass)).unwrap();
                let expected = layer.exact(&words, &layer.queries(&q), &row(0, 0, position + 1));
                let worst = worst_difference(&found, &expected);
                assert!(worst < 2e-6, "[{heads}, {kv_heads}, {dim}] in {format:?} at {position}: {worst:e}");
            }
        }
    }
}

/// What exact decoding of several tokens rests on: one by one, several at once, and beside other rows.
#[test]
fn a_token_has_the_same_result_in_any_company() {
    let Some(gpu) = gpu() else { return };
    let [wide, grouped, odd] = [[2, 2, 128], [8, 2, 16], [8, 1, 20]];
    let shapes = [[wide, odd], [wide, grouped], [odd, grouped], [wide, grouped]];
    for (format, shapes) in FORMATS.into_iter().zip(shapes) {
        for [heads, kv_heads, dim] in shapes {
            let shape = shape(heads, kv_heads, dim, format);
            let width = heads * dim;
            let expect = |found: &[f32], expected: &[f32], tokens: &[Token], what: &str| {
                assert_eq!(found.len(), expected.len());
                for ((found, expected), token) in found.chunks(width).zip(expected.chunks(width)).zip(tokens) {
                    assert_eq!(found, expected, "[{heads}, {kv_heads}, {dim}] in {format:?}, {what}, {token:?}");
                }
            };
            // All at once, eight queries of a head of keys in a cube.
            let len = 300;
            let at_once = Layer::new(&gpu, shape, 3, len);
            let [together, other] = [row(0, 0, len), row(1, 0, 40)].map(|tokens| at_once.run(&tokens));
            let of =
                |from: &[f32], range: std::ops::Range<usize>| from[range.start * width..range.end * width].to_vec();

            // In pieces, between tokens of two other rows, in another cache where nothing is written after them.
            let pieces = Layer::new(&gpu, shape, 3, 2 * len);
            let mut start = 0;
            for (index, n) in [2, 5, 9, 1, 50, 13, 3, 200, 17].into_iter().enumerate() {
                let (before, own) = (row(1, index * 4, 4), row(0, start, n));
                let tokens = [&before[..], &own, &[(2, index)]].concat();
                let found = pieces.run(&tokens);
                expect(&of(&found, 0..4), &of(&other, index * 4..index * 4 + 4), &before, "before others");
                expect(&of(&found, 4..4 + n), &of(&together, start..start + n), &own, "after others");
                start += n;
            }
            assert_eq!(pieces.cached(&row(0, 0, len)), at_once.cached(&row(0, 0, len)));

            // One by one, where a cube has one query: at first alone in the cache, then with later ones in it.
            let alone = Layer::new(&gpu, shape, 3, len);
            for position in (0..12).chain([62, 63, 64, 65, 127, 128, 191, 192, 254, 255, 256, 257, 299]) {
                let layer = if position < 12 { &alone } else { &pieces };
                let found = layer.run(&[(0, position)]);
                expect(&found, &of(&together, position..position + 1), &[(0, position)], "alone");
            }
        }
    }
}

/// More tokens than have their results of splits at a time.
#[test]
fn many_tokens_are_dealt_with_in_parts() {
    let Some(gpu) = gpu() else { return };
    let shape = shape(64, 8, 8, KvFormat::F32);
    let layer = Layer::new(&gpu, shape, 1, 1300);
    let all = layer.run(&row(0, 0, 1300));
    for position in [0, 7, 500, 700, 1092, 1093, 1299] {
        let found = layer.run(&[(0, position)]);
        assert_eq!(found, all[position * 512..][..512], "{position}");
    }
}

/// Drafts that branch: each token sees what was there before, and its own branch.
#[test]
fn masks_show_branches() {
    let Some(gpu) = gpu() else { return };
    for (format, [heads, kv_heads, dim]) in FORMATS.into_iter().zip([[2, 2, 128], [8, 1, 16], [4, 2, 20], [2, 2, 8]]) {
        for before in [0, 60, 250] {
            let layer = Layer::new(&gpu, shape(heads, kv_heads, dim, format), 2, before + 50);
            let width = heads * dim;
            if before > 0 {
                layer.run(&row(0, 0, before));
            }
            layer.run(&row(1, 0, 3));
            // The parent of each token of row 0; a token sees itself and those above. 40 tokens take two words.
            let parents: Vec<Option<usize>> = (0..40usize).map(|i| i.checked_sub(1).map(|i| i / 2)).collect();
            let branch = |i: usize| std::iter::successors(Some(i), |i| parents[*i]).collect::<Vec<_>>();
            let tokens = [row(1, 3, 2), row(0, before, 40)].concat();
            let mut mask = vec![0b01, 0, 0b11, 0];
            for token in 0..40 {
                let mut words = [0u32; 2];
                branch(token).into_iter().for_each(|seen| words[seen / 32] |= 1 << (seen % 32));
                mask.extend(words);
            }
            let pass = layer.pass(&tokens).with_mask(&gpu, &mask, 2);
            let q = layer.write(&layer.inputs(&tokens), &pass);
            let found = gpu.read_f32(&attention(&gpu, &q, &layer.shape, &layer.cache, &pass)).unwrap();
            let (queries, words) = (layer.queries(&q), gpu.read(&layer.cache).unwrap());
            for token in 0..40 {
                let mut seen = row(0, 0, before);
                seen.extend(branch(token).into_iter().rev().map(|index| (0, before + index)));
                let place = (token + 2) * width;
                let expected = layer.exact(&words, &queries[place..][..width], &seen);
                let worst = worst_difference(&found[place..][..width], &expected);
                assert!(worst < 2e-6, "{format:?} after {before}, token {token}: {worst:e}");
            }
            // The other row has a mask that hides nothing, and the results of none.
            assert_eq!(found[..2 * width], layer.run(&row(1, 3, 2)), "{format:?}");
        }
    }
}

/// What was recorded works on the positions and blocks of later passes.
#[test]
fn a_recording_serves_all_positions() {
    let Some(gpu) = gpu() else { return };
    let layer = Layer::new(&gpu, shape(4, 2, 16, KvFormat::F16), 2, 600);
    let fresh = Layer::new(&gpu, layer.shape, 2, 600);
    layer.run(&[row(0, 0, 300), row(1, 0, 600)].concat());
    fresh.run(&[row(0, 0, 300), row(1, 0, 600)].concat());
    let tokens = |first: usize| [row(0, first, 3), row(1, 2 * first, 3)].concat();
    let (positions, rows) = split(&tokens(0));
    let mut pass = Pass::with_room(&gpu, &positions, &rows, &layer.tables(), [600, 20]);
    let inputs = layer.inputs(&tokens(0));
    let uploads = layer.upload(&inputs);
    let turn = gpu.turn();
    let run = || {
        let q = layer.launch(&uploads, &pass);
        attention(&gpu, &q, &layer.shape, &layer.cache, &pass)
    };
    let (recording, result) = gpu.record(run).unwrap();
    for first in [0, 62, 255, 297] {
        let tokens = tokens(first);
        let inputs = layer.inputs(&tokens);
        for (buffer, values) in uploads.iter().zip([&inputs.q, &inputs.k, &inputs.v, &inputs.cos, &inputs.sin]) {
            gpu.write(buffer, &values.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
        }
        pass.update(&gpu, &split(&tokens).0, &layer.tables());
        recording.replay().unwrap();
        assert_eq!(gpu.read_f32(&result).unwrap(), fresh.run(&tokens), "from {first}");
    }
    drop(turn);
}

/// Numbers beyond those of `f16` become its largest, and NaN spoils its number of a head and its row, and no others.
#[test]
fn what_is_not_finite_stays_visible() {
    let Some(gpu) = gpu() else { return };
    for format in FORMATS {
        let layer = Layer::new(&gpu, shape(2, 2, 16, format), 2, 64);
        let tokens = row(0, 0, 3);
        let mut inputs = layer.inputs(&tokens);
        inputs.v[3] = 1e6;
        inputs.v[20] = f32::NAN;
        inputs.v[32 + 16 + 5] = f32::NEG_INFINITY;
        let pass = layer.pass(&tokens);
        let q = layer.write(&inputs, &pass);
        let found = gpu.read_f32(&attention(&gpu, &q, &layer.shape, &layer.cache, &pass)).unwrap();
        let [_, values] = layer.cached(&tokens);
        match format {
            KvFormat::F16 => assert_eq!((values[3], values[32 + 16 + 5]), (65504.0, -65504.0)),
            KvFormat::Q8_0 => assert!(values[32 + 16..][..16].iter().all(|value| value.is_nan())),
            _ => assert_eq!(values[32 + 16 + 5], f32::NEG_INFINITY),
        }
        for token in 0..3 {
            // Head 0 has no NaN, head 1 has one at number 4.
            assert!(found[token * 32..][..16].iter().all(|x| x.is_finite()), "{format:?}");
            assert!(found[token * 32 + 16 + 4].is_nan(), "{format:?}: {found:?}");
        }
        assert!(layer.run(&row(1, 0, 2)).iter().all(|x| x.is_finite()), "{format:?}");
    }
}

/// The CPU's attention, which the tests of models compare with.
#[test]
fn attention_is_that_of_the_cpu() {
    use lumina_kernels::attention::cached::{AttentionPath, CachedRow, forward_into};
    use lumina_kernels::attention::causal::AttentionInputs;
    use lumina_kernels::attention::kv_storage::KvStorage;
    let Some(gpu) = gpu() else { return };
    for (format, host) in [(KvFormat::F32, lumina_kernels::Format::F32), (KvFormat::BF16, lumina_kernels::Format::BF16)]
    {
        let layer = Layer::new(&gpu, shape(4, 2, 32, format), 1, 100);
        let tokens = row(0, 0, 100);
        let pass = layer.pass(&tokens);
        let q = layer.write(&layer.inputs(&tokens), &pass);
        let found = gpu.read_f32(&attention(&gpu, &q, &layer.shape, &layer.cache, &pass)).unwrap();
        let [k, v] = layer.cached(&tokens);
        let q = layer.queries(&q);
        let mut cache = KvStorage::new(host, 2, 100, 32).unwrap();
        let mut rows =
            [CachedRow { cache: &mut cache, position: 0, len: 100, path: AttentionPath::AsDecoding, parents: &[] }];
        let mut expected = vec![0.0; q.len()];
        forward_into(AttentionInputs { q: &q, k: &k, v: &v }, &mut rows, &mut expected);
        let expected: Vec<f64> = expected.iter().map(|x| f64::from(*x)).collect();
        let worst = worst_difference(&found, &expected);
        assert!(worst < 4e-6, "{format:?}: {worst:e}");
    }
}
