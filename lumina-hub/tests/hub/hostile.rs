//! A hub that is against us: no name leads out of the cache, and no document takes more than the limits.

use std::fs;

use lumina_core::Limits;
use lumina_hub::{Error, Hub};
use lumina_testing::hub_server::{COMMIT, HubServer, Reply};
use lumina_testing::sha256;

use crate::support::{FOLDER, INDEX, REPO, cache, hub, message, noise, open, single, tree};

const NAMES: [&str; 9] = [
    "../evil",
    "../../../evil",
    "/tmp/evil",
    "a/../../evil",
    "C:\\evil",
    "a\\..\\evil",
    ".git/x",
    "a\u{0}b",
    "x\u{1b}[2J",
];

#[test]
fn shards_outside_the_cache_are_refused() {
    for name in NAMES {
        let index = serde_json::json!({"weight_map": {"a": name}}).to_string();
        let server = HubServer::new(REPO).with(INDEX, index, false).with(name, "evil", false);
        let outer = cache();
        let inner = outer.path().join("a/b/c");
        let error = open(&hub(&server, &inner)).unwrap_err();
        assert!(matches!(error, Error::FileName { .. }), "{error}");
        message(&error);
        // Nothing but the index is there, and nothing outside.
        let found = tree(outer.path());
        assert!(found.iter().all(|file| file.starts_with("a/b/c/") && !file.contains("evil")), "{found:?}");
    }
}

#[test]
fn etags_that_are_no_names_are_refused() {
    for etag in ["../../evil", "/tmp/evil", "a/b", "", "x.lock", "\u{7f}"] {
        let (server, cache) = (single(noise(1, 1000)), cache());
        let header = format!("X-Linked-Etag: \"{etag}\"\r\n");
        // The first of two headers of one name counts.
        server.on_request(move |request| match request.path.contains("/resolve/") {
            true => Reply::Redirect(format!("/elsewhere\r\n{header}X-Linked-Size: 4")),
            false => Reply::Serve,
        });
        let error = open(&hub(&server, cache.path())).unwrap_err();
        assert!(
            matches!(error, Error::Protocol { .. } | Error::Connect { .. } | Error::NoRepo { .. }),
            "{etag}: {error}"
        );
        assert_eq!(tree(cache.path()), [""; 0]);
    }
}

#[test]
fn commits_that_are_no_names_are_refused() {
    for commit in ["../../evil", "", "main", &"0".repeat(64), "0123456789ABCDEF0123456789abcdef01234567"] {
        let (server, cache) = (single(noise(1, 1000)), cache());
        server.set_commit(commit);
        let error = open(&hub(&server, cache.path())).unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
        assert_eq!(tree(cache.path()), [""; 0]);
    }
    // A file of another commit than the list.
    let (server, cache) = (single(noise(1, 1000)), cache());
    server.on_request(|request| match request.path.contains("/resolve/") {
        true => Reply::Redirect(format!("/elsewhere\r\nX-Repo-Commit: {}", "f".repeat(40))),
        false => Reply::Serve,
    });
    let error = open(&hub(&server, cache.path())).unwrap_err();
    assert!(message(&error).contains(COMMIT), "{error}");
}

#[test]
fn lists_that_are_none_and_lists_without_end() {
    let bodies: [&[u8]; 6] = [b"", b"{", b"[]", b"null", b"{\"sha\": 5}", b"<html>\x1b[2J</html>"];
    for body in bodies {
        let (server, cache) = (single(noise(1, 1000)), cache());
        server.on_request(move |_| Reply::Bytes(body.to_vec()));
        let error = open(&hub(&server, cache.path())).unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
        message(&error);
    }
    let (server, cache) = (single(noise(1, 1000)), cache());
    server.on_request(|_| Reply::Bytes(vec![b' '; 200_000]));
    let mut limits = Limits::default();
    limits.document_bytes = 100_000;
    let error = open(&hub(&server, cache.path()).limits(limits)).unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }) && message(&error).contains("longer"), "{error}");
}

#[test]
fn redirects_without_end_and_to_nowhere() {
    for to in ["/again", "ftp://127.0.0.1/x", "file:///etc/passwd", "http://", "http://127.0.0.1:99999/", "\u{1}"] {
        let (server, cache) = (single(noise(1, 1000)), cache());
        server.on_request(move |_| Reply::Redirect(to.to_owned()));
        let error = open(&hub(&server, cache.path()).retries(0, std::time::Duration::ZERO)).unwrap_err();
        assert!(matches!(error, Error::Protocol { .. } | Error::Connect { .. }), "{to}: {error}");
        message(&error);
        assert!(server.connections() <= 11);
    }
}

#[test]
fn headers_of_a_size_that_is_none() {
    let (server, cache) = (single(noise(1, 1000)), cache());
    server.on_request(|request| match request.method.as_str() {
        "HEAD" => {
            Reply::Redirect(format!("/x\r\nX-Linked-Etag: \"{}\"\r\nX-Linked-Size: {}", "a".repeat(64), u64::MAX))
        }
        _ => Reply::Serve,
    });
    let error = open(&hub(&server, cache.path())).unwrap_err();
    assert!(matches!(error, Error::Size { .. }), "{error}");
}

/// A link in the place of what is downloaded would lead the writing out of the cache.
#[cfg(unix)]
#[test]
fn links_in_the_place_of_a_beginning_are_not_followed() {
    let bytes = noise(1, 1000);
    let (server, cache, outside) = (single(bytes.clone()), cache(), cache());
    let target = outside.path().join("kept");
    fs::write(&target, "kept").unwrap();
    let blobs = cache.path().join(FOLDER).join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    std::os::unix::fs::symlink(&target, blobs.join(format!("{}.incomplete", sha256(&bytes)))).unwrap();
    let folder = open(&hub(&server, cache.path())).unwrap();
    assert!(fs::read(folder.join("model.safetensors")).unwrap() == bytes);
    assert_eq!(fs::read(&target).unwrap(), b"kept");
}

/// A server that does not speak TLS.
#[test]
fn encryption_that_fails_is_an_error() {
    let (server, cache) = (single(noise(1, 1000)), cache());
    let endpoint = server.endpoint().replace("http:", "https:");
    let error = open(&hub(&server, cache.path()).endpoint(endpoint).token("hf_x")).unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    message(&error);
    assert!(server.requests().iter().all(|request| request.authorization.is_none()));
}

#[test]
fn endpoints_and_tokens_that_cannot_be_used() {
    let cache = cache();
    for endpoint in ["", "huggingface.co", "ftp://x", "http://[::1", "http://a b"] {
        let error = open(&Hub::new(cache.path()).endpoint(endpoint)).unwrap_err();
        assert!(message(&error).contains("HF_ENDPOINT"), "{error}");
    }
    let error = open(&Hub::new(cache.path()).token("a\r\nb")).unwrap_err();
    assert!(message(&error).contains("HF_TOKEN"), "{error}");
}
