//! One draw at the size of the published models: 65,536 logits, 8,192 image tokens.
//!
//! `cargo bench -p lumina-sampling`. Each draw is compared with a lower bound: reading its rows of logits once.
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark; criterion's macros make undocumented items")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::Criterion;
use lumina_core::{TokenRole, reserved_token_name};
use lumina_sampling::{ImageSize, Sampler, SamplingOptions, StreamState, Vocabulary};

const N_LOGITS: u32 = 65_536;

/// Names and ids as in the published models.
fn vocabulary() -> Arc<Vocabulary> {
    let fixed = [("<s>", 0), ("<pad>", 1), ("<eoss>", 8196), ("<racm3:break>", 8197), ("<|image|>", N_LOGITS - 1)];
    // As in the published models, image tokens are in another order than their codes.
    let images = (0..8192).map(|code| (TokenRole::Code(code).name().expect("a name"), 4 + code * 4093 % 8192));
    let reserved = (8706..9200).map(|number| (reserved_token_name(number).into(), number + 4));
    let tokens: Vec<_> = images.chain(reserved).chain(fixed.map(|(name, id)| (name.into(), id))).collect();
    Arc::new(Vocabulary::from_tokens(tokens.iter().map(|(name, id)| (name.as_ref(), *id))).expect("complete"))
}

/// Roughly normal, like a model's.
fn row(seed: u32) -> Vec<f32> {
    let uniform: Vec<f32> = lumina_testing::lcg(seed)
        .map(|state| (state >> 8) as f32 / (1 << 24) as f32)
        .take(4 * N_LOGITS as usize)
        .collect();
    uniform.chunks(4).map(|four| (four.iter().sum::<f32>() - 2.0) * 5.0).collect()
}

fn sum(row: &[f32]) -> f32 {
    // Sixteen sums in parallel, so that memory and not the chain of additions is the limit.
    let mut sums = [0.0; 16];
    for chunk in row.chunks_exact(16) {
        sums.iter_mut().zip(chunk).for_each(|(sum, value)| *sum += value);
    }
    sums.iter().sum()
}

/// The median of many runs.
fn median(mut run: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..301)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() {
    let vocabulary = vocabulary();
    let (conditional, unconditional) = (row(1), row(2));
    let text = StreamState::new(vocabulary.clone(), &[vocabulary.bos()]);
    let size = ImageSize::new(768, 768).expect("multiples of 32");
    let cells = |cells| vocabulary.size_token(cells).expect("a size token");
    let begun = [vocabulary.image_start(), cells(size.height_cells()), cells(size.width_cells())];
    let image = StreamState::new(vocabulary.clone(), &begun);

    let default = SamplingOptions::default;
    let no_guidance = default().guidance_scale(1.0);
    let draws = [
        ("image, guidance 4, top-k 2000", default(), &image),
        ("image, guidance 4, top-k 2000, temperature 0.9, top-p 0.9", default().temperature(0.9).top_p(0.9), &image),
        ("image, no guidance, top-k 2000", no_guidance.clone(), &image),
        ("image, no guidance, top-k 200", no_guidance.image_top_k(200), &image),
        ("image, guidance 4, greedy", default().greedy(), &image),
        ("text, top-k 10", default(), &text),
        ("text, greedy", default().greedy(), &text),
        ("text, every token", default().text_top_k(usize::MAX), &text),
    ];

    let mut criterion = Criterion::default().configure_from_args();
    criterion.bench_function("limit: both rows read once", |b| {
        b.iter(|| black_box(sum(black_box(&conditional)) + sum(black_box(&unconditional))));
    });
    let mut lines = Vec::new();
    for (name, options, state) in draws {
        let mut sampler = Sampler::new(&vocabulary, &options).expect("in range");
        let guided = sampler.unconditional(state).is_some();
        let rows = [Some(&conditional), guided.then_some(&unconditional)];
        let mut draw = || {
            let token = sampler.sample(black_box(&conditional), rows[1].map(Into::into), state);
            black_box(token.expect("finite logits"));
        };
        criterion.bench_function(name, |b| b.iter(&mut draw));
        let limit = median(|| {
            black_box(rows.iter().flatten().map(|row| sum(black_box(row))).sum::<f32>());
        });
        let time = median(draw);
        lines.push(format!(
            "{name}: {:.0} us, {:.1} x the {:.0} us of reading its logits once",
            time.as_secs_f64() * 1e6,
            time.as_secs_f64() / limit.as_secs_f64(),
            limit.as_secs_f64() * 1e6
        ));
    }
    criterion.final_summary();
    println!("\n{}", lines.join("\n"));
}
