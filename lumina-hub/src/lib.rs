#![doc = include_str!("../README.md")]
//!
//! ```no_run
//! use lumina_hub::{Hub, RepoName};
//!
//! let name: RepoName = "Alpha-VLLM/Lumina-mGPT-7B-768".parse()?;
//! let folder = Hub::from_env()?.snapshot(
//!     &name,
//!     &|files| {
//!         let mut wanted = vec!["config.json".to_owned()];
//!         wanted.extend(files.one_of(&["model.safetensors", "model.gguf"]).map(str::to_owned));
//!         Ok(wanted)
//!     },
//!     &mut |progress| println!("{}: {} of {} bytes", progress.file, progress.bytes, progress.total_bytes),
//! )?;
//! assert!(folder.join("config.json").exists());
//! # Ok::<(), lumina_hub::Error>(())
//! ```
//!
//! # The cache
//!
//! It is looked at before the network: files that are there are opened without a connection. Its layout, its lock files
//! and the [variables](Hub::from_env) that say where it lies are those of `huggingface_hub` (`file_download.py`):
//!
//! ```text
//! models--owner--name/
//!   blobs/<etag>                   contents, each once; <etag>.incomplete while it is downloaded
//!   refs/<revision>                the commit that a branch or tag was at
//!   snapshots/<commit>/<file>      links to blobs (copies where a system has no links)
//!   .no_exist/<commit>/<file>      files that a commit does not have
//! .locks/models--owner--name/<etag>.lock
//! ```
//!
//! A file appears in `snapshots` once it is whole, has the size that the hub names, and, where the hub names a SHA-256
//! (all files in Git LFS, so all weights), has that. A process that is killed leaves `<etag>.incomplete`, and the next
//! one goes on at its end. Two processes that want the same file take turns by the lock file.
#![forbid(unsafe_code)]

mod cache;
mod client;
mod download;
mod environment;
mod error;
mod files;
mod hub;
mod name;
mod parallel;

pub use error::{Error, Result};
pub use files::Files;
pub use hub::{DownloadProgress, Hub};
pub use name::RepoName;
