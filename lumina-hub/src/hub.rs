//! The hub, and what a program sets about it.

use std::cell::{Cell, RefCell};
use std::env;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;
use std::time::Duration;

use lumina_core::Limits;

use crate::cache::RepoCache;
use crate::client::{Client, Listing, Patience, Remote};
use crate::download::Job;
use crate::environment::Environment;
use crate::files::{Files, Listed};
use crate::name::check_path;
use crate::parallel;
use crate::{Error, RepoName, Result};

/// The hub itself.
const ENDPOINT: &str = "https://huggingface.co";

/// A choice of files.
type Select<'a> = dyn Fn(&Files<'_>) -> Result<Vec<String>> + 'a;

/// How far the download of a snapshot is.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct DownloadProgress<'a> {
    /// The file that has just got bytes.
    pub file: &'a str,
    /// Bytes of the missing files that are in the cache, those of an earlier process included. It falls where a file
    /// has to be begun again.
    pub bytes: u64,
    /// Bytes of the files that were missing.
    pub total_bytes: u64,
}

/// The Hugging Face hub, or another server that speaks its protocol, and the cache of its files.
#[derive(Clone)]
pub struct Hub {
    cache: PathBuf,
    endpoint: String,
    token: Option<String>,
    is_offline: bool,
    refresh: bool,
    symlinks: bool,
    connections: usize,
    patience: Patience,
    limits: Limits,
}

impl Hub {
    /// What the variables of the environment say, as `huggingface_hub` reads them:
    ///
    /// | variable | what it sets | where it is not set |
    /// | --- | --- | --- |
    /// | `HF_HUB_CACHE` | the folder of the cache | `$HF_HOME/hub` |
    /// | `HF_HOME` | the folder of cache and token | `$XDG_CACHE_HOME/huggingface`, `~/.cache/huggingface` |
    /// | `HF_TOKEN` | the token | the file of `HF_TOKEN_PATH` |
    /// | `HF_TOKEN_PATH` | the file of the token | `$HF_HOME/token`, if there is one |
    /// | `HF_ENDPOINT` | the server | `https://huggingface.co` |
    /// | `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE` | with `1`, no connection is made | connections are made |
    /// | `HF_HUB_DISABLE_SYMLINKS` | with `1`, files of a commit are no links | links |
    ///
    /// A proxy is taken from `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.
    ///
    /// # Errors
    /// [`Error::Option`] for a variable that cannot be used, and [`Error::Core`] where the file of the token cannot be
    /// read.
    pub fn from_env() -> Result<Self> {
        let found = Environment::read(&|name| env::var_os(name), env::home_dir().as_deref())?;
        let mut hub = Self::new(found.cache).offline(found.offline).symlinks(found.symlinks);
        hub.token = found.token;
        Ok(match found.endpoint {
            Some(endpoint) => hub.endpoint(endpoint),
            None => hub,
        })
    }

    /// The public hub with the cache in a folder, and without a token. No variable is read, but those of a proxy.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self {
            cache: cache.into(),
            endpoint: ENDPOINT.to_owned(),
            token: None,
            is_offline: false,
            refresh: false,
            symlinks: true,
            connections: 4,
            patience: Patience { timeout: Duration::from_secs(20), retries: 4, pause: Duration::from_millis(500) },
            limits: Limits::default(),
        }
    }

    /// Sets the server: an address such as `https://huggingface.co`.
    #[must_use]
    pub fn endpoint(self, endpoint: impl Into<String>) -> Self {
        Self { endpoint: endpoint.into(), ..self }
    }

    /// Sets the token. It is sent to the server alone, never to a host that the server redirects to.
    #[must_use]
    pub fn token(self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self }
    }

    /// With `true`, no connection is made: what is not in the cache is an error.
    #[must_use]
    pub fn offline(self, is_offline: bool) -> Self {
        Self { is_offline, ..self }
    }

    /// With `true`, the server is asked where a branch is now, also where the cache has all files of the commit where
    /// it was; without a connection the cache counts. The default is `false`: what is in the cache is opened at once,
    /// and a branch stays where it was.
    #[must_use]
    pub fn refresh(self, refresh: bool) -> Self {
        Self { refresh, ..self }
    }

    /// With `false`, files of a commit are no links to blobs: a new blob is moved there. Where a system has no links,
    /// it is so by itself.
    #[must_use]
    pub fn symlinks(self, symlinks: bool) -> Self {
        Self { symlinks, ..self }
    }

    /// Sets how many files are downloaded at once, at least one. The default is 4.
    #[must_use]
    pub fn connections(self, connections: usize) -> Self {
        Self { connections: connections.clamp(1, 64), ..self }
    }

    /// Sets how long connecting, an answer, and each read may take. The default is 20 seconds. A download as a whole
    /// may take any time.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.patience.timeout = timeout;
        self
    }

    /// Sets how often a request is made again that has failed without a byte more (the default is 4), and the pause
    /// before the first of them (half a second); it doubles each time.
    #[must_use]
    pub fn retries(mut self, retries: u32, pause: Duration) -> Self {
        self.patience = Patience { retries, pause, ..self.patience };
        self
    }

    /// Sets what documents may take: [`Limits::document_bytes`].
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The folder of a repository's files at one commit, with all files that `select` chooses in it. Those that the
    /// cache lacks are downloaded, several at once; `progress` is called on this thread as bytes come.
    ///
    /// `select` is called with what the cache has, and where that is not enough once more with the list of the hub.
    ///
    /// # Errors
    /// What is missing, refused, cut, damaged or without space, each with what to do: see [`Error`]. Files that were
    /// downloaded before stay in the cache, also the beginning of one.
    pub fn snapshot(
        &self,
        repo: &RepoName,
        select: &Select<'_>,
        progress: &mut dyn FnMut(DownloadProgress<'_>),
    ) -> Result<PathBuf> {
        let cache = RepoCache::new(&self.cache, repo, self.symlinks);
        let commit = cache.commit(repo.revision());
        let cached = commit.as_deref().map(|commit| self.look(&cache, repo, commit, select));
        let fallback = match cached {
            Some(Cached::Complete { folder, is_sure }) => {
                if self.is_offline || (is_sure && !self.refresh) {
                    return Ok(folder);
                }
                Some(folder)
            }
            Some(Cached::Lacks(file)) if self.is_offline => return Err(self.not_here(repo, file)),
            Some(Cached::Failed(error)) if self.is_offline => return Err(error),
            None if self.is_offline => return Err(self.not_here(repo, format!("refs/{}", repo.revision()))),
            Some(Cached::Lacks(_) | Cached::Failed(_)) | None => None,
        };
        let client = Client::new(&self.endpoint, self.token.as_deref(), self.patience)?;
        // Where only another file might be wanted, a branch that has moved on since is no reason to download all again.
        let revision = commit.as_deref().filter(|_| fallback.is_some() && !self.refresh).unwrap_or(repo.revision());
        let listing = match (client.listing(repo, revision, &self.limits, fallback.is_some()), fallback) {
            (Ok(listing), _) => listing,
            // As far as the cache knows, it has all that is needed.
            (Err(_), Some(folder)) => return Ok(folder),
            (Err(error), None) => return Err(error),
        };
        self.download(&client, &cache, repo, listing, select, progress)
    }

    /// What the cache has of a selection.
    fn look(&self, cache: &RepoCache, repo: &RepoName, commit: &str, select: &Select<'_>) -> Cached {
        let files = self.files(cache, repo, commit, None);
        match select(&files).and_then(|wanted| files.missing(&wanted)) {
            Ok(missing) => match missing.into_iter().next() {
                Some(file) => Cached::Lacks(file),
                None => Cached::Complete { folder: cache.snapshot(commit), is_sure: !files.is_unsure.get() },
            },
            Err(error) => Cached::Failed(error),
        }
    }

    fn download(
        &self,
        client: &Client,
        cache: &RepoCache,
        repo: &RepoName,
        listing: Listing,
        select: &Select<'_>,
        progress: &mut dyn FnMut(DownloadProgress<'_>),
    ) -> Result<PathBuf> {
        let Listing { commit, files } = listing;
        let commit = &commit;
        let job = Job { client, cache, repo, commit };
        let fetch = |name: &str| {
            let remote = client.metadata(repo, commit, name)?;
            job.run(&remote, &AtomicBool::new(false), &|_| {})
        };
        let files = self.files(cache, repo, commit, Some((files.into_iter().collect(), &fetch)));
        let missing = files.missing(&select(&files)?)?;

        // All sizes first, so that the progress has a total.
        let describe = |index: usize, _: &_, _: &_| client.metadata(repo, commit, &missing[index]);
        let remotes: Vec<Remote> = parallel::run(self.connections, missing.len(), &describe, &mut |never: ()| never)?;
        let total_bytes = remotes.iter().map(|remote| remote.size).fold(0, u64::saturating_add);
        let mut bytes_of = vec![0; remotes.len()];
        let work = |index: usize, events: &Sender<(usize, u64)>, stop: &AtomicBool| {
            // The receiver is there as long as a worker is.
            job.run(&remotes[index], stop, &|bytes| {
                let _ = events.send((index, bytes));
            })
        };
        parallel::run(self.connections, remotes.len(), &work, &mut |(index, bytes)| {
            bytes_of[index] = bytes;
            let bytes = bytes_of.iter().copied().fold(0, u64::saturating_add);
            progress(DownloadProgress { file: &remotes[index].file, bytes, total_bytes });
        })?;
        for name in files.absent.borrow().iter().filter(|name| check_path(name).is_ok()) {
            cache.mark_absent(commit, name)?;
        }
        cache.write_ref(repo.revision(), commit)?;
        Ok(cache.snapshot(commit))
    }

    fn files<'a>(
        &self,
        cache: &'a RepoCache,
        repo: &'a RepoName,
        commit: &'a str,
        listed: Option<Listed<'a>>,
    ) -> Files<'a> {
        let (absent, is_unsure) = (RefCell::default(), Cell::new(false));
        Files { cache, repo, commit, listed, max_bytes: self.limits.document_bytes, absent, is_unsure }
    }

    fn not_here(&self, repo: &RepoName, file: String) -> Error {
        Error::Offline { repo: repo.to_string(), file, cache: self.cache.clone() }
    }
}

/// What a look into the cache has found.
enum Cached {
    /// All chosen files. Not sure where the repository may have another that would be chosen.
    Complete { folder: PathBuf, is_sure: bool },
    /// A file is missing.
    Lacks(String),
    /// A document cannot be read, or names what is no file.
    Failed(Error),
}

impl fmt::Debug for Hub {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("offline", &self.is_offline)
            .finish_non_exhaustive()
    }
}
