//! Models by their names on the hub, from a server on loopback: what is downloaded of a repository, and that it is the
//! model that its folder is.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a panic is the failure")]
#![cfg(feature = "hub")]

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lumina_mgpt::{Compute, Error, Hub, Lumina};
use lumina_testing::hub_server::{COMMIT, HubServer, Reply};
use tempfile::TempDir;

const REPO: &str = "owner/small-model";

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A repository with files of this one, under other names perhaps.
fn server(files: &[(&str, &str)]) -> HubServer {
    let server = HubServer::new(REPO);
    for (name, path) in files {
        let is_lfs = !name.ends_with("json") && !name.ends_with("yaml");
        server.put(name, std::fs::read(file(path)).unwrap(), is_lfs);
    }
    server
}

fn small_model() -> HubServer {
    server(&[
        ("config.json", "model/config.json"),
        ("generation_config.json", "model/generation_config.json"),
        ("model.safetensors", "model/model.safetensors"),
        ("tokenizer.json", "model/tokenizer.json"),
        ("tokenizer_config.json", "model/tokenizer_config.json"),
        ("vqgan.safetensors", "model/vqgan.safetensors"),
        ("vqgan.yaml", "model/vqgan.yaml"),
        ("scene.png", "model/scene.png"),
    ])
}

fn hub(server: &HubServer, cache: &TempDir) -> Hub {
    Hub::new(cache.path()).endpoint(server.endpoint()).retries(1, Duration::from_millis(1))
}

fn tokens(model: &Lumina) -> Vec<u8> {
    let size = model.default_size();
    let image =
        model.text_to_image("a red circle", (size.width_px(), size.height_px())).greedy().seed(1).run().unwrap();
    image.into_raw()
}

#[test]
fn the_small_model_by_its_name() {
    let (server, cache) = (small_model(), tempfile::tempdir().unwrap());
    let (bytes, total) = (Cell::new(0), Cell::new(0));
    let hub = hub(&server, &cache);
    let model = Lumina::from_pretrained(REPO)
        .hub(hub.clone())
        .on_download(|progress| {
            bytes.set(progress.bytes);
            total.set(progress.total_bytes);
        })
        .compute(Compute::cpu())
        .load()
        .unwrap();
    let weights = file("model/model.safetensors").metadata().unwrap().len();
    assert!(bytes.get() == total.get() && total.get() > weights, "{} of {}", bytes.get(), total.get());
    let folder = cache.path().join("models--owner--small-model/snapshots").join(COMMIT);
    assert!(folder.join("generation_config.json").exists() && !folder.join("scene.png").exists());

    let local = Lumina::from_pretrained(file("model")).compute(Compute::cpu()).load().unwrap();
    assert!(tokens(&model) == tokens(&local), "the model is another");

    // The second time, by a commit, and without a connection.
    let connections = server.connections();
    for name in [REPO.to_owned(), format!("{REPO}@{COMMIT}")] {
        Lumina::from_pretrained(name).hub(hub.clone()).compute(Compute::cpu()).load().unwrap();
    }
    Lumina::from_pretrained(REPO).hub(hub.offline(true)).compute(Compute::cpu()).load().unwrap();
    assert_eq!(server.connections(), connections);
}

/// A kill has left all but the image tokenizer's weights; `model.safetensors` must not be taken for them.
#[test]
fn a_download_that_ended_before_the_image_tokenizer() {
    let (server, cache) = (small_model(), tempfile::tempdir().unwrap());
    let open = || Lumina::from_pretrained(REPO).hub(hub(&server, &cache)).compute(Compute::cpu()).load();
    open().unwrap();
    let repository = cache.path().join("models--owner--small-model");
    let weights = repository.join("snapshots").join(COMMIT).join("vqgan.safetensors");
    std::fs::remove_file(weights.canonicalize().unwrap()).unwrap();
    std::fs::remove_file(&weights).unwrap();
    std::fs::remove_dir_all(repository.join(".no_exist")).unwrap();
    open().unwrap();
    assert!(weights.exists());
}

/// Shards, and the other parts from repositories of their own.
#[test]
fn parts_from_several_repositories() {
    let reference = "tests/reference/model/prenorm";
    let name = |name: &str| format!("{reference}/{name}");
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let index = "model.safetensors.index.json";
    let own = ["config.json", "tokenizer.json", index, shards[0], shards[1]].map(|file| (file, name(file)));
    let own: Vec<(&str, &str)> = own.iter().map(|(name, path)| (*name, path.as_str())).collect();
    let server = server(&own);
    for (name, path) in [("vqgan.yaml", "vqgan.yaml"), ("vqgan.ckpt", "vqgan.ckpt")] {
        let bytes = std::fs::read(file("tests/reference/vq").join(path)).unwrap();
        server.put(&format!("tokenizer/{name}"), bytes, true);
    }
    let cache = tempfile::tempdir().unwrap();
    let builder = || Lumina::from_pretrained(REPO).hub(hub(&server, &cache)).compute(Compute::cpu()).target_size_px(96);
    let model = builder().load().unwrap();
    assert!(model.image_tokenizer().unwrap().has_decoder());
    let model = builder().image_tokenizer(REPO).tokenizer(REPO).load().unwrap();
    assert!(model.image_tokenizer().unwrap().has_decoder());
    // As in `Alpha-VLLM/Chameleon_7B_mGPT`, by which the published models without an image tokenizer are completed.
    let images = HubServer::new(REPO);
    for name in ["vqgan.yaml", "vqgan.ckpt"] {
        let bytes = std::fs::read(file("tests/reference/vq").join(name)).unwrap();
        images.put(&format!("original_tokenizers/{name}"), bytes, true);
    }
    let (folder, cache) = (file(reference), tempfile::tempdir().unwrap());
    let model = Lumina::from_pretrained(folder).image_tokenizer(REPO).hub(hub(&images, &cache)).compute(Compute::cpu());
    assert!(model.load().unwrap().image_tokenizer().unwrap().has_decoder());
    // Most published models have no text tokenizer, nor have their folders.
    let (mute, cache) = (HubServer::new(REPO), tempfile::tempdir().unwrap());
    for (name, path) in own.iter().filter(|(name, _)| *name != "tokenizer.json") {
        mute.put(name, std::fs::read(file(path)).unwrap(), false);
    }
    let model = || Lumina::from_pretrained(REPO).hub(hub(&mute, &cache)).compute(Compute::cpu());
    let error = model().load().unwrap_err();
    assert!(matches!(&error, Error::NoTokenizer { model } if model == Path::new(REPO)), "{error}");
    model().tokenizer(file(reference)).load().unwrap();
    let folder = cache.path().join("models--owner--small-model/snapshots").join(COMMIT);
    let error = Lumina::from_pretrained(&folder).compute(Compute::cpu()).load().unwrap_err();
    assert!(matches!(&error, Error::NoTokenizer { model } if *model == folder), "{error}");
    // The repository has no adapter.
    let error = builder().adapter(REPO).load().unwrap_err();
    let Error::Hub(lumina_hub::Error::NoFile { file, .. }) = &error else { panic!("{error}") };
    assert_eq!(file, "adapter_config.json");
}

#[test]
fn what_is_local_comes_first_and_what_is_refused_says_why() {
    let (server, cache) = (small_model(), tempfile::tempdir().unwrap());
    let open = |name: &str| Lumina::from_pretrained(name).hub(hub(&server, &cache)).compute(Compute::cpu()).load();
    // A folder of that name, as the tests run in the crate's folder: it is looked into, and it is no model.
    let error = open("tests/parity").unwrap_err();
    assert!(matches!(error, Error::Checkpoint(_)), "{error}");
    assert_eq!(server.connections(), 0);
    let error = open("owner/other").unwrap_err();
    assert!(matches!(error, Error::Hub(lumina_hub::Error::NoRepo { .. })), "{error}");
    let error = open("owner/a--b").unwrap_err();
    assert!(matches!(error, Error::Hub(lumina_hub::Error::Name { .. })), "{error}");
    server.on_request(|_| Reply::Status(403, "GatedRepo"));
    let error = open(REPO).unwrap_err().to_string();
    assert!(error.contains("gated") && error.contains("HF_TOKEN"), "{error}");
    // A path that is no name is one.
    for path in ["no_such_folder", "./no/such", "no/such/folder"] {
        assert!(!matches!(open(path).unwrap_err(), Error::Hub(_)), "{path}");
    }
}
