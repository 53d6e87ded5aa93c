//! Clients that take their time: to ask, to read, to go.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use lumina_mgpt::{EngineOptions, HandleOptions};
use lumina_serve::Options;
use serde_json::json;

use crate::support::{Server, generation};
use lumina_testing::wait_until;
use tokio::net::TcpSocket;

const PATH: &str = "/v1/images/generations";
/// What clients have in these tests.
const TIME: Duration = Duration::from_millis(400);

fn with(options: Options) -> Server {
    Server::start(options.grace(Duration::ZERO), HandleOptions::default())
}

/// Sends bytes one by one, much more often than the server's time, until the server has had enough; what it answers.
fn byte_by_byte(server: &Server, start: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(start.as_bytes()).unwrap();
    stream.set_read_timeout(Some(TIME / 20)).unwrap();
    let (started, mut answer, mut buffer) = (Instant::now(), Vec::new(), [0; 1024]);
    loop {
        assert!(started.elapsed() < Duration::from_secs(60), "the server waits on");
        match stream.read(&mut buffer) {
            Ok(0) => return answer,
            Ok(n) => answer.extend(&buffer[..n]),
            Err(error) if [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut].contains(&error.kind()) => {
                let _ = stream.write_all(b"x");
            }
            Err(_) => return answer,
        }
    }
}

#[test]
fn requests_have_a_time_to_arrive_whatever_trickles_in() {
    let server = with(Options::new().body_timeout(TIME).unwrap());
    let head = "POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    // Heads.
    for start in ["", "POST /v1/images/generations HTTP/1.1\r\nHost", head] {
        let answer = byte_by_byte(&server, start);
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
    }
    // Bodies.
    for body in ["Content-Length: 100000\r\n\r\n{\"prompt\": \"", "Transfer-Encoding: chunked\r\n\r\nffff\r\n{"] {
        let answer = byte_by_byte(&server, &format!("{head}{body}"));
        assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
    }
    // Of a form.
    let form = "POST /v1/images/edits HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n\
                Content-Length: 100000\r\n\r\n--b\r\n";
    assert!(byte_by_byte(&server, form).starts_with(b"HTTP/1.1 408"));
    server.post(PATH, &generation(json!({}))).ok();
}

#[test]
fn connections_without_a_request_end() {
    let server = with(Options::new().body_timeout(TIME).unwrap());
    for request in ["", "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the server closes the connection");
        assert_eq!(answer.is_empty(), request.is_empty());
    }
}

/// A server whose connections keep next to nothing that nobody reads.
fn with_small_buffers(options: Options, engine: HandleOptions) -> Server {
    Server::start_at(options.grace(Duration::ZERO), engine, || async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(4096).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Ok(socket.listen(16).unwrap())
    })
}

#[test]
fn a_client_that_does_not_read_is_cut_off_and_its_request_cancelled() {
    // A few at a time, so that most have not begun when nothing more can be sent.
    let engine = HandleOptions::default().engine(EngineOptions::default().max_sequences(4)).event_buffer(2);
    let server = with_small_buffers(Options::new().write_timeout(TIME).unwrap().max_n(128).unwrap(), engine);
    let body = generation(json!({ "stream": true, "partial_images": 6, "row_events": true, "n": 128 }));
    let mut client = server.begin_post(PATH, &body);
    wait_until("the images", || server.handle.metrics().submitted == 128);
    wait_until("cancelling", || server.handle.metrics().cancelled > 0);
    wait_until("the end", || {
        let metrics = server.handle.metrics();
        metrics.completed + metrics.cancelled == 128 && metrics.kv_cache_bytes == 0
    });
    // The connection is closed: what was sent is all that comes.
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 200") && !answer.ends_with(b"\r\n0\r\n\r\n"));
    server.post(PATH, &generation(json!({}))).ok();
}

#[test]
fn a_client_that_reads_slowly_gets_its_answer() {
    let server = with_small_buffers(Options::new().write_timeout(TIME).unwrap(), HandleOptions::default());
    let body = generation(json!({ "stream": true, "partial_images": 6, "n": 2 }));
    let mut client = server.begin_post(PATH, &body);
    let (mut answer, mut buffer) = (Vec::new(), [0; 2048]);
    let started = Instant::now();
    loop {
        std::thread::sleep(TIME / 20);
        match client.read(&mut buffer).unwrap() {
            0 => break,
            n => answer.extend(&buffer[..n]),
        }
    }
    assert!(started.elapsed() > TIME, "it has read too fast to tell: {} bytes", answer.len());
    assert!(answer.ends_with(b"\r\n0\r\n\r\n"), "{} bytes", answer.len());
}

#[test]
fn connections_have_a_limit() {
    let server = with(Options::new().max_connections(2).unwrap());
    let is_answered = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(TIME / 4)).unwrap();
        stream.read_exact(&mut [0; 12]).is_ok()
    };
    let ask = || {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        stream
    };
    let (mut first, mut second, mut third) = (ask(), ask(), ask());
    assert!(is_answered(&mut first) && is_answered(&mut second));
    assert!(!is_answered(&mut third), "it has no place yet");
    drop(first);
    wait_until("a place", || is_answered(&mut third));
    // What is kept for a further request keeps its place.
    let mut fourth = ask();
    assert!(!is_answered(&mut fourth), "it has no place yet");
    drop((second, third));
    wait_until("another place", || is_answered(&mut fourth));
}

#[test]
fn clients_that_send_slowly_keep_nobody_out() {
    let server = with(Options::new().max_body_bytes(100_000).unwrap());
    // As many as would fill the room for bodies, if it were taken at their beginning.
    let slow: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(server.address).unwrap();
            let head = format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json");
            stream.write_all(format!("{head}\r\nContent-Length: 100000\r\n\r\n{{").as_bytes()).unwrap();
            stream
        })
        .collect();
    server.post(PATH, &generation(json!({}))).ok();
    drop(slow);
}
