//! Processes that are killed, that run at once, and that have no space: each a child of this program.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lumina_testing::hub_server::{COMMIT, HubServer, PIECE};
use lumina_testing::sha256;

use crate::support::{FOLDER, cache, hub, noise, open, single, tree};

const FILE: &str = "model.safetensors";
/// How a child is told what to do: the address of the hub and the folder of the cache.
const VARIABLE: &str = "LUMINA_HUB_TEST_CHILD";

/// What a child does.
#[test]
#[ignore = "run by the other tests, in a process of its own"]
fn child() {
    let Ok(task) = std::env::var(VARIABLE) else { return };
    let (endpoint, cache) = task.split_once(' ').unwrap();
    let hub = lumina_hub::Hub::new(cache).endpoint(endpoint).retries(0, Duration::ZERO);
    if let Err(error) = open(&hub) {
        println!("error: {error}");
        std::process::exit(3);
    }
}

fn command(shell: &str, server: &HubServer, cache: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{shell} exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "killed::child", "--ignored", "--nocapture"])
        .env(VARIABLE, format!("{} {}", server.endpoint(), cache.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

fn start(server: &HubServer, cache: &Path) -> Child {
    command("", server, cache).spawn().unwrap()
}

/// Waits until a child ends or `is_time`; `None` where it still runs then.
fn wait(child: &mut Child, mut is_time: impl FnMut() -> bool) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if is_time() {
            return None;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "a child hangs");
        thread::sleep(Duration::from_micros(200));
    }
}

/// Where the beginning of a file lies.
fn beginning(cache: &Path, bytes: &[u8]) -> PathBuf {
    cache.join(FOLDER).join("blobs").join(format!("{}.incomplete", sha256(bytes)))
}

fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}

/// A process that is killed at any moment leaves the file whole or not at all, and the next one goes on at the last
/// block that was written.
#[test]
fn fifty_kills() {
    const KILLS: usize = 50;
    // What the client's buffers hold that is not written yet.
    const BLOCK: u64 = 128 << 10;
    let bytes = noise(1, 3_000_000);
    let (server, mut cache) = (single(bytes.clone()), cache());
    // The server sends no more than a block beyond what is on the disk, as a slow connection does.
    let (sent, root) = (Arc::new(AtomicU64::new(0)), Arc::new(std::sync::Mutex::new(cache.path().to_owned())));
    let (progress, folder, content) = (sent.clone(), root.clone(), bytes.clone());
    server.on_piece(move |_, at| {
        let path = beginning(&folder.lock().unwrap(), &content);
        let since = Instant::now();
        while at > length(&path) + BLOCK {
            // The child is dead, or it keeps more than a block to itself.
            if since.elapsed() > Duration::from_secs(20) {
                return false;
            }
            thread::sleep(Duration::from_micros(100));
        }
        progress.store(at + PIECE as u64, Ordering::SeqCst);
        true
    });
    let (mut kills, mut finished, mut seen) = (0, 0, 0);
    let mut moments = BTreeSet::new();
    while kills < KILLS {
        let path = beginning(cache.path(), &bytes);
        let kept = length(&path);
        sent.store(kept, Ordering::SeqCst);
        let mut child = start(&server, cache.path());
        // After some of the file, each time another part of it, and now and then beyond its end.
        let target = kept + (kills as u64 * 7919 * 37) % 200_000;
        let ended = wait(&mut child, || sent.load(Ordering::SeqCst) >= target && length(&path) > 0);
        if ended.is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
        }
        // The first byte that was asked for is the first that was missing.
        let ranges = server.ranges(FILE);
        for &range in &ranges[seen..] {
            assert_eq!(range, kept, "after {kills} kills");
        }
        seen = ranges.len();
        let left = length(&path);
        assert!(ended.is_some() || left == 0 || sent.load(Ordering::SeqCst) <= left + BLOCK + PIECE as u64);
        moments.insert(left);
        let whole = cache.path().join(FOLDER).join("snapshots").join(COMMIT).join(FILE);
        assert!(!whole.exists() || fs::read(&whole).unwrap() == bytes, "a file that is not whole, after {kills} kills");
        if let Some(status) = ended {
            assert!(status.success() && whole.exists(), "{status}");
        }
        if whole.exists() {
            finished += 1;
            cache = crate::support::cache();
            cache.path().clone_into(&mut root.lock().unwrap());
        }
    }
    assert!(moments.len() > 20 && finished > 0, "{} moments, {finished} finished", moments.len());
    let folder = open(&hub(&server, cache.path())).unwrap();
    assert!(fs::read(folder.join(FILE)).unwrap() == bytes);
}

/// Kills around the end of a small download, where names change.
#[test]
fn kills_at_the_end() {
    let bytes = noise(2, 20_000);
    let server = single(bytes.clone());
    for delay in 0..20 {
        let cache = cache();
        let mut child = start(&server, cache.path());
        let path = beginning(cache.path(), &bytes);
        let mut since = None;
        let ended = wait(&mut child, || {
            if length(&path) > 0 {
                since.get_or_insert_with(Instant::now);
            }
            since.is_some_and(|since| since.elapsed() >= Duration::from_micros(delay * 100))
        });
        if ended.is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let snapshot = cache.path().join(FOLDER).join("snapshots").join(COMMIT);
        let whole = snapshot.join(FILE);
        assert!(!whole.exists() || fs::read(&whole).unwrap() == bytes);
        let folder = open(&hub(&server, cache.path())).unwrap();
        assert!(fs::read(folder.join(FILE)).unwrap() == bytes);
    }
}

#[test]
fn processes_at_once_download_a_file_once() {
    let bytes = noise(3, 1_000_000);
    let (server, cache) = (single(bytes.clone()), cache());
    server.on_piece(|_, _| {
        thread::sleep(Duration::from_millis(1));
        true
    });
    let mut children: Vec<Child> = (0..4).map(|_| start(&server, cache.path())).collect();
    for child in &mut children {
        assert!(wait(child, || false).unwrap().success());
    }
    assert_eq!(server.ranges(FILE), [0]);
    let whole = cache.path().join(FOLDER).join("snapshots").join(COMMIT).join(FILE);
    assert!(fs::read(whole).unwrap() == bytes);
    let left = tree(cache.path());
    assert!(!left.iter().any(|name| name.contains("incomplete") || name.contains("partial")), "{left:?}");
}

/// A disk without space, for which the most bytes that a process may write to a file stand in. The shell ignores the
/// signal of it, and its children with it.
#[test]
fn a_full_disk() {
    let bytes = noise(4, 1_000_000);
    let (server, cache) = (single(bytes.clone()), cache());
    let output = command("trap '' XFSZ; ulimit -f 400;", &server, cache.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("no space") && text.contains("HF_HOME") && text.contains(".incomplete"), "{text}");
    // What fits is kept.
    let kept = length(&beginning(cache.path(), &bytes));
    assert!(kept > 100_000 && kept < 1_000_000, "{kept}");
    let folder = open(&hub(&server, cache.path())).unwrap();
    assert!(fs::read(folder.join(FILE)).unwrap() == bytes);
    assert_eq!(server.ranges(FILE), [0, kept]);
}
