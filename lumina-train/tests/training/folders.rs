//! Folders of new and of trained models.

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};
use lumina_checkpoint::{Checkpoint, Dtype};
use lumina_mgpt::{Row, Transformer};
use lumina_nn::Compute;
use lumina_testing::own;
use lumina_tokenizer::TextTokenizer;
use lumina_train::Error;
use lumina_train::checkpoint::average;
use lumina_train::fine_tune::{LoraOptions, NewModel, Trainer};

use crate::small::{Sequence, files, folder_of, options, shape, train};

fn logits(model: &Transformer) -> Vec<f32> {
    let tokens = Sequence::new(9, 20, 0).tokens;
    let hidden = model.forward(&mut [Row::whole(&tokens)]).unwrap();
    model.logits(hidden).into_data().try_into_vec().unwrap()
}

#[test]
fn exported_models_open_for_inference() {
    let (folder, model) = folder_of(&shape());
    let mut trainer = Trainer::new(&model, options(), &[Compute::cpu()]).unwrap();
    train(&mut trainer, 2);
    trainer.save(&folder.path().join("trained")).unwrap();
    let trained = Checkpoint::open(folder.path().join("trained")).unwrap();
    let expected = logits(trainer.model().unwrap());
    let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    // In f32 the weights are the same to the bit, and only matrix products are rounded differently, by the layout of
    // the matrices. 16-bit weights are rounded by 2^-9 and 2^-12 of their size, which adds up over two layers.
    let cases = [
        (Dtype::F32, Compute::flex(), 1e-5),
        (Dtype::F32, Compute::cpu(), 1e-5),
        (Dtype::BF16, Compute::flex(), 4e-2),
        (Dtype::F16, Compute::flex(), 5e-3),
    ];
    for (dtype, compute, tolerance) in cases {
        let exported = folder.path().join(format!("{dtype} {compute}"));
        trainer.export(&exported, dtype).unwrap();
        assert!(matches!(trainer.export(&exported, dtype), Err(Error::Write { .. })));
        let opened = Transformer::open(&exported, &compute).unwrap();
        let off = logits(&opened).iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off <= tolerance * largest, "{dtype} {compute}: off by {off} of {largest}");
        let tokenizer = TextTokenizer::open(&exported).unwrap();
        assert_eq!(tokenizer.vocabulary().unwrap().image_tokens().len(), 16);
        let checkpoint = Checkpoint::open(&exported).unwrap();
        assert_eq!(checkpoint.names().count(), trained.names().count());
        for name in trained.names() {
            let (saved, trained) = (checkpoint.get(name).unwrap(), trained.get(name).unwrap());
            let nearest = |value: f32| match dtype {
                Dtype::BF16 => bf16::from_f32(value).to_f32(),
                Dtype::F16 => f16::from_f32(value).to_f32(),
                _ => value,
            };
            assert_eq!((saved.dtype(), saved.shape()), (dtype, trained.shape()), "{name}");
            assert!(
                saved.to_f32().unwrap().into_iter().eq(trained.to_f32().unwrap().into_iter().map(nearest)),
                "{name}"
            );
        }
    }
    assert!(trainer.export(&folder.path().join("int"), Dtype::I64).is_err());
    assert!(!folder.path().join("int").exists());
}

#[test]
fn an_average_has_the_mean_of_each_weight() {
    let models = [0, 1, 2].map(|seed| folder_of(&NewModel { seed, ..shape() }));
    let folders = [0, 1, 2].map(|index: usize| models[index].1.as_path());
    let mean = models[0].0.path().join("mean");
    let weights = [1.0, 2.0, 5.0];
    average(&[0, 1, 2].map(|index| (folders[index], weights[index])), &mean, Dtype::F32).unwrap();
    let of = |folder: &Path| Checkpoint::open(folder).unwrap();
    let (result, all) = (of(&mean), folders.map(of));
    assert!(result.names().eq(all[0].names()));
    for name in result.names() {
        let values = |checkpoint: &Checkpoint| checkpoint.get(name).unwrap().to_f32().unwrap();
        let of_all = all.each_ref().map(values);
        for (index, value) in values(&result).into_iter().enumerate() {
            let weighted = of_all.iter().zip(weights).map(|(values, weight)| f64::from(values[index] * weight));
            let expected = weighted.sum::<f64>() / 8.0;
            assert!((f64::from(value) - expected).abs() <= 1e-6 * expected.abs().max(0.1), "{name}");
        }
    }
    assert!(Transformer::open(&mean, &Compute::cpu()).is_ok());
    // One alone is its own mean, to the bit.
    let alone = models[0].0.path().join("alone");
    average(&[(folders[0], 0.3)], &alone, Dtype::F32).unwrap();
    assert!(files(&alone)["model.safetensors"] == files(folders[0])["model.safetensors"]);
}

#[test]
fn models_that_have_no_average_are_refused() {
    let (folder, model) = folder_of(&shape());
    let (_other, wider) = folder_of(&NewModel { intermediate_size: 64, ..shape() });
    let (_third, deeper) = folder_of(&NewModel { num_hidden_layers: 3, ..shape() });
    let mean = folder.path().join("mean");
    let none: [(&Path, f32); 0] = [];
    assert!(matches!(average(&none, &mean, Dtype::F32), Err(Error::NoModels)));
    for [one, other] in [[&wider, &model], [&model, &wider], [&deeper, &model], [&model, &deeper]] {
        let error = average(&[(one, 1.0), (other, 1.0)], &mean, Dtype::F32).unwrap_err();
        assert!(matches!(error, Error::DifferentModels { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains("layers.") && message.contains(&one.display().to_string()), "{message}");
    }
    for weight in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let error = average(&[(&model, weight)], &mean, Dtype::F32).unwrap_err();
        assert!(matches!(error, Error::OutOfRange { field: "weight", .. }), "{error}");
    }
    assert!(!mean.exists());
}

#[test]
fn new_models_follow_from_shape_and_seed() {
    let (folder, model) = folder_of(&shape());
    let (_again, again) = folder_of(&shape());
    assert!(files(&model) == files(&again), "the same seed");
    let (_other, other) = folder_of(&NewModel { seed: 1, ..shape() });
    let (model_files, other_files) = (files(&model), files(&other));
    assert!(model_files["model.safetensors"] != other_files["model.safetensors"], "another seed");
    assert!(model_files["config.json"] == other_files["config.json"]);
    assert!(Transformer::open(&model, &Compute::cpu()).is_ok());
    let tokenizer = folder.path().join("tokenizer");
    let error = shape().create(&tokenizer, &model, &Compute::cpu()).unwrap_err();
    assert!(matches!(error, Error::Write { .. }), "{error}");
    assert!(files(&model) == model_files, "the folder is unchanged");
    let impossible = NewModel { num_attention_heads: 5, ..shape() };
    let failed = folder.path().join("failed");
    assert!(matches!(impossible.create(&tokenizer, &failed, &Compute::cpu()), Err(Error::Model(_))));
    assert!(impossible.create(&folder.path().join("absent"), &failed, &Compute::cpu()).is_err());
    assert!(!failed.exists());
}

/// Initial weights have the standard deviation of the shape, and norms change nothing.
#[test]
fn initial_weights_have_their_deviation() {
    let (_folder, model) = folder_of(&shape());
    let checkpoint = Checkpoint::open(&model).unwrap();
    for name in checkpoint.names() {
        let values = checkpoint.get(name).unwrap().to_f32().unwrap();
        let n = values.len() as f64;
        let mean = values.iter().copied().map(f64::from).sum::<f64>() / n;
        let deviation = (values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / n).sqrt();
        if name.contains("norm") {
            let constant = if name.ends_with("bias") { 0.0 } else { 1.0 };
            assert!(values.iter().all(|&value| value == constant), "{name}");
        } else {
            // Five standard errors.
            assert!(mean.abs() < 5.0 * 0.1 / n.sqrt(), "{name}: mean {mean}");
            assert!((deviation - 0.1).abs() < 5.0 * 0.1 / (2.0 * n).sqrt(), "{name}: deviation {deviation}");
        }
    }
}

#[test]
fn new_models_have_the_published_names() {
    let shapes = |folder: &Path| -> BTreeMap<String, Vec<usize>> {
        let checkpoint = Checkpoint::open(folder).unwrap();
        let of_network = checkpoint.names().filter(|name| !name.starts_with("model.vqmodel."));
        of_network.map(|name| (name.to_owned(), checkpoint.get(name).unwrap().shape().to_vec())).collect()
    };
    for name in ["prenorm", "swin"] {
        let published = own(&format!("model/{name}"));
        let config = lumina_testing::json_file(&published.join("config.json"));
        let field = |field: &str| config[field].as_u64().unwrap() as usize;
        let shape = NewModel {
            hidden_size: field("hidden_size"),
            intermediate_size: field("intermediate_size"),
            num_hidden_layers: field("num_hidden_layers"),
            num_attention_heads: field("num_attention_heads"),
            num_key_value_heads: field("num_key_value_heads"),
            max_position_embeddings: field("max_position_embeddings"),
            swin_norm: config["swin_norm"].as_bool().unwrap(),
            ..NewModel::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        shape.create(&own("tokenizer"), &model, &Compute::cpu()).unwrap();
        let (mut found, expected) = (shapes(&model), shapes(&published));
        // QK-norms have a row for each part of the model that trained on a machine of its own; new models have one.
        let parts = field("model_parallel_size");
        let norms = found.iter_mut().filter(|(name, _)| name.contains("q_norm") || name.contains("k_norm"));
        norms.for_each(|(_, shape)| shape[0] *= parts);
        assert_eq!(found, expected, "{name}");
    }
}

/// The head would go another way than the embedding, and be what is saved of both.
#[test]
fn a_head_that_is_the_embedding_is_not_trained() {
    let (folder, model) = folder_of(&shape());
    let file = model.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config["tie_word_embeddings"] = true.into();
    std::fs::write(&file, config.to_string()).unwrap();
    assert!(Transformer::open(&model, &Compute::cpu()).is_ok());
    let error = Trainer::new(&model, options(), &[Compute::cpu()]).unwrap_err();
    let Error::SharedParameter { name } = &error else { panic!("{error}") };
    assert_eq!(name, "model.embed_tokens.weight");
    // Under an adapter neither is trained.
    let adapter = folder.path().join("adapter");
    LoraOptions::default().create(&model, &adapter, &Compute::cpu()).unwrap();
    train(&mut Trainer::with_adapter(&model, &adapter, options(), &[Compute::cpu()]).unwrap(), 1);
}
