//! The variables of the environment, read as `huggingface_hub` does (`constants.py`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// What the variables say.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) cache: PathBuf,
    pub(crate) endpoint: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) offline: bool,
    pub(crate) symlinks: bool,
}

impl Environment {
    /// Reads the variables that `variable` returns; `home` is the user's folder.
    pub(crate) fn read(variable: &dyn Fn(&str) -> Option<OsString>, home: Option<&Path>) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| set(name).map(|value| expanded(PathBuf::from(value), home));
        let text = |name: &'static str| match set(name).map(OsString::into_string) {
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(_)) => Err(Error::Option { variable: name, reason: "it is not UTF-8; set another".to_owned() }),
            None => Ok(None),
        };
        let is_true = |name: &'static str| -> Result<bool> {
            let value = text(name)?.unwrap_or_default().to_ascii_uppercase();
            Ok(["1", "ON", "YES", "TRUE"].contains(&value.as_str()))
        };
        let hf_home = path("HF_HOME").or_else(|| {
            let caches = path("XDG_CACHE_HOME").or_else(|| Some(home?.join(".cache")))?;
            Some(caches.join("huggingface"))
        });
        let in_home = |name: &str| hf_home.as_ref().map(|folder| folder.join(name));
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).or_else(|| in_home("hub"));
        let cache = cache.ok_or_else(|| Error::Option {
            variable: "HF_HOME",
            reason: "it is not set, and there is no home folder; set it to the folder of the cache".to_owned(),
        })?;
        let token = match text("HF_TOKEN")? {
            Some(token) => Some(token),
            None => path("HF_TOKEN_PATH").or_else(|| in_home("token")).map(|file| stored(&file)).transpose()?.flatten(),
        };
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        Ok(Self {
            cache,
            endpoint: text("HF_ENDPOINT")?,
            token,
            offline: is_true("HF_HUB_OFFLINE")? || is_true("TRANSFORMERS_OFFLINE")?,
            symlinks: !is_true("HF_HUB_DISABLE_SYMLINKS")?,
        })
    }
}

/// The token that `hf auth login` has stored.
fn stored(file: &Path) -> Result<Option<String>> {
    const MAX_BYTES: u64 = 4096;
    if file.exists() { Ok(Some(lumina_core::file::read_text(file, MAX_BYTES)?)) } else { Ok(None) }
}

/// `~` at the start is the user's folder.
fn expanded(path: PathBuf, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Environment {
        let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        Environment::read(&variable, Some(Path::new("/home/x"))).unwrap()
    }

    #[test]
    fn the_cache_is_where_python_has_it() {
        let cases: [(&[(&str, &str)], &str); 7] = [
            (&[], "/home/x/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/c")], "/c/huggingface/hub"),
            (&[("HF_HOME", "/h"), ("XDG_CACHE_HOME", "/c")], "/h/hub"),
            (&[("HF_HOME", "~/h")], "/home/x/h/hub"),
            (&[("HF_HUB_CACHE", "/k"), ("HF_HOME", "/h")], "/k"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old")], "/old"),
            (&[("HF_HUB_CACHE", "")], "/home/x/.cache/huggingface/hub"),
        ];
        for (variables, cache) in cases {
            assert_eq!(read(variables).cache, Path::new(cache), "{variables:?}");
        }
        let error = Environment::read(&|_| None, None).unwrap_err().to_string();
        assert!(error.contains("HF_HOME"), "{error}");
    }

    #[test]
    fn the_token_is_that_of_the_variable_else_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        assert_eq!(read(&[("HF_HOME", home)]).token, None);
        std::fs::write(folder.path().join("token"), "hf_stored\n").unwrap();
        assert_eq!(read(&[("HF_HOME", home)]).token.as_deref(), Some("hf_stored"));
        assert_eq!(read(&[("HF_HOME", home), ("HF_TOKEN", " hf_x\r\n")]).token.as_deref(), Some("hf_x"));
        let other = folder.path().join("other");
        std::fs::write(&other, "hf_other").unwrap();
        let other = other.to_str().unwrap();
        assert_eq!(read(&[("HF_HOME", home), ("HF_TOKEN_PATH", other)]).token.as_deref(), Some("hf_other"));
    }

    #[test]
    fn switches() {
        for value in ["1", "on", "Yes", "TRUE"] {
            assert!(read(&[("HF_HUB_OFFLINE", value)]).offline);
            assert!(read(&[("TRANSFORMERS_OFFLINE", value)]).offline);
            assert!(!read(&[("HF_HUB_DISABLE_SYMLINKS", value)]).symlinks);
        }
        for value in ["", "0", "no"] {
            assert!(!read(&[("HF_HUB_OFFLINE", value)]).offline);
        }
        assert!(read(&[]).symlinks);
    }
}
