//! Whole requests, greedily: the same tokens, text and images as the original's `generate`.

use image::RgbImage;
use lumina_checkpoint::Checkpoint;
use lumina_mgpt::{Compute, Conversation, InputImage, Lumina, Output, Part, Request, SamplingOptions};
use lumina_testing::{cases, integers, part, report};
use serde_json::Value;

use super::targets_of;

fn open(case: &Value, compute: &Compute) -> Lumina {
    let folder = part("model").join(case["model"].as_str().unwrap());
    let mut builder = Lumina::from_pretrained(&folder).image_tokenizer(part("vq")).compute(compute.clone());
    if !folder.join("tokenizer.json").exists() {
        builder = builder.tokenizer(part("tokenizer"));
    }
    builder.target_size_px(case["target_size"].as_u64().unwrap() as u32).load().unwrap()
}

fn image(arrays: &Checkpoint, name: &str) -> Option<RgbImage> {
    let view = arrays.get(name)?;
    let &[height, width, 3] = view.shape() else { panic!("{name}: {:?}", view.shape()) };
    RgbImage::from_raw(width as u32, height as u32, view.bytes().to_vec())
}

/// The case's request: `<|image|>` in its texts are the input images, in order.
fn request(case: &Value, model: &Lumina, arrays: &Checkpoint) -> Request {
    let name = case["name"].as_str().unwrap();
    let mut images = (0..).map(|n| InputImage::from(image(arrays, &format!("{name}.input{n}")).unwrap()));
    let mut parts = |text: &str| {
        let mut content: Vec<Part> = Vec::new();
        for (index, piece) in text.split("<|image|>").enumerate() {
            if index > 0 {
                content.push(model.encode_image(&images.next().unwrap()).unwrap().into());
            }
            content.push(piece.into());
        }
        content
    };
    let turns = case["qas"].as_array().unwrap();
    // As in the original, images that no placeholder stands for come before the first question.
    let spelled_out = turns.iter().any(|turn| turn.to_string().contains("<|image|>"));
    let n_images = if spelled_out { 0 } else { case["images"].as_u64().unwrap() as usize };
    let mut before = "<|image|> ".repeat(n_images);
    let mut conversation = Conversation::new();
    for turn in turns {
        conversation = conversation.human(parts(&(std::mem::take(&mut before) + turn[0].as_str().unwrap())));
        if let Some(answer) = turn[1].as_str() {
            conversation = conversation.assistant(parts(answer));
        }
    }
    let sampling = SamplingOptions::default()
        .guidance_scale(case["guidance"].as_f64().unwrap() as f32)
        .image_top_k(1)
        .text_top_k(1);
    let max_new_tokens = case["max_new_tokens"].as_u64().unwrap() as usize;
    Request::new(conversation).with(|options| options.sampling(|_| sampling).max_new_tokens(max_new_tokens))
}

fn check(case: &Value, output: &Output, arrays: &Checkpoint, what: &str) {
    let name = case["name"].as_str().unwrap();
    assert_eq!(output.tokens, integers::<u32>(&case["generated"]), "{what}: generated tokens");
    // The original leaves a image that was cut off out of the text, and so does the text here.
    assert_eq!(output.text, case["text"].as_str().unwrap(), "{what}: text");
    assert_eq!(output.images.len() as u64, case["n_images"].as_u64().unwrap(), "{what}: images");
    for (index, found) in output.images.iter().enumerate() {
        let expected = image(arrays, &format!("{name}.output{index}")).unwrap();
        assert_eq!(found.dimensions(), expected.dimensions(), "{what}: size of image {index}");
        let worst = found.iter().zip(expected.iter()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst <= Some(1), "{what}: image {index} differs by {worst:?}");
    }
}

#[test]
fn requests() {
    let arrays = Checkpoint::open(part("generate/images.safetensors")).unwrap();
    let cases = cases("generate/cases.json");
    let models: std::collections::BTreeSet<&str> = cases.iter().map(|case| case["model"].as_str().unwrap()).collect();
    for folder in models {
        for compute in targets_of(&part("model").join(folder)) {
            let mut ran = 0;
            for case in cases.iter().filter(|case| case["model"] == folder) {
                let what = format!("{} on {compute}", case["name"]);
                let model = open(case, &compute);
                let request = request(case, &model, &arrays);
                let prompt = model.tokenizer().encode(&request.prompt.conversation().unwrap()).unwrap().tokens;
                assert_eq!(prompt, integers::<u32>(&case["prompt"]), "{what}: prompt");
                let output = model.generate(request).run().unwrap();
                check(case, &output, &arrays, &what);
                assert!(
                    output.stats.passes <= output.tokens.len() - output.stats.forced_tokens + 1,
                    "{what}: {:?}",
                    output.stats
                );
                ran += 1;
            }
            report(&format!("generate on {compute}"), ran);
        }
    }
}

/// All cases of a model in one batch: each as if it were alone.
#[test]
fn requests_in_one_batch() {
    let arrays = Checkpoint::open(part("generate/images.safetensors")).unwrap();
    let cases = cases("generate/cases.json");
    let key = |case: &Value| (case["model"].to_string(), case["target_size"].to_string());
    let keys: std::collections::BTreeSet<_> = cases.iter().map(key).collect();
    for wanted in &keys {
        let cases: Vec<&Value> = cases.iter().filter(|case| key(case) == *wanted).collect();
        for compute in targets_of(&part("model").join(cases[0]["model"].as_str().unwrap())) {
            let model = open(cases[0], &compute);
            let requests: Vec<Request> = cases.iter().map(|case| request(case, &model, &arrays)).collect();
            for (case, output) in cases.iter().zip(model.run_batch(&requests)) {
                check(case, &output.unwrap(), &arrays, &format!("{} in a batch on {compute}", case["name"]));
            }
        }
    }
}
