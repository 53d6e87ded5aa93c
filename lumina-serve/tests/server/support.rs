//! A server on loopback, and a client for it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{DynamicImage, RgbImage};
use lumina_mgpt::{
    Candidates, Compute, Conversation, Events, Handle, HandleOptions, Lumina, Modality, Sampler, Step, StreamState,
    Submission,
};
use lumina_serve::{Options, bind, serve};
use lumina_testing::wait_until;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub(crate) const PROMPT: &str = "a small red circle on a white background";

pub(crate) fn model() -> &'static Lumina {
    static MODEL: OnceLock<Lumina> = OnceLock::new();
    MODEL.get_or_init(|| {
        let folder = lumina_testing::model_of_small_images();
        Lumina::from_pretrained(folder).compute(Compute::cpu()).load().unwrap()
    })
}

/// A server that ends with this.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(options: Options, engine: HandleOptions) -> Self {
        Self::start_at(options, engine, || bind("127.0.0.1", 0))
    }

    pub(crate) fn start_at<L: Future<Output = lumina_serve::Result<TcpListener>>>(
        options: Options,
        engine: HandleOptions,
        listen: impl FnOnce() -> L + Send + 'static,
    ) -> Self {
        Self::serve(Handle::new(model(), engine).unwrap(), options, listen)
    }

    fn serve<L: Future<Output = lumina_serve::Result<TcpListener>>>(
        handle: Handle,
        options: Options,
        listen: impl FnOnce() -> L + Send + 'static,
    ) -> Self {
        let served = handle.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = listen().await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                serve(listener, served, options, async move { drop(stopped.await) }).await.unwrap();
            });
            runtime.shutdown_background();
        });
        Self { address: address.recv().unwrap(), handle, stop: Some(stop), thread: Some(thread) }
    }

    /// One with another model.
    pub(crate) fn of(model: &Lumina) -> Self {
        let handle = Handle::new(model, HandleOptions::default()).unwrap();
        Self::serve(handle, Options::new().grace(Duration::ZERO), || bind("127.0.0.1", 0))
    }

    pub(crate) fn new() -> Self {
        Self::start(Options::new().grace(Duration::ZERO), HandleOptions::default())
    }

    /// Asks it to end, and returns what becomes ready when it has.
    pub(crate) fn stop(&mut self) -> JoinHandle<()> {
        drop(self.stop.take());
        self.thread.take().unwrap()
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("Content-Type", "application/json")], body.to_string().as_bytes())
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = self.begin(method, path, headers, body);
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Answer::read(&bytes)
    }

    /// Sends a request, whose answer is then on the connection.
    pub(crate) fn begin(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses the request may not read all of it.
        let _ = stream.write_all(body);
        stream
    }

    pub(crate) fn begin_post(&self, path: &str, body: &Value) -> TcpStream {
        self.begin("POST", path, &[("Content-Type", "application/json")], body.to_string().as_bytes())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let thread = self.stop();
            let result = thread.join();
            assert!(result.is_ok() || std::thread::panicking(), "the server has panicked");
        }
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer with a head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut answer = Self { status, headers, body: bytes[end + 4..].to_vec() };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = without_chunks(&answer.body);
        }
        answer
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| &**value)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The error in the answer: its message, with the field that it is about.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16) -> (String, Option<String>) {
        assert_eq!(self.status, status, "{}", self.text());
        let value: Value = serde_json::from_slice(&self.body).unwrap();
        let error = &value["error"];
        assert!(error["type"].is_string() && error["code"].is_string(), "{value}");
        (error["message"].as_str().unwrap().to_owned(), error["param"].as_str().map(str::to_owned))
    }

    /// Server-sent events, with their names.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<(String, Value)> {
        assert_eq!(self.status, 200, "{}", self.text());
        assert!(self.header("content-type").unwrap().starts_with("text/event-stream"));
        self.text().split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':')).map(event).collect()
    }
}

fn event(text: &str) -> (String, Value) {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let data = field("data:").unwrap();
    let value = if data == "[DONE]" { Value::from(data) } else { serde_json::from_str(data).unwrap() };
    (field("event:").unwrap_or_default().to_owned(), value)
}

fn without_chunks(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n").expect("the size of a chunk");
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.extend(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 4 + size..];
    }
}

pub(crate) fn file_of(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

pub(crate) fn image_of(value: &Value) -> DynamicImage {
    image::load_from_memory(&file_of(value)).unwrap()
}

pub(crate) fn data_url(file: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(file))
}

/// The image of the small model's folder, as a file.
pub(crate) fn scene() -> &'static [u8] {
    include_bytes!("../../../model/scene.png")
}

pub(crate) fn expected(seed: u64) -> RgbImage {
    model().text_to_image(PROMPT, (96, 96)).seed(seed).run().unwrap()
}

pub(crate) fn generation(more: Value) -> Value {
    let mut body = json!({ "prompt": PROMPT });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Keeps an engine busy: a text without an end, whose passes take 20 ms each, until the events are dropped.
pub(crate) fn keep_busy(handle: &Handle) -> Events {
    let request = model().chat(Conversation::new().human("Hello")).temperature(3.0).text_top_k(200).request().unwrap();
    let request = request.with(|options| options.max_new_tokens(100_000).sampling(|s| s.modality(Modality::Text)));
    let no_end = |sampler: Sampler| sampler.step_after(SlowWithoutEnd);
    let submission = Submission { sampler: Some(Arc::new(no_end)), ..Submission::default() };
    let events = handle.submit_with(&request, submission).unwrap();
    wait_until("the first pass", || handle.metrics().running == 1);
    events
}

#[derive(Debug)]
struct SlowWithoutEnd;

impl Step for SlowWithoutEnd {
    fn apply(&self, candidates: &mut Candidates, state: &StreamState) {
        std::thread::sleep(Duration::from_millis(20));
        let end = state.vocabulary().turn_end();
        candidates.retain(|token, _| token != end);
    }
}
