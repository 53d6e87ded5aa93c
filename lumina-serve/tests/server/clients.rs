//! Clients that go away, and many at once.

use std::io::Read;

use lumina_mgpt::HandleOptions;
use lumina_serve::Options;
use serde_json::json;

use crate::support::{Server, expected, generation, image_of, keep_busy};
use lumina_testing::wait_until;

const PATH: &str = "/v1/images/generations";

#[test]
fn a_client_that_goes_away_cancels_its_request_alone() {
    let server = Server::new();
    let _busy = keep_busy(&server.handle);
    for body in [json!({ "stream": true, "row_events": true, "n": 2 }), json!({ "n": 2 })] {
        let is_streamed = body.get("stream").is_some();
        let before = server.handle.metrics().cancelled;
        let mut client = server.begin_post(PATH, &generation(body));
        if is_streamed {
            let mut start = [0; 15];
            client.read_exact(&mut start).unwrap();
            assert_eq!(&start, b"HTTP/1.1 200 OK");
        }
        wait_until("running", || server.handle.metrics().running == 3);
        drop(client);
        wait_until("cancelling", || server.handle.metrics().cancelled == before + 2);
        wait_until("the end", || server.handle.metrics().running == 1);
    }
    let text = server.get("/metrics");
    assert!(text.text().contains("lumina_requests_cancelled_total 4\n"), "{}", text.text());
    // Others are not concerned.
    let answer = server.post(PATH, &generation(json!({ "seed": 7 }))).ok();
    assert_eq!(image_of(&answer["data"][0]["b64_json"]).into_rgb8(), expected(7));
}

#[test]
fn a_client_that_goes_away_while_it_waits_is_forgotten() {
    let engine = HandleOptions::default();
    let engine = engine.clone().engine(engine.engine.max_sequences(1));
    let server = Server::start(Options::new().grace(std::time::Duration::ZERO), engine);
    let _busy = keep_busy(&server.handle);
    let client =
        server.begin_post("/v1/chat/completions", &json!({ "messages": [{ "role": "user", "content": "Hi" }] }));
    wait_until("waiting", || server.handle.metrics().waiting == 1);
    drop(client);
    wait_until("cancelling", || server.handle.metrics().cancelled == 1);
}

#[test]
fn a_hundred_at_once_get_what_each_would_alone() {
    let server = Server::new();
    let expected: Vec<_> = (0..5).map(expected).collect();
    std::thread::scope(|scope| {
        for index in 0..100_u64 {
            let (server, expected) = (&server, &expected);
            scope.spawn(move || {
                let seed = index % 5;
                let image = if index % 2 == 0 {
                    server.post(PATH, &generation(json!({ "seed": seed }))).ok()["data"][0]["b64_json"].clone()
                } else {
                    let body = generation(json!({ "seed": seed, "stream": true, "partial_images": 1 }));
                    server.post(PATH, &body).events().last().unwrap().1["b64_json"].clone()
                };
                assert_eq!(image_of(&image).into_rgb8(), expected[seed as usize], "request {index}");
            });
        }
    });
    let metrics = server.handle.metrics();
    assert_eq!((metrics.completed, metrics.failed, metrics.cancelled), (100, 0, 0));
}

#[test]
fn connections_are_kept_for_further_requests() {
    use std::io::Write;
    let server = Server::new();
    let mut stream = std::net::TcpStream::connect(server.address).unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"{\"status\":\"ok\"}") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
    }
}
