//! A repository, a cache, and what all tests ask of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lumina_hub::{Error, Hub, RepoName};
use lumina_testing::hub_server::HubServer;
use tempfile::TempDir;

pub(crate) const REPO: &str = "owner/name";
/// Where the cache has the repository.
pub(crate) const FOLDER: &str = "models--owner--name";
pub(crate) const INDEX: &str = "model.safetensors.index.json";
pub(crate) const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

/// Bytes that no compression and no shift leaves alike.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A model in two shards.
pub(crate) fn sharded() -> HubServer {
    let index = format!(r#"{{"weight_map":{{"a":"{}","b":"{}"}}}}"#, SHARDS[0], SHARDS[1]);
    HubServer::new(REPO)
        .with("config.json", "{}", false)
        .with(INDEX, index, false)
        .with(SHARDS[0], noise(1, 300_000), true)
        .with(SHARDS[1], noise(2, 200_001), true)
        .with("README.md", "not needed", false)
        .with("pytorch_model.bin", noise(3, 1000), true)
}

/// A repository of one file.
pub(crate) fn single(bytes: Vec<u8>) -> HubServer {
    HubServer::new(REPO).with("model.safetensors", bytes, true)
}

/// A hub that tries again at once.
pub(crate) fn hub(server: &HubServer, cache: &Path) -> Hub {
    Hub::new(cache).endpoint(server.endpoint()).timeout(Duration::from_secs(10)).retries(3, Duration::from_millis(1))
}

/// Config and weights of a model, as a program chooses them.
pub(crate) fn select(files: &lumina_hub::Files<'_>) -> lumina_hub::Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let mut wanted = vec![];
    if files.has("config.json") {
        wanted.push("config.json".to_owned());
    }
    match files.one_of(&["model.safetensors", INDEX]) {
        Some(INDEX) => wanted.extend(files.read_json::<Index>(INDEX)?.weight_map.into_values()),
        Some(other) => wanted.push(other.to_owned()),
        None => wanted.push("model.safetensors".to_owned()),
    }
    Ok(wanted)
}

pub(crate) fn open(hub: &Hub) -> Result<PathBuf, Error> {
    open_at(hub, REPO)
}

pub(crate) fn open_at(hub: &Hub, name: &str) -> Result<PathBuf, Error> {
    hub.snapshot(&name.parse::<RepoName>()?, &select, &mut |_| {})
}

pub(crate) fn cache() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// All files below a folder, links not followed, by their paths in it.
pub(crate) fn tree(folder: &Path) -> Vec<String> {
    fn walk(folder: &Path, prefix: &str, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{name}/"), found);
            } else {
                found.push(name);
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, "", &mut found);
    found.sort();
    found
}

/// The message of an error, which acts on no terminal.
pub(crate) fn message(error: &Error) -> String {
    let message = lumina_testing::whole_message(error);
    assert!(!message.chars().any(char::is_control) && message.len() < 2000, "{message:?}");
    message
}
