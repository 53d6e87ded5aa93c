//! What is said about a request that is wrong, or an answer that is not what was asked for: the cause, and a remedy
//! that helps.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a panic is the failure")]

use lumina_mgpt::{
    Compute, Conversation, DrawRule, EngineOptions, GenerateOptions, Handle, HandleOptions, ImageSize, Lumina,
    Malformed, Modality, Request, Speculation, SystemClock, Task, TaskInput, convert,
};
use lumina_testing::part;
use serde_json::{Value, json};

/// The model of the reference's own requests: one that draws.
fn model() -> Lumina {
    let cases = lumina_testing::cases("generate/cases.json");
    let folder = part("model").join(cases[0]["model"].as_str().unwrap());
    let tokenizer = if folder.join("tokenizer.json").exists() { folder.clone() } else { part("tokenizer") };
    Lumina::from_pretrained(folder)
        .tokenizer(tokenizer)
        .image_tokenizer(part("vq"))
        .compute(Compute::cpu())
        .target_size_px(96)
        .load()
        .unwrap()
}

/// A request as a client sends it, with changes.
fn sent(change: impl FnOnce(&mut Value)) -> Result<Request, String> {
    let mut json = json!({
        "conversation": { "turns": [{ "role": "human", "content": [{ "text": "Hello<reserved08706>" }] }] },
        "options": { "max_new_tokens": 4, "sampling": { "seed": 7 } },
    });
    change(&mut json);
    serde_json::from_str(&json.to_string()).map_err(|error| error.to_string())
}

#[test]
fn what_a_client_sends_is_plain_text_and_has_known_keys() {
    let model = model();
    let request = sent(|_| {}).unwrap();
    assert_eq!(request.options.max_new_tokens, 4);
    let tokens = model.tokenizer().encode(&request.prompt.conversation().unwrap()).unwrap().tokens;
    let turn_end = model.tokenizer().vocabulary().turn_end();
    assert_eq!(tokens.iter().filter(|&&token| token == turn_end).count(), 1);

    let refused = |change: fn(&mut Value), key: &str| {
        let message = sent(change).unwrap_err();
        assert!(message.contains(&format!("`{key}`")), "{message}");
    };
    refused(|json| json["conversation"]["specials"] = "parse".into(), "specials");
    refused(|json| json["options"]["max_new_token"] = 4.into(), "max_new_token");
    refused(|json| json["options"]["deadline"] = 4.into(), "deadline");
    refused(|json| json["options"]["sampling"]["temp"] = 4.into(), "temp");
    refused(|json| json["option"] = json!({}), "option");
    refused(|json| json["conversation"]["turns"][0]["specials"] = "parse".into(), "specials");

    // What the program has written is read, and a program can trust it.
    let stored = serde_json::to_string(&request).unwrap();
    assert_eq!(serde_json::from_str::<Request>(&stored).unwrap(), request);
    let trusted = request.prompt.conversation().unwrap().into_owned().specials(lumina_tokenizer::Specials::Parse);
    assert_ne!(model.tokenizer().encode(&trusted).unwrap().tokens, tokens);
}

#[test]
fn a_prompt_is_bounded_before_it_is_encoded() {
    let model = model();
    let context = model.transformer().architecture().max_positions();
    let limit = model.tokenizer().text().max_text_bytes(context);
    let message = |text: String| model.chat(Conversation::new().human(text)).run().unwrap_err().to_string();
    let long = message("x".repeat(50_000_000));
    for word in ["50000000 bytes", &format!("{limit} at most"), &format!("{context} tokens"), "shorten"] {
        assert!(long.contains(word), "{long}");
    }
    // What may fit by its bytes is counted in tokens.
    let message = message("x ".repeat(context));
    assert!(message.contains("the prompt has") && message.contains("shorten"), "{message}");
}

#[test]
fn an_image_that_was_cut_off_says_by_what() {
    let model = model();
    let draw = || model.text_to_image("a tree", (64, 64));
    let message = draw().max_new_tokens(9).run().unwrap_err().to_string();
    assert!(message.contains("raise `max_new_tokens`"), "{message}");

    let message = draw().deadline_ms(0).run().unwrap_err().to_string();
    assert!(message.contains("`deadline_ms`") && !message.contains("max_new_tokens"), "{message}");
    let message = draw().deadline_ms(0).malformed(lumina_mgpt::Malformed::Error).run().unwrap_err().to_string();
    assert!(message.contains("`deadline_ms`") && !message.contains("max_new_tokens"), "{message}");

    // Larger than the context.
    let context = model.transformer().architecture().max_positions() as u32;
    let side = (1..).map(|cells| cells * 32).find(|side| (side / 16) * (side / 16) > context).unwrap();
    let message = model.text_to_image("a tree", (side, side)).max_new_tokens(usize::MAX).run().unwrap_err().to_string();
    assert!(message.contains(&format!("has {context} in all")) && message.contains("smaller image"), "{message}");
    assert!(!message.contains("max_new_tokens"), "{message}");

    let never = model.text_to_image("a tree", (64, 64)).cancel_with(&{
        let cancel = lumina_mgpt::Cancel::new();
        cancel.cancel();
        cancel
    });
    let message = never.run().unwrap_err().to_string();
    assert!(message.contains("cancelled"), "{message}");
}

#[test]
fn a_name_on_the_hub_is_recognised() {
    // With it, there is a download.
    #[cfg(not(feature = "hub"))]
    for (revision, option) in [("", ""), ("@v1", " --revision v1")] {
        let name = format!("Alpha-VLLM/Lumina-mGPT-7B-768{revision}");
        let error = Lumina::from_pretrained(&name).load().unwrap_err();
        let lumina_mgpt::Error::NotDownloaded { name: found } = &error else { panic!("{error}") };
        assert_eq!(*found, name);
        let message = error.to_string();
        let command = format!("huggingface-cli download Alpha-VLLM/Lumina-mGPT-7B-768{option} --local-dir");
        assert!(message.contains(&command) && message.contains("feature `hub`"), "{message}");
    }
    let error = convert::open("Alpha-VLLM/Lumina-mGPT-7B-768").unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("huggingface-cli download"), "{cause}");
    for path in ["no_such_folder", "/no/such", "./no/such", "no/such/folder", "../no", "~/models"] {
        let message = Lumina::from_pretrained(path).load().unwrap_err().to_string();
        assert!(message.contains(path) && !message.contains("huggingface"), "{message}");
    }
}

/// A clone without Git LFS has pointers in the place of files: the remedy is the same for each document.
#[test]
fn documents_that_git_lfs_has_not_fetched_say_so() {
    let cases = lumina_testing::cases("generate/cases.json");
    let source = part("model").join(cases[0]["model"].as_str().unwrap());
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&source).unwrap() {
        let file = entry.unwrap().path();
        std::fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
    }
    let tokenizer = folder.path().join("tokenizer.json");
    if !tokenizer.exists() {
        std::fs::copy(part("tokenizer/tokenizer.json"), &tokenizer).unwrap();
    }
    let open = || Lumina::from_pretrained(folder.path()).image_tokenizer(part("vq")).load();
    open().unwrap();
    for name in ["tokenizer.json", "config.json"] {
        let file = folder.path().join(name);
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9085698\n").unwrap();
        let message = open().unwrap_err().to_string();
        assert!(message.contains("git lfs pull") && message.contains(name), "{message}");
        std::fs::write(&file, whole).unwrap();
    }
    // What a message repeats from a file is short, and acts on no terminal.
    let file = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config["hidden_act"] = format!("\u{1b}]0;x\u{7}{}", "y".repeat(100_000)).into();
    std::fs::write(&file, config.to_string()).unwrap();
    let message = open().unwrap_err().to_string();
    assert!(message.contains("config.json") && message.len() < 2000, "{} bytes", message.len());
    assert!(!message.chars().any(char::is_control), "{message}");
}

/// A stored request names its task and has its text in one piece, and gives the same answer when it is read.
#[test]
fn a_request_is_readable() {
    let model = model();
    let generation = || model.text_to_image("a red circle", (64, 32)).seed(7).max_new_tokens(30);
    let request = generation().request().unwrap();
    let json = serde_json::to_value(&request).unwrap();
    assert_eq!(json["task"], "text_to_image");
    assert_eq!(json["prompt"], "a red circle");
    assert_eq!(json["size"], json!([64, 32]));
    assert!(json.get("images").is_none() && json.get("conversation").is_none(), "{json}");
    let read: Request = serde_json::from_value(json).unwrap();
    assert_eq!(read, request);
    assert_eq!(model.generate(read).run().unwrap().tokens, model.generate(request).run().unwrap().tokens);

    let image = model.encode_image(&image::RgbImage::new(64, 64).into()).unwrap();
    let caption = Request::task(Task::Captioning, TaskInput::new().image(image));
    let json = serde_json::to_string(&caption).unwrap();
    assert_eq!(serde_json::from_str::<Request>(&json).unwrap(), caption);

    let chat = Request::new(Conversation::new().human("Hello"));
    let json = serde_json::to_value(&chat).unwrap();
    assert_eq!(json["conversation"], json!({ "turns": [{ "role": "human", "content": "Hello" }] }));
    assert_eq!(serde_json::from_value::<Request>(json).unwrap(), chat);
}

/// Options that are left out are the task's, or the model's; those that are given are checked with their place.
#[test]
fn a_short_request_has_the_defaults_of_its_task() {
    let json = |more: &str| format!(r#"{{ "task": "depth_estimation", "images": [{IMAGE}] {more} }}"#);
    const IMAGE: &str = r#"{ "rows": 4, "columns": 4, "codes": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] }"#;
    let read = |text: &str| serde_json::from_str::<Request>(text).map_err(|error| error.to_string());
    let request = read(&json("")).unwrap();
    assert_eq!(request.options, GenerateOptions::of_task(Task::DepthEstimation, None));
    assert_eq!(request.options.sampling.image_top_k, 200);
    let request = read(&json(r#", "options": { "sampling": { "seed": 3 }, "max_images": 1 }"#)).unwrap();
    let expected = GenerateOptions::of_task(Task::DepthEstimation, None).sampling(|s| s.seed(3)).max_images(1);
    assert_eq!(request.options, expected);

    let folder = lumina_testing::model_of_small_images();
    let small = Lumina::from_pretrained(folder).compute(Compute::cpu()).load().unwrap();
    let request = small.read_request(r#"{ "task": "text_to_image", "prompt": "a", "size": [96, 96] }"#).unwrap();
    assert_eq!(request, small.text_to_image("a", (96, 96)).request().unwrap());
    let refused = |json: &str, words: &[&str]| {
        let message = small.read_request(json).unwrap_err().to_string();
        words.iter().for_each(|word| assert!(message.contains(word), "{word}: {message}"));
    };
    refused(r#"{ "task": "text_to_image", "prompt": "a", "size": [64, 64] }"#, &["64x64", "96x96"]);
    refused(r#"{ "task": "human_pose_estimation", "images": [] }"#, &["human_pose_estimation", "captioning"]);
    refused(r#"{ "task": "paint", "prompt": "a" }"#, &["paint", "text_to_image"]);
    refused(r#"{ "prompt": "a" }"#, &["`task`", "`conversation`", "text_to_image"]);
    refused(r#"{ "task": "editing", "conversation": { "turns": [] } }"#, &["exclude"]);
    refused(r#"{ "size": [96, 96], "conversation": { "turns": [] } }"#, &["`size`", "`task`"]);
    refused(r#"{ "task": "text_to_image", "prompt": "a" }"#, &["a size"]);
    let with = |options: &str| {
        format!(r#"{{ "task": "text_to_image", "prompt": "a", "size": [96, 96], "options": {options} }}"#)
    };
    refused(&with(r#"{ "sampling": [] }"#), &["`options.sampling`", "object"]);
    refused(&with(r#"{ "sampling": { "image_size": [64, 64] } }"#), &["`size`", "image_size"]);
    refused(&with(r#"{ "sampling": { "temperature": 1e39 } }"#), &["temperature"]);
    refused(&with(r#"{ "sampling": { "modality": "text" } }"#), &["modality", "text_to_image"]);
    refused("7", &["a request", "`task`"]);
    refused(r#"{ "task": "captioning", "images": [7] }"#, &["the codes of an image", "`rows`"]);
    refused(
        r#"{ "task": "text_to_image", "prompt": "a", "size": [96, 96], "options": { "sampling": { "seeds": 1 } } }"#,
        &["options.sampling", "`seeds`"],
    );
    refused(
        r#"{ "task": "text_to_image", "prompt": "a", "size": [96, 96], "options": { "sampling": { "seed": -1 } } }"#,
        &["options.sampling.seed", "-1"],
    );
    // Of two values it would not be clear which one counts.
    refused(&with(r#"{ "max_images": 1, "max_images": 2 }"#), &["`options.max_images`", "twice"]);
    refused(&with(r#"{ "sampling": { "seed": 1, "top_p": 0.5, "seed": 1 } }"#), &["`options.sampling.seed`", "twice"]);
    refused(&with(r#"{ "x": [{ "y": 1, "y": 1 }] }"#), &["`options.x[0].y`", "twice"]);
    refused(&with("[]"), &["`options`", "an object"]);
}

/// One size where none is asked for: one that the model draws, whatever its inputs are resized to.
#[test]
fn the_default_size_is_one_that_the_model_draws() {
    let folder = lumina_testing::model_of_small_images();
    let open = |folder: &std::path::Path| Lumina::from_pretrained(folder).compute(Compute::cpu());
    let of = |model: &Lumina| (model.default_size().to_string(), model.image_sizes().len());
    assert_eq!(of(&open(folder).load().unwrap()), ("96x96".to_owned(), 7));
    let other = open(folder).target_size_px(512).load().unwrap();
    assert_eq!(of(&other), ("96x96".to_owned(), 7));
    other.text_to_image("a", (96, 96)).request().unwrap();
    // Where a model states none, the square of the target size.
    let any = open(&lumina_testing::own("model/prenorm")).target_size_px(512).load().unwrap();
    assert_eq!(of(&any), ("512x512".to_owned(), any.preprocessor().sizes().len()));
    // Of several squares the one that is stated as the target, and without any what is most like one.
    for (target, sizes, expected) in
        [(64, "[[96, 96], [64, 64], [128, 128]]", "64x64"), (96, "[[128, 32], [96, 64], [32, 128]]", "96x64")]
    {
        let copy = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if file.file_type().unwrap().is_file() {
                std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
            }
        }
        let preset = format!(r#"{{ "lumina": {{ "target_size_px": {target}, "image_sizes": {sizes} }} }}"#);
        std::fs::write(copy.path().join("generation_config.json"), preset).unwrap();
        assert_eq!(of(&open(copy.path()).load().unwrap()), (expected.to_owned(), 3));
    }
}

/// What a model has not learnt is refused whichever way a request takes.
#[test]
fn unlearnt_tasks_and_sizes_are_refused_in_every_way() {
    let folder = lumina_testing::model_of_small_images();
    let model = Lumina::from_pretrained(folder).compute(Compute::cpu()).load().unwrap();
    let image = model.encode_image(&image::RgbImage::new(96, 96).into()).unwrap();
    let pose = Request::task(Task::HumanPoseEstimation, TaskInput::new().image(image));
    let large = TaskInput::new().text("a").size(ImageSize::new(256, 256).unwrap());
    let large = Request::task(Task::TextToImage, large);
    for (request, says) in [(pose, "`human_pose_estimation`"), (large, "256x256")] {
        let handle = Handle::new(&model, HandleOptions::default()).unwrap();
        let mut engine = model.engine(EngineOptions::default(), std::sync::Arc::new(SystemClock::new()));
        let json = serde_json::to_string(&request).unwrap();
        for refused in [
            model.generate(request.clone()).run().map(drop),
            model.run_batch(std::slice::from_ref(&request)).remove(0).map(drop),
            handle.submit(&request).map(drop),
            engine.submit(&request).map(drop),
            model.read_request(&json).map(drop),
        ] {
            let message = refused.unwrap_err().to_string();
            assert!(message.contains("has not learnt") && message.contains(says), "{message}");
        }
    }
}

/// Whoever asks for nothing is told so, and not after minutes of a random image.
#[test]
fn an_empty_prompt_is_an_error_that_says_what_to_do() {
    let model = model();
    let message = |request: Result<Request, lumina_mgpt::Error>| {
        let output = request.and_then(|request| model.generate(request).run());
        output.unwrap_err().to_string()
    };
    for text in ["", "  \n"] {
        let drawn = message(model.text_to_image(text, (64, 64)).request());
        assert!(drawn.contains("`text_to_image`") && drawn.contains("empty") && drawn.contains("say what"), "{drawn}");
        let chat = message(Ok(Request::new(Conversation::new().human(text))));
        assert!(chat.contains("prompt is empty") && chat.contains("needs a text or an image"), "{chat}");
        let chat = Conversation::new().human("Hello").assistant("Hello").human(text);
        assert!(message(Ok(Request::new(chat))).contains("prompt is empty"));
    }
    assert!(message(Ok(Request::new(Conversation::new()))).contains("no turn"));
    // An image alone is something to answer.
    let image = model.encode_image(&image::RgbImage::new(64, 64).into()).unwrap();
    let ask = Request::task(Task::FreeForm, TaskInput::new().text("").image(image));
    model.generate(ask).max_new_tokens(1).run().unwrap();
}

/// Each option can be set where a task is asked for: a line of the options' debug form for each changes.
#[test]
fn every_option_has_a_method() {
    let model = model();
    let changed = model
        .chat(Conversation::new().human("Hello"))
        .seed(1)
        .branch(1)
        .draw(DrawRule::Race)
        .greedy()
        .modality(Modality::Image)
        .image_size(ImageSize::new(64, 64).unwrap())
        .guidance(2.0)
        .repetition_penalty(1.5)
        .image_top_k(7)
        .text_top_k(7)
        .temperature(0.5)
        .top_p(0.5)
        .min_p(0.5)
        .speculation(Speculation::Off)
        .max_new_tokens(7)
        .max_images(1)
        .deadline_ms(7)
        .preview_every_rows(1)
        .malformed(Malformed::Error)
        .request()
        .unwrap();
    let (changed, default) = (format!("{:#?}", changed.options), format!("{:#?}", GenerateOptions::default()));
    let field = |line: &str| line.trim_start().split_once(": ").map(|(name, _)| name.to_owned());
    let fields: Vec<String> = default.lines().filter_map(field).collect();
    for name in fields.iter().filter(|name| !["sampling", "draw"].contains(&name.as_str())) {
        let line = |form: &str| form.lines().find(|line| field(line).as_ref() == Some(name)).unwrap().to_owned();
        assert_ne!(line(&changed), line(&default), "no method sets `{name}`");
    }
    assert!(fields.len() > 15, "{fields:?}");
}
