//! Images a second through the server, beside the library's batches in the same run, with the small model on the CPU.
//!
//! What the server adds to an image (HTTP, JSON, PNG, base64) does not grow with the model, and this model is small: it
//! is the share at its largest.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program that prints what it measures")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use lumina_mgpt::{Compute, Handle, HandleOptions, Lumina, Request};
use lumina_serve::{Options, bind, serve};

/// Requests of each client, and batches of the library.
const ROUNDS: u64 = 12;
const PROMPT: &str = "a small red circle on a white background";

fn main() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../model");
    let model = Lumina::from_pretrained(folder).compute(Compute::cpu()).load().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(bind("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let handle = Handle::new(&model, HandleOptions::default()).unwrap();
    runtime.spawn(serve(listener, handle, Options::new(), std::future::pending()));

    println!("{:>8} {:>16} {:>16} {:>8}", "at once", "library, img/s", "server, img/s", "ratio");
    for clients in [1, 4, 16] {
        // The first is not measured, and takes what is made once.
        by_library(&model, clients, 1);
        by_server(address, clients, 1);
        let (mut library, mut server) = (0.0, 0.0);
        // In turns, so that what else the machine does meets both.
        for _ in 0..3 {
            library += by_library(&model, clients, ROUNDS / 3);
            server += by_server(address, clients, ROUNDS / 3);
        }
        let images = (clients * ROUNDS) as f64;
        let (library, server) = (images / library, images / server);
        println!("{clients:>8} {library:>16.1} {server:>16.1} {:>8.2}", server / library);
    }
    runtime.shutdown_background();
}

/// The seconds of so many batches.
fn by_library(model: &Lumina, size: u64, rounds: u64) -> f64 {
    let started = Instant::now();
    for round in 0..rounds {
        let request = |seed| model.text_to_image(PROMPT, (256, 256)).seed(seed).request().unwrap();
        let requests: Vec<Request> = (0..size).map(|index| request(round * size + index)).collect();
        assert!(
            model
                .run_batch(&requests)
                .iter()
                .all(|output| output.as_ref().is_ok_and(|output| output.images.len() == 1))
        );
    }
    started.elapsed().as_secs_f64()
}

/// The seconds of so many clients, each with as many requests.
fn by_server(address: SocketAddr, clients: u64, rounds: u64) -> f64 {
    let started = Instant::now();
    std::thread::scope(|scope| {
        for client in 0..clients {
            scope.spawn(move || (0..rounds).for_each(|round| draw(address, round * clients + client)));
        }
    });
    started.elapsed().as_secs_f64()
}

fn draw(address: SocketAddr, seed: u64) {
    let body = format!(r#"{{"prompt": "{PROMPT}", "seed": {seed}}}"#);
    let mut stream = TcpStream::connect(address).unwrap();
    let head = "POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json";
    write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}
