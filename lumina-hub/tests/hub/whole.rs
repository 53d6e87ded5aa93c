//! Whole downloads: the right files, at the right places, with a progress.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lumina_hub::RepoName;
use lumina_testing::hub_server::{COMMIT, HubServer, Reply};
use lumina_testing::sha256;

use crate::support::{FOLDER, INDEX, REPO, SHARDS, cache, hub, noise, open, open_at, select, sharded, single, tree};

#[test]
fn only_what_is_chosen_arrives_in_pythons_layout() {
    let (server, cache) = (sharded(), cache());
    let folder = open(&hub(&server, cache.path())).unwrap();
    assert_eq!(folder, cache.path().join(FOLDER).join("snapshots").join(COMMIT));
    assert_eq!(tree(&folder), ["config.json", SHARDS[0], SHARDS[1], INDEX]);
    for (seed, (shard, length)) in SHARDS.iter().zip([300_000, 200_001]).enumerate() {
        let bytes = noise(seed as u64 + 1, length);
        assert!(std::fs::read(folder.join(shard)).unwrap() == bytes);
        #[cfg(unix)]
        {
            let link = std::fs::read_link(folder.join(shard)).unwrap();
            assert_eq!(link, Path::new("../../blobs").join(sha256(&bytes)));
        }
    }
    let reference = cache.path().join(FOLDER).join("refs/main");
    assert_eq!(std::fs::read_to_string(reference).unwrap(), COMMIT);
    let all = tree(cache.path());
    assert!(!all.iter().any(|name| name.ends_with(".incomplete") || name.ends_with(".partial")), "{all:?}");
    assert!(all.contains(&format!("{FOLDER}/.no_exist/{COMMIT}/model.safetensors")), "{all:?}");
}

#[test]
fn the_progress_counts_bytes_to_the_end() {
    let (server, cache) = (sharded(), cache());
    let mut last = (0, 0);
    let name: RepoName = REPO.parse().unwrap();
    hub(&server, cache.path())
        .snapshot(&name, &select, &mut |progress| {
            assert!(progress.bytes >= last.0 && (last.1 == 0 || last.1 == progress.total_bytes));
            assert!(progress.file == "config.json" || SHARDS.contains(&progress.file), "{}", progress.file);
            last = (progress.bytes, progress.total_bytes);
        })
        .unwrap();
    let config = 2;
    assert_eq!(last, (500_001 + config, 500_001 + config));
}

#[test]
fn several_files_come_at_once_up_to_the_bound() {
    for connections in [1, 3] {
        let mut server = HubServer::new(REPO);
        for index in 0..6 {
            server = server.with(&format!("{index}.bin"), noise(index, 40_000), true);
        }
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (running, peak) = (now.clone(), most.clone());
        server.on_piece(move |_, at| {
            if at == 0 {
                peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Others that may come have time to.
                thread::sleep(Duration::from_millis(100));
                running.fetch_sub(1, Ordering::SeqCst);
            }
            true
        });
        let cache = cache();
        let wanted: Vec<String> = (0..6).map(|index| format!("{index}.bin")).collect();
        let name: RepoName = REPO.parse().unwrap();
        let hub = hub(&server, cache.path()).connections(connections);
        let folder = hub.snapshot(&name, &|_| Ok(wanted.clone()), &mut |_| {}).unwrap();
        assert_eq!(tree(&folder), wanted);
        let most = most.load(Ordering::SeqCst);
        assert!(most <= connections && (most > 1) == (connections > 1), "{most} of {connections} at once");
        assert_eq!(now.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn files_in_folders_of_no_bytes_and_of_one_content() {
    let server = HubServer::new(REPO)
        .with("tokenizer/a b.json", "{}", false)
        .with("tokenizer/deep/c.bin", noise(1, 70_000), true)
        .with("same.bin", noise(1, 70_000), true)
        .with("empty.bin", "", true)
        .with("empty.json", "", false);
    let cache = cache();
    let wanted = ["tokenizer/a b.json", "tokenizer/deep/c.bin", "same.bin", "empty.bin", "empty.json"];
    let name: RepoName = REPO.parse().unwrap();
    let folder =
        hub(&server, cache.path()).snapshot(&name, &|_| Ok(wanted.map(str::to_owned).to_vec()), &mut |_| {}).unwrap();
    assert_eq!(std::fs::read(folder.join("tokenizer/a b.json")).unwrap(), b"{}");
    assert!(std::fs::read(folder.join("tokenizer/deep/c.bin")).unwrap() == noise(1, 70_000));
    assert!(std::fs::read(folder.join("same.bin")).unwrap() == noise(1, 70_000));
    assert!(std::fs::read(folder.join("empty.bin")).unwrap().is_empty());
    assert!(std::fs::read(folder.join("empty.json")).unwrap().is_empty());
    // One content is downloaded once.
    assert_eq!(server.ranges("same.bin"), [0]);
}

#[test]
fn revisions_are_branches_and_commits() {
    let server = single(noise(1, 1000));
    for (name, reference) in [
        (format!("{REPO}@{COMMIT}"), None),
        (format!("{REPO}@refs/pr/1"), Some("refs/refs/pr/1")),
        (format!("{REPO}@main"), Some("refs/main")),
    ] {
        let cache = cache();
        let folder = open_at(&hub(&server, cache.path()), &name).unwrap();
        assert!(folder.ends_with(COMMIT));
        let refs: Vec<String> =
            tree(&cache.path().join(FOLDER)).into_iter().filter(|f| f.starts_with("refs")).collect();
        assert_eq!(refs, reference.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn without_links_files_are_there_themselves() {
    let (server, cache) = (sharded(), cache());
    let hub = hub(&server, cache.path()).symlinks(false);
    let folder = open(&hub).unwrap();
    for name in tree(&folder) {
        assert!(folder.join(name).symlink_metadata().unwrap().is_file());
    }
    let connections = server.connections();
    assert_eq!(open(&hub).unwrap(), folder);
    assert_eq!(server.connections(), connections);
    // A blob that is there and a file that is not: a copy.
    let blob = cache.path().join(FOLDER).join("blobs").join(sha256(&noise(1, 300_000)));
    std::fs::rename(folder.join(SHARDS[0]), &blob).unwrap();
    open(&hub).unwrap();
    assert!(blob.exists() && folder.join(SHARDS[0]).symlink_metadata().unwrap().is_file());
    assert_eq!(server.ranges(SHARDS[0]), [0]);
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let (server, cache) = (sharded(), cache());
    open(&hub(&server, cache.path()).token("hf_secret")).unwrap();
    let requests = server.requests();
    assert!(requests.iter().any(|request| request.is_cdn) && requests.iter().any(|request| !request.is_cdn));
    for request in requests {
        let expected = (!request.is_cdn).then(|| "Bearer hf_secret".to_owned());
        assert_eq!(request.authorization, expected, "{} {}", request.method, request.path);
    }
    assert!(!format!("{:?}", hub(&server, cache.path()).token("hf_secret")).contains("secret"));

    // A hub that sends everything elsewhere gets no token sent there either.
    let (other, first, empty) = (sharded(), sharded(), crate::support::cache());
    let target = other.endpoint();
    first.on_request(move |request| Reply::Redirect(format!("{target}{}", request.path)));
    open(&hub(&first, empty.path()).token("hf_secret")).unwrap();
    assert!(other.requests().iter().all(|request| request.authorization.is_none()));
    assert!(first.requests().iter().all(|request| request.authorization.is_some()));
}

/// A file that two threads, each as a process would, want at once is downloaded once.
#[test]
fn two_that_want_the_same_file_take_turns() {
    let (server, cache) = (single(noise(1, 2_000_000)), cache());
    server.on_piece(|_, _| {
        thread::sleep(Duration::from_millis(1));
        true
    });
    thread::scope(|scope| {
        let open = || open(&hub(&server, cache.path())).unwrap();
        let both = [scope.spawn(open), scope.spawn(open)];
        for folder in both {
            let folder = folder.join().unwrap();
            assert!(std::fs::read(folder.join("model.safetensors")).unwrap() == noise(1, 2_000_000));
        }
    });
    assert_eq!(server.ranges("model.safetensors"), [0]);
}
