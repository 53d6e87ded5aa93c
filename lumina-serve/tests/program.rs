//! The program: where it listens, what it says, how it ends.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a panic is the failure")]
#![cfg(all(feature = "program", unix))]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lumina-serve"));
    command.args(arguments).env_remove("LUMINA_API_KEY").env_remove("LUMINA_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// A program that serves. It is killed with this.
struct Running {
    child: Child,
    address: SocketAddr,
    /// Its log goes on to be read, so that it does not wait for a reader.
    _log: std::thread::JoinHandle<()>,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let all = [&["--model", lumina_testing::model_of_small_images().to_str().unwrap(), "--port", "0"], arguments]
            .concat();
        let mut child = program(&all).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = log.next().expect("the program has ended").unwrap();
            if let Some((_, address)) = line.split_once("listening at http://") {
                break address.parse().unwrap();
            }
        };
        Self { child, address, _log: std::thread::spawn(move || log.for_each(drop)) }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    fn get(&self, path: &str, host: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn ended_within(&mut self, time: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < time, "the program has not ended");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_listens_on_loopback_alone_under_its_names_alone() {
    let mut running = Running::start(&[]);
    assert!(running.address.ip().is_loopback());
    let port = running.address.port();
    for host in [format!("localhost:{port}"), format!("127.0.0.1:{port}")] {
        let answer = running.get("/v1/models", &host);
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains(r#""id":"small-images-model""#), "{answer}");
    }
    assert!(running.get("/v1/models", &format!("evil.example:{port}")).starts_with("HTTP/1.1 421"));
    running.signal("TERM");
    assert!(running.ended_within(Duration::from_secs(30)).success());
}

#[test]
fn arguments_reach_the_server() {
    let mut running = Running::start(&["--model-id", "small", "--max-n", "3", "--allowed-host", "lumina.test"]);
    let answer = running.get("/v1/models", "lumina.test");
    assert!(answer.contains(r#""id":"small""#) && answer.contains(r#""max_images":3"#), "{answer}");
    running.signal("INT");
    assert!(running.ended_within(Duration::from_secs(30)).success());
    // With a key, names are anybody's.
    let running = Running::start(&["--api-key", "secret"]);
    assert!(running.get("/v1/models", "any.test").starts_with("HTTP/1.1 401"));
    assert!(running.get("/health", "any.test").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut running =
        Running::start(&["--grace", "3600", "--max-sequences", "1", "--max-waiting", "10000", "--max-n", "128"]);
    // Images for minutes.
    let body = r#"{"prompt": "a circle", "n": 128}"#;
    let clients: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(running.address).unwrap();
            let head = "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
            write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            stream
        })
        .collect();
    let waiting = |text: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix("lumina_requests_waiting ")).unwrap();
        value.trim().parse::<u64>().unwrap()
    };
    let started = Instant::now();
    while waiting(&running.get("/metrics", "localhost")) < 1_000 {
        assert!(started.elapsed() < Duration::from_secs(60), "the requests have not come");
        std::thread::sleep(Duration::from_millis(10));
    }
    running.signal("TERM");
    while !running.get("/health", "localhost").starts_with("HTTP/1.1 503") {
        assert!(started.elapsed() < Duration::from_secs(60), "it does not drain");
    }
    assert!(running.child.try_wait().unwrap().is_none(), "it does not wait for what runs");
    running.signal("TERM");
    assert!(running.ended_within(Duration::from_secs(20)).success());
    drop(clients);
}

#[test]
fn what_is_wrong_is_said_and_is_a_failure() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let model = lumina_testing::model_of_small_images().to_str().unwrap();
    for (arguments, words) in [
        (&["--model", "/no/such/folder"][..], "/no/such/folder"),
        (&["--model", model, "--port", &port], "cannot be listened at"),
        (&["--model", model, "--log", "info,[["], "`--log`"),
        (&["--model", model, "--max-n", "0"], "`max_n` is 0"),
        (&["--model", model, "--cors-origin", "*"], "`cors_origin`"),
        (&["--model", model, "--max-connections", "0"], "`max_connections` is 0"),
        (&["--model", model, "--body-timeout", "0"], "`body_timeout`"),
        (&["--model", model, "--write-timeout", "0"], "`write_timeout`"),
        (&["--model", model, "--compute", "abacus"], "abacus"),
        (&[], "--model"),
    ] {
        let output = program(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(words), "{arguments:?}: {said}");
    }
}
