//! What llama.cpp computes with a file in its order: its graph of this architecture in plain `f64`, on the tensors as
//! the file has them, gives the original's logits.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use lumina_checkpoint::gguf::{Metadata, Value};
use lumina_checkpoint::{Checkpoint, Dtype};
use lumina_mgpt::convert::{self, QuantiseOptions, RowOrder, quantise};
use lumina_testing::{integers, json_file, own, report};

/// The tensors of a file by its own names and in its own order: another architecture, of as many letters, is not known.
fn as_stored(source: &Checkpoint) -> Checkpoint {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let options = QuantiseOptions::new(Dtype::F32).row_order(RowOrder::LlamaCpp);
    quantise(source, &path, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(9).position(|word| word == b"chameleon").unwrap();
    bytes[at..at + 9].copy_from_slice(b"salamande");
    std::fs::write(&path, bytes).unwrap();
    convert::open(&path).unwrap()
}

struct Model {
    metadata: Metadata,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
}

type Rows = Vec<Vec<f64>>;

impl Model {
    fn setting(&self, name: &str) -> f64 {
        let value = self.metadata.get(&format!("chameleon.{name}")).unwrap();
        value.as_f64().or(value.as_u64().map(|value| value as f64)).unwrap()
    }

    fn vector(&self, name: &str) -> &[f64] {
        &self.tensors[name].1
    }

    fn product(&self, name: &str, x: &Rows) -> Rows {
        let (shape, weight) = &self.tensors[&format!("{name}.weight")];
        let bias = self.tensors.get(&format!("{name}.bias"));
        let dot = |row: &[f64], x: &[f64]| row.iter().zip(x).map(|(a, b)| a * b).sum::<f64>();
        let output = |x: &Vec<f64>| {
            let rows = weight.chunks(shape[1]).enumerate();
            rows.map(|(at, row)| dot(row, x) + bias.map_or(0.0, |(_, bias)| bias[at])).collect()
        };
        x.iter().map(output).collect()
    }

    fn rms_norm(&self, name: &str, x: &Rows) -> Rows {
        let epsilon = self.setting("attention.layer_norm_rms_epsilon");
        let norm = |x: &Vec<f64>| {
            let scale = (x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64 + epsilon).sqrt();
            x.iter().zip(self.vector(name)).map(|(v, w)| v / scale * w).collect()
        };
        x.iter().map(norm).collect()
    }

    /// Norm of each head, then rotation of channels `2i` and `2i + 1`.
    fn heads(&self, name: &str, x: &Rows) -> Rows {
        let (weight, bias) = (self.vector(&format!("{name}.weight")), self.vector(&format!("{name}.bias")));
        let width = self.setting("rope.dimension_count") as usize;
        let mut x = x.clone();
        for (position, row) in x.iter_mut().enumerate() {
            for (head, channels) in row.chunks_mut(width).enumerate() {
                let mean = channels.iter().sum::<f64>() / width as f64;
                let variance = channels.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / width as f64;
                for (at, value) in channels.iter_mut().enumerate() {
                    let place = head * width + at;
                    *value = (*value - mean) / (variance + 1e-5).sqrt() * weight[place] + bias[place];
                }
                for (i, pair) in channels.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                    let theta = self.setting("rope.freq_base").powf(-2.0 * i as f64 / width as f64);
                    let (sin, cos) = (position as f64 * theta).sin_cos();
                    *pair = [pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos];
                }
            }
        }
        x
    }

    fn attention(&self, q: &Rows, k: &Rows, v: &Rows) -> Rows {
        let width = self.setting("rope.dimension_count") as usize;
        let shared = q[0].len() / k[0].len();
        let row = |position: usize| {
            let head = |head: usize| {
                let (of_q, of_k) = (head * width, head / shared * width);
                let score = |key: &Vec<f64>| {
                    (0..width).map(|i| q[position][of_q + i] * key[of_k + i]).sum::<f64>() / (width as f64).sqrt()
                };
                let scores: Vec<f64> = k[..=position].iter().map(score).collect();
                let largest = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                let sum: f64 = weights.iter().sum();
                (0..width).map(move |i| v.iter().zip(&weights).map(|(v, w)| v[of_k + i] * w / sum).sum()).collect()
            };
            (0..q[0].len() / width).flat_map(|at| -> Vec<f64> { head(at) }).collect()
        };
        (0..q.len()).map(row).collect()
    }

    fn hidden(&self, tokens: &[usize]) -> Rows {
        let width = self.setting("embedding_length") as usize;
        let swin = self.metadata.get("chameleon.swin_norm") == Some(&Value::Bool(true));
        let mut x: Rows =
            tokens.iter().map(|token| self.vector("token_embd.weight")[token * width..][..width].to_vec()).collect();
        let add = |x: &mut Rows, y: &Rows| x.iter_mut().flatten().zip(y.iter().flatten()).for_each(|(x, y)| *x += y);
        for layer in 0..self.setting("block_count") as usize {
            let name = |name: &str| format!("blk.{layer}.{name}");
            let norm = |tensor: &str, when: bool, x: &Rows| {
                if when { self.rms_norm(&name(tensor), x) } else { x.clone() }
            };
            let h = norm("attn_norm.weight", !swin, &x);
            let q = self.heads(&name("attn_q_norm"), &self.product(&name("attn_q"), &h));
            let k = self.heads(&name("attn_k_norm"), &self.product(&name("attn_k"), &h));
            let v = self.product(&name("attn_v"), &h);
            let y = self.product(&name("attn_output"), &self.attention(&q, &k, &v));
            add(&mut x, &norm("attn_norm.weight", swin, &y));

            let h = norm("ffn_norm.weight", !swin, &x);
            let (mut gate, up) = (self.product(&name("ffn_gate"), &h), self.product(&name("ffn_up"), &h));
            gate.iter_mut().flatten().zip(up.iter().flatten()).for_each(|(g, u)| *g = *g / (1.0 + (-*g).exp()) * u);
            let y = self.product(&name("ffn_down"), &gate);
            add(&mut x, &norm("ffn_norm.weight", swin, &y));
        }
        self.rms_norm("output_norm.weight", &x)
    }
}

/// The original computes in `f32`, which leaves 1e-5 of logits of this size; with rows in the wrong order they differ
/// by 2.
#[test]
fn its_graph_gives_the_logits_of_the_original() {
    let mut compared = 0;
    for name in ["prenorm", "swin", "qk_norm_per_head"] {
        let stored = as_stored(&convert::open(own(&format!("model/{name}"))).unwrap());
        let tensors = stored.names().map(|name| {
            let view = stored.get(name).unwrap();
            let values = view.to_f32().unwrap().into_iter().map(f64::from).collect();
            (name.to_owned(), (view.shape().to_vec(), values))
        });
        let model = Model { metadata: stored.metadata().unwrap().clone(), tensors: tensors.collect() };
        for case in json_file(&own(&format!("model/{name}/cases.json"))).as_array().unwrap() {
            let hidden = model.hidden(&integers(&case["tokens"]));
            let at: Vec<usize> = integers(&case["at"]);
            let rows: Rows = at.iter().map(|&at| hidden[at].clone()).collect();
            let logits = model.product("output", &rows);
            for (logits, expected) in logits.iter().zip(case["positions"].as_array().unwrap()) {
                let ids: Vec<usize> = integers(&expected["ids"]);
                for (id, value) in ids.iter().zip(expected["values"].as_array().unwrap()) {
                    let difference = (logits[*id] - value.as_f64().unwrap()).abs();
                    assert!(difference < 5e-5, "{name}: token {id} differs by {difference}");
                    compared += 1;
                }
            }
        }
    }
    report("gguf: logits of files for llama.cpp", compared);
}
