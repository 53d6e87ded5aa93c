//! What a server allows: keys, limits, origins.

use std::fmt;
use std::time::Duration;

use axum::http::HeaderValue;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// What a server allows. The default: no key is asked for, no other origin than the server's own, 32 MiB a request,
/// 32 million pixels an input image, 10 images a request, 512 connections, 60 seconds for a request to arrive and for a
/// client to take more of an answer.
///
/// How many requests run and wait is the engine's: [`HandleOptions`](lumina_mgpt::HandleOptions).
///
/// ```
/// use lumina_serve::Options;
/// let options = Options::new().api_key("a-long-secret")?.max_n(4)?.cors_origin("https://example.org")?;
/// # Ok::<(), lumina_serve::Error>(())
/// ```
#[derive(Clone)]
pub struct Options {
    /// SHA-256 of each key, so that all have one length when they are compared.
    pub(crate) keys: Vec<[u8; 32]>,
    pub(crate) model_id: String,
    pub(crate) max_body_bytes: usize,
    pub(crate) max_image_pixels: u64,
    pub(crate) max_n: u32,
    pub(crate) cors_origins: Vec<HeaderValue>,
    /// In lower case; all, where there are none.
    pub(crate) hosts: Vec<String>,
    pub(crate) max_connections: usize,
    pub(crate) body_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            model_id: "lumina-mgpt".to_owned(),
            max_body_bytes: 32 << 20,
            max_image_pixels: 32_000_000,
            max_n: 10,
            cors_origins: Vec::new(),
            hosts: Vec::new(),
            max_connections: 512,
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(30),
        }
    }
}

impl Options {
    /// The default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key: requests must then have one of the keys as `Authorization: Bearer KEY`.
    ///
    /// # Errors
    /// [`Error::Option`] where it is empty, or has characters that a header cannot hold.
    pub fn api_key(mut self, key: &str) -> Result<Self> {
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            // The key itself is no part of the message, which may be logged.
            return Err(refused("api_key", "(not shown)", "one or more visible ASCII characters, without spaces"));
        }
        self.keys.push(digest(key.as_bytes()));
        Ok(self)
    }

    /// Sets the name of the model in answers, which requests may give as `model`. Default: `lumina-mgpt`.
    ///
    /// # Errors
    /// [`Error::Option`] where it is empty or has control characters.
    pub fn model_id(mut self, id: impl Into<String>) -> Result<Self> {
        self.model_id = id.into();
        if self.model_id.is_empty() || self.model_id.chars().any(char::is_control) {
            return Err(refused("model_id", &self.model_id, "a text without control characters"));
        }
        Ok(self)
    }

    /// Sets the most bytes of a request's body.
    ///
    /// # Errors
    /// [`Error::Option`] where it is 0 or above 1 GiB.
    pub fn max_body_bytes(mut self, bytes: usize) -> Result<Self> {
        if !(1..=1 << 30).contains(&bytes) {
            return Err(refused("max_body_bytes", bytes, "1 to 1073741824"));
        }
        self.max_body_bytes = bytes;
        Ok(self)
    }

    /// Sets the most pixels of an image in a request.
    ///
    /// # Errors
    /// [`Error::Option`] where it is 0.
    pub fn max_image_pixels(mut self, pixels: u64) -> Result<Self> {
        if pixels == 0 {
            return Err(refused("max_image_pixels", pixels, "at least 1"));
        }
        self.max_image_pixels = pixels;
        Ok(self)
    }

    /// Sets the most images that one request may ask for, and the most that it may contain.
    ///
    /// # Errors
    /// [`Error::Option`] where it is 0 or above 128.
    pub fn max_n(mut self, n: u32) -> Result<Self> {
        if !(1..=128).contains(&n) {
            return Err(refused("max_n", n, "1 to 128"));
        }
        self.max_n = n;
        Ok(self)
    }

    /// Adds an origin whose pages may call this server, such as `https://example.org`.
    ///
    /// # Errors
    /// [`Error::Option`] where it is no origin: scheme, host and perhaps a port, and nothing after that.
    pub fn cors_origin(mut self, origin: &str) -> Result<Self> {
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        let is_origin = host.is_some_and(|host| {
            !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte))
        });
        match HeaderValue::from_str(origin) {
            Ok(value) if is_origin => self.cors_origins.push(value),
            _ => return Err(refused("cors_origin", origin, "an origin such as https://example.org")),
        }
        Ok(self)
    }

    /// Adds a name by which this server is called, such as `localhost`: requests to others are then refused. Without
    /// any, all are taken.
    ///
    /// A server of this machine alone that asks for no key needs it, and the program `lumina-serve` sets it there: a
    /// page of any site can otherwise have its own name lead here, after which a browser takes both for one.
    ///
    /// # Errors
    /// [`Error::Option`] where it is no name or address of a host; ports are no part of it.
    pub fn host(mut self, host: &str) -> Result<Self> {
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match inner {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)),
        };
        if host.is_empty() || !is_host {
            return Err(refused(
                "host",
                host,
                "the name or address of a host without a port, such as localhost or [::1]",
            ));
        }
        self.hosts.push(host.to_ascii_lowercase());
        Ok(self)
    }

    /// Sets the most connections of [`serve`](crate::serve) at one time. Further ones wait in the system's queue until
    /// one ends. Each takes a file descriptor: raise the system's limit (`ulimit -n`) with it.
    ///
    /// # Errors
    /// [`Error::Option`] where it is 0 or above 1,000,000.
    pub fn max_connections(mut self, connections: usize) -> Result<Self> {
        if !(1..=1_000_000).contains(&connections) {
            return Err(refused("max_connections", connections, "1 to 1000000"));
        }
        self.max_connections = connections;
        Ok(self)
    }

    /// Sets how long a request may take to arrive, however its bytes are spread: its headers, and then its body. A
    /// connection on which no request comes is closed after this time, too.
    ///
    /// # Errors
    /// [`Error::Option`] where it is 0.
    pub fn body_timeout(mut self, timeout: Duration) -> Result<Self> {
        self.body_timeout = at_least_some("body_timeout", timeout)?;
        Ok(self)
    }

    /// Sets after how long [`serve`](crate::serve) closes the connection of a client that takes nothing more of its
    /// answer, which cancels its request.
    ///
    /// # Errors
    /// [`Error::Option`] where it is 0.
    pub fn write_timeout(mut self, timeout: Duration) -> Result<Self> {
        self.write_timeout = at_least_some("write_timeout", timeout)?;
        Ok(self)
    }

    /// Sets how long [`serve`](crate::serve) waits at its end for requests that it has, before it cancels them.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }
}

fn at_least_some(field: &'static str, timeout: Duration) -> Result<Duration> {
    if timeout.is_zero() { Err(refused(field, "0", "more than 0")) } else { Ok(timeout) }
}

fn refused(field: &'static str, value: impl ToString, expected: &'static str) -> Error {
    Error::Option { field, value: value.to_string(), expected }
}

pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

impl fmt::Debug for Options {
    /// The number of keys, without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("keys", &self.keys.len())
            .field("model_id", &self.model_id)
            .field("max_body_bytes", &self.max_body_bytes)
            .field("max_image_pixels", &self.max_image_pixels)
            .field("max_n", &self.max_n)
            .field("cors_origins", &self.cors_origins)
            .field("hosts", &self.hosts)
            .field("max_connections", &self.max_connections)
            .field("body_timeout", &self.body_timeout)
            .field("write_timeout", &self.write_timeout)
            .field("grace", &self.grace)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        let message = |refused: Result<Options>| refused.unwrap_err().to_string();
        assert!(message(Options::new().max_body_bytes(0)).contains("`max_body_bytes` is 0"));
        assert!(message(Options::new().max_image_pixels(0)).contains("`max_image_pixels`"));
        assert!(message(Options::new().max_n(129)).contains("1 to 128"));
        assert!(message(Options::new().model_id("a\nb")).contains("`model_id`"));
        assert!(message(Options::new().body_timeout(Duration::ZERO)).contains("`body_timeout`"));
        assert!(message(Options::new().write_timeout(Duration::ZERO)).contains("`write_timeout`"));
        assert!(message(Options::new().max_connections(0)).contains("`max_connections` is 0"));
        for origin in ["*", "example.org", "https://", "https://example.org/", "https://a b", "null"] {
            assert!(message(Options::new().cors_origin(origin)).contains("`cors_origin`"), "{origin}");
        }
        for host in ["", "localhost:80", "::1", "[::1", "[x]", "a b", "http://a"] {
            assert!(message(Options::new().host(host)).contains("`host`"), "{host}");
        }
        Options::new().host("localhost").unwrap().host("[::1]").unwrap();
        Options::new().cors_origin("http://localhost:3000").unwrap().cors_origin("https://[::1]:8080").unwrap();
    }

    #[test]
    fn keys_are_in_no_message() {
        let message = Options::new().api_key("se cret").unwrap_err().to_string();
        assert!(message.contains("`api_key`") && !message.contains("cret"), "{message}");
        assert!(!format!("{:?}", Options::new().api_key("secret").unwrap()).contains("secret"));
    }
}
