//! Training of small VQGANs: resuming, saving, the discriminator, and errors.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

#[cfg(feature = "mpi")]
mod mpi;
mod ranks;

use std::path::Path;

use image::{Rgb, RgbImage};
use lumina_checkpoint::{Checkpoint, Dtype};
use lumina_nn::Compute;
use lumina_train::optim::StepSchedule;
use lumina_train::vq::{
    CodebookStart, CodebookUpdate, DiscriminatorOptions, VqStepReport, VqTrainer, VqTrainingOptions, evaluate_vq,
    init_vq, prune_codebook,
};
use lumina_train::{Ended, Error, RunEvent};
use lumina_vq::{Bands, ImageTokenizer, Maps, VqConfig, VqHyperparameters, VqModel, preprocess};

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

/// Rectangles on a plain background, other ones at each step.
fn batch(step: u64) -> Vec<RgbImage> {
    let image = |index: u64| {
        let n = (step * 4 + index) * 0x9e37_79b9 % 4099;
        let colour = |k: u64| Rgb([(n * k % 256) as u8, (n * k * 3 % 256) as u8, (n * k * 7 % 256) as u8]);
        let (left, top) = ((n % 8) as u32, (n / 8 % 8) as u32);
        RgbImage::from_fn(16, 16, |x, y| {
            let inside = (left..left + 8).contains(&x) && (top..top + 8).contains(&y);
            if inside { colour(5) } else { colour(11) }
        })
    };
    (0..4).map(image).collect()
}

/// A small one, from step 2 on.
const DISCRIMINATOR: DiscriminatorOptions = DiscriminatorOptions { start: 2, layers: 1, channels: 4, weight: 0.5 };

fn options() -> VqTrainingOptions {
    VqTrainingOptions::default()
        .steps(6)
        .learning_rate(2e-3)
        .schedule(StepSchedule::Cosine { warmup_steps: 2, floor: 0.1 })
        .l2_weight(1.0)
        .codebook(CodebookUpdate::Ema { decay: 0.9 })
        .codebook_start(CodebookStart::Latents)
        .revive_after(Some(2))
        .usage_window(3)
        .checkpoint_every(3)
}

fn start(folder: &Path) {
    init_vq(&config(), 5, folder, &Compute::cpu()).unwrap();
}

fn open(folder: &Path, options: VqTrainingOptions) -> VqTrainer {
    VqTrainer::new(folder, options, &Compute::cpu()).unwrap()
}

fn run(trainer: &mut VqTrainer, folder: &Path) -> Vec<VqStepReport> {
    run_on(trainer, folder, batch)
}

fn run_on(trainer: &mut VqTrainer, folder: &Path, batch: impl Fn(u64) -> Vec<RgbImage>) -> Vec<VqStepReport> {
    let mut steps = Vec::new();
    let ended = trainer.run(
        folder,
        |step| Ok(batch(step)),
        |event| {
            if let RunEvent::Step(step) = event {
                steps.push(step.clone());
            }
        },
    );
    assert_eq!(ended.unwrap(), Ended::Finished);
    steps
}

fn bytes(file: &Path) -> Vec<u8> {
    std::fs::read(file).unwrap()
}

#[test]
fn a_resumed_run_equals_one_that_was_not_stopped() {
    for options in [options().discriminator(Some(DISCRIMINATOR)), options().codebook(CodebookUpdate::Gradient)] {
        let adversarial = options.discriminator.is_some();
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        start(&at("start"));
        let whole = run(&mut open(&at("start"), options.clone()), &at("whole"));

        let mut first = open(&at("start"), options.clone());
        for step in 0..3 {
            first.step(&batch(step)).unwrap();
        }
        first.save(&at("stopped/step-0000000003")).unwrap();
        drop(first);
        let mut second = VqTrainer::resume(at("stopped"), options, &Compute::cpu()).unwrap();
        assert_eq!(second.steps_done(), 3);
        let rest = run(&mut second, &at("stopped"));

        assert_eq!(rest, whole[3..]);
        let mut files: Vec<_> = std::fs::read_dir(at("whole/step-0000000006"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files.len(), if adversarial { 7 } else { 5 }, "{files:?}");
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
    let steps = run_on(&mut trainer, &folder.path().join("checkpoints"), |_| batch(0));
    assert!(steps[59].psnr_db > steps[0].psnr_db + 6.0, "{} to {}", steps[0].psnr_db, steps[59].psnr_db);
    assert!(steps[59].codes_used > 8, "{:?}", steps[59]);
    assert_eq!(steps[0].codes_revived, 32, "the codebook starts from latents");
}

#[test]
fn a_local_tokenizer_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    let shape = VqHyperparameters {
        embed_dim: 8,
        n_codes: 64,
        channels: 32,
        multipliers: vec![1; 4],
        n_res_blocks: 1,
        latent_channels: 16,
        is_local: true,
        ..VqHyperparameters::default()
    };
    init_vq(&VqConfig::new(shape).unwrap(), 5, folder.path().join("start"), &Compute::cpu()).unwrap();
    let options = options().steps(60).schedule(StepSchedule::Constant).quantize_from(30);
    let options = options.max_gradient_norm(Some(1.0)).revive_after(Some(20)).checkpoint_every(1000);
    let mut trainer = open(&folder.path().join("start"), options);
    let steps = run_on(&mut trainer, &folder.path().join("checkpoints"), |_| batch(0));
    let [first, unquantized, last] = [0, 29, 59].map(|step| steps[step].l2);
    assert!(unquantized < 0.3 * first && last < 0.3 * first, "{first}, {unquantized}, {last}");
    assert!(steps[29].codes_used == 0 && steps[29].quantization == 0.0, "{:?}", steps[29]);
    assert!(steps[30].codes_revived > 8, "codes are latents of the first step that has them: {:?}", steps[30]);
    assert!(steps[59].codes_used > 8, "{:?}", steps[59]);

    // What is exported is local, and computes in host memory what the trainer computes in tensors.
    trainer.export(folder.path().join("trained"), Dtype::F32).unwrap();
    let tokenizer = ImageTokenizer::open(folder.path().join("trained"), &Compute::cpu()).unwrap();
    assert!(tokenizer.config().is_local());
    let image = &batch(0)[1];
    let grid = tokenizer.encode(image).unwrap();
    let corner = image::imageops::crop_imm(image, 8, 8, 8, 8).to_image();
    assert_eq!(tokenizer.encode(&corner).unwrap().codes(), [grid.codes()[3]]);
    let run = |model: &VqModel| {
        let pixels = Maps::new(&Compute::cpu(), preprocess::to_tensor_values(image), [1, 3, 16, 16]);
        let latents = model.latents(pixels, Bands::Whole).unwrap().read().unwrap();
        let decoded = model.decode(model.lookup(grid.codes(), [1, 2, 2]).unwrap(), Bands::Rows(5)).unwrap();
        [latents, decoded.read().unwrap()]
    };
    for (found, expected) in run(trainer.model()).iter().zip(&run(tokenizer.model())) {
        let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
        assert!(found.len() == expected.len() && worst <= 1e-4 * largest, "{worst} of {largest}");
    }
}

/// Adam's updates do not depend on the size of gradients, but for an epsilon: clipped far below it, weights stay.
#[test]
fn gradients_are_clipped_together() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path());
    let step = |max| {
        let fixed = options().schedule(StepSchedule::Constant).codebook(CodebookUpdate::Gradient);
        let mut trainer = open(folder.path(), fixed.codebook_start(CodebookStart::File).max_gradient_norm(max));
        let report = trainer.step(&batch(0)).unwrap();
        (report, trainer)
    };
    let weight = |trainer: &VqTrainer| {
        let target = tempfile::tempdir().unwrap();
        trainer.export(target.path(), Dtype::F32).unwrap();
        let file = Checkpoint::open(target.path().join("vqgan.safetensors")).unwrap();
        file.get("decoder.conv_out.weight").unwrap().to_f32().unwrap()
    };
    let before = Checkpoint::open(folder.path().join("vqgan.safetensors")).unwrap();
    let before = before.get("decoder.conv_out.weight").unwrap().to_f32().unwrap();
    let moved = |trainer: &VqTrainer| {
        let differences = weight(trainer).into_iter().zip(&before).map(|(a, b)| (a - b).abs());
        differences.fold(0.0f32, f32::max)
    };
    let (free, free_trainer) = step(None);
    let (clipped, clipped_trainer) = step(Some(1e-11));
    let (loose, loose_trainer) = step(Some(1e9));
    assert!(free.gradient_norm > 1e-3);
    assert_eq!((free.gradient_norm, free.loss), (clipped.gradient_norm, clipped.loss), "before clipping");
    assert!(moved(&free_trainer) > 1e-3 && moved(&clipped_trainer) < 1e-5, "{}", moved(&clipped_trainer));
    assert_eq!(free, loose);
    assert_eq!(weight(&free_trainer), weight(&loose_trainer));
}

#[test]
fn a_saved_tokenizer_reconstructs_as_the_trainer_does() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path());
    let mut trainer = open(folder.path(), options());
    run(&mut trainer, &folder.path().join("checkpoints"));
    let images = batch(100);

    let saved = |trainer: &VqTrainer, dtype: Dtype| {
        let saved = folder.path().join(dtype.to_string());
        trainer.export(&saved, dtype).unwrap();
        ImageTokenizer::open(saved, &Compute::cpu()).unwrap()
    };
    let tokenizer = saved(&trainer, Dtype::F32);
    let of_run = folder.path().join("checkpoints/step-0000000006");
    let checkpoint = ImageTokenizer::open(of_run, &Compute::cpu()).unwrap();
    let (mut squares, mut n) = (0.0, 0.0);
    for image in &images {
        let codes = tokenizer.encode(image).unwrap();
        assert_eq!(checkpoint.encode(image).unwrap(), codes);
        let decoded = tokenizer.decode(&codes, Bands::Whole).unwrap();
        squares += image.iter().zip(decoded.iter()).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum::<f64>();
        n += image.len() as f64;
    }
    let report = evaluate_vq(&tokenizer, images.clone()).unwrap();
    assert!((report.psnr_db - 10.0 * (255.0f64.powi(2) / (squares / n)).log10()).abs() < 1e-9);
    assert_eq!((report.images, report.n_codes), (4, 32));
    assert!(report.perplexity <= report.codes_used as f64 + 1e-9 && report.codes_used <= 32);
    let half = saved(&trainer, Dtype::BF16);
    // The trainer measures before rounding to 8 bits and without cutting off at black and white.
    let of_trainer = trainer.step(&images).unwrap().psnr_db;
    assert!((report.psnr_db - of_trainer).abs() < 0.5, "{} and {of_trainer}", report.psnr_db);

    let half = evaluate_vq(&half, images).unwrap();
    assert!((half.psnr_db - report.psnr_db).abs() < 1.0, "{half:?} {report:?}");
    let weights = Checkpoint::open(folder.path().join("bf16/vqgan.safetensors")).unwrap();
    assert_eq!(weights.get("encoder.conv_in.weight").unwrap().dtype(), Dtype::BF16);
    assert!(matches!(trainer.export(folder.path(), Dtype::I8), Err(Error::WeightType { dtype: Dtype::I8 })));
}

#[test]
fn the_discriminator_is_active_from_its_step_on() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path());
    let discriminator = DiscriminatorOptions { start: 2, layers: 2, channels: 8, weight: 0.8 };
    let options = options().steps(12).discriminator(Some(discriminator)).keep_checkpoints(1);
    let steps = run(&mut open(folder.path(), options), &folder.path().join("checkpoints"));
    assert!(steps[..2].iter().all(|step| step.adversarial.is_none()));
    let adversarial: Vec<_> = steps[2..].iter().map(|step| step.adversarial.clone().unwrap()).collect();
    let positive = adversarial.iter().all(|part| part.adaptive_weight > 0.0 && part.discriminator_loss > 0.0);
    assert!(positive, "{adversarial:?}");
    assert!(adversarial[0].discriminator_loss != adversarial[9].discriminator_loss, "{adversarial:?}");
    // The checkpoint has it under the original's names, and opens as a tokenizer.
    let of_run = folder.path().join("checkpoints/step-0000000012");
    let checkpoint = Checkpoint::open(of_run.join("discriminator.safetensors")).unwrap();
    for (name, shape) in [("0.weight", vec![8, 3, 4, 4]), ("2.weight", vec![16, 8, 4, 4]), ("3.bias", vec![16])] {
        assert_eq!(checkpoint.get(&format!("loss.discriminator.main.{name}")).unwrap().shape(), shape);
    }
    assert_eq!(checkpoint.get("loss.discriminator.main.8.weight").unwrap().shape(), [1, 32, 4, 4]);
    ImageTokenizer::open(of_run, &Compute::cpu()).unwrap();
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run_before_anything_changes() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path());
    let mut trainer = open(folder.path(), options().learning_rate(1e30));
    let error = loop {
        let weights = folder.path().join("before");
        trainer.export(&weights, Dtype::F32).unwrap();
        if let Err(error) = trainer.step(&batch(trainer.steps_done())) {
            trainer.export(folder.path().join("after"), Dtype::F32).unwrap();
            let [before, after] =
                ["before", "after"].map(|name| bytes(&folder.path().join(name).join("vqgan.safetensors")));
            assert!(before == after);
            break error;
        }
        assert!(trainer.steps_done() < 6, "a learning rate of 1e30 must break the network");
    };
    assert!(matches!(error, Error::NotFiniteValue { step, .. } if step == trainer.steps_done()), "{error}");
    assert!(error.to_string().starts_with(&format!("step {}: ", trainer.steps_done())), "{error}");
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path());
    let discriminator = DiscriminatorOptions { layers: 4, ..DiscriminatorOptions::default() };
    let mut trainer = open(folder.path(), options());
    let mut adversarial = open(folder.path(), options().discriminator(Some(discriminator)));
    let plain = |width, height| RgbImage::new(width, height);
    for (images, part) in [
        (vec![], "empty"),
        (vec![plain(15, 16)], "multiples of 2"),
        (vec![plain(0, 0)], "multiples of 2"),
        (vec![plain(16, 16), plain(16, 18)], "16x16 and of 16x18"),
    ] {
        let message = trainer.step(&images).unwrap_err().to_string();
        assert!(message.starts_with("step 0: ") && message.contains(part), "{message}");
    }
    let message = adversarial.step(&[plain(16, 16)]).unwrap_err().to_string();
    assert!(message.contains("too few for the discriminator"), "{message}");
}

#[test]
fn only_the_newest_checkpoints_stay_and_broken_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    start(&at("start"));
    let of_run = || options().steps(4).checkpoint_every(1).keep_checkpoints(2);
    let resume = |folder: &str| VqTrainer::resume(at(folder), of_run(), &Compute::cpu());
    let mut trainer = open(&at("start"), of_run());
    // What a run that was stopped while writing leaves behind.
    std::fs::create_dir_all(at("run/step-0000000002.partial")).unwrap();
    std::fs::write(at("run/step-0000000002.partial/trainer.json"), "{").unwrap();
    run(&mut trainer, &at("run"));
    let mut names: Vec<_> =
        std::fs::read_dir(at("run")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["step-0000000003", "step-0000000004"]);
    assert_eq!(resume("run").unwrap().steps_done(), 4);
    assert_eq!(resume("run/step-0000000003").unwrap().steps_done(), 3);

    let refused = |what: &str| {
        let message = resume("run").unwrap_err().to_string();
        assert!(message.contains(what), "{message}");
    };
    let newest = at("run/step-0000000004");
    std::fs::copy(newest.join("codebook.safetensors"), newest.join("optimizer.safetensors")).unwrap();
    refused("optimizer.safetensors");
    std::fs::copy(newest.join("vqgan.safetensors"), newest.join("codebook.safetensors")).unwrap();
    refused("`idle` is missing");
    std::fs::write(newest.join("trainer.json"), "{\"format\": 1}").unwrap();
    refused("trainer.json");
    std::fs::write(newest.join("trainer.json"), "not json").unwrap();
    refused("trainer.json");
    let later = trainer.steps_done();
    let mut fresh = open(&at("start"), options());
    let message = fresh.run(&at("run"), |step| Ok(batch(step)), |_| ()).unwrap_err().to_string();
    assert!(later > 0 && message.contains("beyond step 0"), "{message}");
    let empty = resume("").unwrap_err().to_string();
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
fn impossible_networks_are_refused() {
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
    assert!(VqTrainer::new(folder.path().join("no"), options(), &Compute::cpu()).is_err());
    let shared = VqTrainer::new(folder.path(), options(), &Compute::cpu().then(Compute::cpu())).unwrap_err();
    assert!(shared.to_string().contains("cannot share a model"), "{shared}");
    let nothing = evaluate_vq(&ImageTokenizer::open(folder.path(), &Compute::cpu()).unwrap(), []);
    assert!(matches!(nothing, Err(Error::NoImages)));
    // What an image tokenizer is opened from is what is trained, whatever its name.
    let named = |name: &str| folder.path().join(name);
    std::fs::rename(named("vqgan.safetensors"), named("model.safetensors")).unwrap();
    assert!(ImageTokenizer::open(folder.path(), &Compute::cpu()).is_ok());
    assert!(VqTrainer::new(folder.path(), options(), &Compute::cpu()).is_ok());
    // An error of the source of images ends the run.
    let refuse = |_| Err(Error::Data { file: "source".into(), reason: "is dry".to_owned() });
    assert!(trainer.run(&folder.path().join("run"), refuse, |_| ()).unwrap_err().to_string().contains("is dry"));
}

#[test]
fn with_a_fixed_codebook_images_keep_their_codes_and_the_decoder_learns() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    start(&at("start"));
    let mut trainer = open(&at("start"), options());
    run(&mut trainer, &at("run"));
    trainer.export(at("trained"), Dtype::F32).unwrap();
    let fixed = options().codebook_start(CodebookStart::File).codebook(CodebookUpdate::Fixed).learning_rate(1e-2);
    let mut trainer = open(&at("trained"), fixed);
    let (before, psnr) = (trainer.model().codebook().into_data(), trainer.step(&batch(0)).unwrap().psnr_db);
    for _ in 0..5 {
        trainer.step(&batch(0)).unwrap();
    }
    assert!(trainer.step(&batch(0)).unwrap().psnr_db > psnr);
    assert_eq!(trainer.model().codebook().into_data(), before);
    trainer.export(at("fixed"), Dtype::F32).unwrap();
    let codes = |of: &str| ImageTokenizer::open(at(of), &Compute::cpu()).unwrap().encode(&batch(3)[2]).unwrap();
    assert_eq!(codes("fixed"), codes("trained"));
}

/// Runs of older versions go on, unless their patches were given codes.
#[test]
fn states_with_patch_clusters_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    start(&at("start"));
    let mut trainer = open(&at("start"), options());
    trainer.step(&batch(0)).unwrap();
    trainer.save(&at("run/step-0000000001")).unwrap();
    let file = at("run/step-0000000001/trainer.json");
    let state = std::fs::read_to_string(&file).unwrap();
    assert!(!state.contains("clusters"), "{state}");
    let resume = |clusters: &str| {
        std::fs::write(&file, state.replacen('{', &format!("{{\"clusters\": \"{clusters}\","), 1)).unwrap();
        VqTrainer::resume(at("run"), options(), &Compute::cpu())
    };
    assert_eq!(resume("none").unwrap().steps_done(), 1);
    let error = resume("406 clusters of patches of 16 pixels").unwrap_err();
    assert!(error.to_string().contains("trainer.json"), "{error}");
}

#[test]
fn steps_may_grow_where_the_learning_rate_is_constant() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    start(&at("start"));
    let cosine = StepSchedule::Cosine { warmup_steps: 1, floor: 0.0 };
    for (name, schedule) in [("constant", StepSchedule::Constant), ("cosine", cosine)] {
        let of = |steps| options().steps(steps).schedule(schedule);
        run(&mut open(&at("start"), of(2)), &at(name));
        let longer = VqTrainer::resume(at(name), of(3), &Compute::cpu());
        let refused = if schedule == StepSchedule::Constant {
            assert_eq!(run(&mut longer.unwrap(), &at(name)).len(), 1);
            VqTrainer::resume(at(name), of(2), &Compute::cpu()).unwrap_err().to_string()
        } else {
            longer.unwrap_err().to_string()
        };
        assert!(refused.contains("`steps`") && refused.contains('2') && refused.contains('3'), "{refused}");
    }
}

#[test]
fn a_run_on_other_images_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    start(&at("start"));
    let on = |data: &str| options().steps(2).data(Some(data.to_owned()));
    run(&mut open(&at("start"), on("birds")), &at("run"));
    let refused = VqTrainer::resume(at("run"), on("fish"), &Compute::cpu()).unwrap_err().to_string();
    assert!(refused.contains("`data`") && refused.contains("birds") && refused.contains("fish"), "{refused}");
    let unsaid = VqTrainer::resume(at("run"), options().steps(2), &Compute::cpu()).unwrap_err().to_string();
    assert!(unsaid.contains("birds"), "{unsaid}");
    assert!(VqTrainer::resume(at("run"), on("birds"), &Compute::cpu()).is_ok());
}

/// What is left out does not occur, so that the same images have the same entries, under new numbers.
#[test]
fn a_pruned_codebook_has_the_codes_that_occur() {
    let place = tempfile::tempdir().unwrap();
    let [whole, pruned, few] = ["whole", "pruned", "few"].map(|name| place.path().join(name));
    start(&whole);
    let images = || (0..3).flat_map(batch);
    let open = |folder: &Path| ImageTokenizer::open(folder, &Compute::cpu()).unwrap();
    let count = |folder: &Path| evaluate_vq(&open(folder), images()).unwrap();
    let used = count(&whole).codes_used;
    assert!((3..32).contains(&used), "{used}");
    assert_eq!(prune_codebook(&whole, &pruned, images(), 1, &Compute::cpu()).unwrap(), used);
    let (before, after) = (count(&whole), count(&pruned));
    assert_eq!((after.n_codes, after.codes_used, after.mean_psnr_db), (used, used, before.mean_psnr_db));
    let codes = |folder: &Path| -> Vec<u32> {
        images().flat_map(|image| open(folder).encode(&image).unwrap().codes().to_vec()).collect()
    };
    let mut numbers: Vec<(u32, u32)> = codes(&whole).into_iter().zip(codes(&pruned)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), used, "each code has one number");
    assert!(numbers.is_sorted_by_key(|&(_, new)| new), "in the same order");
    // Rare ones are left out too, and all of them cannot be.
    assert!((1..used).contains(&prune_codebook(&whole, &few, images(), 4, &Compute::cpu()).unwrap()));
    let none = prune_codebook(&whole, &few, images(), 13, &Compute::cpu());
    assert!(matches!(none, Err(Error::NoCodes { n_images: 12, at_least: 13 })), "{none:?}");
}
