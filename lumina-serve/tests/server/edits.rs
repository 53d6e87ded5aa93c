//! Images from images.

use image::RgbImage;
use lumina_mgpt::{InputImage, Task};
use serde_json::{Value, json};

use crate::support::{Server, data_url, file_of, image_of, model, scene};

const PATH: &str = "/v1/images/edits";
const INSTRUCTION: &str = "make the circle blue";

fn expected(task: Task, instruction: Option<&str>, seed: u64) -> RgbImage {
    let image = InputImage::from_bytes(scene()).unwrap();
    model().edit(task, image, instruction).seed(seed).run().unwrap()
}

/// A form with a file.
fn form(fields: &[(&str, &str)], file: Option<(&str, &[u8])>) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, text) in fields {
        let part = format!("--limit\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n");
        body.extend(part.as_bytes());
    }
    if let Some((name, file)) = file {
        let disposition = format!("Content-Disposition: form-data; name=\"{name}\"; filename=\"scene.png\"");
        body.extend(format!("--limit\r\n{disposition}\r\nContent-Type: image/png\r\n\r\n").as_bytes());
        body.extend(file);
        body.extend(b"\r\n");
    }
    body.extend(b"--limit--\r\n");
    body
}

fn post_form(server: &Server, fields: &[(&str, &str)], file: Option<(&str, &[u8])>) -> crate::support::Answer {
    server.send("POST", PATH, &[("Content-Type", "multipart/form-data; boundary=limit")], &form(fields, file))
}

#[test]
fn forms_and_json_give_the_librarys_image() {
    let server = Server::new();
    let expected = expected(Task::Editing, Some(INSTRUCTION), 3);
    for name in ["image", "image[]"] {
        let answer =
            post_form(&server, &[("prompt", INSTRUCTION), ("seed", "3"), ("n", "1")], Some((name, scene()))).ok();
        assert_eq!(image_of(&answer["data"][0]["b64_json"]).into_rgb8(), expected, "{name}");
        assert_eq!(answer["usage"]["input_tokens_details"]["image_tokens"], json!(6 * 7 + 4));
    }
    for image in [
        json!({ "image": data_url(scene()) }),
        json!({ "image": [data_url(scene())] }),
        json!({ "images": [{ "image_url": data_url(scene()) }] }),
    ] {
        let mut body = json!({ "prompt": INSTRUCTION, "seed": 3 });
        body.as_object_mut().unwrap().extend(image.as_object().unwrap().clone());
        let answer = server.post(PATH, &body).ok();
        assert_eq!(image_of(&answer["data"][0]["b64_json"]).into_rgb8(), expected);
    }
}

#[test]
fn tasks_go_by_their_names() {
    let server = Server::new();
    let answer = server.post(PATH, &json!({ "image": data_url(scene()), "task": "depth_estimation", "seed": 1 })).ok();
    let image = image_of(&answer["data"][0]["b64_json"]).into_rgb8();
    assert_eq!(image, expected(Task::DepthEstimation, None, 1));
    // An unlearnt one, with the library's message.
    let body = json!({ "image": data_url(scene()), "task": "surface_normal_estimation" });
    let (message, param) = server.post(PATH, &body).refused(400);
    assert!(message.contains("has not learnt the task `surface_normal_estimation`"), "{message}");
    assert_eq!(param.as_deref(), Some("task"));
}

#[test]
fn edits_are_streamed_by_their_own_names() {
    let server = Server::new();
    let fields = [("prompt", INSTRUCTION), ("seed", "3"), ("stream", "true"), ("partial_images", "2")];
    let events = post_form(&server, &fields, Some(("image", scene()))).events();
    assert!(events.iter().any(|(name, _)| name == "image_edit.partial_image"));
    let (name, data) = events.last().unwrap();
    assert_eq!(name, "image_edit.completed");
    assert_eq!(image_of(&data["b64_json"]).into_rgb8(), expected(Task::Editing, Some(INSTRUCTION), 3));
}

#[test]
fn a_png_has_no_codes_of_its_input() {
    let server = Server::new();
    let answer = server.post(PATH, &json!({ "image": data_url(scene()), "prompt": INSTRUCTION })).ok();
    let file = file_of(&answer["data"][0]["b64_json"]);
    let reader = png::Decoder::new(std::io::Cursor::new(&file)).read_info().unwrap();
    let text = reader.info().utf8_text.iter().find(|text| text.keyword == "lumina").unwrap().get_text().unwrap();
    let made_by: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(made_by["request"]["images"], json!([{ "rows": 6, "columns": 6 }]));
    assert_eq!(made_by["request"]["prompt"], json!(INSTRUCTION));
}

#[test]
fn what_is_missing_or_too_much_is_named() {
    let server = Server::new();
    let image = data_url(scene());
    for (body, param) in [
        (json!({ "prompt": INSTRUCTION }), "image"),
        (json!({ "prompt": INSTRUCTION, "image": [image, image] }), "image"),
        (json!({ "image": image }), "prompt"),
        (json!({ "image": image, "prompt": " " }), "prompt"),
        (json!({ "image": image, "prompt": "x", "task": "depth_estimation" }), "prompt"),
        (json!({ "image": image, "task": "painting" }), "task"),
        (json!({ "image": image, "task": "captioning" }), "task"),
        (json!({ "image": image, "prompt": "x", "mask": image }), "mask"),
        (json!({ "image": image, "prompt": "x", "size": "256x256" }), "size"),
        (json!({ "image": 3, "prompt": "x" }), "image"),
        (json!({ "images": [{ "file_id": "x" }], "prompt": "x" }), "images"),
        (json!({ "image": "https://example.org/x.png", "prompt": "x" }), "image"),
        (json!({ "image": "data:image/png;base64,AAAA", "prompt": "x" }), "image"),
    ] {
        let (message, found) = server.post(PATH, &body).refused(400);
        assert_eq!(found.as_deref(), Some(param), "{message}");
    }
    let (message, _) = server.post(PATH, &json!({ "image": "http://127.0.0.1/", "prompt": "x" })).refused(400);
    assert!(message.contains("not fetched"), "{message}");
    let (message, _) = post_form(&server, &[("prompt", "x")], Some(("mask", scene()))).refused(400);
    assert!(message.contains("masks"), "{message}");
    let (_, param) = post_form(&server, &[("prompt", "x"), ("n", "two")], Some(("image", scene()))).refused(400);
    assert_eq!(param.as_deref(), Some("n"));
    let twice = post_form(&server, &[("prompt", "x"), ("seed", "1"), ("seed", "2")], Some(("image", scene())));
    let (message, param) = twice.refused(400);
    assert!(message.contains("twice") && param.as_deref() == Some("seed"), "{message}");
    let cut_off = &form(&[("prompt", "x")], Some(("image", scene())))[..200];
    let headers = [("Content-Type", "multipart/form-data; boundary=limit")];
    server.send("POST", PATH, &headers, cut_off).refused(400);
    server.send("POST", PATH, &[("Content-Type", "multipart/form-data")], b"x").refused(400);
    let (message, _) = server.send("POST", PATH, &[("Content-Type", "text/plain")], b"x").refused(415);
    assert!(message.contains("multipart/form-data"), "{message}");
}
