//! What can be looked at: the model, the metrics, the page.

use std::io::{Read, Write};

use flate2::read::GzDecoder;
use lumina_mgpt::{Compute, Handle, HandleOptions, Lumina};
use lumina_serve::{Options, router};
use serde_json::{Value, json};

use crate::support::{Answer, Server, expected, generation, image_of, model};

#[test]
fn the_model_says_what_it_can() {
    let server = Server::new();
    let list = server.get("/v1/models").ok();
    assert_eq!(list["object"], json!("list"));
    let model = &list["data"][0];
    assert_eq!(
        (&model["id"], &model["object"], &model["owned_by"]),
        (&json!("lumina-mgpt"), &json!("model"), &json!("lumina"))
    );
    let lumina = &model["lumina"];
    assert_eq!((&lumina["default_size"], &lumina["target_size_px"]), (&json!("96x96"), &json!(96)));
    assert!(lumina["tasks"].as_array().unwrap().contains(&json!("captioning")));
    assert!(lumina["image_sizes"].as_array().unwrap().contains(&json!("128x32")));
    assert_eq!(lumina["defaults"]["guidance_scale"], json!(1.5));
    assert_eq!((&lumina["defaults"]["top_k"], &lumina["defaults"]["temperature"]), (&json!(5), &json!(0.4)));
    assert_eq!(lumina["limits"]["max_images"], json!(10));
    assert_eq!(server.get("/v1/models/lumina-mgpt").ok(), *model);
}

/// A model of few words says which, and the page names the others.
#[test]
fn the_words_of_a_model_are_listed_where_it_states_them() {
    assert_eq!(Server::new().get("/v1/models").ok()["data"][0]["lumina"].get("words"), None);

    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(lumina_testing::model_of_small_images()).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let file = folder.path().join("generation_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config["lumina"]["words"] = json!(["red", "Circle", "a"]);
    std::fs::write(&file, config.to_string()).unwrap();
    let server = Server::of(&Lumina::from_pretrained(folder.path()).compute(Compute::cpu()).load().unwrap());
    assert_eq!(server.get("/v1/models").ok()["data"][0]["lumina"]["words"], json!(["a", "circle", "red"]));
    // A prompt with other words is answered all the same.
    server.post("/v1/images/generations", &json!({ "prompt": "a dragon", "seed": 1 })).ok();
    let page = server.get("/");
    assert!(page.text().contains("id=\"words-hint\" aria-live=\"polite\""));
}

/// The ten lines of the book's page: the router in another program, served by axum.
#[test]
fn a_program_mounts_the_router_in_its_own() {
    let handle = Handle::new(model(), HandleOptions::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().nest("/lumina", router(handle, Options::new()));
    runtime.spawn(async move { axum::serve(listener, app).await });

    let body = generation(json!({ "seed": 7 })).to_string();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let head = "POST /lumina/v1/images/generations HTTP/1.1\r\nHost: x\r\nConnection: close";
    write!(stream, "{head}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let answer = Answer::read(&bytes).ok();
    assert_eq!(image_of(&answer["data"][0]["b64_json"]).into_rgb8(), expected(7));
    runtime.shutdown_background();
}

#[test]
fn metrics_count_requests_and_answers() {
    let server = Server::new();
    server.post("/v1/images/generations", &generation(json!({ "n": 2 }))).ok();
    server.get("/v1/secret-address?prompt=secret");
    let answer = server.get("/metrics");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = answer.text();
    assert!(text.contains("lumina_requests_completed_total 2\n"), "{text}");
    assert!(text.contains("lumina_http_answers_total{route=\"/v1/images/generations\",status=\"200\"} 1\n"), "{text}");
    assert!(text.contains("{route=\"other\",status=\"404\"} 1\n") && !text.contains("secret"), "{text}");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("lumina_") && value.parse::<f64>().is_ok(), "{line}");
        let bare = name.split('{').next().unwrap();
        assert!(text.contains(&format!("# TYPE {bare} ")), "{line}");
    }
}

#[test]
fn the_page_is_sent_with_a_strict_policy() {
    let server = Server::new();
    let plain = server.get("/");
    assert_eq!(plain.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = plain.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let compressed = server.send("GET", "/", &[("Accept-Encoding", "gzip, deflate, br")], b"");
    assert_eq!(compressed.header("content-encoding"), Some("gzip"));
    let mut page = Vec::new();
    GzDecoder::new(&*compressed.body).read_to_end(&mut page).unwrap();
    assert!(page == plain.body && !page.is_empty());
    let etag = plain.header("etag").unwrap();
    let again = server.send("GET", "/", &[("If-None-Match", etag)], b"");
    assert_eq!((again.status, again.body.len()), (304, 0));
    let icon = server.get("/favicon.ico");
    assert!(image::load_from_memory(&icon.body).is_ok());
}

#[test]
fn the_page_has_nothing_that_its_policy_forbids() {
    let server = Server::new();
    let page = server.get("/");
    let page = page.text();
    for forbidden in [" style=\"", " onclick=", " onload=", " src=\"http", "@import", "javascript:"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
}
