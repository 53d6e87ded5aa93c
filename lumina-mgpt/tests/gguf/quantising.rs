//! Models as GGUF files: the reference folders there and back.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use lumina_checkpoint::Result;
use lumina_checkpoint::gguf::{Value, quantise_rows, quantise_tensor};
use lumina_checkpoint::{Checkpoint, Dtype, TensorView, save_safetensors};
use lumina_mgpt::convert::{self, QuantiseOptions, RowOrder, quantise};
use lumina_testing::{json_file, own, report};
use proptest::prelude::*;

use crate::shared::{f32_bytes, read_all};

const FOLDERS: [&str; 3] = ["prenorm", "swin", "qk_norm_per_head"];
const ORDERS: [RowOrder; 2] = [RowOrder::HuggingFace, RowOrder::LlamaCpp];

fn folder(name: &str) -> PathBuf {
    own(&format!("model/{name}"))
}

fn write(from: &Checkpoint, to: &Path, options: &QuantiseOptions) -> Result<Checkpoint> {
    quantise(from, to, options, &mut |_| ControlFlow::Continue(()))?;
    convert::open(to)
}

fn views(checkpoint: &Checkpoint) -> impl Iterator<Item = TensorView> {
    checkpoint.names().map(|name| checkpoint.get(name).unwrap())
}

fn is_linear(name: &str) -> bool {
    name.ends_with("_proj.weight")
}

/// What a QK-norm is with a row a head.
fn repeated(values: Vec<f32>, from: &[usize], to: &[usize]) -> Vec<f32> {
    let each = to[0] / from[0];
    values.chunks(from[1]).flat_map(|row| std::iter::repeat_n(row, each)).flatten().copied().collect()
}

#[test]
fn f32_holds_every_model_to_the_bit() {
    let mut compared = 0;
    for name in FOLDERS {
        let source = convert::open(folder(name)).unwrap();
        for order in ORDERS {
            let written = tempfile::tempdir().unwrap();
            let options = QuantiseOptions::new(Dtype::F32).embedding(Dtype::F32).row_order(order);
            let model = write(&source, &written.path().join("m.gguf"), &options).unwrap();
            read_all(&model);
            for original in views(&source) {
                let image_tokenizer = original.name().starts_with("model.vqmodel.");
                if image_tokenizer && order == RowOrder::LlamaCpp {
                    assert!(!model.contains(original.name()));
                    continue;
                }
                let view = model.get(original.name()).unwrap();
                let mut expected = original.to_f32().unwrap();
                if view.shape() != original.shape() {
                    assert!(order == RowOrder::LlamaCpp && view.name().contains("_norm."), "{view:?}");
                    expected = repeated(expected, original.shape(), view.shape());
                }
                assert_eq!(view.dtype(), if image_tokenizer { original.dtype() } else { Dtype::F32 });
                assert_eq!(view.to_f32().unwrap(), expected, "{view:?}");
                compared += 1;
            }
        }
    }
    report("gguf: tensors in f32", compared);
}

#[test]
fn bf16_of_bf16_is_a_copy() {
    let source = convert::open(folder("prenorm")).unwrap();
    let written = tempfile::tempdir().unwrap();
    let model = write(&source, &written.path().join("m.gguf"), &QuantiseOptions::new(Dtype::BF16)).unwrap();
    assert_eq!(model.names().collect::<Vec<_>>(), source.names().collect::<Vec<_>>());
    for original in views(&source) {
        let view = model.get(original.name()).unwrap();
        assert_eq!(view.shape(), original.shape());
        if view.dtype() == original.dtype() {
            assert_eq!(view.bytes(), original.bytes(), "{view:?}");
        } else {
            assert!(view.name().contains("norm") && view.dtype() == Dtype::F32, "{view:?}");
        }
    }
}

/// Half a step of the block's scale, or a whole one on the far side in `q4_0`, and the rounding of the scale to `f16`,
/// which is 2⁻¹¹ of it at most, and is felt in proportion to the value.
fn bound(dtype: Dtype, block: &[f32], value: f32) -> f32 {
    let largest = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let step = if dtype == Dtype::Q8_0 { largest / 127.0 * 0.5 } else { largest / 8.0 };
    (step + value.abs() / 2048.0) * 1.001
}

#[test]
fn blocks_stay_within_their_error() {
    let mut compared = 0;
    for name in FOLDERS {
        let source = convert::open(folder(name)).unwrap();
        for (dtype, order) in
            [Dtype::Q8_0, Dtype::Q4_0].into_iter().flat_map(|dtype| ORDERS.map(|order| (dtype, order)))
        {
            let written = tempfile::tempdir().unwrap();
            let options = QuantiseOptions::new(dtype).row_order(order);
            let model = write(&source, &written.path().join("m.gguf"), &options).unwrap();
            for original in views(&source).filter(|view| model.contains(view.name())) {
                let view = model.get(original.name()).unwrap();
                let expected = match view.name() {
                    name if is_linear(name) => dtype,
                    "lm_head.weight" => Dtype::Q8_0,
                    name if name.contains("norm") && !name.contains("vqmodel") || name.ends_with("_proj.bias") => {
                        Dtype::F32
                    }
                    _ => original.dtype(),
                };
                let expected = if expected.bytes_of(view.shape()).is_some() { expected } else { original.dtype() };
                assert_eq!(view.dtype(), expected, "{view:?}");
                if !expected.is_quantised() {
                    continue;
                }
                let (values, found) = (original.to_f32().unwrap(), view.to_f32().unwrap());
                for (values, found) in values.chunks(32).zip(found.chunks(32)) {
                    for (value, found) in values.iter().zip(found) {
                        assert!((value - found).abs() <= bound(expected, values, *value), "{view:?} {value} {found}");
                    }
                }
                // One tensor by itself is quantised alike.
                assert_eq!(quantise_tensor(&original, expected).unwrap(), view.bytes(), "{view:?}");
                compared += 1;
            }
        }
    }
    report("gguf: quantised tensors", compared);
}

#[test]
fn a_model_is_one_file() {
    let source = convert::open(folder("prenorm")).unwrap();
    let written = tempfile::tempdir().unwrap();
    let names =
        ["config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"];
    for order in ORDERS {
        let path = written.path().join("m.gguf");
        let model = write(&source, &path, &QuantiseOptions::new(Dtype::Q8_0).row_order(order)).unwrap();
        for name in names {
            let original = std::fs::read(folder("prenorm").join(name)).unwrap();
            assert_eq!(model.document(name).unwrap().unwrap(), original, "{name}");
        }
        // Writing a file again makes the same tensors, whatever its order.
        let again = write(&model, &written.path().join("again.gguf"), &QuantiseOptions::new(Dtype::Q8_0)).unwrap();
        for view in views(&model) {
            assert_eq!(again.get(view.name()).unwrap().bytes(), view.bytes(), "{view:?}");
        }
    }
}

/// The keys without which llama.cpp does not load a model of this kind.
#[test]
fn llama_cpp_finds_its_keys() {
    let written = tempfile::tempdir().unwrap();
    let options = QuantiseOptions::new(Dtype::F16).row_order(RowOrder::LlamaCpp);
    for name in FOLDERS {
        let source = convert::open(folder(name)).unwrap();
        let config = json_file(&folder(name).join("config.json"));
        let integer = |key: &str| Value::U32(config[key].as_u64().unwrap() as u32);
        let model = write(&source, &written.path().join(name), &options).unwrap();
        let metadata = model.metadata().unwrap();
        let expect = |key: &str, value: Value| assert_eq!(metadata.get(key), Some(&value), "{name}: {key}");
        expect("general.architecture", "chameleon".into());
        expect("general.name", name.into());
        expect("general.file_type", Value::U32(1));
        expect("general.quantization_version", Value::U32(2));
        expect("chameleon.block_count", integer("num_hidden_layers"));
        expect("chameleon.context_length", integer("max_position_embeddings"));
        expect("chameleon.embedding_length", integer("hidden_size"));
        expect("chameleon.feed_forward_length", integer("intermediate_size"));
        expect("chameleon.attention.head_count", integer("num_attention_heads"));
        expect("chameleon.attention.head_count_kv", integer("num_key_value_heads"));
        let epsilon = config["rms_norm_eps"].as_f64().unwrap() as f32;
        expect("chameleon.attention.layer_norm_rms_epsilon", Value::F32(epsilon));
        expect("chameleon.rope.freq_base", Value::F32(config["rope_theta"].as_f64().unwrap() as f32));
        expect("chameleon.swin_norm", Value::Bool(config["swin_norm"].as_bool().unwrap()));
        expect("chameleon.vocab_size", integer("vocab_size"));
        expect("tokenizer.ggml.bos_token_id", integer("bos_token_id"));
        let head_dim = config["hidden_size"].as_u64().unwrap() / config["num_attention_heads"].as_u64().unwrap();
        expect("chameleon.rope.dimension_count", Value::U32(head_dim as u32));
        let tokens =
            metadata.get("tokenizer.ggml.tokens").and_then(Value::as_strings).map(|tokens| tokens.len() as u64);
        let has_tokenizer = folder(name).join("tokenizer.json").exists();
        expect("tokenizer.ggml.model", if has_tokenizer { "gpt2" } else { "none" }.into());
        assert_eq!(tokens, config["vocab_size"].as_u64().filter(|_| has_tokenizer));
    }
}

#[test]
fn progress_grows_to_the_whole_and_can_stop_it() {
    let source = convert::open(folder("prenorm")).unwrap();
    let written = tempfile::tempdir().unwrap();
    let path = written.path().join("m.gguf");
    let (mut last, mut total, mut calls) = (0, 0, 0);
    quantise(&source, &path, &QuantiseOptions::new(Dtype::Q4_0), &mut |progress| {
        assert!(progress.bytes >= last && source.contains(progress.tensor));
        (last, total, calls) = (progress.bytes, progress.total_bytes, calls + 1);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(last, total);
    assert_eq!(total, views(&source).map(|view| view.bytes().len() as u64).sum::<u64>());
    let before = std::fs::read(&path).unwrap();

    for stop in [1, 2, calls] {
        let mut heard = 0;
        let result = quantise(&source, &path, &QuantiseOptions::new(Dtype::Q8_0), &mut |_| {
            heard += 1;
            if heard == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let error = result.unwrap_err();
        assert!(matches!(error, lumina_checkpoint::Error::Cancelled { .. }) && heard == stop, "{error}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(written.path()).unwrap().count(), 1);
}

/// A model folder of these tensors (name, shape, values) and this `config.json`.
fn model(tensors: &[(&str, &[usize], Vec<f32>)], config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let given = tensors.iter().map(|(name, shape, values)| {
        let bytes = f32_bytes(values.iter().copied());
        (*name, Dtype::F32, *shape, move || Ok(bytes.into()))
    });
    save_safetensors(folder.path().join("model.safetensors"), given).unwrap();
    if !config.is_empty() {
        std::fs::write(folder.path().join("config.json"), config).unwrap();
    }
    folder
}

#[test]
fn what_cannot_be_written_is_said_by_name() {
    const UP: &str = "model.layers.0.mlp.up_proj.weight";
    const NORM: &str = "model.layers.0.self_attn.q_norm.weight";
    const Q: &str = "model.layers.0.self_attn.q_proj.weight";
    const NORMS: &str = "model.norm.weight";
    // Beyond the first part that a thread converts.
    let mut large = vec![0.5; 3 * 16384];
    large[40_000] = f32::NAN;
    let mut wide = vec![0.5; 64];
    wide[33] = 1e6;
    let llama = |dtype| QuantiseOptions::new(dtype).row_order(RowOrder::LlamaCpp);
    let q8 = QuantiseOptions::new(Dtype::Q8_0);
    let config = r#"{"num_attention_heads": 4, "hidden_size": 8}"#;
    type Tensors<'a> = Vec<(&'a str, &'a [usize], Vec<f32>)>;
    let cases: Vec<(Tensors<'_>, &str, QuantiseOptions, &[&str])> = vec![
        (vec![(UP, &[3, 16384], large)], "{}", q8.clone(), &[UP, "element 40000 is NaN", "q8_0"]),
        (vec![(UP, &[2, 32], wide)], "{}", QuantiseOptions::new(Dtype::F16), &[UP, "element 33 is 1000000", "f16"]),
        (
            vec![(UP, &[1, 256], vec![0.0; 256])],
            "{}",
            QuantiseOptions::new(Dtype::Q4_K),
            &[UP, "q4_k can be read but not written"],
        ),
        (
            vec![(UP, &[1, 32], vec![0.0; 32])],
            "{}",
            QuantiseOptions::new(Dtype::I8),
            &[UP, "i8 is no type for weights"],
        ),
        // Written as they are, they would make every logit NaN.
        (vec![(NORMS, &[2], vec![1.0, f32::NAN])], "{}", q8.clone(), &[NORMS, "element 1 is NaN"]),
        (vec![(NORMS, &[2], vec![f32::INFINITY, 0.0])], "{}", q8.clone(), &[NORMS, "element 0 is inf"]),
        (vec![(UP, &[1, 32], vec![0.0; 32])], "", q8.clone(), &["holds no checkpoint", "config.json"]),
        (vec![(UP, &[1, 32], vec![0.0; 32])], "[", q8.clone(), &["`config.json` is not JSON"]),
        (vec![(UP, &[1, 32], vec![0.0; 32])], r#"{"num_attention_heads": 0}"#, q8.clone(), &["num_attention_heads"]),
        (vec![(Q, &[6, 1], vec![0.0; 6])], config, llama(Dtype::F32), &[Q, "[6, 1]", "4 heads"]),
        (vec![(Q, &[4, 1], vec![0.0; 4])], config, llama(Dtype::F32), &[Q, "even width"]),
        (vec![(NORM, &[1, 2], vec![0.0; 2])], config, llama(Dtype::F32), &[NORM, "4 heads"]),
        (
            vec![(Q, &[8, 1], vec![0.0; 8]), (NORM, &[3, 2], vec![0.0; 6])],
            config,
            llama(Dtype::F32),
            &[NORM, "4 heads"],
        ),
        (
            vec![(Q, &[8, 1], vec![0.0; 8]), (NORM, &[1, 2], vec![0.0; 2])],
            r#"{"num_attention_heads": 4000000000}"#,
            llama(Dtype::F32),
            &["4000000000 heads"],
        ),
        (
            vec![(UP, &[1, 32], vec![0.0; 32])],
            r#"{"rope_scaling": {"type": "dynamic", "factor": 2.0}}"#,
            llama(Dtype::F32),
            &["`rope_scaling`", "dynamic"],
        ),
    ];
    for (tensors, config, options, says) in cases {
        let folder = model(&tensors, config);
        let checkpoint = convert::open(folder.path()).unwrap();
        let target = folder.path().join("m.gguf");
        let error = write(&checkpoint, &target, &options).expect_err(config).to_string();
        for part in says {
            assert!(error.contains(part), "no `{part}` in `{error}`");
        }
        assert!(error.matches("choose another type").count() <= 1, "the remedy is said twice: {error}");
        assert!(!target.exists());
    }
}

#[test]
fn rows_that_are_no_blocks_keep_their_type() {
    let folder = model(&[("model.layers.0.mlp.up_proj.weight", &[2, 40], vec![0.5; 80])], "{}");
    let source = convert::open(folder.path()).unwrap();
    let model = write(&source, &folder.path().join("m.gguf"), &QuantiseOptions::new(Dtype::Q4_0)).unwrap();
    let view = model.get("model.layers.0.mlp.up_proj.weight").unwrap();
    assert_eq!((view.dtype(), view.to_f32().unwrap()), (Dtype::F32, vec![0.5; 80]));
    let error = quantise_tensor(&view, Dtype::Q8_0).unwrap_err().to_string();
    assert!(error.contains("no whole number of blocks of q8_0"), "{error}");
}

/// Without a head of its own the embedding is read whole at each token.
#[test]
fn a_tied_embedding_is_a_head() {
    let folder = model(&[("model.embed_tokens.weight", &[2, 32], vec![0.5; 64])], "{}");
    let source = convert::open(folder.path()).unwrap();
    let model = write(&source, &folder.path().join("m.gguf"), &QuantiseOptions::new(Dtype::Q4_0)).unwrap();
    assert_eq!(model.get("model.embed_tokens.weight").unwrap().dtype(), Dtype::Q8_0);
}

#[test]
fn halves_are_rounded_to_nearest() {
    let values: Vec<f32> = (0..20_000).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
    let folder = model(&[("w", &[2, 10_000], values.clone())], "");
    let view = convert::open(folder.path()).unwrap().get("w").unwrap();
    let halves = quantise_tensor(&view, Dtype::F16).unwrap();
    assert!(
        halves.as_chunks().0.iter().zip(&values).all(|(bytes, value)| *bytes == f16::from_f32(*value).to_le_bytes())
    );
    let halves = quantise_tensor(&view, Dtype::BF16).unwrap();
    assert!(
        halves.as_chunks().0.iter().zip(&values).all(|(bytes, value)| *bytes == bf16::from_f32(*value).to_le_bytes())
    );
    assert_eq!(quantise_tensor(&view, Dtype::F32).unwrap().as_ptr(), view.bytes().as_ptr());
}

/// Some rows at a time, as they go to a GPU.
#[test]
fn rows_are_quantised_as_the_whole_tensor() {
    let mut values: Vec<f32> = (0..300 * 160).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
    let folder = model(&[("w", &[300, 160], values.clone())], "");
    let view = convert::open(folder.path()).unwrap().get("w").unwrap();
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::Q8_0, Dtype::Q4_0] {
        let parts = [0..0, 0..128, 128..129, 129..300].map(|rows| quantise_rows(&view, rows, dtype).unwrap());
        assert_eq!(parts.concat(), quantise_tensor(&view, dtype).unwrap(), "{dtype}");
    }
    // What does not fit is named by its place in the tensor.
    values[140 * 160 + 3] = 1e30;
    let folder = model(&[("w", &[300, 160], values)], "");
    let view = convert::open(folder.path()).unwrap().get("w").unwrap();
    assert!(quantise_rows(&view, 0..140, Dtype::F16).is_ok());
    let error = quantise_rows(&view, 128..300, Dtype::F16).unwrap_err().to_string();
    assert!(error.contains(&format!("element {}", 140 * 160 + 3)), "{error}");
}

/// A small model with everything that a file for llama.cpp needs.
fn small_model() -> tempfile::TempDir {
    let layer = "model.layers.0.self_attn";
    let names = [format!("{layer}.q_proj.weight"), format!("{layer}.k_proj.weight"), format!("{layer}.q_norm.bias")];
    let tensors: [(&str, &[usize], Vec<f32>); 4] = [
        ("model.embed_tokens.weight", &[3, 32], vec![0.5; 96]),
        (&names[0], &[8, 32], vec![0.5; 256]),
        (&names[1], &[4, 32], vec![0.5; 128]),
        (&names[2], &[2, 4], vec![0.5; 8]),
    ];
    model(&tensors, "")
}

const SMALL_CONFIG: &str = r#"{"vocab_size": 3, "hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1,
    "rope_scaling": {"type": "linear", "factor": 2.0}, "eos_token_id": [2, 1], "rms_norm_eps": 1e-5}"#;
const SMALL_TOKENIZER: &str = r#"{"added_tokens": [{"id": 0, "content": "<s>", "special": true}],
    "model": {"vocab": {"<s>": 0, "a": 1, "b": 2}, "merges": ["a b", ["b", "a"]]}}"#;

proptest! {
    #[test]
    fn damaged_configs_and_tokenizers(
        of_config in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(b"0123456789\"{}[],x".to_vec())), 0..4),
        of_tokenizer in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ours in any::<bool>(),
    ) {
        let folder = small_model();
        for (name, text, changes) in
            [("config.json", SMALL_CONFIG, of_config), ("tokenizer.json", SMALL_TOKENIZER, of_tokenizer)]
        {
            let mut bytes = text.as_bytes().to_vec();
            for (place, value) in &changes {
                *place.get_mut(&mut bytes) = *value;
            }
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let source = convert::open(folder.path()).unwrap();
        let options = QuantiseOptions::new(Dtype::Q8_0).row_order(ORDERS[usize::from(!ours)]);
        if let Ok(model) = write(&source, &folder.path().join("m.gguf"), &options) {
            read_all(&model);
        }
    }
}

#[test]
fn the_small_model_is_whole_before_it_is_damaged() {
    let folder = small_model();
    std::fs::write(folder.path().join("config.json"), SMALL_CONFIG).unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), SMALL_TOKENIZER).unwrap();
    let source = convert::open(folder.path()).unwrap();
    for order in ORDERS {
        let options = QuantiseOptions::new(Dtype::Q8_0).row_order(order);
        let model = write(&source, &folder.path().join("m.gguf"), &options).unwrap();
        assert_eq!(read_all(&model), 4);
    }
    std::fs::write(folder.path().join("config.json"), SMALL_CONFIG.replace("3,", "4000000000,")).unwrap();
    let options = QuantiseOptions::new(Dtype::Q8_0).row_order(RowOrder::LlamaCpp);
    let error = write(&source, &folder.path().join("m.gguf"), &options).unwrap_err().to_string();
    assert!(error.contains("config.json: `vocab_size`: 4000000000 tokens for 3 embeddings"), "{error}");
}
