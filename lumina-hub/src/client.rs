//! Requests to the hub.
//!
//! Redirects are followed here, not by the HTTP library: the token goes to the hub's own host only, and what the hub
//! says of a file is in the headers of the redirect that leads to its content.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::thread;
use std::time::Duration;

use lumina_core::Limits;
use serde::Deserialize;
use ureq::http::{HeaderMap, Method, Request, Response, Uri, header};
use ureq::{Agent, Body};

use crate::name::{is_commit, percent_encoded};
use crate::{Error, RepoName, Result};

/// Redirects of one request.
const MAX_REDIRECTS: usize = 10;

/// Bytes of an answer's reason that a message repeats.
const MAX_MESSAGE: usize = 400;

/// Scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    https: bool,
    host: String,
    port: u16,
}

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        Some(Self { https, host: uri.host()?.to_ascii_lowercase(), port })
    }

    fn is_loopback(&self) -> bool {
        let host = self.host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// How requests are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// How long a connection, an answer and each read may take.
    pub(crate) timeout: Duration,
    /// How often a request is made again that has failed without progress.
    pub(crate) retries: u32,
    /// The pause before the first of them; it doubles each time.
    pub(crate) pause: Duration,
}

/// What the hub says of a file.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    pub(crate) file: String,
    pub(crate) url: String,
    pub(crate) etag: String,
    pub(crate) size: u64,
}

/// The commit that a revision is at, and its files.
pub(crate) struct Listing {
    pub(crate) commit: String,
    pub(crate) files: Vec<String>,
}

/// The answer to a request for a file, after redirects.
pub(crate) struct Answer {
    /// Whether the hub itself answers, not a host that it has sent to.
    is_own: bool,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

/// Makes requests to one hub.
pub(crate) struct Client {
    agent: Agent,
    base: String,
    origin: Origin,
    token: Option<String>,
    patience: Patience,
}

impl Client {
    pub(crate) fn new(endpoint: &str, token: Option<&str>, patience: Patience) -> Result<Self> {
        let base = endpoint.trim_end_matches('/').to_owned();
        let refused = |reason: String| Error::Option { variable: "HF_ENDPOINT", reason };
        let uri: Uri = base.parse().map_err(|error| refused(format!("{base:?} is no address: {error}")))?;
        let origin = Origin::of(&uri).ok_or_else(|| {
            refused(format!("{base:?} is no address of a hub; set one such as https://huggingface.co, or unset it"))
        })?;
        if token.is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            let reason = "the token has characters that no token has; copy it again from the hub's settings";
            return Err(Error::Option { variable: "HF_TOKEN", reason: reason.to_owned() });
        }
        let timeout = Some(patience.timeout);
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("lumina-hub/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(timeout)
            .timeout_recv_response(timeout)
            .timeout_per_read(timeout);
        // A proxy does not reach this machine.
        if origin.is_loopback() {
            config = config.proxy(None);
        }
        let token = token.map(str::to_owned);
        Ok(Self { agent: config.build().new_agent(), base, origin, token, patience })
    }

    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    pub(crate) fn retries(&self) -> u32 {
        self.patience.retries
    }

    /// Waits before the try after `failures` that failed.
    pub(crate) fn pause(&self, failures: u32) {
        thread::sleep(self.patience.pause.saturating_mul(1 << failures.saturating_sub(1).min(10)));
    }

    /// Calls until there is an answer, or an error that stays.
    fn retried<T>(&self, retries: u32, mut call: impl FnMut() -> Result<T>) -> Result<T> {
        for failures in 1..=retries {
            match call() {
                Err(error) if error.is_transient() => self.pause(failures),
                other => return other,
            }
        }
        call()
    }

    /// The commit of a revision and its files. It is asked once where there is something to fall back on.
    pub(crate) fn listing(
        &self,
        repo: &RepoName,
        revision: &str,
        limits: &Limits,
        is_optional: bool,
    ) -> Result<Listing> {
        #[derive(Deserialize)]
        struct Model {
            sha: String,
            #[serde(default)]
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let revision = percent_encoded(revision, false);
        let url = format!("{}/api/models/{}/revision/{revision}", self.base, repo.id());
        let bytes = self.retried(if is_optional { 0 } else { self.patience.retries }, || {
            let answer = self.get(&url, 0)?;
            self.check_status(&answer, &url, repo, None)?;
            let mut bytes = Vec::new();
            let mut body = answer.body.into_with_config().limit(u64::MAX).reader();
            let limit = limits.document_bytes;
            (&mut body)
                .take(limit.saturating_add(1))
                .read_to_end(&mut bytes)
                .map_err(|error| unanswered(&url, error))?;
            if bytes.len() as u64 > limit {
                return Err(protocol(&url, format!("it is longer than {limit} bytes")));
            }
            Ok(bytes)
        })?;
        lumina_core::file::check_json(url.as_ref(), &bytes)?;
        let model: Model =
            serde_json::from_slice(&bytes).map_err(|error| protocol(&url, format!("no list of files: {error}")))?;
        if !is_commit(&model.sha) {
            return Err(protocol(&url, format!("{:?} is no commit", model.sha)));
        }
        Ok(Listing { commit: model.sha, files: model.siblings.into_iter().map(|file| file.rfilename).collect() })
    }

    /// What the hub says of a file.
    pub(crate) fn metadata(&self, repo: &RepoName, commit: &str, file: &str) -> Result<Remote> {
        let url = format!("{}/{}/resolve/{commit}/{}", self.base, repo.id(), percent_encoded(file, true));
        self.retried(self.patience.retries, || self.head(repo, commit, file, &url))
    }

    fn head(&self, repo: &RepoName, commit: &str, file: &str, url: &str) -> Result<Remote> {
        let (mut etag, mut size) = (None, None);
        let mut at = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(Method::HEAD, &at, 0)?;
            let headers = response.headers();
            let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
            if let Some(found) = text("x-repo-commit").filter(|found| *found != commit) {
                return Err(protocol(&at, format!("it is of commit {found:?}, not of {commit}")));
            }
            etag = etag.or_else(|| text("x-linked-etag").map(str::to_owned));
            size = size.or_else(|| text("x-linked-size")?.parse().ok());
            let next = redirect(&response, &at)?;
            if next.is_none() {
                let answer = self.answer(&at, response);
                self.check_status(&answer, &at, repo, Some(file))?;
                let text = |name| answer.headers.get(name).and_then(|value| value.to_str().ok());
                etag = etag.or_else(|| text(header::ETAG).map(str::to_owned));
                size = size.or_else(|| text(header::CONTENT_LENGTH)?.parse().ok());
            }
            if let (Some(etag), Some(size)) = (&etag, size) {
                let Some(etag) = normalised(etag) else {
                    return Err(protocol(&at, format!("its etag {etag:?} cannot be the name of a file")));
                };
                return Ok(Remote { file: file.to_owned(), url: url.to_owned(), etag, size });
            }
            match next {
                Some(next) => at = next,
                None => return Err(protocol(&at, "it says neither etag nor size of the file".to_owned())),
            }
        }
        Err(protocol(url, format!("more than {MAX_REDIRECTS} redirects")))
    }

    /// What is at an address, from a byte on.
    pub(crate) fn get(&self, url: &str, from: u64) -> Result<Answer> {
        let mut at = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(Method::GET, &at, from)?;
            match redirect(&response, &at)? {
                Some(next) => at = next,
                None => return Ok(self.answer(&at, response)),
            }
        }
        Err(protocol(url, format!("more than {MAX_REDIRECTS} redirects")))
    }

    fn answer(&self, url: &str, response: Response<Body>) -> Answer {
        let (parts, body) = response.into_parts();
        let is_own = self.is_own(url);
        Answer { is_own, status: parts.status.as_u16(), headers: parts.headers, body }
    }

    fn is_own(&self, url: &str) -> bool {
        url.parse().is_ok_and(|uri| Origin::of(&uri).as_ref() == Some(&self.origin))
    }

    fn send(&self, method: Method, url: &str, from: u64) -> Result<Response<Body>> {
        let uri: Uri = url.parse().map_err(|error| protocol(url, format!("no address: {error}")))?;
        let mut request = Request::builder().method(method).uri(&uri).header(header::ACCEPT_ENCODING, "identity");
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        if let Some(token) = &self.token
            && self.is_own(url)
        {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(()).map_err(|error| protocol(url, error.to_string()))?;
        self.agent.run(request).map_err(|error| {
            let kind = match &error {
                ureq::Error::HostNotFound => ErrorKind::NotFound,
                ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_) => ErrorKind::InvalidData,
                ureq::Error::Io(error) => error.kind(),
                _ => ErrorKind::Other,
            };
            unanswered(url, io::Error::new(kind, error.to_string()))
        })
    }

    /// The error of a status that is none of success.
    pub(crate) fn check_status(&self, answer: &Answer, url: &str, repo: &RepoName, file: Option<&str>) -> Result<()> {
        let text = |name| answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (status, code, has_token) = (answer.status, text("x-error-code"), self.has_token());
        let id = repo.id().to_owned();
        let no_file = |file: &str| Error::NoFile { repo: id.clone(), file: file.to_owned() };
        let code = if answer.is_own { code } else { "other host" };
        Err(match (status, code, file) {
            (200 | 206 | 416, ..) => return Ok(()),
            (401 | 403, "GatedRepo", _) | (403, "", _) => Error::Gated { repo: id, has_token },
            (401 | 404, "RepoNotFound", _) | (401, "", _) | (404, "", None) => Error::NoRepo { repo: id, has_token },
            (404, "RevisionNotFound", _) => Error::NoRevision { repo: id, revision: repo.revision().to_owned() },
            (404, _, Some(file)) => no_file(file),
            _ => {
                let message = text("x-error-message").chars().take(MAX_MESSAGE).collect();
                Error::Status { url: url.to_owned(), status, message }
            }
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.base).finish_non_exhaustive()
    }
}

/// Where an answer sends to.
fn redirect(response: &Response<Body>, from: &str) -> Result<Option<String>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| protocol(from, "a redirect to nowhere".to_owned()))?;
    joined(from, location).map(Some).ok_or_else(|| protocol(from, format!("a redirect to {location:?}")))
}

/// The address that `location` means on the page `from`. `None` for what is no address of HTTP, and for one without
/// encryption on a page with it.
fn joined(from: &str, location: &str) -> Option<String> {
    let base: Uri = from.parse().ok()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let whole = if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.contains("://") {
        location.to_owned()
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let (old, new) = (Origin::of(&base)?, Origin::of(&whole.parse().ok()?)?);
    (new.https || !old.https).then_some(whole)
}

/// An etag as the name of a blob. `None` where it is not of the letters that etags of the hub have.
fn normalised(etag: &str) -> Option<String> {
    let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (!etag.is_empty() && etag.len() <= 128 && etag.bytes().all(known)).then(|| etag.to_owned())
}

pub(crate) fn protocol(url: &str, reason: String) -> Error {
    Error::Protocol { url: url.to_owned(), reason }
}

fn unanswered(url: &str, source: io::Error) -> Error {
    Error::Connect { url: url.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_joined_and_never_lose_encryption() {
        let page = "https://hub.co/a/b/resolve/main/x";
        let cases = [
            ("/api/y", Some("https://hub.co/api/y")),
            ("//cdn.co/y", Some("https://cdn.co/y")),
            ("https://cdn.co/y?a=b", Some("https://cdn.co/y?a=b")),
            ("y", Some("https://hub.co/a/b/resolve/main/y")),
            ("http://hub.co/y", None),
            ("ftp://hub.co/y", None),
            ("file:///etc/passwd", None),
        ];
        for (location, expected) in cases {
            assert_eq!(joined(page, location).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn the_origin_is_scheme_host_and_port() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap()).unwrap();
        assert_eq!(origin("https://hub.co/x"), origin("https://HUB.co:443/y"));
        assert_eq!(origin("https://hub.co"), origin("https://user@hub.co"));
        for other in ["http://hub.co", "https://hub.co:444", "https://hub.co.evil.co", "https://hub.co@evil.co"] {
            assert_ne!(origin("https://hub.co"), origin(other), "{other}");
        }
        for (address, is_loopback) in [
            ("http://127.0.0.1:1", true),
            ("http://[::1]:1", true),
            ("http://localhost", true),
            ("http://hub.co", false),
        ] {
            assert_eq!(origin(address).is_loopback(), is_loopback, "{address}");
        }
    }

    #[test]
    fn etags_are_names_of_files() {
        assert_eq!(normalised("W/\"ab-1\"").as_deref(), Some("ab-1"));
        for etag in ["", "\"\"", "../x", "a/b", "a\\b", "a.lock", "a b", &"a".repeat(200)] {
            assert_eq!(normalised(etag), None, "{etag}");
        }
    }

    #[test]
    fn endpoints_and_tokens_are_checked() {
        let patience = Patience { timeout: Duration::from_secs(1), retries: 0, pause: Duration::ZERO };
        assert!(Client::new("https://hub.co/", Some("hf_x"), patience).is_ok());
        for endpoint in ["", "hub.co", "ftp://hub.co", "http://"] {
            let error = Client::new(endpoint, None, patience).expect_err(endpoint).to_string();
            assert!(error.contains("HF_ENDPOINT"), "{error}");
        }
        let error = Client::new("https://hub.co", Some("a\nb"), patience).unwrap_err().to_string();
        assert!(error.contains("HF_TOKEN") && !error.contains("a\nb"), "{error}");
    }
}
