//! Images from texts.

use image::GenericImageView;
use serde_json::{Value, json};

use crate::support::{Server, expected, file_of, generation, image_of};

const PATH: &str = "/v1/images/generations";

#[test]
fn an_image_is_the_librarys() {
    let server = Server::new();
    let answer = server.post(PATH, &generation(json!({ "seed": 7, "size": "96x96", "model": "lumina-mgpt" }))).ok();
    assert_eq!(image_of(&answer["data"][0]["b64_json"]).into_rgb8(), expected(7));
    assert_eq!((&answer["size"], &answer["output_format"]), (&json!("96x96"), &json!("png")));
    assert_eq!((&answer["data"][0]["seed"], &answer["data"][0]["revised_prompt"]), (&json!(7), &Value::Null));
    let usage = &answer["usage"];
    let (input, output) = (usage["input_tokens"].as_u64().unwrap(), usage["output_tokens"].as_u64().unwrap());
    assert_eq!(usage["total_tokens"], json!(input + output));
    assert_eq!(usage["output_tokens_details"]["image_tokens"], json!(6 * 7 + 4));
    assert!(input > 0 && answer["created"].as_u64().unwrap() > 1_700_000_000);
}

#[test]
fn each_of_several_images_has_the_next_seed() {
    let server = Server::new();
    let answer = server.post(PATH, &generation(json!({ "seed": 20, "n": 4 }))).ok();
    let data = answer["data"].as_array().unwrap();
    assert_eq!(data.len(), 4);
    for (seed, image) in (20..).zip(data) {
        assert_eq!(image["seed"], json!(seed));
        assert_eq!(image_of(&image["b64_json"]).into_rgb8(), expected(seed), "seed {seed}");
    }
}

#[test]
fn without_a_seed_images_differ_and_say_theirs() {
    let server = Server::new();
    let draw = || server.post(PATH, &generation(json!({}))).ok()["data"][0].clone();
    let (first, second) = (draw(), draw());
    assert_ne!(first["seed"], second["seed"]);
    assert_eq!(image_of(&first["b64_json"]).into_rgb8(), expected(first["seed"].as_u64().unwrap()));
}

#[test]
fn streamed_is_what_it_is_in_one_piece() {
    let server = Server::new();
    let body = generation(json!({ "seed": 7, "n": 2, "stream": true, "partial_images": 5, "row_events": true }));
    let events = server.post(PATH, &body).events();
    for index in 0..2 {
        let of_image = || events.iter().filter(move |(_, data)| data["index"] == json!(index));
        let names: Vec<&str> = of_image().map(|(name, _)| &**name).collect();
        assert!(of_image().all(|(name, data)| data["type"] == json!(name)));
        let rows: Vec<u64> = of_image()
            .filter(|(name, _)| name.ends_with(".row"))
            .map(|(_, data)| data["row"].as_u64().unwrap())
            .collect();
        assert_eq!(rows, [0, 1, 2, 3, 4, 5]);
        assert_eq!(names.last(), Some(&"image_generation.completed"));

        let partial: Vec<&Value> =
            of_image().filter(|(name, _)| name.ends_with(".partial_image")).map(|(_, data)| data).collect();
        assert!(!partial.is_empty() && partial.len() <= 5);
        let mut before = 0;
        for (place, data) in partial.into_iter().enumerate() {
            assert_eq!(data["partial_image_index"], json!(place));
            assert_eq!((&data["size"], &data["rows_total"]), (&json!("96x96"), &json!(6)));
            let rows = data["rows_done"].as_u64().unwrap() as u32;
            assert!(rows > before && rows < 6, "{rows} after {before}");
            before = rows;
            let image = image_of(&data["b64_json"]);
            assert_eq!(image.dimensions(), (96, 96));
            // Rows that are there are opaque, others transparent.
            let opaque = |y: u32| (0..96).all(|x| image.get_pixel(x, y).0[3] == 255);
            let transparent = |y: u32| (0..96).all(|x| image.get_pixel(x, y).0[3] == 0);
            assert!((0..96).all(|y| if y < rows * 16 { opaque(y) } else { transparent(y) }));
        }

        let (_, done) = of_image().next_back().unwrap();
        let seed = 7 + index;
        assert_eq!(done["seed"], json!(seed));
        assert_eq!(image_of(&done["b64_json"]).into_rgb8(), expected(seed));
        assert!(done["usage"]["total_tokens"].as_u64().unwrap() > 46);
    }
    assert!(events.iter().all(|(name, _)| name.starts_with("image_generation.")));
}

#[test]
fn partial_images_are_spread_over_the_rows() {
    let server = Server::new();
    for (partial, at_most) in [(0, 0), (1, 1), (2, 2), (3, 3)] {
        let body = generation(json!({ "seed": 1, "stream": true, "partial_images": partial }));
        let events = server.post(PATH, &body).events();
        let rows: Vec<u64> = events.iter().filter_map(|(_, data)| data["rows_done"].as_u64()).collect();
        assert!(rows.len() <= at_most, "{rows:?}");
        assert!(rows.is_sorted() && rows.iter().all(|row| [2, 3, 4].contains(row)), "{rows:?}");
    }
}

#[test]
fn other_formats_are_files_of_theirs() {
    let server = Server::new();
    let draw = |more: Value| server.post(PATH, &generation(more)).ok();
    let webp = file_of(&draw(json!({ "seed": 7, "output_format": "webp" }))["data"][0]["b64_json"]);
    assert_eq!(image::guess_format(&webp).unwrap(), image::ImageFormat::WebP);
    assert_eq!(image::load_from_memory(&webp).unwrap().into_rgb8(), expected(7));
    let fine = file_of(&draw(json!({ "seed": 7, "output_format": "jpeg" }))["data"][0]["b64_json"]);
    let body = json!({ "seed": 7, "output_format": "jpeg", "output_compression": 20 });
    let coarse = file_of(&draw(body)["data"][0]["b64_json"]);
    assert_eq!(image::guess_format(&fine).unwrap(), image::ImageFormat::Jpeg);
    assert!(coarse.len() < fine.len(), "{} and {}", coarse.len(), fine.len());
    let body = json!({ "stream": true, "partial_images": 1, "output_format": "jpeg" });
    let events = server.post(PATH, &generation(body)).events();
    let image = image_of(&events[0].1["b64_json"]);
    assert_eq!(image.get_pixel(5, 90).0, [128, 128, 128, 255]);
}

#[test]
fn a_png_says_how_it_is_made_again() {
    let server = Server::new();
    let body =
        generation(json!({ "seed": u64::MAX, "size": "64x96", "guidance_scale": 2.5, "temperature": 0.7, "top_k": 9 }));
    let file = file_of(&server.post(PATH, &body).ok()["data"][0]["b64_json"]);
    let reader = png::Decoder::new(std::io::Cursor::new(&file)).read_info().unwrap();
    let texts = &reader.info().utf8_text;
    let text = |keyword: &str| texts.iter().find(|text| text.keyword == keyword).unwrap().get_text().unwrap();
    let parameters = text("parameters");
    for words in ["a small red circle", "Seed: 18446744073709551615", "Size: 64x96", "Guidance scale: 2.5", "Top-k: 9"]
    {
        assert!(parameters.contains(words), "{parameters}");
    }
    let made_by: Value = serde_json::from_str(&text("lumina")).unwrap();
    assert_eq!(made_by["model"], json!("lumina-mgpt"));
    // As the library reads it.
    let request = model_request(&made_by["request"]);
    assert_eq!(
        lumina_mgpt::Answer::from_output(crate::support::model().generate(request).run().unwrap()).ok(),
        Some(image::load_from_memory(&file).unwrap().into_rgb8())
    );
    // As the server reads it.
    let (request, sampling) = (&made_by["request"], &made_by["request"]["options"]["sampling"]);
    let size = format!("{}x{}", request["size"][0], request["size"][1]);
    let again = json!({
        "prompt": request["prompt"], "size": size, "seed": sampling["seed"], "top_k": sampling["image_top_k"],
        "guidance_scale": sampling["guidance_scale"], "temperature": sampling["temperature"],
    });
    assert_eq!(file_of(&server.post(PATH, &again).ok()["data"][0]["b64_json"]), file);
}

fn model_request(json: &Value) -> lumina_mgpt::Request {
    crate::support::model().read_request(&json.to_string()).unwrap()
}

#[test]
fn what_cannot_be_done_is_refused_by_its_name() {
    let server = Server::new();
    for (more, param) in [
        (json!({ "foo": 1 }), "foo"),
        (json!({ "n": 0 }), "n"),
        (json!({ "n": 11 }), "n"),
        (json!({ "n": "two" }), "n"),
        (json!({ "size": "100x100" }), "size"),
        (json!({ "size": "256x256" }), "size"),
        (json!({ "size": "large" }), "size"),
        (json!({ "response_format": "url" }), "response_format"),
        (json!({ "output_format": "svg" }), "output_format"),
        (json!({ "output_compression": 50 }), "output_compression"),
        (json!({ "quality": "hd" }), "quality"),
        (json!({ "style": "vivid" }), "style"),
        (json!({ "background": "transparent" }), "background"),
        (json!({ "partial_images": 2 }), "partial_images"),
        (json!({ "seed": -1 }), "seed"),
        (json!({ "temperature": -1 }), "temperature"),
        (json!({ "top_k": 0 }), "top_k"),
        (json!({ "top_p": 2 }), "top_p"),
        (json!({ "task": "editing" }), "task"),
        (json!({ "image": "data:," }), "image"),
    ] {
        let (message, found) = server.post(PATH, &generation(more.clone())).refused(400);
        assert_eq!(found.as_deref(), Some(param), "{more}: {message}");
        assert!(message.contains(&format!("`{param}`")) || param == "size" || param == "top_k", "{more}: {message}");
    }
    for body in [json!({ "seed": 1 }), json!({ "prompt": "" }), json!({ "prompt": " \n" })] {
        let (message, param) = server.post(PATH, &body).refused(400);
        assert!(message.contains("say what to draw") && param.as_deref() == Some("prompt"), "{message}");
    }
    let (message, _) = server.post(PATH, &generation(json!({ "model": "gpt-image-1" }))).refused(404);
    assert!(message.contains("`lumina-mgpt`"), "{message}");
    // What changes nothing is accepted.
    let harmless = json!({ "quality": "auto", "background": "opaque", "moderation": "low", "user": "me", "size": "auto",
        "response_format": "b64_json", "output_compression": 100, "stream": false });
    server.post(PATH, &generation(harmless)).ok();
}

#[test]
fn a_deadline_is_an_error_of_the_answer() {
    let server = Server::new();
    let (message, _) = server.post(PATH, &generation(json!({ "deadline_ms": 0 }))).refused(504);
    assert!(message.contains("`deadline_ms`"), "{message}");
    let events = server.post(PATH, &generation(json!({ "deadline_ms": 0, "stream": true }))).events();
    let [(name, data)] = &*events else { panic!("{events:?}") };
    assert_eq!((&**name, &data["type"], &data["error"]["code"]), ("error", &json!("error"), &json!("deadline")));
}

#[test]
fn a_temperature_of_0_takes_the_likeliest() {
    let server = Server::new();
    let draw = |seed: u64| server.post(PATH, &generation(json!({ "seed": seed, "temperature": 0 }))).ok();
    let pixels = |answer: Value| image_of(&answer["data"][0]["b64_json"]).into_rgb8();
    assert_eq!(pixels(draw(1)), pixels(draw(2)));
}
