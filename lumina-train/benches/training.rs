//! Steps of fine-tuning on the CPU: tokens a second, the parts of a step, a step with Muon in the place of AdamW, one
//! in mixed precision, and the matrix products of a step in % of the processor's own rate of f32 matrix products.
//!
//! `cargo bench -p lumina-train` runs all sizes; `cargo bench -p lumina-train -- embedded` the named one. The same
//! steps in PyTorch: `benches/pytorch_training.py` of the workspace.
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark")]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Distribution, Tensor};
use lumina_checkpoint::Checkpoint;
use lumina_mgpt::Dropout;
use lumina_nn::Compute;
use lumina_testing::{lcg, small_tokenizer};
use lumina_tokenizer::IGNORED;
use lumina_train::fine_tune::{Example, FineTuneOptions, LossOptions, NewModel, Trainable, Trainer, gradients, loss};
use lumina_train::optim::{EpochSchedule, MuonOptions};

/// A model with a batch of sequences; half of each sequence is predicted.
struct Size {
    name: &'static str,
    hidden: usize,
    intermediate: usize,
    layers: usize,
    heads: usize,
    batch: usize,
    len: usize,
    runs: usize,
}

// As in `benches/pytorch_training.py`.
const SIZES: [Size; 2] = [
    Size { name: "embedded", hidden: 192, intermediate: 512, layers: 5, heads: 6, batch: 32, len: 96, runs: 9 },
    Size { name: "mid", hidden: 512, intermediate: 1376, layers: 8, heads: 8, batch: 8, len: 256, runs: 5 },
];
/// Image tokens of the vocabulary, which has 1,424 others.
const CODES: u32 = 256;

/// The medians of the times of some activities. Each is run once uncounted, and then all in turn, so that other load on
/// the machine affects all alike.
fn medians<const N: usize>(runs: usize, activities: [&mut dyn FnMut(); N]) -> [Duration; N] {
    let mut times = [(); N].map(|()| Vec::with_capacity(runs + 1));
    let mut activities = activities;
    for _ in 0..=runs {
        for (times, run) in times.iter_mut().zip(&mut activities) {
            let start = Instant::now();
            run();
            times.push(start.elapsed());
        }
    }
    times.map(|mut times| {
        times.remove(0);
        times.sort_unstable();
        times[times.len() / 2]
    })
}

/// Width of the square matrices whose product measures the processor.
const MATMUL: usize = 1536;

impl Size {
    fn run(&self) -> Result<(), Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let (tokenizer, model) = (folder.path().join("tokenizer"), folder.path().join("model"));
        small_tokenizer(CODES, &tokenizer);
        let shape = NewModel {
            hidden_size: self.hidden,
            intermediate_size: self.intermediate,
            num_hidden_layers: self.layers,
            num_attention_heads: self.heads,
            num_key_value_heads: self.heads,
            max_position_embeddings: 1024,
            ..NewModel::default()
        };
        shape.create(&tokenizer, &model, &Compute::cpu())?;
        let checkpoint = Checkpoint::open(&model)?;
        let elements = |name: &str| checkpoint.get(name).map_or(0, |view| view.shape().iter().product::<usize>());
        let parameters: usize = checkpoint.names().map(elements).sum();
        let (embedding, head) = (elements("model.embed_tokens.weight"), elements("lm_head.weight"));
        let vocabulary = (head / self.hidden) as u32;

        let rows: Vec<(Vec<u32>, Vec<i64>)> = (0..self.batch)
            .map(|row| {
                let tokens: Vec<u32> = lcg(row as u32).take(self.len).map(|state| (state >> 8) % vocabulary).collect();
                let label = |(position, &token)| if position < self.len / 2 { IGNORED } else { i64::from(token) };
                let labels = tokens.iter().enumerate().map(label).collect();
                (tokens, labels)
            })
            .collect();
        let batch: Vec<Example<'_>> = rows.iter().map(|(tokens, labels)| Example { tokens, labels }).collect();
        let options = FineTuneOptions {
            schedule: EpochSchedule { learning_rate: 1e-3, min_learning_rate: 1e-3, warmup_epochs: 0.0, epochs: 1 },
            ..FineTuneOptions::default()
        };

        let matrix = || Tensor::<2>::random([MATMUL, MATMUL], Distribution::Default, &Device::flex());
        let (a, b) = (matrix(), matrix());
        let trainable = Trainable::open(&model, &Compute::cpu())?;
        let loss_options = LossOptions {
            z_loss_weight: options.z_loss_weight,
            dropout: Dropout::new(options.dropout, 0, 0),
            activation_memory: options.activation_memory,
        };
        let z_loss_weight = options.z_loss_weight;
        let with_muon = FineTuneOptions { muon: Some(MuonOptions::default()), ..options.clone() };
        let mut mixed_trainer = Trainer::new(&model, options.clone(), &[Compute::cpu().bf16_activations()])?;
        let mut trainer = Trainer::new(&model, options, &[Compute::cpu()])?;
        let mut muon_trainer = Trainer::new(&model, with_muon, &[Compute::cpu()])?;
        let (mut last, mut last_of_muon, mut last_of_mixed) = (None, None, None);
        let [matmul, forward, both, step, muon_step, mixed_step] = medians(
            self.runs,
            [
                &mut || drop(black_box(a.clone().matmul(b.clone()).into_data())),
                &mut || drop(black_box(loss(&trainable.model, &batch, z_loss_weight))),
                &mut || drop(black_box(gradients(&trainable.model, &batch, &loss_options))),
                &mut || last = Some(trainer.step(std::slice::from_ref(&batch), 1000)),
                &mut || last_of_muon = Some(muon_trainer.step(std::slice::from_ref(&batch), 1000)),
                &mut || last_of_mixed = Some(mixed_trainer.step(std::slice::from_ref(&batch), 1000)),
            ],
        );
        let report = last.ok_or("no step was made")??;
        last_of_muon.ok_or("no step was made")??;
        let mixed_loss = last_of_mixed.ok_or("no step was made")??.loss;
        let rate = 2.0 * (MATMUL as f64).powi(3) / matmul.as_secs_f64();

        // Each weight takes part in a multiplication and an addition for each token in the forward pass, and in twice
        // as many in the backward pass. The embedding has none; the head sees the predicted positions only.
        let multiplications =
            (parameters - embedding - head) as f64 * report.tokens as f64 + head as f64 * report.predicted as f64;
        let fraction = 6.0 * multiplications / step.as_secs_f64() / rate;
        let part = |time: Duration| 100.0 * time.as_secs_f64() / step.as_secs_f64();
        println!(
            "{}: {:.1} million parameters, vocabulary {vocabulary}, batch {} x {}\n  {:.0} tokens/s, {:.1} ms a step: \
             forward {:.0} %, backward {:.0} %, the rest {:.0} %; with Muon {:.1} ms, in mixed precision \
             {:.1} ms\n  matmul at {:.0} % of {:.0} GFLOP/s; loss after {} steps {:.4}, in mixed precision {:.4}",
            self.name,
            parameters as f64 / 1e6,
            self.batch,
            self.len,
            report.tokens as f64 / step.as_secs_f64(),
            step.as_secs_f64() * 1e3,
            part(forward),
            part(both.saturating_sub(forward)),
            part(step.saturating_sub(both)),
            muon_step.as_secs_f64() * 1e3,
            mixed_step.as_secs_f64() * 1e3,
            100.0 * fraction,
            rate / 1e9,
            report.step,
            report.loss,
            mixed_loss,
        );
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let names: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for size in SIZES.iter().filter(|size| names.is_empty() || names.iter().any(|name| name == size.name)) {
        size.run()?;
    }
    Ok(())
}
