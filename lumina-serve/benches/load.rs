//! The program under load: 64 clients of mixed tasks, some of which vanish, read slowly, or stop reading or sending,
//! and 10,000 malformed requests, for a time. Memory, latencies by task and images a second are printed; what must not
//! happen (an answer that is wrong, a request or a connection that stays) ends it with an error.
//!
//! `cargo bench -p lumina-serve --bench load -- [SECONDS [CLIENTS]]`, 30 seconds and 64 clients unless given. Linux has
//! the figures on memory and connections.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a program that prints what it measures")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../model");
const GENERATIONS: &str = "/v1/images/generations";
const EDITS: &str = "/v1/images/edits";
const CHAT: &str = "/v1/chat/completions";
const MALFORMED: usize = 10_000;
/// Threads that send malformed requests.
const SENDERS: u64 = 4;
/// The server's time limits here, in seconds.
const TIMEOUT: &str = "5";

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let (seconds, clients) = (numbers.first().copied().unwrap_or(30), numbers.get(1).copied().unwrap_or(64));
    let server = Server::start();
    let load = Load::new(server.address, Duration::from_secs(seconds));
    let connections = server.open_files();

    std::thread::scope(|scope| {
        for client in 0..clients {
            let load = &load;
            scope.spawn(move || load.client(client));
        }
        for sender in 0..SENDERS {
            let load = &load;
            scope.spawn(move || load.malformed(sender));
        }
        let (load, server) = (&load, &server);
        scope.spawn(move || {
            while Instant::now() < load.end {
                std::thread::sleep(Duration::from_secs(seconds.div_ceil(10)));
                let (all, malformed) = (load.n_answers(), load.malformed.load(Ordering::Relaxed));
                println!(
                    "{:>4} s: {} MB resident, {all} answers, {malformed} malformed requests",
                    load.started.elapsed().as_secs(),
                    server.resident_mb()
                );
            }
        });
    });

    // What the clients have left ends, too.
    let until = Instant::now() + Duration::from_secs(60);
    let idle = ["requests_waiting", "requests_running", "requests_held", "kv_cache_bytes"];
    let is_idle = || idle.iter().all(|name| server.metric(name) == 0.0) && server.open_files() <= connections;
    while !is_idle() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    if !is_idle() {
        let left = idle.map(|name| format!("{name} {}", server.metric(name)));
        load.fail(format!("left over: {left:?}, {} open files of {connections}", server.open_files()));
    }
    println!(
        "after it: {} MB resident, {} open files (before: {connections})",
        server.resident_mb(),
        server.open_files()
    );
    load.report();
    for name in ["requests_completed_total", "requests_cancelled_total", "requests_failed_total", "passes_total"] {
        println!("{name} {}", server.metric(name));
    }
    server.stop(&load);
    let failures = load.failures.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{} failures", failures.len());
    failures.iter().take(10).for_each(|failure| println!("  {failure}"));
    assert!(failures.is_empty(), "what must not happen has");
}

/// The program, which is killed with this.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lumina-serve"));
        command.args(["--model", MODEL, "--port", "0", "--body-timeout", TIMEOUT, "--write-timeout", TIMEOUT]);
        command.env_remove("LUMINA_API_KEY").env_remove("LUMINA_LOG").stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = log.next().expect("the program has ended").unwrap();
            if let Some((_, address)) = line.split_once("listening at http://") {
                break address.parse().unwrap();
            }
        };
        std::thread::spawn(move || {
            log.map_while(Result::ok)
                .filter(|line| line.contains("ERROR") || line.contains("panicked"))
                .for_each(|line| println!("the log: {line}"));
        });
        Self { child, address }
    }

    fn resident_mb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() / 1024
    }

    fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }

    fn metric(&self, name: &str) -> f64 {
        let answer = exchange(self.address, &request("GET", "/metrics", "", b""), 1 << 16).unwrap();
        let name = format!("lumina_{name} ");
        let line = answer.lines().find_map(|line| line.strip_prefix(&name).map(str::to_owned));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(f64::NAN)
    }

    /// Asks the program to end, as a service manager does.
    fn stop(mut self, load: &Load) {
        if cfg!(unix) {
            let _ = Command::new("kill").arg(self.child.id().to_string()).status();
            let status = self.child.wait().unwrap();
            if !status.success() {
                load.fail(format!("the program has ended by {status}"));
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the clients share.
struct Load {
    address: SocketAddr,
    started: Instant,
    end: Instant,
    /// The image that is sent, as a data URL.
    image: String,
    /// Times of answers, by task.
    times: Mutex<BTreeMap<&'static str, Vec<Duration>>>,
    malformed: AtomicUsize,
    images: AtomicUsize,
    refused: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Load {
    fn new(address: SocketAddr, time: Duration) -> Self {
        let image = std::fs::read(format!("{MODEL}/scene.png")).unwrap();
        Self {
            address,
            started: Instant::now(),
            end: Instant::now() + time,
            image: format!("data:image/png;base64,{}", STANDARD.encode(image)),
            times: Mutex::default(),
            malformed: AtomicUsize::new(0),
            images: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            failures: Mutex::default(),
        }
    }

    fn fail(&self, failure: String) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
    }

    fn n_answers(&self) -> usize {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).values().map(Vec::len).sum()
    }

    /// One client after the other, each of a kind that is drawn.
    fn client(&self, seed: u64) {
        let mut random = Random::new(seed);
        while Instant::now() < self.end {
            let (seed, prompt) = (random.below(1 << 30), prompt(&mut random));
            let draw = json!({ "prompt": prompt, "size": "256x256", "seed": seed });
            let streamed = json!({ "prompt": prompt, "size": "256x256", "stream": true, "partial_images": 3, "n": 2 });
            let (kind, path, body) = match random.below(20) {
                0..6 => ("draw", GENERATIONS, draw),
                6..9 => ("draw, streamed", GENERATIONS, streamed),
                9..11 => ("depth", EDITS, json!({ "image": self.image, "task": "depth_estimation" })),
                11..13 => ("edit", EDITS, json!({ "image": self.image, "prompt": "make the red circle blue" })),
                13..15 => ("caption", CHAT, self.caption()),
                15 => ("slow reader", GENERATIONS, streamed),
                16 => ("stalled reader", GENERATIONS, streamed),
                17 => ("stalled sender", GENERATIONS, draw),
                _ => ("vanishing", GENERATIONS, streamed),
            };
            let body = body.to_string().into_bytes();
            let message = request("POST", path, "application/json", &body);
            let started = Instant::now();
            let answer = match kind {
                "vanishing" => self.vanish(&message, Duration::from_millis(random.below(300))),
                "stalled reader" => self.vanish(&message, Duration::from_millis(2_000 + random.below(6_000))),
                "stalled sender" => self.stop_sending(&message),
                "slow reader" => exchange(self.address, &message, 256).map(Some),
                _ => exchange(self.address, &message, 1 << 16).map(Some),
            };
            match answer {
                Ok(None) => self.count(kind, started.elapsed()),
                Ok(Some(answer)) => self.check(kind, &answer, started.elapsed()),
                Err(error) => self.fail(format!("{kind}: {error}")),
            }
        }
    }

    fn caption(&self) -> serde_json::Value {
        let part = json!({ "type": "image_url", "image_url": { "url": self.image } });
        json!({ "task": "captioning", "messages": [{ "role": "user", "content": [part] }] })
    }

    fn count(&self, kind: &'static str, time: Duration) {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default().push(time);
    }

    fn check(&self, kind: &'static str, answer: &str, time: Duration) {
        if answer.starts_with("HTTP/1.1 429") {
            self.refused.fetch_add(1, Ordering::Relaxed);
            // As its `Retry-After` says.
            std::thread::sleep(Duration::from_secs(1));
            return;
        }
        // The beginning of a PNG in base64.
        let images = match kind {
            "draw, streamed" | "slow reader" => answer.matches("event: image_generation.completed").count(),
            _ => answer.matches("\"b64_json\":\"iVBORw0KGgo").count(),
        };
        let expected = match kind {
            "draw" | "depth" | "edit" => 1,
            "draw, streamed" | "slow reader" => 2,
            _ => 0,
        };
        let has_text = kind != "caption" || answer.contains("background");
        if answer.starts_with("HTTP/1.1 200") && images == expected && has_text && !answer.contains("event: error") {
            self.images.fetch_add(images, Ordering::Relaxed);
            self.count(kind, time);
        } else {
            self.fail(format!("{kind}: {}", answer.chars().take(300).collect::<String>()));
        }
    }

    /// Goes away after a time, without having read anything.
    fn vanish(&self, message: &[u8], after: Duration) -> std::io::Result<Option<String>> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.write_all(message)?;
        std::thread::sleep(after);
        Ok(None)
    }

    /// Sends all but the end: the server must cut it off, in time.
    fn stop_sending(&self, message: &[u8]) -> std::io::Result<Option<String>> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.write_all(&message[..message.len() - 1])?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.starts_with("HTTP/1.1 408") || answer.starts_with("HTTP/1.1 429") {
            return Ok(None);
        }
        Err(std::io::Error::other(answer))
    }

    /// Requests with wrong bytes: each has an answer that is no fault of the server's, or the end of the connection.
    fn malformed(&self, seed: u64) {
        let mut random = Random::new(1_000 + seed);
        let form = format!(
            "--b\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\nx\r\n--b\r\n\
             Content-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\n{}\r\n--b--\r\n",
            "x".repeat(200)
        );
        let draw = json!({ "prompt": prompt(&mut random), "size": "256x256", "seed": 1, "n": 1 }).to_string();
        let edit = json!({ "prompt": "x", "image": self.image }).to_string();
        let bodies = [
            (GENERATIONS, "application/json", draw),
            (EDITS, "application/json", edit),
            (CHAT, "application/json", self.caption().to_string()),
            (EDITS, "multipart/form-data; boundary=b", form),
        ];
        while self.malformed.fetch_add(1, Ordering::Relaxed) < MALFORMED {
            let (path, kind, body) = &bodies[random.below(bodies.len() as u64) as usize];
            let mut body = body.clone().into_bytes();
            for _ in 0..=random.below(3) {
                let at = random.below(body.len() as u64) as usize;
                body[at] = random.below(256) as u8;
            }
            let mut message = request("POST", path, kind, &body);
            if random.below(8) == 0 {
                // In the head, too; what makes the length too long is cut off by the server.
                let at = random.below(60) as usize;
                message[at] = random.below(256) as u8;
            }
            match exchange(self.address, &message, 1 << 16) {
                Ok(answer) if answer.starts_with("HTTP/1.1 5") => self.fail(format!("malformed: {answer}")),
                // What the server has closed already cannot be read any more.
                Ok(_) | Err(_) => {}
            }
        }
        self.malformed.fetch_sub(1, Ordering::Relaxed);
    }

    fn report(&self) {
        let seconds = (self.end - self.started).as_secs_f64();
        println!("{:<16} {:>8} {:>9} {:>9} {:>9}", "task", "answers", "p50", "p95", "longest");
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, times) in times.iter_mut() {
            times.sort();
            let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64();
            println!("{kind:<16} {:>8} {:>7.2} s {:>7.2} s {:>7.2} s", times.len(), at(0.5), at(0.95), at(1.0));
        }
        let count = |number: &AtomicUsize| number.load(Ordering::Relaxed);
        println!(
            "{:.1} images a second that clients got; {} answers were 429; {} malformed requests",
            count(&self.images) as f64 / seconds,
            count(&self.refused),
            count(&self.malformed)
        );
    }
}

fn request(method: &str, path: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The answer to a request, read in pieces of so many bytes: small ones slowly.
fn exchange(address: SocketAddr, message: &[u8], piece: usize) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    stream.write_all(message)?;
    let (mut answer, mut buffer) = (Vec::new(), vec![0; piece]);
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            n => answer.extend(&buffer[..n]),
        }
        if piece < 1024 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn prompt(random: &mut Random) -> String {
    let size = random.of(&["small", "large"]);
    let colour = random.of(&["red", "blue", "green", "yellow", "purple", "orange"]);
    let shape = random.of(&["circle", "square", "triangle", "cross"]);
    format!("a {size} {colour} {shape} on a white background")
}

/// Numbers that are the same each time.
struct Random(Box<dyn Iterator<Item = u32>>);

impl Random {
    fn new(seed: u64) -> Self {
        Self(Box::new(lumina_testing::lcg(seed as u32 + 1)))
    }

    fn below(&mut self, end: u64) -> u64 {
        let number = self.0.next().unwrap_or_default();
        (u64::from(number >> 1) * end) >> 31
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }
}
