//! Attention of prompts. On devices without tensor cores instructions are computed number by number: indices, orders
//! and tails are those of the kernel that runs on tensor cores.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a panic is the failure")]

#[allow(dead_code, reason = "each test uses a part")]
#[path = "../../../tests/support/layer.rs"]
mod layer;
#[path = "../../../tests/support/mod.rs"]
mod support;

use self::layer::{Layer, Token, row, shape, split};
use self::support::gpu;
use super::Config;
use crate::attention::attend::{attend, takes};
use crate::attention::{AttentionShape, KvFormat, Pass, PassWords, attention};
use crate::matmul::MatmulPrecision;

const FORMATS: [KvFormat; 3] = [KvFormat::F16, KvFormat::BF16, KvFormat::Q8_0];

/// On a software driver with tiles that fit its shared memory.
fn config(layer: &Layer, precision: MatmulPrecision) -> Config {
    assert!(takes(&layer.shape));
    let full = Config::new(layer.shape, precision);
    if layer.gpu.has_tensor_cores() {
        return full;
    }
    Config { keys: if layer.shape.head_dim > 64 { 16 } else { full.keys }, emulated: true, ..full }
}

/// A pass in which some rows are prompts.
fn pass(layer: &Layer, tokens: &[Token], prompts: &[bool]) -> Pass {
    let (positions, rows) = split(tokens);
    let max_len = positions.iter().max().map_or(0, |last| *last as usize + 1);
    let blocks = layer.tables.iter().flatten().max().map_or(0, |last| *last as usize + 1);
    let words = PassWords::new(&positions, &rows, &layer.tables(), prompts, [max_len, blocks]);
    let buffers = words.words.each_ref().map(|words| layer.gpu.upload(words));
    Pass::of(words, buffers)
}

/// Writes the tokens and attends to them: `[n, heads · head_dim]`, and the rotated queries.
fn run(layer: &Layer, tokens: &[Token], prompts: &[bool], precision: MatmulPrecision) -> [Vec<f32>; 2] {
    let pass = pass(layer, tokens, prompts);
    let q = layer.write(&layer.inputs(tokens), &pass);
    let out = attend(&layer.gpu, &q, &layer.cache, &pass, config(layer, precision));
    [layer.gpu.read_f32(&out).unwrap(), layer.queries(&q)]
}

/// What the rounding of numbers can change of each result of a query, by its arithmetic.
///
/// Where `u` is the unit roundoff of the numbers that are multiplied, squared if there are two of them for each, a
/// score is off by `u · Σ |q · k| / √d`, and the exponential by as much of itself; it is rounded once more where it is
/// multiplied, but not in the sum of all. Each addition in `f32` is off by 2⁻²³ of the sum of magnitudes, as tensor
/// cores may cut digits off; the errors of n additions are those of a random walk.
fn bounds(layer: &Layer, words: &[u32], query: &[f32], seen: &[Token], precision: MatmulPrecision) -> Vec<f64> {
    let AttentionShape { heads, kv_heads, head_dim, format } = layer.shape;
    let digits = if format == KvFormat::F16 { 11 } else { 8 };
    let unit = f64::powi(0.5, if precision == MatmulPrecision::High { 2 * digits } else { digits });
    let [keys, values] = layer.decoded(words, seen);
    let sum_unit = f64::powi(0.5, 23);
    let of_head = |head: usize| {
        let query = &query[head * head_dim..][..head_dim];
        let of_token = |all: &[f32], token: usize| -> Vec<f64> {
            let first = (token * kv_heads + head / (heads / kv_heads)) * head_dim;
            all[first..first + head_dim].iter().map(|x| f64::from(*x)).collect()
        };
        let products = |token: usize, of: fn(f64) -> f64| -> f64 {
            let products = query.iter().zip(of_token(&keys, token)).map(|(q, k)| of(f64::from(*q) * k));
            products.sum::<f64>() / (head_dim as f64).sqrt()
        };
        let scores: Vec<f64> = (0..seen.len()).map(|token| products(token, |x| x)).collect();
        let highest = scores.iter().fold(f64::MIN, |a, b| a.max(*b));
        // One score error each of the exponential, of the largest score that it is less, and of the sum of all.
        let score_unit = unit + ((head_dim + 8) as f64).sqrt() * sum_unit;
        let magnitude = (0..seen.len()).map(|token| products(token, f64::abs)).fold(0.0, f64::max);
        let relative = 3.0 * score_unit * magnitude + unit + ((seen.len() + 8) as f64).sqrt() * sum_unit;
        let weights: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut bounds = vec![0.0; head_dim];
        for (token, weight) in weights.iter().enumerate() {
            for (bound, value) in bounds.iter_mut().zip(of_token(&values, token)) {
                *bound += relative * weight / total * value.abs();
            }
        }
        bounds
    };
    (0..heads).flat_map(of_head).collect()
}

/// Holds a query's results against those of `f64` in the words of the cache.
fn check(
    layer: &Layer,
    words: &[u32],
    query: &[f32],
    found: &[f32],
    seen: &[Token],
    precision: MatmulPrecision,
    what: &str,
) {
    let expected = layer.exact(words, query, seen);
    let bounds = bounds(layer, words, query, seen, precision);
    for (number, (found, (expected, bound))) in found.iter().zip(expected.iter().zip(&bounds)).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= *bound, "{what}, {precision:?}, number {number}: {error:e} is beyond {bound:e}");
    }
}

/// Prompts of other lengths than tiles have, from the first position on and after others.
#[test]
fn prompts_are_those_of_f64() {
    let Some(gpu) = gpu() else { return };
    let (high, fast) = (MatmulPrecision::High, MatmulPrecision::Fast);
    for (format, [heads, kv_heads, dim], precision) in [
        (KvFormat::F16, [2, 2, 128], high),
        (KvFormat::BF16, [2, 1, 128], fast),
        (KvFormat::Q8_0, [4, 1, 64], high),
        (KvFormat::BF16, [2, 2, 64], high),
        (KvFormat::F16, [6, 2, 32], high),
        (KvFormat::BF16, [2, 1, 80], high),
        (KvFormat::F16, [1, 1, 16], fast),
    ] {
        let layer = Layer::new(&gpu, shape(heads, kv_heads, dim, format), 1, 150);
        let width = heads * dim;
        let mut start = 0;
        for len in [70, 1, 37, 16] {
            let tokens = row(0, start, len);
            let [found, queries] = run(&layer, &tokens, &[true], precision);
            let words = gpu.read(&layer.cache).unwrap();
            for token in (0..len).filter(|token| token % 7 == 0 || token + 1 == len) {
                let of_token = |all: &[f32]| all[token * width..][..width].to_vec();
                let what = format!("{format:?} [{heads}, {kv_heads}, {dim}], token {token} of {len} from {start}");
                let seen = row(0, 0, start + token + 1);
                check(&layer, &words, &of_token(&queries), &of_token(&found), &seen, precision, &what);
            }
            start += len;
        }
    }
}

/// A token of a prompt has one result alone, among other rows, and wherever the prompt is cut; tokens that are not
/// those of prompts have theirs, in any company.
#[test]
fn prompts_do_not_depend_on_company() {
    let Some(gpu) = gpu() else { return };
    for (format, [heads, kv_heads, dim]) in FORMATS.into_iter().zip([[2, 1, 32], [2, 2, 64], [4, 2, 32]]) {
        let shape = shape(heads, kv_heads, dim, format);
        let width = heads * dim;
        let precision = MatmulPrecision::High;
        let len = 150;
        let alone = Layer::new(&gpu, shape, 4, len);
        let [whole, _] = run(&alone, &row(0, 0, len), &[true; 4], precision);
        let other = alone.run(&row(1, 0, 40));
        let [third, _] = run(&alone, &row(3, 0, 90), &[true; 4], precision);

        let company = Layer::new(&gpu, shape, 4, 2 * len);
        let mut start = 0;
        for (index, n) in [20, 64, 9, 57].into_iter().enumerate() {
            let before = row(1, index * 4, 4);
            let (own, after) = (row(0, start, n), row(3, start * 3 / 5, (start + n) * 3 / 5 - start * 3 / 5));
            let tokens = [&before[..], &own, &[(2, index)], &after].concat();
            let [found, _] = run(&company, &tokens, &[true, false, false, true], precision);
            let part = |from: usize, n: usize| &found[from * width..(from + n) * width];
            assert_eq!(part(0, 4), &other[index * 4 * width..][..4 * width], "{format:?}: before a prompt");
            assert_eq!(part(4, n), &whole[start * width..][..n * width], "{format:?}: {n} tokens from {start}");
            let first = start * 3 / 5;
            assert_eq!(
                part(5 + n, after.len()),
                &third[first * width..][..after.len() * width],
                "{format:?}: the other prompt"
            );
            start += n;
        }
        // All of these in one pass without prompts, as on devices without tensor cores, and the token between them.
        let between = company.run(&[(2, 4)]);
        let fresh = Layer::new(&gpu, shape, 4, len);
        fresh.run(&row(2, 0, 4));
        assert_eq!(between, fresh.run(&[(2, 4)]), "{format:?}: between prompts");
    }
}

/// A prompt sees all positions up to its own, whatever the mask of others.
#[test]
fn masks_are_not_those_of_prompts() {
    let Some(gpu) = gpu() else { return };
    let layer = Layer::new(&gpu, shape(2, 2, 32, KvFormat::F16), 2, 100);
    let tokens = [row(0, 0, 3), row(1, 0, 20)].concat();
    let precision = MatmulPrecision::High;
    let [expected, _] = run(&layer, &tokens, &[false, true], precision);
    let pass = pass(&layer, &tokens, &[false, true]).with_mask(&gpu, &[vec![1, 3, 5], vec![0; 20]].concat(), 1);
    let q = layer.write(&layer.inputs(&tokens), &pass);
    let found = gpu.read_f32(&attend(&gpu, &q, &layer.cache, &pass, config(&layer, precision))).unwrap();
    assert_eq!(found[3 * 64..], expected[3 * 64..]);
    assert_eq!(found[..2 * 64], expected[..2 * 64]);
    assert_ne!(found[2 * 64..3 * 64], expected[2 * 64..3 * 64], "the token sees two of three");
}

/// Queries of any size, which are scaled beside `f16`.
#[test]
fn queries_of_any_size_are_rounded() {
    let Some(gpu) = gpu() else { return };
    let layer = Layer::new(&gpu, shape(1, 1, 32, KvFormat::F16), 1, 64);
    let tokens = row(0, 0, 5);
    let pass = pass(&layer, &tokens, &[true]);
    let numbers = layer.queries(&layer.write(&layer.inputs(&tokens), &pass));
    let words = gpu.read(&layer.cache).unwrap();
    let precision = MatmulPrecision::High;
    for factor in [1e-30f32, 1e-6, 1e3, 1e6] {
        let scaled: Vec<f32> = numbers.iter().map(|x| x * factor).collect();
        let q = gpu.upload_f32(&scaled);
        let found = attend(&gpu, &q, &layer.cache, &pass, config(&layer, precision));
        let found = gpu.read_f32(&found).unwrap();
        for (token, (query, found)) in scaled.chunks(32).zip(found.chunks(32)).enumerate() {
            check(&layer, &words, query, found, &row(0, 0, token + 1), precision, &format!("queries of {factor:e}"));
        }
    }
}

/// What is not finite in a query stays visible, and spoils no other. (In `f16` an emulated instruction has no NaN.)
#[test]
fn what_is_not_finite_stays_visible() {
    let Some(gpu) = gpu() else { return };
    let layer = Layer::new(&gpu, shape(1, 1, 32, KvFormat::BF16), 1, 64);
    let tokens = row(0, 0, 20);
    let pass = pass(&layer, &tokens, &[true]);
    let mut numbers = layer.queries(&layer.write(&layer.inputs(&tokens), &pass));
    for bad in [f32::NAN, f32::INFINITY] {
        numbers[2 * 32 + 7] = bad;
        let q = gpu.upload_f32(&numbers);
        let found = attend(&gpu, &q, &layer.cache, &pass, config(&layer, MatmulPrecision::High));
        let found = gpu.read_f32(&found).unwrap();
        assert!(found[2 * 32..3 * 32].iter().all(|x| x.is_nan()), "{found:?}");
        assert!(found[..2 * 32].iter().chain(&found[3 * 32..]).all(|x| x.is_finite()), "{found:?}");
    }
}

/// A device without tensor cores takes no prompts.
#[test]
#[should_panic(expected = "attention of prompts is for tensor cores")]
fn prompts_are_for_tensor_cores() {
    let Some(gpu) = gpu() else { panic!("attention of prompts is for tensor cores; there is no device") };
    let layer = Layer::new(&gpu, shape(1, 1, 32, KvFormat::F16), 1, 64);
    let tokens = row(0, 0, 20);
    let pass = pass(&layer, &tokens, &[true]);
    let q = layer.write(&layer.inputs(&tokens), &pass);
    attention(&gpu.without_tensor_cores(), &q, &layer.shape, &layer.cache, &pass);
}
