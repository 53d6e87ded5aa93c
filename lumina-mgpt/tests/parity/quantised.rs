//! Quantised weights: how far logits are from those of the file's own weights, and that a quantised file is the same
//! model.

use std::ops::ControlFlow;
use std::path::Path;

use lumina_mgpt::convert::{self, QuantiseOptions, RowOrder, quantise};
use lumina_mgpt::{Compute, Dtype, Lumina, Row, Transformer, Weights};
use lumina_testing::{divergence, integers, part, report};

use super::model::{cases, folders, largest, scaled_dynamically};

const QUANTISED: [(Weights, Dtype); 2] = [(Weights::Q8, Dtype::Q8_0), (Weights::Q4, Dtype::Q4_0)];

fn open(path: &Path, weights: Weights) -> Transformer {
    Transformer::open(path, &Compute::cpu().weights(weights)).unwrap()
}

/// The model as a quantised GGUF file.
fn write(folder: &Path, file: &Path, options: &QuantiseOptions) {
    quantise(&convert::open(folder).unwrap(), file, options, &mut |_| ControlFlow::Continue(())).unwrap();
}

/// The type of the linear weights in a folder.
fn stored_in(folder: &Path) -> Dtype {
    let checkpoint = convert::open(folder).unwrap();
    let mut linear = checkpoint.names().filter(|name| name.ends_with("_proj.weight"));
    checkpoint.get(linear.next().unwrap()).unwrap().dtype()
}

/// Logits at every position.
fn logits(model: &Transformer, tokens: &[u32]) -> Vec<Vec<f32>> {
    let hidden = model.forward(&mut [Row::whole(tokens)]).unwrap();
    let logits = model.logits_at(&hidden, &(0..tokens.len()).collect::<Vec<_>>()).unwrap();
    logits.rows().map(<[f32]>::to_vec).collect()
}

/// That logits at all positions are within an error, of the largest logit, and a mean divergence, in nats, of the
/// expected ones.
fn assert_near(what: &str, expected: &[Vec<f32>], found: &[Vec<f32>], (largest_error, largest_divergence): (f32, f64)) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let (mut error, mut mean, mut scale) = (0.0f32, 0.0, 0.0f32);
    for (expected, found) in expected.iter().zip(found) {
        error = expected.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(error, f32::max);
        scale = scale.max(largest(expected));
        mean += divergence(expected, found);
    }
    mean /= expected.len() as f64;
    report(&format!("{what}: {} of the largest logit, {mean:.2e} nats", error / scale), 1);
    assert!(error <= largest_error * scale, "{what}: differs by {error} of {scale}");
    assert!(mean <= largest_divergence, "{what}: diverges by {mean} nats");
}

/// The bounds are for networks of the worst kind: random weights, and rows of one or two blocks, so that hardly
/// anything averages out, neither in a sum nor in the layers. Activations in bytes are part of the error of Q8 and Q4.
#[test]
fn errors_are_within_their_bounds() {
    // Of the largest logit, and in nats.
    let of = |weights| Compute::cpu().weights(weights);
    for (name, compute, largest_error, largest_divergence) in [
        ("bf16", of(Weights::BF16), 1e-2, 1e-4),
        ("bf16, bf16 activations", of(Weights::BF16).bf16_activations(), 3e-2, 5e-4),
        ("f16", of(Weights::F16), 2e-3, 1e-5),
        ("q8", of(Weights::Q8), 0.08, 2e-3),
        ("q4", of(Weights::Q4), 0.8, 0.2),
    ] {
        let mut ran = 0;
        for folder in folders() {
            let (exact, quantised) = (open(&folder, Weights::AsStored), Transformer::open(&folder, &compute).unwrap());
            for case in cases(&folder) {
                let tokens: Vec<u32> = integers(&case["tokens"]);
                let what = format!("{}/{} in {name}", folder.display(), case["name"]);
                // Of a file in `bf16` nothing is lost. Of one in `f16` three of eleven bits are, in every weight: as
                // much as where activations are rounded.
                let bounds = match name {
                    "bf16" if stored_in(&folder) == Dtype::F16 => (3e-2, 5e-4),
                    _ => (largest_error, largest_divergence),
                };
                assert_near(&what, &logits(&exact, &tokens), &logits(&quantised, &tokens), bounds);
                ran += 1;
            }
        }
        report(&format!("errors of {name}"), ran);
    }
}

#[test]
fn quantised_keys_and_values_are_within_their_bounds() {
    for (dtype, largest_error, largest_divergence) in
        [(Dtype::F32, 1e-4, 1e-8), (Dtype::BF16, 1e-2, 1e-4), (Dtype::Q8_0, 2e-2, 2e-4)]
    {
        let mut ran = 0;
        for folder in folders() {
            let exact = open(&folder, Weights::AsStored);
            let quantised = Transformer::open(&folder, &Compute::cpu().kv_cache(dtype)).unwrap();
            for case in cases(&folder) {
                let tokens: Vec<u32> = integers(&case["tokens"]);
                let mut cache = quantised.new_cache(tokens.len());
                // Rotary scaling may depend on the length, which is the whole one in every pass.
                let planned_len = tokens.len();
                let mut found = Vec::new();
                // Half at once, then one by one.
                let (first, rest) = tokens.split_at(tokens.len() / 2);
                for tokens in [first].into_iter().chain(rest.chunks(1)).filter(|tokens| !tokens.is_empty()) {
                    let hidden =
                        quantised.forward(&mut [Row { planned_len, ..Row::cached(tokens, &mut cache) }]).unwrap();
                    let logits = quantised.logits_at(&hidden, &(0..tokens.len()).collect::<Vec<_>>()).unwrap();
                    found.extend(logits.rows().map(<[f32]>::to_vec));
                }
                let what = format!("{}/{} with keys and values in {dtype}", folder.display(), case["name"]);
                assert_near(&what, &logits(&exact, &tokens), &found, (largest_error, largest_divergence));
                ran += 1;
            }
        }
        report(&format!("errors of keys and values in {dtype}"), ran);
    }
}

#[test]
fn a_quantised_file_is_the_model_that_is_quantised_at_load() {
    let target = tempfile::tempdir().unwrap();
    for (weights, dtype) in QUANTISED {
        for (index, folder) in folders().into_iter().enumerate() {
            let file = target.path().join(format!("{index}-{weights}.gguf"));
            write(&folder, &file, &QuantiseOptions::new(dtype));
            // Rows in llama.cpp's order are put back whole. It has no models whose rotary scaling depends on the
            // length.
            let other_order = (!scaled_dynamically(&folder)).then(|| {
                let file = target.path().join("other-order.gguf");
                write(&folder, &file, &QuantiseOptions::new(dtype).row_order(RowOrder::LlamaCpp));
                open(&file, Weights::AsStored)
            });
            let (at_load, saved) = (open(&folder, weights), open(&file, Weights::AsStored));
            #[cfg(feature = "burn")]
            let widened = Transformer::open(&file, &Compute::flex()).unwrap();
            // Weights that are as small already stay memory-mapped.
            let again = open(&file, Weights::Q8);
            for case in cases(&folder) {
                let tokens: Vec<u32> = integers(&case["tokens"]);
                let expected = logits(&at_load, &tokens);
                assert_eq!(logits(&saved, &tokens), expected, "{}", file.display());
                assert_eq!(logits(&again, &tokens), expected, "{}", file.display());
                if let Some(other_order) = &other_order {
                    assert_eq!(logits(other_order, &tokens), expected, "{} in the other order", file.display());
                }
                // In tensors the same weights meet activations in f32, not in bytes: an error like that of Q8 itself.
                #[cfg(feature = "burn")]
                for (expected, found) in expected.iter().zip(logits(&widened, &tokens)) {
                    let error = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(error <= 0.08 * largest(expected), "{}: {error}", file.display());
                }
            }
        }
    }
}

#[test]
fn quantised_rows_do_not_depend_on_the_batch() {
    for (weights, _) in QUANTISED {
        for folder in folders() {
            let model = open(&folder, weights);
            let tokens: Vec<u32> = integers(&cases(&folder)[0]["tokens"]);
            let alone = logits(&model, &tokens[..1]).swap_remove(0);
            for others in [1, 2, 7, 40] {
                let mut rows: Vec<_> = (0..others).map(|_| Row::whole(&tokens[1..3])).collect();
                rows.push(Row::whole(&tokens[..1]));
                let hidden = model.forward(&mut rows).unwrap();
                let together = model.logits_at(&hidden, &[2 * others]).unwrap();
                assert_eq!(alone, together.row(0), "{} in {weights}, {others} others", folder.display());
            }
        }
    }
}

#[test]
fn a_part_of_the_head_is_that_of_the_whole() {
    for weights in [Weights::AsStored, Weights::Q8, Weights::Q4] {
        for folder in folders() {
            let model = open(&folder, weights);
            let tokens: Vec<u32> = integers(&cases(&folder)[0]["tokens"]);
            let at = [0, tokens.len() - 1];
            let hidden = model.forward(&mut [Row::whole(&tokens)]).unwrap();
            let whole = model.logits_at(&hidden, &at).unwrap();
            let vocab_size = model.architecture().vocab_size();
            for range in [4..8196, 0..1, 0..vocab_size, vocab_size - 3..vocab_size + 5, 9..9] {
                let some = model.logits_among(&hidden, &at, range.clone()).unwrap();
                let ids = range.start..range.end.min(vocab_size);
                assert_eq!(some.ids(), ids);
                for (whole, some) in whole.rows().zip(some.rows()) {
                    assert_eq!(some, &whole[ids.clone()], "{range:?}");
                }
            }
        }
    }
}

#[test]
fn a_file_and_a_folder_with_one_are_whole_models() {
    let case = &lumina_testing::cases("generate/cases.json")[0];
    let folder = part("model").join(case["model"].as_str().unwrap());
    let target = tempfile::tempdir().unwrap();
    let file = target.path().join("model.gguf");
    write(&folder, &file, &QuantiseOptions::new(Dtype::Q8_0));
    let draw = |path: &Path, weights| {
        let compute = Compute::cpu().weights(weights);
        let model = Lumina::from_pretrained(path).image_tokenizer(part("vq")).compute(compute);
        // As published, or that of all models of the data.
        let has_tokenizer = folder.join("tokenizer.json").exists();
        let model = if has_tokenizer { model } else { model.tokenizer(part("tokenizer")) };
        let model = model.load().unwrap();
        model.text_to_image("a tree", (64, 32)).seed(1).run().unwrap()
    };
    let expected = draw(&folder, Weights::Q8);
    for path in [target.path(), &file] {
        assert_eq!(draw(path, Weights::AsStored), expected, "{}", path.display());
    }
}
