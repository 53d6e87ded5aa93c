//! The errors of this crate: what, where, and what to do.

use std::io;
use std::path::PathBuf;

use lumina_core::{Cause, quoted, shown};

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in `lumina-hub`.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text that names no repository.
    #[error("{}: not the name of a repository, `owner/name` or `owner/name@revision`: {reason}", quoted(name))]
    Name {
        /// The text.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The name of a file, from an index or a caller, that could lead out of the cache.
    #[error("{repo}: {} is not the name of a file in a repository: {reason}", quoted(file))]
    FileName {
        /// The repository.
        repo: String,
        /// The name.
        file: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A variable or an option that cannot be used.
    #[error("{variable}: {reason}")]
    Option {
        /// The variable of the environment that sets it.
        variable: &'static str,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Without a connection, and a file is not in the cache.
    #[error(
        "{repo}: there is no such folder, the cache in {} lacks {}, and `HF_HUB_OFFLINE` forbids a connection; unset \
         it, or set `HF_HOME` or `HF_HUB_CACHE` to a cache that has the model",
        shown(cache),
        quoted(file)
    )]
    Offline {
        /// The repository.
        repo: String,
        /// The first file that is missing.
        file: String,
        /// The folder of the cache.
        cache: PathBuf,
    },
    /// No connection, or one that ends again and again.
    #[error(
        "{}: no answer; check the network, the proxy (`HTTPS_PROXY`) and `HF_ENDPOINT`, then call again: what was \
         downloaded is kept",
        quoted(url)
    )]
    Connect {
        /// The address.
        url: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection was cut again and again.
    #[error(
        "{repo}: the download of {} was cut after {bytes} of {size} bytes, several times without a byte more; call \
         again later: it goes on from there",
        quoted(file)
    )]
    Cut {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
        /// Bytes that are there.
        bytes: u64,
        /// Bytes of the file.
        size: u64,
    },
    /// A repository that its owner gives to those who ask.
    #[error("{repo}: the repository is gated; {}", access(repo, *has_token))]
    Gated {
        /// The repository.
        repo: String,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// There is no repository of this name, or it is private.
    #[error(
        "{repo}: there is no such folder, and no such repository on the hub, or it is private; check the name{}",
        if *has_token { ", and that the token is valid and may read it" } else {
            ", and for a private one set `HF_TOKEN`"
        }
    )]
    NoRepo {
        /// The repository.
        repo: String,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// The repository has no such branch, tag or commit.
    #[error("{repo}: the repository has no revision {}; see its branches and tags on its page", quoted(revision))]
    NoRevision {
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
    },
    /// The repository has no such file.
    #[error("{repo}: the repository has no file {}; is it a checkpoint of the supported layout?", quoted(file))]
    NoFile {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
    },
    /// The server refuses for another reason.
    #[error(
        "{}: the server answers {status}{}; {}", quoted(url),
        if message.is_empty() { String::new() } else { format!(" ({})", Cause::new(message)) },
        if *status == 429 || *status >= 500 { "try again later" } else { "check `HF_ENDPOINT`, `HF_TOKEN` and the name" }
    )]
    Status {
        /// The address.
        url: String,
        /// The status of HTTP.
        status: u16,
        /// The server's reason.
        message: String,
    },
    /// An answer that is not what a hub gives.
    #[error("{}: not the answer of a hub: {}; check `HF_ENDPOINT` and the proxy", quoted(url), Cause::new(reason))]
    Protocol {
        /// The address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of another size than the hub names.
    #[error(
        "{repo}: {} has {found} bytes, and the hub names {expected}; a proxy or mirror may change files: check \
         `HF_ENDPOINT` and `HTTPS_PROXY`, and call again",
        quoted(file)
    )]
    Size {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
        /// Bytes that the hub names.
        expected: u64,
        /// Bytes that are served.
        found: u64,
    },
    /// A file of another content than the hub names. It is removed.
    #[error(
        "{repo}: {} has the SHA-256 {found}, and the hub names {expected}; it was removed: call again, and if it comes \
         again check `HF_ENDPOINT` and `HTTPS_PROXY`",
        quoted(file)
    )]
    Checksum {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
        /// The SHA-256 that the hub names, in hex.
        expected: String,
        /// That of the download.
        found: String,
    },
    /// No space for a file.
    #[error(
        "{}: no space for the other {missing} bytes of it; free some, or set `HF_HOME` to a folder on a \
         larger disk; what was downloaded is kept",
        shown(file)
    )]
    DiskFull {
        /// The file.
        file: PathBuf,
        /// Bytes that are still to come.
        missing: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The cache cannot be written.
    #[error("{}: cannot be written; make it writable, or set `HF_HOME` to a folder that is", shown(path))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A document that is not the JSON it should be.
    #[error("{}: not the JSON that it should be; download it again by removing it", shown(file))]
    Json {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: Cause,
    },
    /// The system gives no thread.
    #[error("no thread for a download; close other programs, or raise the limit of threads")]
    Thread(#[source] io::Error),
    /// Another download failed, and with it all. It is never returned.
    #[error("stopped")]
    Stopped,
    /// A document could not be read.
    #[error(transparent)]
    Core(#[from] lumina_core::Error),
}

impl Error {
    /// Whether the same request may be answered later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            // No such host, and no trust in it.
            Self::Connect { source, .. } => {
                !matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData)
            }
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502..=504),
            Self::Cut { .. } => true,
            _ => false,
        }
    }
}

/// How to get access to a gated repository.
fn access(repo: &str, has_token: bool) -> String {
    let page = format!("https://huggingface.co/{repo}");
    if has_token {
        format!(
            "ask for access on {page} with the account of the token, which also needs the right to read gated repositories"
        )
    } else {
        format!(
            "ask for access on {page}, then set `HF_TOKEN` to a token of that account (or log in by `hf auth login`)"
        )
    }
}
