//! One file, from the hub to the cache.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};
use ureq::http::header;

use crate::cache::RepoCache;
use crate::client::{Client, Remote, protocol};
use crate::name::is_sha256;
use crate::{Error, RepoName, Result};

/// Bytes that are read from the connection at once, and written at once: what a kill loses at most, apart from what
/// the connection has buffered.
const BLOCK: usize = 64 << 10;

/// What all downloads of a repository share.
pub(crate) struct Job<'a> {
    pub(crate) client: &'a Client,
    pub(crate) cache: &'a RepoCache,
    pub(crate) repo: &'a RepoName,
    pub(crate) commit: &'a str,
}

impl Job<'_> {
    /// Gets one file into the cache, unless it is there. `report` is told how many bytes of it are. It ends early once
    /// `stop` is set.
    pub(crate) fn run(&self, remote: &Remote, stop: &AtomicBool, report: &dyn Fn(u64)) -> Result<()> {
        let Remote { file, etag, size, .. } = remote;
        let lock = self.cache.lock(etag)?;
        let blob = self.cache.blob(etag);
        // Another process may have had the lock, or another commit has the same file.
        let is_there = self.cache.has(self.commit, file) || blob.metadata().is_ok_and(|blob| blob.len() == *size);
        if !is_there {
            let path = self.cache.incomplete(etag, lock.is_some())?;
            let mut partial = Partial::open(self, remote, path, stop, report)?;
            partial.fill()?;
            partial.finish(&blob)?;
        }
        report(*size);
        self.cache.publish(self.commit, file, etag, !is_there)
    }
}

/// A file that is being downloaded: the first bytes of it.
struct Partial<'a> {
    job: &'a Job<'a>,
    remote: &'a Remote,
    stop: &'a AtomicBool,
    report: &'a dyn Fn(u64),
    path: PathBuf,
    file: File,
    bytes: u64,
    digest: Option<Sha256>,
    /// Whether an earlier process has written some of it.
    is_resumed: bool,
}

impl<'a> Partial<'a> {
    fn open(
        job: &'a Job<'a>,
        remote: &'a Remote,
        path: PathBuf,
        stop: &'a AtomicBool,
        report: &'a dyn Fn(u64),
    ) -> Result<Self> {
        let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let file = opened.map_err(|source| Error::Write { path: path.clone(), source })?;
        let digest = is_sha256(&remote.etag).then(Sha256::new);
        let mut partial = Self { job, remote, stop, report, path, file, bytes: 0, digest, is_resumed: false };
        partial.resume()?;
        Ok(partial)
    }

    /// Takes over what an earlier process has written. After a power cut it may be damaged, so it must have a checksum.
    fn resume(&mut self) -> Result<()> {
        let failed = |path: &Path, source| Error::Write { path: path.to_owned(), source };
        let length = self.file.metadata().map_err(|source| failed(&self.path, source))?.len();
        let Some(digest) = self.digest.as_mut().filter(|_| length <= self.remote.size) else { return self.restart() };
        let mut buffer = vec![0; BLOCK];
        while self.bytes < length {
            let read = self.file.read(&mut buffer).map_err(|source| failed(&self.path, source))?;
            if read == 0 {
                break;
            }
            digest.update(&buffer[..read]);
            self.bytes += read as u64;
            check(self.stop)?;
        }
        self.is_resumed = self.bytes > 0;
        (self.report)(self.bytes);
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(|source| Error::Write { path: self.path.clone(), source })?;
        self.bytes = 0;
        self.digest = self.digest.take().map(|_| Sha256::new());
        self.is_resumed = false;
        (self.report)(0);
        Ok(())
    }

    /// Downloads what is missing. A connection that was cut is made again, as long as each brings some bytes.
    fn fill(&mut self) -> Result<()> {
        // The furthest that it came: a server that makes it begin again brings nothing.
        let (mut failures, mut most) = (0, self.bytes);
        while self.bytes < self.remote.size {
            match self.receive() {
                Ok(()) => {}
                Err(error) if error.is_transient() => {
                    failures = if self.bytes > most { 1 } else { failures + 1 };
                    most = most.max(self.bytes);
                    if failures > self.job.client.retries() {
                        return Err(error);
                    }
                    check(self.stop)?;
                    self.job.client.pause(failures);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes one request for the missing bytes and writes what comes. `Ok` where all has come.
    fn receive(&mut self) -> Result<()> {
        let Remote { file, url, size, .. } = self.remote;
        let answer = self.job.client.get(url, self.bytes)?;
        self.job.client.check_status(&answer, url, self.job.repo, Some(file))?;
        let text = |name| answer.headers.get(name).and_then(|value| value.to_str().ok());
        let wrong_size =
            |found| Error::Size { repo: self.job.repo.id().to_owned(), file: file.clone(), expected: *size, found };
        match answer.status {
            206 => {
                let range = text(header::CONTENT_RANGE).unwrap_or_default();
                let (start, total) = content_range(range)
                    .ok_or_else(|| protocol(url, format!("a part of a file with the range {range:?}")))?;
                if total.is_some_and(|total| total != *size) {
                    return Err(wrong_size(total.unwrap_or_default()));
                }
                if start != self.bytes {
                    return Err(protocol(url, format!("bytes from {start} on, asked for those from {}", self.bytes)));
                }
            }
            // The bytes that are there are not of this file.
            416 if self.bytes > 0 => {
                self.restart()?;
                return Err(self.cut());
            }
            416 => return Err(wrong_size(0)),
            _ => {
                let length = text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
                if let Some(length) = length.filter(|length| length != size) {
                    return Err(wrong_size(length));
                }
                // A server without ranges sends all of it.
                if self.bytes > 0 {
                    self.restart()?;
                }
            }
        }
        let mut body = answer.body.into_with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; BLOCK];
        loop {
            check(self.stop)?;
            let read = match body.read(&mut buffer) {
                Ok(0) if self.bytes < self.remote.size => return Err(self.cut()),
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Err(self.cut()),
            };
            let end = self.bytes + read as u64;
            if end > self.remote.size {
                return Err(Error::Size {
                    repo: self.job.repo.id().to_owned(),
                    file: self.remote.file.clone(),
                    expected: self.remote.size,
                    found: end,
                });
            }
            self.write(&buffer[..read])?;
        }
    }

    fn write(&mut self, block: &[u8]) -> Result<()> {
        self.file.write_all(block).map_err(|source| match source.kind() {
            // Of the disk, of the user's share of it, or of the process's largest file.
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Error::DiskFull { file: self.path.clone(), missing: self.remote.size - self.bytes, source }
            }
            _ => Error::Write { path: self.path.clone(), source },
        })?;
        if let Some(digest) = &mut self.digest {
            digest.update(block);
        }
        self.bytes += block.len() as u64;
        (self.report)(self.bytes);
        Ok(())
    }

    /// Checks the whole file and gives it its name.
    fn finish(mut self, blob: &Path) -> Result<()> {
        if let Err(error) = self.verify() {
            // Bytes of an earlier process can be damaged: once more, from the start.
            let was_resumed = self.is_resumed;
            self.restart()?;
            if was_resumed {
                self.fill()?;
                self.verify()?;
            } else {
                // Windows removes no file that is open, but it is empty.
                let _ = fs::remove_file(&self.path);
                return Err(error);
            }
        }
        let Self { file, path, .. } = self;
        let synced = file.sync_all();
        drop(file);
        synced.and_then(|()| fs::rename(&path, blob)).map_err(|source| Error::Write { path: blob.to_owned(), source })
    }

    fn verify(&self) -> Result<()> {
        let Some(digest) = &self.digest else { return Ok(()) };
        let found: String = digest.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if found == self.remote.etag {
            return Ok(());
        }
        let (repo, file, expected) = (self.job.repo.id(), &self.remote.file, &self.remote.etag);
        Err(Error::Checksum { repo: repo.to_owned(), file: file.clone(), expected: expected.clone(), found })
    }

    fn cut(&self) -> Error {
        let (bytes, size) = (self.bytes, self.remote.size);
        Error::Cut { repo: self.job.repo.id().to_owned(), file: self.remote.file.clone(), bytes, size }
    }
}

fn check(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
}

/// The first byte and the size of the whole in `bytes 10-99/100`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.trim().parse().ok()?;
    let total = if total == "*" { None } else { Some(total.trim().parse().ok()?) };
    Some((start, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(content_range("bytes 10-99/100"), Some((10, Some(100))));
        assert_eq!(content_range("bytes 0-9/*"), Some((0, None)));
        for text in
            ["", "bytes", "bytes 1/2", "bytes x-9/10", "items 0-9/10", "bytes 0-9", "bytes 0-9/99999999999999999999"]
        {
            assert_eq!(content_range(text), None, "{text}");
        }
    }
}
