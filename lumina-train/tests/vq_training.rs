//! Training of small VQGANs: resuming, saving, the discriminator, and what is refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

use std::collections::HashSet;
use std::path::Path;

use image::{Rgb, RgbImage};
use lumina_checkpoint::{Checkpoint, Dtype};
use lumina_nn::Compute;
use lumina_train::Error;
use lumina_train::vq::{
    Codebook, CodebookStart, DiscriminatorOptions, PatchSorts, PatchSortsOptions, Schedule, VqStep, VqTrainer,
    VqTrainingOptions, codes_from_patches, evaluate_vq, init_vq,
};
use lumina_vq::{Bands, ImageTokenizer, VqConfig, VqHyperparameters};

fn config() -> VqConfig {
    let shape = VqHyperparameters {
        embed_dim: 4,
        n_codes: 32,
        channels: 32,
        multipliers: vec![1, 1],
        n_res_blocks: 1,
        latent_channels: 8,
        resolution: 16,
        ..VqHyperparameters::default()
    };
    VqConfig::new(shape).unwrap()
}

/// Rectangles of two colours on a plain ground, other ones at each step.
fn batch(step: u64) -> Vec<RgbImage> {
    let picture = |index: u64| {
        let n = (step * 4 + index) * 0x9e37_79b9 % 4099;
        let colour = |k: u64| Rgb([(n * k % 256) as u8, (n * k * 3 % 256) as u8, (n * k * 7 % 256) as u8]);
        let (left, top) = ((n % 8) as u32, (n / 8 % 8) as u32);
        RgbImage::from_fn(16, 16, |x, y| {
            let inside = (left..left + 8).contains(&x) && (top..top + 8).contains(&y);
            if inside { colour(5) } else { colour(11) }
        })
    };
    (0..4).map(picture).collect()
}

fn options() -> VqTrainingOptions {
    VqTrainingOptions::default()
        .steps(6)
        .learning_rate(2e-3)
        .schedule(Schedule::Cosine { warmup_steps: 2, floor: 0.1 })
        .l2_weight(1.0)
        .codebook(Codebook::Ema { decay: 0.9 })
        .codebook_start(CodebookStart::Latents)
        .revive_after(Some(2))
        .usage_window(3)
        .checkpoint_every(3)
}

fn start(folder: &Path) {
    init_vq(&config(), 5, folder, &Compute::cpu()).unwrap();
}

fn open(folder: &Path, options: VqTrainingOptions) -> VqTrainer {
    VqTrainer::open(folder, options, &Compute::cpu()).unwrap()
}

fn run(trainer: &mut VqTrainer, folder: &Path) -> Vec<VqStep> {
    let mut steps = Vec::new();
    trainer.run(folder, |step| Ok(batch(step)), |step| steps.push(step.clone())).unwrap();
    steps
}

fn bytes(file: &Path) -> Vec<u8> {
    std::fs::read(file).unwrap()
}

#[test]
fn a_resumed_run_equals_one_that_was_not_stopped() {
    let judge = DiscriminatorOptions { start: 2, layers: 1, channels: 4, weight: 0.5 };
    for options in [options().discriminator(Some(judge)), options().codebook(Codebook::Gradient)] {
        let judged = options.discriminator.is_some();
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        start(&at("start"));
        let whole = run(&mut open(&at("start"), options.clone()), &at("whole"));

        let mut first = open(&at("start"), options);
        for step in 0..3 {
            first.train(&batch(step)).unwrap();
        }
        first.checkpoint(at("stopped")).unwrap();
        drop(first);
        let mut second = VqTrainer::resume(at("stopped"), &Compute::cpu()).unwrap();
        assert_eq!(second.step(), 3);
        let rest = run(&mut second, &at("stopped"));

        assert_eq!(rest, whole[3..]);
        let mut files: Vec<_> = std::fs::read_dir(at("whole/step-0000000006"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files.len(), if judged { 7 } else { 5 }, "{files:?}");
        for file in files {
            let end = |run: &str| bytes(&at(run).join("step-0000000006").join(&file));
            assert!(end("whole") == end("stopped"), "{file} differs");
        }
    }
}

#[test]
fn training_lowers_the_error_and_uses_the_codebook() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path());
    let mut trainer = open(folder.path(), options().steps(60).checkpoint_every(1000).keep_checkpoints(1));
    let mut steps = Vec::new();
    trainer.run(folder.path().join("checkpoints"), |_| Ok(batch(0)), |step| steps.push(step.clone())).unwrap();
    assert!(steps[59].psnr_db > steps[0].psnr_db + 6.0, "{} to {}", steps[0].psnr_db, steps[59].psnr_db);
    assert!(steps[59].codes_used > 8, "{:?}", steps[59]);
    assert_eq!(steps[0].codes_revived, 32, "the codebook starts from latents");
}

#[test]
fn what_is_saved_gives_back_what_the_trainer_does() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path());
    let mut trainer = open(folder.path(), options());
    run(&mut trainer, &folder.path().join("checkpoints"));
    let pictures = batch(100);

    let saved = |trainer: &VqTrainer, dtype: Dtype| {
        let saved = folder.path().join(dtype.to_string());
        trainer.save(&saved, dtype).unwrap();
        ImageTokenizer::open(saved, &Compute::cpu()).unwrap()
    };
    let tokenizer = saved(&trainer, Dtype::F32);
    let of_run = folder.path().join("checkpoints/step-0000000006");
    let checkpoint = ImageTokenizer::open(of_run, &Compute::cpu()).unwrap();
    let (mut squares, mut n) = (0.0, 0.0);
    for picture in &pictures {
        let codes = tokenizer.encode(picture).unwrap();
        assert_eq!(checkpoint.encode(picture).unwrap(), codes);
        let back = tokenizer.decode(&codes, Bands::Whole).unwrap();
        squares += picture.iter().zip(back.iter()).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum::<f64>();
        n += picture.len() as f64;
    }
    let report = evaluate_vq(&tokenizer, pictures.clone()).unwrap();
    assert!((report.psnr_db - 10.0 * (255.0f64.powi(2) / (squares / n)).log10()).abs() < 1e-9);
    assert_eq!((report.pictures, report.n_codes), (4, 32));
    assert!(report.perplexity <= report.codes_used as f64 + 1e-9 && report.codes_used <= 32);
    let half = saved(&trainer, Dtype::BF16);
    // The trainer measures before rounding to 8 bits and without cutting off at black and white.
    let of_trainer = trainer.train(&pictures).unwrap().psnr_db;
    assert!((report.psnr_db - of_trainer).abs() < 0.5, "{} and {of_trainer}", report.psnr_db);

    let half = evaluate_vq(&half, pictures).unwrap();
    assert!((half.psnr_db - report.psnr_db).abs() < 1.0, "{half:?} {report:?}");
    let weights = Checkpoint::open(folder.path().join("bf16/vqgan.safetensors")).unwrap();
    assert_eq!(weights.get("encoder.conv_in.weight").unwrap().dtype(), Dtype::BF16);
    assert!(matches!(trainer.save(folder.path(), Dtype::I8), Err(Error::Setting { field: "dtype", .. })));
}

#[test]
fn the_discriminator_joins_at_its_step() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path());
    let judge = DiscriminatorOptions { start: 2, layers: 2, channels: 8, weight: 0.8 };
    let options = options().steps(12).discriminator(Some(judge)).keep_checkpoints(1);
    let steps = run(&mut open(folder.path(), options), &folder.path().join("checkpoints"));
    assert!(steps[..2].iter().all(|step| step.adversarial.is_none()));
    let judged: Vec<_> = steps[2..].iter().map(|step| step.adversarial.clone().unwrap()).collect();
    assert!(judged.iter().all(|part| part.adaptive_weight > 0.0 && part.discriminator_loss > 0.0), "{judged:?}");
    assert!(judged[0].discriminator_loss != judged[9].discriminator_loss, "{judged:?}");
    // The checkpoint has it under the original's names, and its tokenizer opens beside it.
    let of_run = folder.path().join("checkpoints/step-0000000012");
    let checkpoint = Checkpoint::open(of_run.join("discriminator.safetensors")).unwrap();
    for (name, shape) in [("0.weight", vec![8, 3, 4, 4]), ("2.weight", vec![16, 8, 4, 4]), ("3.bias", vec![16])] {
        assert_eq!(checkpoint.get(&format!("loss.discriminator.main.{name}")).unwrap().shape(), shape);
    }
    assert_eq!(checkpoint.get("loss.discriminator.main.8.weight").unwrap().shape(), [1, 32, 4, 4]);
    ImageTokenizer::open(of_run, &Compute::cpu()).unwrap();
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_before_anything_changes() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path());
    let mut trainer = open(folder.path(), options().learning_rate(1e30));
    let error = loop {
        let weights = folder.path().join("before");
        trainer.save(&weights, Dtype::F32).unwrap();
        if let Err(error) = trainer.train(&batch(trainer.step())) {
            trainer.save(folder.path().join("after"), Dtype::F32).unwrap();
            let [before, after] =
                ["before", "after"].map(|name| bytes(&folder.path().join(name).join("vqgan.safetensors")));
            assert!(before == after);
            break error;
        }
        assert!(trainer.step() < 6, "a learning rate of 1e30 must break the network");
    };
    assert!(matches!(error, Error::NotFiniteValue { step, .. } if step == trainer.step()), "{error}");
    assert!(error.to_string().starts_with(&format!("step {}: ", trainer.step())), "{error}");
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path());
    let judge = DiscriminatorOptions { layers: 4, ..DiscriminatorOptions::default() };
    let mut trainer = open(folder.path(), options());
    let mut judged = open(folder.path(), options().discriminator(Some(judge)));
    let plain = |width, height| RgbImage::new(width, height);
    for (pictures, part) in [
        (vec![], "empty"),
        (vec![plain(15, 16)], "multiples of 2"),
        (vec![plain(0, 0)], "multiples of 2"),
        (vec![plain(16, 16), plain(16, 18)], "16x16 and of 16x18"),
    ] {
        let message = trainer.train(&pictures).unwrap_err().to_string();
        assert!(message.starts_with("step 0: ") && message.contains(part), "{message}");
    }
    let message = judged.train(&[plain(16, 16)]).unwrap_err().to_string();
    assert!(message.contains("too few for the discriminator"), "{message}");
}

#[test]
fn only_the_newest_checkpoints_stay_and_broken_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    start(&at("start"));
    let mut trainer = open(&at("start"), options().steps(4).checkpoint_every(1).keep_checkpoints(2));
    // What a run that was stopped while writing leaves behind.
    std::fs::create_dir_all(at("run/step-0000000002.partial")).unwrap();
    std::fs::write(at("run/step-0000000002.partial/training.json"), "{").unwrap();
    run(&mut trainer, &at("run"));
    let mut names: Vec<_> =
        std::fs::read_dir(at("run")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["step-0000000003", "step-0000000004"]);
    assert_eq!(VqTrainer::resume(at("run"), &Compute::cpu()).unwrap().step(), 4);
    assert_eq!(VqTrainer::resume(at("run/step-0000000003"), &Compute::cpu()).unwrap().step(), 3);

    let refused = |what: &str| {
        let message = VqTrainer::resume(at("run"), &Compute::cpu()).unwrap_err().to_string();
        assert!(message.contains(what), "{message}");
    };
    let newest = at("run/step-0000000004");
    std::fs::copy(newest.join("codebook.safetensors"), newest.join("optimizer.safetensors")).unwrap();
    refused("optimizer.safetensors");
    std::fs::copy(newest.join("vqgan.safetensors"), newest.join("codebook.safetensors")).unwrap();
    refused("`idle` is missing");
    std::fs::write(newest.join("training.json"), "{\"format\": 1}").unwrap();
    refused("training.json");
    std::fs::write(newest.join("training.json"), "not json").unwrap();
    refused("training.json");
    let later = trainer.step();
    let mut fresh = open(&at("start"), options());
    let message = fresh.run(at("run"), |step| Ok(batch(step)), |_| ()).unwrap_err().to_string();
    assert!(later > 0 && message.contains("beyond step 0"), "{message}");
    let empty = VqTrainer::resume(folder.path(), &Compute::cpu()).unwrap_err().to_string();
    assert!(empty.contains("holds no checkpoint"), "{empty}");
}

#[test]
fn the_same_seed_makes_the_same_network() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, seed| {
        init_vq(&config(), seed, folder.path().join(name), &Compute::cpu()).unwrap();
        bytes(&folder.path().join(name).join("vqgan.safetensors"))
    };
    let first = make("a", 1);
    assert!(first == make("b", 1) && first != make("c", 2));
    let tokenizer = ImageTokenizer::open(folder.path().join("a"), &Compute::cpu()).unwrap();
    assert_eq!(tokenizer.config(), &config());
}

#[test]
fn what_no_network_can_be_is_refused() {
    let shape = |channels, n_codes| VqHyperparameters { channels, n_codes, ..VqHyperparameters::default() };
    for (shape, part) in [(shape(48, 16), "multiple of 32"), (shape(32, 0), "`n_embed` is 0")] {
        let message = VqConfig::new(shape).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    let folder = tempfile::tempdir().unwrap();
    start(folder.path());
    let mut trainer = open(folder.path(), options());
    assert_eq!(trainer.model().codebook().dims(), [32, 4]);
    let mut model = trainer.model().clone();
    let message = model.set_codebook(trainer.model().codebook().narrow(0, 0, 3)).unwrap_err().to_string();
    assert!(message.contains("[3, 4]") && message.contains("[32, 4]"), "{message}");
    assert!(VqTrainer::open(folder.path().join("no"), options(), &Compute::cpu()).is_err());
    let nothing = evaluate_vq(&ImageTokenizer::open(folder.path(), &Compute::cpu()).unwrap(), []);
    assert!(matches!(nothing, Err(Error::Setting { field: "pictures", .. })));
    // An error of the source of pictures ends the run.
    let refuse = |_| Err(Error::Setting { field: "source", reason: "is dry".to_owned() });
    assert!(trainer.run(folder.path().join("run"), refuse, |_| ()).unwrap_err().to_string().contains("is dry"));
}

#[test]
fn each_sort_of_patch_gets_a_code_and_training_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    start(&at("start"));
    let mut trainer = open(&at("start"), options().quantize_from(6));
    run(&mut trainer, &at("run"));
    trainer.save(at("trained"), Dtype::F32).unwrap();
    let sorts =
        |pictures: Vec<RgbImage>, tolerance, most| PatchSorts::of(pictures, 2, PatchSortsOptions { tolerance, most });
    let make = |to: &str, pictures: Vec<RgbImage>, sorts: &PatchSorts| {
        codes_from_patches(at("trained"), at(to), pictures, sorts, &Compute::cpu())
    };
    let pictures = || (0..10).flat_map(batch).collect::<Vec<_>>();

    let every = sorts(pictures(), 0.0, usize::MAX).unwrap();
    let fewer = sorts(pictures(), 40.0, usize::MAX).unwrap();
    assert!((2..every.len()).contains(&fewer.len()), "{} of {}", fewer.len(), every.len());
    let most = sorts(pictures(), 40.0, 2).unwrap();
    assert_eq!(most.len(), 2);
    let of = |sorts: &PatchSorts| {
        pictures().iter().flat_map(|picture| sorts.codes(picture).unwrap()).collect::<HashSet<_>>()
    };
    assert_eq!(of(&every), (0..every.len() as u32).map(Some).collect());
    assert_eq!(of(&most), HashSet::from([Some(0), Some(1), None]));

    // A picture alone is its own latents, so that each patch finds the code that was made of it.
    let alone = batch(0).swap_remove(0);
    let own = sorts(vec![alone.clone()], 0.0, usize::MAX).unwrap();
    make("alone", vec![alone.clone()], &own).unwrap();
    let tokenizer = ImageTokenizer::open(at("alone"), &Compute::cpu()).unwrap();
    let codes = tokenizer.encode(&alone).unwrap();
    assert_eq!(tokenizer.config().n_codes(), own.len());
    assert_eq!(codes.codes().iter().copied().map(Some).collect::<Vec<_>>(), own.codes(&alone).unwrap());

    // What is counted as used are the codes that are assigned, not those that are near.
    make("fewer", pictures(), &fewer).unwrap();
    let again = || options().codebook_start(CodebookStart::File).commitment_weight(1.0).usage_window(9);
    let mut trainer = open(&at("fewer"), again()).assign(fewer.clone()).unwrap();
    assert_eq!(trainer.config().n_codes(), fewer.len());
    let steps = run(&mut trainer, &at("again"));
    let seen: HashSet<_> = (0..6).flat_map(batch).flat_map(|picture| fewer.codes(&picture).unwrap()).collect();
    assert_eq!(steps.last().unwrap().codes_used, seen.len());
    let chosen = run(&mut open(&at("fewer"), again()), &at("chosen"));
    assert_ne!(chosen.last().unwrap(), steps.last().unwrap());

    // With the codebook fixed pictures keep their codes, and the decoder learns.
    let mut trainer = open(&at("fewer"), options().codebook(Codebook::Fixed).learning_rate(1e-2));
    let (before, psnr) = (trainer.model().codebook().into_data(), trainer.train(&batch(0)).unwrap().psnr_db);
    for _ in 0..5 {
        trainer.train(&batch(0)).unwrap();
    }
    assert!(trainer.train(&batch(0)).unwrap().psnr_db > psnr);
    assert_eq!(trainer.model().codebook().into_data(), before);
    trainer.save(at("fixed"), Dtype::F32).unwrap();
    let codes = |of: &str| ImageTokenizer::open(at(of), &Compute::cpu()).unwrap().encode(&alone).unwrap();
    assert_eq!(codes("fixed"), codes("fewer"));

    let none = sorts(pictures(), 1.0, 0).unwrap_err();
    assert!(matches!(none, Error::Setting { field: "most", .. }), "{none}");
    let odd = vec![RgbImage::new(16, 15)];
    for pictures in [Vec::new(), odd] {
        let refused = sorts(pictures, 1.0, 9).unwrap_err();
        assert!(matches!(refused, Error::Setting { field: "pictures", .. }), "{refused}");
    }
    let larger = PatchSorts::of(pictures(), 4, PatchSortsOptions { tolerance: 1.0, most: 9 }).unwrap();
    assert!(matches!(make("none", pictures(), &larger), Err(Error::Setting { field: "sorts", .. })));
    assert!(matches!(make("none", vec![alone], &every), Err(Error::Setting { field: "pictures", .. })));
    assert!(matches!(open(&at("alone"), again()).assign(every), Err(Error::Setting { field: "sorts", .. })));
    assert!(!at("none").exists());
}
