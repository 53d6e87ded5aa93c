//! Which files a repository has: as far as the cache knows, or as the hub lists them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use lumina_core::Cause;
use serde::de::DeserializeOwned;

use crate::cache::RepoCache;
use crate::name::check_path;
use crate::{Error, RepoName, Result};

/// The hub's list of files, and what gets one of them into the cache.
pub(crate) type Listed<'a> = (BTreeSet<String>, &'a dyn Fn(&str) -> Result<()>);

/// The files of a repository at a commit, for a function that chooses among them: see [`Hub::snapshot`].
///
/// [`Hub::snapshot`]: crate::Hub::snapshot
pub struct Files<'a> {
    pub(crate) cache: &'a RepoCache,
    pub(crate) repo: &'a RepoName,
    pub(crate) commit: &'a str,
    /// `None` where only the cache was looked at.
    pub(crate) listed: Option<Listed<'a>>,
    pub(crate) max_bytes: u64,
    /// Files that were asked for and are not there.
    pub(crate) absent: RefCell<BTreeSet<String>>,
    /// Whether the cache could not say if there is a file.
    pub(crate) is_unsure: Cell<bool>,
}

impl Files<'_> {
    /// The first of some names that is a file of the repository.
    pub fn first_of<'n>(&self, names: &[&'n str]) -> Option<&'n str> {
        let found = names.iter().position(|name| self.has_at_hand(name));
        let missing = &names[..found.unwrap_or(names.len())];
        self.note(missing);
        found.map(|found| names[found])
    }

    /// One of some names, of which a repository has one: the first that the cache has, or else the first that the
    /// repository has. Unlike with [`Files::first_of`], a name before one that the cache has costs no request.
    pub fn one_of<'n>(&self, names: &[&'n str]) -> Option<&'n str> {
        let found = names.iter().find(|name| self.has_at_hand(name)).copied();
        if found.is_none() || self.listed.is_some() {
            return self.first_of(names);
        }
        found
    }

    /// Notes that files were asked for and are not there, as far as is known.
    fn note(&self, names: &[&str]) {
        for name in names {
            let is_known = self.listed.is_some() || check_path(name).is_ok() && self.cache.is_absent(self.commit, name);
            self.is_unsure.set(self.is_unsure.get() || !is_known);
            self.absent.borrow_mut().insert((*name).to_owned());
        }
    }

    /// Whether the repository has a file.
    pub fn has(&self, name: &str) -> bool {
        self.first_of(&[name]).is_some()
    }

    /// Whether there is a file that is wanted only where it costs no request to know of it.
    pub fn has_at_hand(&self, name: &str) -> bool {
        match &self.listed {
            Some((listed, _)) => listed.contains(name),
            None => check_path(name).is_ok() && self.cache.has(self.commit, name),
        }
    }

    /// The content of a JSON document of the repository, which is downloaded for it if need be.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::Core`] for a document that cannot be read or is beyond the limits, [`Error::NoFile`],
    /// and those of a download.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        self.check_name(name)?;
        if !self.cache.has(self.commit, name)
            && let Some((listed, fetch)) = &self.listed
        {
            if !listed.contains(name) {
                return Err(self.no_file(name));
            }
            fetch(name)?;
        }
        let file = self.cache.snapshot(self.commit).join(name);
        let bytes = lumina_core::file::read(&file, self.max_bytes)?;
        lumina_core::file::check_json(&file, &bytes)?;
        serde_json::from_slice(&bytes).map_err(|error| Error::Json { file, source: Cause::new(&error) })
    }

    /// Those of some files that are still to be downloaded, each once.
    pub(crate) fn missing(&self, wanted: &[String]) -> Result<Vec<String>> {
        let mut missing = BTreeSet::new();
        for name in wanted {
            self.check_name(name)?;
            if self.cache.has(self.commit, name) {
                continue;
            }
            if let Some((listed, _)) = &self.listed
                && !listed.contains(name)
            {
                return Err(self.no_file(name));
            }
            missing.insert(name.clone());
        }
        Ok(missing.into_iter().collect())
    }

    fn check_name(&self, name: &str) -> Result<()> {
        let refused = |reason| Error::FileName { repo: self.repo.to_string(), file: name.to_owned(), reason };
        check_path(name).map_err(refused)
    }

    fn no_file(&self, name: &str) -> Error {
        Error::NoFile { repo: self.repo.to_string(), file: name.to_owned() }
    }
}
