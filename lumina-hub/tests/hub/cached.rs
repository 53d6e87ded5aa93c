//! What is in the cache needs no connection.

use std::fs;
use std::path::Path;

use lumina_hub::{Error, Hub};
use lumina_testing::hub_server::{COMMIT, HubServer, Reply};

use crate::support::{FOLDER, INDEX, REPO, SHARDS, cache, hub, message, noise, open, open_at, sharded, single, tree};

/// The folder that `huggingface_hub` leaves of a sharded model, made by hand.
fn of_python(cache: &Path) {
    let folder = cache.join(FOLDER);
    let snapshot = folder.join("snapshots").join(COMMIT);
    for folder in [&snapshot, &folder.join("blobs"), &folder.join("refs")] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(folder.join("refs/main"), COMMIT).unwrap();
    let index = format!(r#"{{"weight_map":{{"a":"{}","b":"{}"}}}}"#, SHARDS[0], SHARDS[1]);
    let files = [("config.json", b"{}".to_vec()), (INDEX, index.into_bytes())];
    let shards = SHARDS.map(|name| (name, noise(7, 100)));
    for (number, (name, bytes)) in files.into_iter().chain(shards).enumerate() {
        let blob = format!("{number:040}");
        fs::write(folder.join("blobs").join(&blob), bytes).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(format!("../../blobs/{blob}"), snapshot.join(name)).unwrap();
        #[cfg(not(unix))]
        fs::copy(folder.join("blobs").join(&blob), snapshot.join(name)).unwrap();
    }
}

#[test]
fn what_python_has_downloaded_is_found() {
    let (server, cache) = (sharded(), cache());
    of_python(cache.path());
    let before = tree(cache.path());
    for hub in [hub(&server, cache.path()), hub(&server, cache.path()).offline(true)] {
        for name in [REPO.to_owned(), format!("{REPO}@{COMMIT}")] {
            let folder = open_at(&hub, &name).unwrap();
            assert_eq!(fs::read(folder.join(SHARDS[1])).unwrap(), noise(7, 100));
        }
    }
    assert_eq!(server.connections(), 0);
    assert_eq!(tree(cache.path()), before);
}

#[test]
fn a_second_opening_makes_no_connection() {
    let (server, cache) = (sharded(), cache());
    let hub = hub(&server, cache.path());
    let folder = open(&hub).unwrap();
    let connections = server.connections();
    assert!(connections > 0);
    assert_eq!(open(&hub).unwrap(), folder);
    assert_eq!(open(&hub.clone().offline(true)).unwrap(), folder);
    assert_eq!(server.connections(), connections);
}

#[test]
fn offline_makes_no_connection_and_says_what_is_missing() {
    let (server, cache) = (sharded(), cache());
    let hub = hub(&server, cache.path()).offline(true);
    let error = open(&hub).unwrap_err();
    assert!(matches!(error, Error::Offline { .. }) && message(&error).contains("HF_HUB_OFFLINE"), "{error}");
    of_python(cache.path());
    fs::remove_file(cache.path().join(FOLDER).join("snapshots").join(COMMIT).join(SHARDS[1])).unwrap();
    let error = open(&hub).unwrap_err();
    assert!(message(&error).contains(SHARDS[1]), "{error}");
    // A link whose blob is gone is no file.
    of_python_blob_removed(cache.path());
    let error = open(&hub).unwrap_err();
    assert!(message(&error).contains(SHARDS[0]), "{error}");
    assert_eq!(server.connections(), 0);
}

fn of_python_blob_removed(cache: &Path) {
    let blob = cache.join(FOLDER).join("blobs").join(format!("{:040}", 2));
    fs::remove_file(blob).unwrap();
    let file = cache.join(FOLDER).join("snapshots").join(COMMIT).join(SHARDS[0]);
    if file.is_file() {
        fs::remove_file(file).unwrap();
    }
}

#[test]
fn what_the_cache_lacks_is_completed() {
    let (server, cache) = (sharded(), cache());
    of_python(cache.path());
    of_python_blob_removed(cache.path());
    let folder = open(&hub(&server, cache.path())).unwrap();
    assert!(fs::read(folder.join(SHARDS[0])).unwrap() == noise(1, 300_000));
    // The other is as it was.
    assert_eq!(fs::read(folder.join(SHARDS[1])).unwrap(), noise(7, 100));
    assert_eq!(server.ranges(SHARDS[1]), [0_u64; 0]);
}

/// Where the cache cannot say whether the repository has another file, the hub is asked, once.
#[test]
fn files_of_which_the_cache_does_not_know() {
    let (server, cache) = (sharded(), cache());
    of_python(cache.path());
    let name = REPO.parse().unwrap();
    let select = |files: &lumina_hub::Files<'_>| {
        let mut wanted = crate::support::select(files)?;
        wanted.extend(files.has("vqgan.yaml").then(|| "vqgan.yaml".to_owned()));
        wanted.extend(files.has_at_hand("generation_config.json").then(|| "generation_config.json".to_owned()));
        Ok(wanted)
    };
    let open = |hub: &Hub| hub.snapshot(&name, &select, &mut |_| {});
    let hub = hub(&server, cache.path());
    // No answer, and none wanted: what is there counts.
    server.on_request(|_| Reply::Status(500, ""));
    open(&hub).unwrap();
    assert_eq!(server.connections(), 1);
    open(&hub.clone().offline(true)).unwrap();
    assert_eq!(server.connections(), 1);
    // The repository has none.
    server.on_request(|_| Reply::Serve);
    open(&hub).unwrap();
    assert_eq!(server.connections(), 2);
    open(&hub).unwrap();
    assert_eq!(server.connections(), 2);
}

/// A file that the cache has does not count where another comes before it, which a kill may have kept from the cache.
#[test]
fn the_first_of_several_files_counts() {
    let server = HubServer::new(REPO).with("a.bin", noise(1, 10), true).with("b.bin", noise(2, 10), true);
    let (cache, name) = (cache(), REPO.parse().unwrap());
    let hub = hub(&server, cache.path());
    hub.snapshot(&name, &|_| Ok(vec!["b.bin".to_owned()]), &mut |_| {}).unwrap();
    let names = ["none.bin", "a.bin", "b.bin"];
    let chosen = |hub: &Hub, is_first: bool| {
        let chosen = std::cell::Cell::new("");
        let select = |files: &lumina_hub::Files<'_>| {
            chosen.set(if is_first { files.first_of(&names) } else { files.one_of(&names) }.unwrap());
            Ok(vec![chosen.get().to_owned()])
        };
        hub.snapshot(&name, &select, &mut |_| {}).unwrap();
        chosen.get()
    };
    let connections = server.connections();
    assert_eq!(chosen(&hub, false), "b.bin");
    assert_eq!(chosen(&hub.clone().offline(true), true), "b.bin");
    assert_eq!(server.connections(), connections);
    assert_eq!(chosen(&hub, true), "a.bin");
    let connections = server.connections();
    assert_eq!(chosen(&hub, true), "a.bin");
    assert_eq!(server.connections(), connections);
}

#[test]
fn a_branch_moves_on_when_asked() {
    let (server, cache) = (single(noise(1, 1000)), cache());
    let hub = hub(&server, cache.path());
    let old = open(&hub).unwrap();
    let newer = "f".repeat(40);
    server.set_commit(&newer);
    server.put("model.safetensors", noise(2, 1000), true);
    assert_eq!(open(&hub).unwrap(), old);
    let new = open(&hub.clone().refresh(true)).unwrap();
    assert!(new.ends_with(&newer) && fs::read(new.join("model.safetensors")).unwrap() == noise(2, 1000));
    assert_eq!(open(&hub).unwrap(), new);
    assert!(fs::read(old.join("model.safetensors")).unwrap() == noise(1, 1000));
    // Without a connection the cache counts.
    server.on_request(|_| Reply::Nothing);
    assert_eq!(open(&hub.refresh(true)).unwrap(), new);
}

/// A question about one more file is no reason to download a newer commit.
#[test]
fn a_branch_that_has_moved_on_is_not_downloaded_for_a_question() {
    let (server, cache) = (single(noise(1, 1000)), cache());
    let hub = hub(&server, cache.path());
    let old = open(&hub).unwrap();
    server.set_commit(&"f".repeat(40));
    server.put("model.safetensors", noise(2, 1000), true);
    let select = |files: &lumina_hub::Files<'_>| {
        let mut wanted = vec!["model.safetensors".to_owned()];
        wanted.extend(files.has("vqgan.yaml").then(|| "vqgan.yaml".to_owned()));
        Ok(wanted)
    };
    let connections = server.connections();
    assert_eq!(hub.snapshot(&REPO.parse().unwrap(), &select, &mut |_| {}).unwrap(), old);
    assert_eq!(server.connections(), connections + 1);
    assert!(server.requests().last().unwrap().path.ends_with(COMMIT));
}

#[test]
fn references_that_are_no_commits_are_asked_for_again() {
    let server = single(noise(1, 1000));
    for text in ["", "main", "../../x", "0123", &"0".repeat(5000), "\u{0}"] {
        let cache = cache();
        let refs = cache.path().join(FOLDER).join("refs");
        fs::create_dir_all(&refs).unwrap();
        fs::write(refs.join("main"), text).unwrap();
        assert!(open(&hub(&server, cache.path())).unwrap().ends_with(COMMIT));
        assert_eq!(fs::read_to_string(refs.join("main")).unwrap(), COMMIT);
    }
}

#[test]
fn a_damaged_index_is_reported() {
    let (server, cache) = (sharded(), cache());
    of_python(cache.path());
    let index = cache.path().join(FOLDER).join("snapshots").join(COMMIT).join(INDEX);
    fs::remove_file(&index).unwrap();
    fs::write(&index, "{").unwrap();
    for hub in [hub(&server, cache.path()).offline(true), hub(&server, cache.path())] {
        let error = open(&hub).unwrap_err();
        assert!(matches!(error, Error::Json { .. }) && message(&error).contains(INDEX), "{error}");
    }
}

/// A hub without a server: nothing listens there.
#[test]
fn no_server_at_all() {
    let server = HubServer::new(REPO);
    let endpoint = server.endpoint();
    drop(server);
    let cache = cache();
    let hub = Hub::new(cache.path()).endpoint(endpoint.clone()).retries(1, std::time::Duration::from_millis(1));
    let error = open(&hub).unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert!(message(&error).contains(&endpoint) && message(&error).contains("HF_ENDPOINT"), "{error}");
}
