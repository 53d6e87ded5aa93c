//! Servers, connections and disks that fail.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lumina_hub::Error;
use lumina_testing::hub_server::{COMMIT, PIECE, Reply};
use lumina_testing::sha256;

use crate::support::{FOLDER, REPO, cache, hub, message, noise, open, open_at, sharded, single, tree};

const FILE: &str = "model.safetensors";

#[test]
fn connections_that_are_cut_go_on_where_they_were() {
    let bytes = noise(1, 400_000);
    let (server, cache) = (single(bytes.clone()), cache());
    let pieces = AtomicUsize::new(0);
    // Each connection brings two pieces and ends within the file.
    server.on_piece(move |_, _| pieces.fetch_add(1, Ordering::SeqCst) % 3 != 2);
    let folder = open(&hub(&server, cache.path())).unwrap();
    assert!(fs::read(folder.join(FILE)).unwrap() == bytes);
    let ranges = server.ranges(FILE);
    assert!(ranges.len() > 5, "{ranges:?}");
    for pair in ranges.windows(2) {
        assert!(pair[1] > pair[0] && pair[1] <= pair[0] + 2 * PIECE as u64, "{ranges:?}");
    }
}

#[test]
fn a_connection_that_never_brings_a_byte_is_given_up() {
    let (server, cache) = (single(noise(1, 400_000)), cache());
    server.on_piece(|_, at| at < PIECE as u64);
    let error = open(&hub(&server, cache.path())).unwrap_err();
    let Error::Cut { bytes, size, .. } = error else { panic!("{error}") };
    assert_eq!((bytes, size), (PIECE as u64, 400_000));
    assert!(message(&error).contains("goes on from there"), "{error}");
    // One try, and three more after it.
    assert_eq!(server.ranges(FILE), [0, bytes, bytes, bytes]);
    // It does go on.
    server.on_piece(|_, _| true);
    let mut first = None;
    hub(&server, cache.path())
        .snapshot(&REPO.parse().unwrap(), &crate::support::select, &mut |progress| {
            first.get_or_insert(progress.bytes);
        })
        .unwrap();
    assert_eq!(first, Some(bytes));
    assert_eq!(server.ranges(FILE).last(), Some(&bytes));
}

#[test]
fn a_server_that_stalls_is_asked_again() {
    let (server, cache) = (single(noise(1, 100_000)), cache());
    let stalls = AtomicUsize::new(0);
    server.on_piece(move |_, at| {
        if at == PIECE as u64 && stalls.fetch_add(1, Ordering::SeqCst) == 0 {
            thread::sleep(Duration::from_secs(4));
        }
        true
    });
    let folder = open(&hub(&server, cache.path()).timeout(Duration::from_secs(2))).unwrap();
    assert!(fs::read(folder.join(FILE)).unwrap() == noise(1, 100_000));
    assert_eq!(server.ranges(FILE), [0, PIECE as u64]);
}

#[test]
fn a_server_that_is_busy_is_asked_again() {
    for status in [408, 429, 500, 502, 503, 504] {
        let (server, cache) = (single(noise(1, 1000)), cache());
        // Each request is refused once.
        let seen = Mutex::new(BTreeSet::new());
        server.on_request(move |request| {
            let is_new = seen.lock().unwrap().insert((request.method.clone(), request.path.clone()));
            if is_new { Reply::Status(status, "") } else { Reply::Serve }
        });
        open(&hub(&server, cache.path())).unwrap();
    }
    let (server, cache) = (single(noise(1, 1000)), cache());
    server.on_request(|_| Reply::Status(503, ""));
    let error = open(&hub(&server, cache.path())).unwrap_err();
    assert!(message(&error).contains("503") && message(&error).contains("later"), "{error}");
    assert_eq!(server.connections(), 4);
}

#[test]
fn refusals_say_what_to_do() {
    let cases = [
        (401, "GatedRepo", "gated", "HF_TOKEN"),
        (403, "GatedRepo", "gated", "huggingface.co/owner/name"),
        (403, "", "gated", "ask for access"),
        (401, "RepoNotFound", "no such repository", "HF_TOKEN"),
        (404, "RepoNotFound", "no such repository", "check the name"),
        (401, "", "private", "HF_TOKEN"),
        (404, "", "no such repository", "check the name"),
        (404, "RevisionNotFound", "no revision", "branches and tags"),
        (418, "", "418", "HF_ENDPOINT"),
    ];
    for (status, code, cause, remedy) in cases {
        let (server, cache) = (single(noise(1, 1000)), cache());
        server.on_request(move |_| Reply::Status(status, code));
        let error = open(&hub(&server, cache.path())).unwrap_err();
        let message = message(&error);
        assert!(message.contains(cause) && message.contains(remedy), "{status} {code}: {message}");
        // It is not asked again.
        assert_eq!(server.connections(), 1);
        assert_eq!(tree(cache.path()), [""; 0]);
        let error = open(&hub(&server, cache.path()).token("hf_x")).unwrap_err().to_string();
        assert!(!error.contains("hf_x") && !error.contains("set `HF_TOKEN`"), "{error}");
    }
}

#[test]
fn names_revisions_and_files_that_are_not_there() {
    let (server, cache) = (single(noise(1, 1000)), cache());
    let hub = hub(&server, cache.path());
    let error = open_at(&hub, "owner/other").unwrap_err();
    assert!(matches!(error, Error::NoRepo { .. }), "{error}");
    let error = open_at(&hub, "owner/name@v9").unwrap_err();
    assert!(matches!(&error, Error::NoRevision { revision, .. } if revision == "v9"), "{error}");
    let wanted = |_: &lumina_hub::Files<'_>| Ok(vec!["vqgan.ckpt".to_owned()]);
    let error = hub.snapshot(&REPO.parse().unwrap(), &wanted, &mut |_| {}).unwrap_err();
    assert!(matches!(&error, Error::NoFile { file, .. } if file == "vqgan.ckpt"), "{error}");
    // Listed, and gone when it is asked for.
    server.on_request(|request| {
        if request.path.contains("/resolve/") { Reply::Status(404, "EntryNotFound") } else { Reply::Serve }
    });
    let error = open(&hub).unwrap_err();
    assert!(matches!(error, Error::NoFile { .. }), "{error}");
    // Another host that refuses says nothing of a gate.
    server.on_request(|request| if request.is_cdn { Reply::Status(403, "") } else { Reply::Serve });
    let error = open(&hub).unwrap_err();
    assert!(matches!(error, Error::Status { status: 403, .. }), "{error}");
}

#[test]
fn files_of_another_size_are_refused() {
    for length in [0, 1, 999, 1001, 500_000] {
        let (server, cache) = (single(noise(1, 1000)), cache());
        server.on_request(move |request| if request.is_cdn { Reply::Bytes(noise(1, length)) } else { Reply::Serve });
        let error = open(&hub(&server, cache.path())).unwrap_err();
        let Error::Size { expected: 1000, found, .. } = error else { panic!("{error}") };
        assert_eq!(found, length as u64);
        assert!(message(&error).contains("HF_ENDPOINT"), "{error}");
    }
}

#[test]
fn files_whose_size_is_not_said() {
    let (server, cache) = (single(noise(1, 1000)), cache());
    let serve = |length| {
        server.on_request(move |request| if request.is_cdn { Reply::Unsized(noise(1, length)) } else { Reply::Serve });
        open(&hub(&server, cache.path()))
    };
    let error = serve(1001).unwrap_err();
    assert!(matches!(error, Error::Size { expected: 1000, .. }), "{error}");
    let error = serve(999).unwrap_err();
    assert!(matches!(error, Error::Cut { size: 1000, .. }), "{error}");
    let folder = serve(1000).unwrap();
    assert!(fs::read(folder.join(FILE)).unwrap() == noise(1, 1000));
}

#[test]
fn files_of_another_content_are_refused_and_removed() {
    let (server, cache) = (single(noise(1, 100_000)), cache());
    let mut other = noise(1, 100_000);
    other[77_777] ^= 1;
    let damaged = other.clone();
    server.on_request(move |request| if request.is_cdn { Reply::Bytes(damaged.clone()) } else { Reply::Serve });
    let error = open(&hub(&server, cache.path())).unwrap_err();
    let Error::Checksum { expected, found, .. } = &error else { panic!("{error}") };
    assert_eq!((expected, found), (&sha256(&noise(1, 100_000)), &sha256(&other)));
    assert!(message(&error).contains("removed"), "{error}");
    let left = tree(cache.path());
    assert!(left.iter().all(|name| name.ends_with(".lock")), "{left:?}");
    server.on_request(|_| Reply::Serve);
    open(&hub(&server, cache.path())).unwrap();
}

/// What a power cut or another program has left.
#[test]
fn beginnings_that_are_damaged_are_downloaded_again() {
    let bytes = noise(1, 100_000);
    let damaged = [noise(9, 50_000), noise(9, 100_000), noise(9, 100_001), bytes[..0].to_vec()];
    for (beginning, expected) in damaged.into_iter().zip([&[50_000, 0][..], &[0], &[0], &[0]]) {
        let (server, cache) = (single(bytes.clone()), cache());
        let blobs = cache.path().join(FOLDER).join("blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(format!("{}.incomplete", sha256(&bytes))), &beginning).unwrap();
        let folder = open(&hub(&server, cache.path())).unwrap();
        assert!(fs::read(folder.join(FILE)).unwrap() == bytes);
        assert_eq!(server.ranges(FILE), expected, "{} bytes", beginning.len());
    }
    // One that is whole needs no request, but its check.
    let (server, cache) = (single(bytes.clone()), cache());
    let blobs = cache.path().join(FOLDER).join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{}.incomplete", sha256(&bytes))), &bytes).unwrap();
    let folder = open(&hub(&server, cache.path())).unwrap();
    assert!(fs::read(folder.join(FILE)).unwrap() == bytes);
    assert_eq!(server.ranges(FILE), [0_u64; 0]);
}

/// A document has no SHA-256, so what is left of one is not trusted.
#[test]
fn beginnings_without_a_checksum_are_downloaded_again() {
    let (server, cache) = (sharded(), cache());
    let blobs = cache.path().join(FOLDER).join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{}.incomplete", &sha256(b"{}")[..40])), "x").unwrap();
    let folder = open(&hub(&server, cache.path())).unwrap();
    assert_eq!(fs::read(folder.join("config.json")).unwrap(), b"{}");
}

#[test]
fn servers_without_ranges_and_with_wrong_ones() {
    let bytes = noise(1, 200_000);
    let begin = || {
        let cache = cache();
        let blobs = cache.path().join(FOLDER).join("blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(format!("{}.incomplete", sha256(&bytes))), &bytes[..50_000]).unwrap();
        cache
    };
    let (server, cache) = (single(bytes.clone()), begin());
    server.on_request(|_| Reply::NoRange);
    let folder = open(&hub(&server, cache.path())).unwrap();
    assert!(fs::read(folder.join(FILE)).unwrap() == bytes);

    let (server, cache) = (single(bytes.clone()), begin());
    server.on_request(|request| if request.is_cdn { Reply::WrongRange } else { Reply::Serve });
    let error = open(&hub(&server, cache.path())).unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");

    // 416: the server has no such bytes.
    let (server, cache) = (single(bytes.clone()), begin());
    server.on_request(|request| match request.range {
        Some(_) if request.is_cdn => Reply::Status(416, ""),
        _ => Reply::Serve,
    });
    let folder = open(&hub(&server, cache.path())).unwrap();
    assert!(fs::read(folder.join(FILE)).unwrap() == bytes);
    assert_eq!(server.ranges(FILE), [50_000, 0]);
}

#[test]
fn the_first_error_ends_the_other_downloads() {
    let (server, cache) = (sharded(), cache());
    let other = sha256(&noise(2, 200_001));
    server.on_request(move |request| match request.path.ends_with(&other) {
        true => Reply::Bytes(vec![0; 200_001]),
        false => Reply::Serve,
    });
    let slow = sha256(&noise(1, 300_000));
    let path = format!("/blob/{slow}");
    server.on_piece(move |request, _| {
        // The other has failed long before this one has come.
        thread::sleep(Duration::from_millis(if request.path == path { 100 } else { 0 }));
        true
    });
    let error = open(&hub(&server, cache.path())).unwrap_err();
    assert!(matches!(error, Error::Checksum { .. }), "{error}");
    let left = tree(&cache.path().join(FOLDER).join("blobs"));
    assert!(left.contains(&format!("{slow}.incomplete")) && !left.contains(&slow), "{left:?}");
    let snapshot = cache.path().join(FOLDER).join("snapshots").join(COMMIT);
    assert!(!tree(&snapshot).contains(&crate::support::SHARDS[1].to_owned()));
}

#[test]
fn a_cache_that_cannot_be_written() {
    let (server, cache) = (single(noise(1, 1000)), cache());
    let file = cache.path().join("file");
    fs::write(&file, "").unwrap();
    let error = open(&hub(&server, &file.join("below"))).unwrap_err();
    assert!(matches!(error, Error::Write { .. }) && message(&error).contains("HF_HOME"), "{error}");
}
