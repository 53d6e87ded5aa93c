//! The cache of one repository, in the layout of `huggingface_hub`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process;
use std::thread;

use crate::name::is_commit;
use crate::{Error, RepoName, Result};

/// Bytes of a file that has the name of a commit.
const MAX_REF: u64 = 256;

/// Where the files of a repository lie. No name in it has not been checked: see [`crate::name`].
#[derive(Debug, Clone)]
pub(crate) struct RepoCache {
    folder: PathBuf,
    locks: PathBuf,
    symlinks: bool,
}

impl RepoCache {
    pub(crate) fn new(cache: &Path, repo: &RepoName, symlinks: bool) -> Self {
        let name = format!("models--{}", repo.id().replace('/', "--"));
        Self { folder: cache.join(&name), locks: cache.join(".locks").join(&name), symlinks }
    }

    /// The commit that a revision was at when it was last asked for, or that it is.
    pub(crate) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        // What is there but cannot be read, or is no commit, is asked for again.
        let text = lumina_core::file::read_text(&self.folder.join("refs").join(revision), MAX_REF).ok()?;
        let commit = text.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// The folder of a commit's files.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Whether a file of a commit is there. A link to a blob that was removed is none.
    pub(crate) fn has(&self, commit: &str, file: &str) -> bool {
        self.snapshot(commit).join(file).is_file()
    }

    /// Whether it is known that a commit does not have a file.
    pub(crate) fn is_absent(&self, commit: &str, file: &str) -> bool {
        self.absent(commit, file).is_file()
    }

    /// Notes that a commit does not have a file.
    pub(crate) fn mark_absent(&self, commit: &str, file: &str) -> Result<()> {
        let marker = self.absent(commit, file);
        create_parent(&marker)?;
        fs::write(&marker, []).map_err(|source| Error::Write { path: marker, source })
    }

    fn absent(&self, commit: &str, file: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit).join(file)
    }

    /// Notes the commit of a branch or tag.
    pub(crate) fn write_ref(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let file = self.folder.join("refs").join(revision);
        create_parent(&file)?;
        // Not next to it: what a kill leaves there would be a branch.
        let partial = self.locks.join(format!("{}.ref", own_name()));
        create_parent(&partial)?;
        fs::write(&partial, commit)
            .and_then(|()| fs::rename(&partial, &file))
            .map_err(|source| Error::Write { path: file, source })
    }

    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Takes the lock of a blob, which is waited for; it is held until the file is dropped. `None` where the file
    /// system has no locks.
    pub(crate) fn lock(&self, etag: &str) -> Result<Option<File>> {
        let path = self.locks.join(format!("{etag}.lock"));
        create_parent(&path)?;
        let failed = |source| Error::Write { path: path.clone(), source };
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        loop {
            match file.lock() {
                Ok(()) => return Ok(Some(file)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(None),
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// The file that a blob is written to before it is whole. Without a lock each thread has its own.
    pub(crate) fn incomplete(&self, etag: &str, has_lock: bool) -> Result<PathBuf> {
        let own = if has_lock { String::new() } else { format!(".{}", own_name()) };
        let path = self.folder.join("blobs").join(format!("{etag}{own}.incomplete"));
        create_parent(&path)?;
        // A link would be followed, out of the cache perhaps.
        let is_other = path.symlink_metadata().is_ok_and(|metadata| !metadata.is_file());
        if is_other {
            fs::remove_file(&path).map_err(|source| Error::Write { path: path.clone(), source })?;
        }
        Ok(path)
    }

    /// Makes a blob appear as a file of a commit: by a link, else by moving a new blob or copying another.
    pub(crate) fn publish(&self, commit: &str, file: &str, etag: &str, is_new: bool) -> Result<()> {
        let path = self.snapshot(commit).join(file);
        if path.is_file() {
            return Ok(());
        }
        create_parent(&path)?;
        let placed = match self.link(&path, file, etag) {
            true => Ok(()),
            false if is_new => fs::rename(self.blob(etag), &path),
            false => {
                let partial = self.incomplete(etag, false)?;
                fs::copy(self.blob(etag), &partial).and_then(|_| fs::rename(&partial, &path))
            }
        };
        placed.map_err(|source| Error::Write { path, source })
    }

    /// Makes a link to a blob in the place of one to a blob that is gone. Returns whether there are links.
    fn link(&self, path: &Path, file: &str, etag: &str) -> bool {
        let up = "../".repeat(file.matches('/').count() + 2);
        let target = format!("{up}blobs/{etag}");
        self.symlinks
            && match symlink(Path::new(&target), path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    fs::remove_file(path).and_then(|()| symlink(Path::new(&target), path)).is_ok()
                }
                made => made.is_ok(),
            }
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    // Windows resolves no `/` in the target of a link.
    let target: PathBuf = target.components().collect();
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// A name that no other thread of any process has.
fn own_name() -> String {
    let thread: String = format!("{:?}", thread::current().id()).chars().filter(char::is_ascii_digit).collect();
    format!("{}-{thread}", process::id())
}

fn create_parent(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.to_owned(), source })
}
