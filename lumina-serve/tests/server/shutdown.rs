//! The end of a server.

use std::io::Read;
use std::time::Duration;

use lumina_mgpt::HandleOptions;
use lumina_serve::Options;
use serde_json::json;

use crate::support::{Server, expected, generation, image_of, keep_busy};
use lumina_testing::wait_until;

const PATH: &str = "/v1/images/generations";

#[test]
fn what_runs_is_answered_and_the_rest_is_told() {
    let options = Options::new().grace(Duration::from_secs(60));
    let mut server = Server::start(options, HandleOptions::default());
    let busy = keep_busy(&server.handle);
    let address = server.address;
    let running = std::thread::scope(|scope| {
        let running = scope.spawn(|| server.post(PATH, &generation(json!({ "seed": 7 }))));
        wait_until("running", || server.handle.metrics().running == 2);
        running.join().unwrap()
    });
    assert_eq!(image_of(&running.ok()["data"][0]["b64_json"]).into_rgb8(), expected(7));

    let client = server.begin_post(PATH, &generation(json!({ "seed": 8 })));
    wait_until("running", || server.handle.metrics().running == 2);
    let ended = server.stop();
    wait_until("draining", || server.handle.is_shut_down());
    let health = server.get("/health");
    assert_eq!(health.status, 503);
    assert!(health.text().contains("draining") && health.header("retry-after").is_some());
    let refused = server.post(PATH, &generation(json!({})));
    refused.refused(503);
    assert!(refused.header("retry-after").is_some());
    // The one that runs is answered.
    let mut client = client;
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("b64_json"));
    drop(busy);
    ended.join().unwrap();
    assert!(std::net::TcpStream::connect(address).is_err(), "nothing listens any more");
}

#[test]
fn after_the_grace_requests_are_cancelled_and_told_so() {
    let options = Options::new().grace(Duration::from_millis(100));
    let mut server = Server::start(options, HandleOptions::default());
    let _busy = keep_busy(&server.handle);
    let body = generation(json!({ "stream": true, "n": 10, "row_events": true }));
    let mut client = server.begin_post(PATH, &body);
    wait_until("running", || server.handle.metrics().running == 11);
    server.stop().join().unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("event: error") && answer.contains("\"draining\""), "{answer}");
}
