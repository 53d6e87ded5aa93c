//! A hub on loopback, for tests of downloads: the protocol of huggingface.co as far as downloads need it, with faults.
//!
//! Two ports: the hub, and a content delivery network to which it sends for files in Git LFS. Each answer closes its
//! connection.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use serde_json::json;

use crate::sha256;

/// Bytes that are sent at once.
pub const PIECE: usize = 16 << 10;

/// The commit that the branch `main` of each repository is at.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A file of a repository.
#[derive(Clone)]
pub struct ServedFile {
    /// What it contains.
    pub bytes: Arc<Vec<u8>>,
    /// Whether it is in Git LFS: served by the other port, with its SHA-256.
    pub is_lfs: bool,
}

/// One request, as it was made.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET` or `HEAD`.
    pub method: String,
    /// The path with its encoding.
    pub path: String,
    /// The first byte that is asked for.
    pub range: Option<u64>,
    /// The header of that name.
    pub authorization: Option<String>,
    /// Whether it came to the other port.
    pub is_cdn: bool,
    /// How many requests there were before.
    pub index: usize,
}

/// What the server does with a request.
#[derive(Clone)]
pub enum Reply {
    /// As a hub does.
    Serve,
    /// This status with an error code of the hub (`X-Error-Code`).
    Status(u16, &'static str),
    /// These bytes in the place of the file's.
    Bytes(Vec<u8>),
    /// These bytes, without saying how many.
    Unsized(Vec<u8>),
    /// As a server without ranges does.
    NoRange,
    /// Ranges that begin at another byte.
    WrongRange,
    /// A redirect.
    Redirect(String),
    /// The answer of a hub with other headers in addition, whole lines.
    Headers(String),
    /// No answer at all: the connection ends.
    Nothing,
}

type Decide = Box<dyn Fn(&Request) -> Reply + Send + Sync>;
type Pace = Box<dyn Fn(&Request, u64) -> bool + Send + Sync>;

struct State {
    files: Mutex<BTreeMap<String, ServedFile>>,
    requests: Mutex<Vec<Request>>,
    connections: AtomicUsize,
    decide: Mutex<Arc<Decide>>,
    pace: Mutex<Arc<Pace>>,
    is_closed: AtomicBool,
    repo: String,
    commit: Mutex<String>,
    cdn: String,
}

/// A hub with one repository. It ends when it is dropped.
pub struct HubServer {
    state: Arc<State>,
    addresses: [String; 2],
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl HubServer {
    /// A hub with a repository `owner/name` of no files.
    pub fn new(repo: &str) -> Self {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("loopback has a free port"));
        let addresses = listeners.each_ref().map(|listener| listener.local_addr().expect("it is bound").to_string());
        let state = Arc::new(State {
            files: Mutex::default(),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            decide: Mutex::new(Arc::new(Box::new(|_| Reply::Serve))),
            pace: Mutex::new(Arc::new(Box::new(|_, _| true))),
            is_closed: AtomicBool::new(false),
            repo: repo.to_owned(),
            commit: Mutex::new(COMMIT.to_owned()),
            cdn: format!("http://{}", addresses[1]),
        });
        for (listener, is_cdn) in listeners.into_iter().zip([false, true]) {
            let state = state.clone();
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if state.is_closed.load(Ordering::SeqCst) {
                        break;
                    }
                    let (Ok(stream), state) = (stream, state.clone()) else { continue };
                    state.connections.fetch_add(1, Ordering::SeqCst);
                    // A client that goes away is what some tests are about.
                    thread::spawn(move || drop(state.answer(stream, is_cdn)));
                }
            });
        }
        Self { state, addresses }
    }

    /// Adds a file, in Git LFS or not.
    #[must_use]
    pub fn with(self, name: &str, bytes: impl Into<Vec<u8>>, is_lfs: bool) -> Self {
        self.put(name, bytes, is_lfs);
        self
    }

    /// Adds a file, or replaces it.
    pub fn put(&self, name: &str, bytes: impl Into<Vec<u8>>, is_lfs: bool) {
        locked(&self.state.files).insert(name.to_owned(), ServedFile { bytes: Arc::new(bytes.into()), is_lfs });
    }

    /// Sets the commit that `main` is at.
    pub fn set_commit(&self, commit: &str) {
        commit.clone_into(&mut locked(&self.state.commit));
    }

    /// Sets what is done with each request.
    pub fn on_request(&self, decide: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        *locked(&self.state.decide) = Arc::new(Box::new(decide));
    }

    /// Sets a function that is called before each piece of a file is sent, with the number of its first byte. It may
    /// wait; where it returns `false` the connection is cut.
    pub fn on_piece(&self, pace: impl Fn(&Request, u64) -> bool + Send + Sync + 'static) {
        *locked(&self.state.pace) = Arc::new(Box::new(pace));
    }

    /// The address of the hub.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addresses[0])
    }

    /// The address of the other port.
    pub fn cdn(&self) -> String {
        self.state.cdn.clone()
    }

    /// Connections that were made to both ports.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        locked(&self.state.requests).clone()
    }

    /// The first bytes that were asked for of a file's content, in the order of requests.
    pub fn ranges(&self, name: &str) -> Vec<u64> {
        let files = locked(&self.state.files);
        let file = files.get(name).expect("a file of the repository");
        let path = if file.is_lfs { format!("/blob/{}", sha256(&file.bytes)) } else { cached_path(name) };
        let requests = self.requests();
        let gets = requests.iter().filter(|request| request.method == "GET" && request.path == path);
        gets.map(|request| request.range.unwrap_or(0)).collect()
    }
}

impl Drop for HubServer {
    fn drop(&mut self) {
        self.state.is_closed.store(true, Ordering::SeqCst);
        // The threads wait for connections.
        for address in &self.addresses {
            drop(TcpStream::connect(address));
        }
    }
}

/// Where the hub sends for files that are not in LFS.
fn cached_path(name: &str) -> String {
    format!("/api/resolve-cache/{name}")
}

impl State {
    fn answer(&self, stream: TcpStream, is_cdn: bool) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace().map(str::to_owned);
        let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
        let (mut range, mut authorization) = (None, None);
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
                break;
            }
            let (name, value) = header.trim().split_once(':').unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "range" => range = value.trim().trim_start_matches("bytes=").trim_end_matches('-').parse().ok(),
                "authorization" => authorization = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        let request = {
            let mut requests = locked(&self.requests);
            let index = requests.len();
            requests.push(Request { method, path, range, authorization, is_cdn, index });
            requests[index].clone()
        };
        let decide = locked(&self.decide).clone();
        let done = self.reply(&stream, &request, decide(&request));
        stream.shutdown(Shutdown::Write)?;
        // Closing with bytes unread would discard what is on its way.
        reader.read_to_end(&mut Vec::new())?;
        done
    }

    fn reply(&self, stream: &TcpStream, request: &Request, reply: Reply) -> std::io::Result<()> {
        let (extra, reply) = match reply {
            Reply::Headers(extra) => (extra, Reply::Serve),
            reply => (String::new(), reply),
        };
        match reply {
            Reply::Nothing => return Ok(()),
            Reply::Status(status, code) => {
                return head(stream, status, &format!("X-Error-Code: {code}\r\nContent-Length: 0\r\n"));
            }
            Reply::Redirect(to) => return head(stream, 302, &format!("Location: {to}\r\nContent-Length: 0\r\n")),
            _ => {}
        }
        let commit = locked(&self.commit).clone();
        let (repo, files) = (&self.repo, locked(&self.files).clone());
        let path = &*decoded(&request.path);
        if request.is_cdn {
            let sha = path.trim_start_matches("/blob/");
            let found = files.values().find(|file| file.is_lfs && sha256(&file.bytes) == sha);
            return match found {
                Some(file) => self.send(stream, request, file, &reply, &format!("ETag: \"of-the-cdn\"\r\n{extra}")),
                None => head(stream, 404, "Content-Length: 0\r\n"),
            };
        }
        if let Some(revision) = path.strip_prefix(&format!("/api/models/{repo}/revision/")) {
            if revision != "main" && revision != commit && revision != "refs/pr/1" {
                return head(stream, 404, "X-Error-Code: RevisionNotFound\r\nContent-Length: 0\r\n");
            }
            let names: Vec<_> = files.keys().map(|name| json!({ "rfilename": name })).collect();
            let json = json!({ "id": repo, "sha": commit, "siblings": names }).to_string();
            let json = if let Reply::Bytes(bytes) = &reply { bytes.clone() } else { json.into_bytes() };
            head(stream, 200, &format!("Content-Length: {}\r\n{extra}", json.len()))?;
            let mut stream = stream;
            return stream.write_all(&json);
        }
        if let Some(name) = path.strip_prefix("/api/resolve-cache/") {
            let Some(file) = files.get(name) else { return head(stream, 404, "Content-Length: 0\r\n") };
            let headers = format!("ETag: \"{}\"\r\nX-Repo-Commit: {commit}\r\n{extra}", git_like(&file.bytes));
            return self.send(stream, request, file, &reply, &headers);
        }
        let at = |revision: &str| path.strip_prefix(&format!("/{repo}/resolve/{revision}/"));
        if let Some(name) = at(&commit).or_else(|| at("main")) {
            let Some(file) = files.get(name) else {
                return head(stream, 404, "X-Error-Code: EntryNotFound\r\nContent-Length: 0\r\n");
            };
            let common = format!("X-Repo-Commit: {commit}\r\nContent-Length: 0\r\n{extra}");
            if !file.is_lfs {
                return head(stream, 307, &format!("Location: {}\r\n{common}", cached_path(name).replace(' ', "%20")));
            }
            let sha = sha256(&file.bytes);
            let linked = format!("X-Linked-Etag: \"{sha}\"\r\nX-Linked-Size: {}\r\n", file.bytes.len());
            return head(stream, 302, &format!("Location: {}/blob/{sha}\r\n{linked}{common}", self.cdn));
        }
        head(stream, 401, "X-Error-Code: RepoNotFound\r\nContent-Length: 0\r\n")
    }

    /// Sends a file from the byte that is asked for.
    fn send(
        &self,
        mut stream: &TcpStream,
        request: &Request,
        file: &ServedFile,
        reply: &Reply,
        headers: &str,
    ) -> std::io::Result<()> {
        let bytes = if let Reply::Bytes(bytes) | Reply::Unsized(bytes) = reply { bytes } else { &*file.bytes };
        let total = bytes.len() as u64;
        let start = request.range.filter(|_| !matches!(reply, Reply::NoRange)).unwrap_or(0);
        if start > 0 && start >= total {
            return head(stream, 416, &format!("Content-Range: bytes */{total}\r\nContent-Length: 0\r\n"));
        }
        let stated = if matches!(reply, Reply::WrongRange) { start.saturating_sub(1) } else { start };
        let range = format!("Content-Range: bytes {stated}-{}/{total}\r\n", total.saturating_sub(1));
        let (status, range) = if start > 0 { (206, range) } else { (200, String::new()) };
        let length = format!("Content-Length: {}\r\n", total - start);
        let length = if matches!(reply, Reply::Unsized(_)) { "" } else { &length };
        head(stream, status, &format!("{headers}{range}{length}"))?;
        if request.method == "HEAD" {
            return Ok(());
        }
        let pace = locked(&self.pace).clone();
        let mut at = start;
        for piece in bytes[start as usize..].chunks(PIECE) {
            if !pace(request, at) {
                return stream.shutdown(Shutdown::Both);
            }
            stream.write_all(piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }
}

/// An etag as git's are: 40 digits that depend on the content.
fn git_like(bytes: &[u8]) -> String {
    sha256(bytes)[..40].to_owned()
}

/// A path without percent encoding.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let [first, after @ ..] = rest {
        let code = after.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn head(mut stream: &TcpStream, status: u16, headers: &str) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status} X\r\nConnection: close\r\n{headers}\r\n")
}
