//! What is refused: who has no key, what is too large, too slow, too much.

use std::io::{Read, Write};
use std::time::Duration;

use lumina_mgpt::{EngineOptions, HandleOptions};
use lumina_serve::Options;
use serde_json::json;

use crate::support::{Server, data_url, generation, keep_busy, scene};
use lumina_testing::wait_until;

const PATH: &str = "/v1/images/generations";
const EDITS: &str = "/v1/images/edits";

fn with(options: Options) -> Server {
    Server::start(options.grace(Duration::ZERO), HandleOptions::default())
}

#[test]
fn keys_are_asked_for() {
    let server = with(Options::new().api_key("secret").unwrap());
    for headers in [&[][..], &[("Authorization", "Bearer wrong")], &[("Authorization", "secret")]] {
        for path in ["/v1/models", "/metrics", "/v1/none"] {
            let answer = server.send("GET", path, headers, b"");
            answer.refused(401);
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
        // Before a body is looked at.
        server.send("POST", PATH, headers, b"no json").refused(401);
        server.send("POST", PATH, headers, &[b'x'; 5_000_000]).refused(401);
    }
    for path in ["/v1/models", "/metrics"] {
        assert_eq!(server.send("GET", path, &[("Authorization", "Bearer secret")], b"").status, 200);
    }
    for path in ["/", "/health", "/favicon.ico"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
}

#[test]
fn bodies_have_a_limit() {
    let server = with(Options::new().max_body_bytes(10_000).unwrap());
    server.post(PATH, &generation(json!({ "prompt": "x".repeat(9_000) }))).refused(400);
    for length in [10_000, 100_000, 5_000_000] {
        let answer = server.post(PATH, &generation(json!({ "prompt": "x".repeat(length) })));
        assert!(answer.refused(413).0.contains("10000"));
    }
    // Also where their length is not stated.
    let mut stream = std::net::TcpStream::connect(server.address).unwrap();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    for _ in 0..3 {
        stream.write_all(chunk.as_bytes()).unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[test]
fn images_have_a_limit() {
    // A header that says 60,000 × 60,000 pixels, of which nothing else is there.
    let mut bomb = scene().to_vec();
    bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let mut crc = flate2::Crc::new();
    crc.update(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    let server = with(Options::new());
    let answer = server.post(EDITS, &json!({ "image": data_url(&bomb), "prompt": "x" }));
    assert!(answer.refused(413).0.contains("60000x60000"));
    let message =
        json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": data_url(&bomb) } }] }]);
    server.post("/v1/chat/completions", &json!({ "messages": message })).refused(413);
    // A limit of one's own.
    let server = with(Options::new().max_image_pixels(1_000).unwrap());
    server.post(EDITS, &json!({ "image": data_url(scene()), "prompt": "x" })).refused(413);
    // And of their number.
    let server = with(Options::new().max_n(2).unwrap());
    let part = json!({ "type": "image_url", "image_url": { "url": data_url(scene()) } });
    let message = json!([{ "role": "user", "content": [part, part, part] }]);
    let (message, _) = server.post("/v1/chat/completions", &json!({ "messages": message })).refused(400);
    assert!(message.contains("more than 2 images"), "{message}");
    // And of lists, which take more memory than their text.
    for (messages, place) in [
        (json!(vec![json!({ "role": "user", "content": "" }); 2_000]), "messages"),
        (
            json!([{ "role": "user", "content": vec![json!({ "type": "text", "text": "" }); 2_000] }]),
            "messages[0].content",
        ),
    ] {
        let (message, param) = server.post("/v1/chat/completions", &json!({ "messages": messages })).refused(400);
        assert!(message.contains("1024 entries") && param.unwrap().starts_with(place), "{message}");
    }
}

#[test]
fn what_is_no_json_is_refused() {
    let server = with(Options::new());
    let json = [("Content-Type", "application/json; charset=utf-8")];
    for body in ["", "{", "[]", "null", "\"x\"", "{\"prompt\": \"x\"} {}", "{\"prompt\": \"\u{fffd}", "{'prompt': 'x'}"]
    {
        server.send("POST", PATH, &json, body.as_bytes()).refused(400);
    }
    server.send("POST", PATH, &json, &[0xff, 0xfe]).refused(400);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    server.send("POST", PATH, &json, deep.as_bytes()).refused(400);
    server.send("POST", PATH, &json, format!("{{\"prompt\": {deep}}}").as_bytes()).refused(400);
    for headers in [&[][..], &[("Content-Type", "text/plain")]] {
        server.send("POST", PATH, headers, b"{}").refused(415);
        server.send("POST", PATH, headers, &[b'x'; 5_000_000]).refused(415);
    }
    server.get("/v1/nothing").refused(404);
    let answer = server.get(PATH);
    answer.refused(405);
    assert_eq!(answer.header("allow"), Some("POST"));
    server.send("GET", "/v1/models/other", &[], b"").refused(404);
}

#[test]
fn a_full_queue_is_an_answer() {
    let engine = HandleOptions::default().engine(EngineOptions::default().max_sequences(1)).max_waiting(1);
    let server = Server::start(Options::new().grace(Duration::ZERO), engine);
    let busy = keep_busy(&server.handle);
    let waiting = server.begin_post(PATH, &generation(json!({})));
    wait_until("waiting", || server.handle.metrics().waiting == 1);
    for body in [json!({}), json!({ "stream": true }), json!({ "n": 2 })] {
        let answer = server.post(PATH, &generation(body));
        answer.refused(429);
        assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    }
    // There is a place again as soon as there is one.
    drop(busy);
    drop(waiting);
    wait_until("the end of both", || server.handle.metrics().cancelled == 2);
    server.post(PATH, &generation(json!({}))).ok();
}

#[test]
fn some_of_several_images_are_not_begun() {
    let engine = HandleOptions::default().engine(EngineOptions::default().max_sequences(1)).max_waiting(2);
    let server = Server::start(Options::new().grace(Duration::ZERO), engine);
    let _busy = keep_busy(&server.handle);
    // The third is refused, and with it the two that were taken on.
    server.post(PATH, &generation(json!({ "n": 3 }))).refused(429);
    wait_until("cancelling", || server.handle.metrics().cancelled == 2);
    assert_eq!(server.handle.metrics().waiting, 0);
}

#[test]
fn pages_of_other_origins_need_leave() {
    let server = with(Options::new().cors_origin("https://example.org").unwrap());
    let json = ("Content-Type", "application/json");
    let body = generation(json!({})).to_string();
    let answer = server.send("POST", PATH, &[json, ("Origin", "https://evil.example")], body.as_bytes());
    answer.refused(403);
    assert_eq!(answer.header("access-control-allow-origin"), None);
    let answer = server.send("POST", PATH, &[json, ("Origin", "https://example.org")], body.as_bytes());
    answer.ok();
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://example.org"));
    let own = format!("http://{}", server.address);
    server.send("POST", PATH, &[json, ("Origin", &own)], body.as_bytes()).ok();
    let asked = [
        ("Origin", "https://example.org"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization,content-type"),
    ];
    let answer = server.send("OPTIONS", PATH, &asked, b"");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-headers"), Some("authorization,content-type"));
}

#[test]
fn requests_have_ids() {
    let server = with(Options::new());
    let id =
        |given: &[(&str, &str)]| server.send("GET", "/health", given, b"").header("x-request-id").unwrap().to_owned();
    assert_ne!(id(&[]), id(&[]));
    assert_eq!(id(&[("X-Request-Id", "mine-1")]), "mine-1");
    for bad in ["a b", "<script>", &"x".repeat(65)] {
        assert!(id(&[("X-Request-Id", bad)]).starts_with("req-"));
    }
}

#[test]
fn bodies_share_their_room() {
    let server = with(Options::new().max_body_bytes(100_000).unwrap());
    // Bodies that are there but for their last byte.
    let mut held = Vec::new();
    let started = std::time::Instant::now();
    let refused = loop {
        let mut stream = std::net::TcpStream::connect(server.address).unwrap();
        let head = format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json");
        stream.write_all(format!("{head}\r\nContent-Length: 100000\r\n\r\n").as_bytes()).unwrap();
        stream.write_all(&[b' '; 99_999]).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut answer = [0; 12];
        if stream.read_exact(&mut answer).is_ok() {
            break answer;
        }
        held.push(stream);
        assert!(held.len() < 20 && started.elapsed() < Duration::from_secs(60), "{} bodies", held.len());
    };
    assert_eq!(&refused, b"HTTP/1.1 429");
    assert!(held.len() >= 7, "{} bodies", held.len());
    drop(held);
    let ready = || server.post(PATH, &generation(json!({ "prompt": "x".repeat(50_000) }))).status != 429;
    wait_until("room", ready);
}
