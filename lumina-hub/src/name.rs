//! Names from outside: of repositories, of revisions and of files. They become paths and addresses, so they are
//! checked.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// The revision where none is named.
const DEFAULT_REVISION: &str = "main";

/// The most bytes of a name of a repository, as the hub has it, and of a revision or a file.
const MAX_ID: usize = 96;
const MAX_NAME: usize = 255;

/// A repository on the hub at a revision: `owner/name` or `owner/name@revision`, where the revision is a branch, a tag
/// or a commit. Without one it is the branch `main`.
///
/// ```
/// use lumina_hub::RepoName;
///
/// let name: RepoName = "Alpha-VLLM/Lumina-mGPT-7B-768@v1.0".parse()?;
/// assert_eq!((name.id(), name.revision()), ("Alpha-VLLM/Lumina-mGPT-7B-768", "v1.0"));
/// assert!("../etc".parse::<RepoName>().is_err());
/// # Ok::<(), lumina_hub::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoName {
    id: String,
    revision: String,
}

impl RepoName {
    /// `owner/name`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The branch, tag or commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }
}

impl FromStr for RepoName {
    type Err = Error;

    /// # Errors
    /// [`Error::Name`].
    fn from_str(text: &str) -> Result<Self> {
        let (id, revision) = text.split_once('@').unwrap_or((text, DEFAULT_REVISION));
        match check_id(id).and_then(|()| check_revision(revision)) {
            Ok(()) => Ok(Self { id: id.to_owned(), revision: revision.to_owned() }),
            Err(reason) => Err(Error::Name { name: text.to_owned(), reason }),
        }
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        if self.revision == DEFAULT_REVISION { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// The rules of the hub (`huggingface_hub`, `validate_repo_id`).
fn check_id(id: &str) -> Result<(), &'static str> {
    let Some((owner, name)) = id.split_once('/') else { return Err("it has no `/` between owner and name") };
    let known = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    for part in [owner, name] {
        if part.is_empty() || !part.chars().all(known) {
            return Err("owner and name are of letters, digits, `-`, `_` and `.`");
        }
        if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) {
            return Err("owner and name neither begin nor end with `-` or `.`");
        }
    }
    if id.contains("--") || id.contains("..") || id.ends_with(".git") {
        return Err("`--`, `..` and `.git` at the end are not allowed");
    }
    if id.len() > MAX_ID { Err("it is longer than 96 characters") } else { Ok(()) }
}

/// What git takes for the name of a branch or tag, less what cannot be part of a path on every system.
fn check_revision(revision: &str) -> Result<(), &'static str> {
    check_path(revision).map_err(|_| "the revision after `@` is not that of a branch, a tag or a commit")
}

/// Whether the name of a file, with folders before it, stays in the folder that it is joined to, on every system.
pub(crate) fn check_path(path: &str) -> Result<(), &'static str> {
    if path.len() > MAX_NAME {
        return Err("it is longer than 255 bytes");
    }
    for part in path.split('/') {
        if part.is_empty() || part.starts_with('.') || part.ends_with(['.', ' ']) {
            return Err("a part of it is empty, begins with a dot, or ends with a dot or a space");
        }
    }
    let forbidden = |character: char| character.is_control() || "\\:*?\"<>|~^[".contains(character);
    if path.contains(forbidden) { Err("it has characters that are not allowed") } else { Ok(()) }
}

/// Whether a text is the full name of a commit.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether an etag is the SHA-256 of the content.
pub(crate) fn is_sha256(etag: &str) -> bool {
    etag.len() == 64 && etag.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A text as part of an address. `/` is kept where `keep_slash` says so.
pub(crate) fn percent_encoded(text: &str, keep_slash: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || (byte == b'/' && keep_slash) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_and_without_revision() {
        let cases = [
            ("a/b", "a/b", "main"),
            ("Alpha-VLLM/Lumina-mGPT-7B-768@main", "Alpha-VLLM/Lumina-mGPT-7B-768", "main"),
            ("a_1/b.c@refs/pr/1", "a_1/b.c", "refs/pr/1"),
            ("a/b@0123456789abcdef0123456789abcdef01234567", "a/b", "0123456789abcdef0123456789abcdef01234567"),
        ];
        for (text, id, revision) in cases {
            let name: RepoName = text.parse().unwrap();
            assert_eq!((name.id(), name.revision()), (id, revision));
            assert_eq!(name.to_string().parse::<RepoName>().unwrap(), name);
        }
    }

    #[test]
    fn names_that_would_leave_the_cache_are_refused() {
        for text in [
            "",
            "a",
            "/a",
            "a/",
            "a/b/c",
            "../b",
            "a/..",
            "a/.b",
            "a--b/c",
            "a/b.git",
            "a b/c",
            "a/b\n",
            "a\\b/c",
            "~/a",
            "C:/a",
            "a/b@",
            "a/b@..",
            "a/b@../../c",
            "a/b@/etc",
            "a/b@x//y",
            "a/b@.x",
            "a/b@x\\y",
            "a/b@x\u{1b}[2J",
            "a/b@x:y",
            "a/b@c/",
            "ä/b",
        ] {
            let error = text.parse::<RepoName>().expect_err(text);
            assert!(!error.to_string().chars().any(char::is_control), "{error}");
        }
        assert!(format!("a/{}", "b".repeat(100)).parse::<RepoName>().is_err());
        assert!(format!("a/b@{}", "b".repeat(300)).parse::<RepoName>().is_err());
    }

    #[test]
    fn paths_stay_in_their_folder() {
        for path in ["config.json", "tokenizer/vqgan.ckpt", "model-00001-of-00002.safetensors", "a b/ü.txt"] {
            check_path(path).unwrap();
        }
        for path in
            ["", "/etc/passwd", "..", "a/../b", "./a", "a//b", "a/", "C:\\x", "c:x", "a\0b", ".git/config", "a."]
        {
            assert!(check_path(path).is_err(), "{path}");
        }
    }

    #[test]
    fn addresses_are_encoded() {
        assert_eq!(percent_encoded("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(percent_encoded("a b/ü%?#", true), "a%20b/%C3%BC%25%3F%23");
    }
}
