//! Steps of fine-tuning on a small model.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark")]

use std::time::Instant;

use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::Device;
use lumina_core::checkpoint::Checkpoint;
use lumina_core::{Compute, Loader};
use lumina_mgpt::{ModelConfig, Transformer};
use lumina_train::fine_tune::{NewModel, loss};

fn main() {
    let arg = |i: usize, d: usize| {
        std::env::args().skip(1).filter(|a| a != "--bench").nth(i).map_or(d, |a| a.parse().unwrap())
    };
    let (hidden, layers, batch, len) = (arg(0, 192), arg(1, 5), arg(2, 32), arg(3, 96));
    let folder = tempfile::tempdir().unwrap();
    let compute = Compute::new(Device::flex().autodiff());
    let model_folder = folder.path().join("model");
    let tokenizer = std::path::PathBuf::from("/tmp/tok");
    NewModel {
        hidden_size: hidden,
        intermediate_size: hidden * 8 / 3 / 32 * 32,
        num_hidden_layers: layers,
        num_attention_heads: hidden / 32,
        num_key_value_heads: hidden / 32,
        max_position_embeddings: 1024,
        ..NewModel::default()
    }
    .create(&tokenizer, &model_folder, &compute)
    .unwrap();
    let file = model_folder.join("config.json");
    let architecture = ModelConfig::open(&file).unwrap().resolve(&file).unwrap();
    let vocab = architecture.vocab_size();
    let checkpoint = Checkpoint::open(&model_folder).unwrap();
    let loader = Loader::new(&checkpoint, &compute);
    let mut model = Transformer::new(&loader, architecture);
    let n: usize =
        Transformer::tensor_shapes(model.architecture(), &compute).values().map(|s| s.iter().product::<usize>()).sum();
    println!("{n} parameters, vocabulary {vocab}");
    let mut optimizer = AdamWConfig::new().with_beta_2(0.95).with_epsilon(1e-8).with_weight_decay(0.1).init();
    let tokens: Vec<Vec<u32>> =
        (0..batch).map(|b| (0..len).map(|i| ((b * 31 + i * 17) % vocab) as u32).collect()).collect();
    let labels: Vec<Vec<i64>> = tokens
        .iter()
        .map(|t| t.iter().enumerate().map(|(i, &t)| if i < len / 2 { -100 } else { i64::from(t) }).collect())
        .collect();
    for _ in 0..6 {
        let start = Instant::now();
        let rows: Vec<_> = tokens.iter().zip(&labels).map(|(t, l)| (t.as_slice(), l.as_slice())).collect();
        let loss = loss(&model, &rows, 1e-5).unwrap();
        let value: f32 = loss.total.clone().into_scalar();
        let forward = start.elapsed();
        let grads = loss.total.backward();
        let backward = start.elapsed();
        let grads = GradientsParams::from_grads(grads, &model);
        model = optimizer.step(1e-3, model, grads);
        let all = start.elapsed();
        println!(
            "loss {value:.4} forward {forward:?} backward {:?} step {:?}: {:.0} tokens/s, {:.1} GFLOP/s",
            backward - forward,
            all - backward,
            (batch * len) as f64 / all.as_secs_f64(),
            6.0 * n as f64 * (batch * len) as f64 / all.as_secs_f64() / 1e9
        );
    }
}
