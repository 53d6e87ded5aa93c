//! Whole guided images on the processor, one token a pass beside as many as pay, in turn.
//!
//! `cargo bench -p lumina-mgpt --bench speculation`. First the model of the repository, whose drafts are what they are.
//! Then a transformer of random weights (width 2048, 4 layers): its passes take the time that they take, and what is
//! drawn comes from the synthetic process of `lumina-sampling`'s benchmark of the same name, which is calibrated to
//! what is published for Lumina-mGPT 7B. So the second table is a prediction for models of that kind.
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark")]

mod measure;
#[allow(dead_code, reason = "the other benchmark needs more of it")]
#[path = "../../lumina-sampling/benches/speculation/process.rs"]
mod process;

use std::sync::Arc;
use std::time::Instant;

use lumina_mgpt::{Compute, Event, KvCache, Lumina, Row, Speculation, Stats, Transformer, Weights};
use lumina_nn::ops::AttentionPath;
use lumina_sampling::speculation::{Draft, Speculator, WindowChooser};
use lumina_sampling::{ImageSize, LogitsRow, Modality, Sampler, SamplingOptions, StreamState, Vocabulary};
use measure::{architecture, in_turn, random_checkpoint};
use process::{CALIBRATED, FIRST_ID, HEADER, N_TOKENS, Process, TOP_K, vocabulary};

/// Rows of the image of the second part, and tokens of a row.
const IMAGE: [usize; 2] = [16, 48];

fn main() {
    scenes();
    synthetic();
}

fn formats() -> [(&'static str, Weights); 3] {
    [("bf16", Weights::BF16), ("Q8", Weights::Q8), ("Q4", Weights::Q4)]
}

/// The model of the repository.
fn scenes() {
    println!("256×256 with guidance, the model of the repository\n");
    println!(
        "| weights | one token a pass: ms, passes | as many as pay: ms, passes | speed |\n| --- | --- | --- | --- |"
    );
    for (name, weights) in formats() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../model");
        let builder = Lumina::from_pretrained(folder).image_tokenizer(folder).target_size_px(256);
        let model = builder.compute(Compute::cpu().weights(weights)).load().expect("it is in the repository");
        let image = |speculation| {
            let prompt = "a large red circle on a white background";
            let mut passes = 0;
            for seed in 0..4 {
                let generation = model.text_to_image(prompt, (256, 256)).seed(seed).speculation(speculation);
                for event in generation.stream().expect("a valid request") {
                    if let Event::Done { stats: Stats { passes: own, .. }, .. } = event.expect("it computes") {
                        passes += own;
                    }
                }
            }
            passes
        };
        let (mut plain, mut auto) = (0, 0);
        let times = in_turn(40, [&mut || plain = image(Speculation::Off), &mut || auto = image(Speculation::Auto)]);
        let [plain_ms, auto_ms] = times.map(|time| time.as_secs_f64() * 1e3 / 4.0);
        let (plain, auto) = (plain as f64 / 4.0, auto as f64 / 4.0);
        println!("| {name} | {plain_ms:.1}, {plain} | {auto_ms:.1}, {auto} | {:.2}× |", plain_ms / auto_ms);
    }
}

/// Passes of random weights, draws of the synthetic process.
fn synthetic() {
    let architecture = architecture();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let shapes = Transformer::tensor_shapes(&architecture, &Compute::cpu());
    let checkpoint = random_checkpoint(folder.path(), &shapes);
    println!(
        "\n{} rows of {} tokens with guidance, random weights of width 2048, 4 layers: a prediction\n",
        IMAGE[0], IMAGE[1]
    );
    println!("| weights | one token a pass: s, passes | as many as pay: s, passes | speed | ms of a pass by drafts |");
    println!("| --- | --- | --- | --- | --- |");
    let vocabulary = vocabulary();
    for (name, weights) in formats() {
        let compute = Compute::cpu().weights(weights);
        let model = Transformer::from_checkpoint(&checkpoint, architecture.clone(), &compute, &|_| {}).expect("whole");
        // As a program that runs: what earlier requests have found is known.
        let mut chooser = WindowChooser::new(Speculation::Auto);
        image(&model, &vocabulary, Some(&mut chooser));
        let [mut plain, mut auto] = [(0, f64::MAX); 2];
        for _ in 0..2 {
            let faster = |a: (usize, f64), b: (usize, f64)| if b.1 < a.1 { b } else { a };
            plain = faster(plain, image(&model, &vocabulary, None));
            auto = faster(auto, image(&model, &vocabulary, Some(&mut chooser)));
        }
        let ((plain, plain_s), (auto, auto_s)) = (plain, auto);
        let costs: Vec<String> =
            [0, 1, 2, 4, 8, 16].iter().map(|drafts| format!("{drafts}: {:.1}", pass_ms(&model, *drafts))).collect();
        let costs = costs.join(", ");
        println!("| {name} | {plain_s:.1}, {plain} | {auto_s:.1}, {auto} | {:.2}× | {costs} |", plain_s / auto_s);
    }
}

/// The fastest of some passes with so many drafts in both branches, after an image's half.
fn pass_ms(model: &Transformer, drafts: usize) -> f64 {
    let before = vec![FIRST_ID; HEADER + IMAGE[0] * IMAGE[1] / 2];
    let mut caches = [0; 2].map(|_| model.new_cache(before.len() + 1 + drafts));
    for cache in &mut caches {
        model.forward(&mut [Row::cached(&before, cache)]).expect("fits");
    }
    let tokens = vec![FIRST_ID; 1 + drafts];
    let time = measure::fastest(9, || {
        run(model, &tokens, &mut caches);
        caches.iter_mut().for_each(|cache| cache.truncate(before.len()));
    });
    time.as_secs_f64() * 1e3
}

/// A pass of these tokens in both branches, with the logits of image tokens after each.
fn run(model: &Transformer, tokens: &[u32], caches: &mut [KvCache; 2]) {
    let rows = caches.iter_mut().map(|cache| Row {
        logits: 0..tokens.len(),
        attention: AttentionPath::AsDecoding,
        ..Row::cached(tokens, cache)
    });
    let mut rows: Vec<Row<'_>> = rows.collect();
    let ids = FIRST_ID as usize..FIRST_ID as usize + N_TOKENS;
    std::hint::black_box(model.run(&mut rows, ids).expect("fits"));
}

/// An image: the passes that it takes, with one token each or as many as pay, and their seconds.
fn image(model: &Transformer, vocabulary: &Arc<Vocabulary>, mut chooser: Option<&mut WindowChooser>) -> (usize, f64) {
    let process = Process::new(0, IMAGE[0], IMAGE[1], CALIBRATED);
    let size = ImageSize::new(768, 768).expect("multiples of 32");
    let options = SamplingOptions::default().seed(1).image_top_k(TOP_K).modality(Modality::Image).image_size(size);
    let mut sampler = Sampler::new(vocabulary, &options).expect("in range");
    let mut speculator = Speculator::new(Speculation::Auto);
    let mut tokens = vec![vocabulary.bos()];
    let mut state = StreamState::new(vocabulary.clone(), &tokens);
    let mut caches = [0; 2].map(|_| model.new_cache(HEADER + process.n_places() + 256));
    let (mut n_passes, mut seconds, mut n_run) = (0, 0.0, 0);
    let mut rows: Vec<Vec<f32>> = Vec::new();
    loop {
        while let Some(token) = sampler.forced(&state) {
            tokens.push(token);
            state.push(token);
        }
        if tokens.len() >= HEADER + process.n_places() {
            return (n_passes, seconds);
        }
        let started = Instant::now();
        let places = chooser.as_deref_mut().map_or(0, |chooser| chooser.choose(2));
        let room = HEADER + process.n_places() - tokens.len();
        speculator.draft(&sampler, &mut state, &tokens, places, room);
        let drafts = speculator.drafts();
        let drafting = started.elapsed();
        // What the process computes is not part of the time of a model.
        logits(&process, &tokens, drafts, &mut rows);
        let started = Instant::now();
        let pending = tokens[n_run..].iter().copied().chain(drafts.iter().map(|draft| draft.token));
        let pending: Vec<u32> = pending.collect();
        run(model, &pending, &mut caches);
        let n_drafts = drafts.len();
        let row = |row: usize| {
            let row = LogitsRow { first_id: FIRST_ID, logits: &rows[row] };
            (row, Some(row))
        };
        let mut accepted = Vec::new();
        let accept = |token| {
            accepted.push(token);
            true
        };
        let verified = speculator.verify(&mut sampler, &mut state, row, accept).expect("finite logits");
        let kept = tokens.len() + verified.path.len();
        caches.iter_mut().for_each(|cache| cache.truncate(kept));
        let time = (drafting + started.elapsed()).as_secs_f64();
        seconds += time;
        if let Some(chooser) = chooser.as_deref_mut() {
            chooser.note_pass(2 * pending.len(), time);
            chooser.note_verified(places, n_drafts, accepted.len());
        }
        n_passes += 1;
        n_run = kept;
        for token in accepted {
            tokens.push(token);
            state.push(token);
        }
    }
}

/// The logits of the process after the last token and after each draft.
fn logits(process: &Process, tokens: &[u32], drafts: &[Draft], rows: &mut Vec<Vec<f32>>) {
    rows.resize_with(rows.len().max(drafts.len() + 1), Vec::new);
    let stream: Vec<u32> = tokens.iter().copied().chain(drafts.iter().map(|draft| draft.token)).collect();
    for (row, logits) in rows.iter_mut().enumerate().take(drafts.len() + 1) {
        let place = tokens.len() + row - HEADER;
        if process.is_row_end(place) {
            continue;
        }
        let before = |back: usize| {
            let index = stream[HEADER + place - back].checked_sub(FIRST_ID)? as usize;
            (index < N_TOKENS).then_some(index)
        };
        process.logits(place, before, logits);
    }
}
