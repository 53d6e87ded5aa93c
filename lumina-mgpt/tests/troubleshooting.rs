//! The messages that the book's page on troubleshooting quotes are those that the error types print.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a panic is the failure")]

use std::io;
use std::path::{Path, PathBuf};

use lumina_core::ImageSize;
use lumina_core::layout::Slot;
use lumina_mgpt::{Compute, Error, StopReason};
use lumina_tokenizer::MalformedImage;

/// The blocks of the page that are marked as `text`: one message each.
fn quotes() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/troubleshooting.md");
    let page = std::fs::read_to_string(page).unwrap().replace("\r\n", "\n");
    page.split("\n```text\n").skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect()
}

/// The errors of the page's examples.
fn messages() -> Vec<String> {
    let path = PathBuf::from;
    let size = |width, height| ImageSize::new(width, height).unwrap();
    let name = "Alpha-VLLM/Lumina-mGPT-7B-768".to_owned();
    let cut = MalformedImage {
        start: 40,
        position: 900,
        expected: Slot::Code { row: 20, column: 3 },
        found: None,
        size: None,
        rows: None,
    };
    let remedy = "it would fit with `Compute::weights` q8, or name more devices for what does not fit: `Compute::then`";
    let own = [
        Error::NotDownloaded { name },
        Error::NoTokenizer { model: path("Alpha-VLLM/Lumina-mGPT-7B-768-Omni") },
        Error::Read { file: path("omni/config.json"), source: io::ErrorKind::NotFound.into() },
        Error::Codebook { codes: 8192, tokens: 512 },
        Error::NoImageTokenizer,
        Error::DoesNotFit {
            needed: 14_600_000_000,
            free: Some(11_500_000_000),
            total: Some(12_900_000_000),
            devices: 1,
            remedy: remedy.to_owned(),
        },
        Error::KvMemory { needed: 1 << 32, tokens: 4096 },
        Error::KvLimit { needed: 20_000_000_000, limit: 16 << 30 },
        Error::KvBudget { needed: 4_000_000, budget: 1000 },
        Error::UnknownTask { task: "detection", known: "text_to_image, captioning".to_owned() },
        Error::UnknownSize { size: size(512, 512), known: "256x256, 384x160".to_owned() },
        Error::PromptTooLong { tokens: 9000, context: 8192 },
        Error::ImageBeyondContext { size: size(1024, 1024), tokens: 4164, prompt: 60, context: 4096 },
        Error::Malformed { malformed: Box::new(cut), stop: Some(StopReason::MaxNewTokens) },
        Error::Answer { expected: "image", found: "I cannot draw.".to_owned(), stop: StopReason::TurnEnd },
        Error::Core(ImageSize::new(700, 500).unwrap_err()),
        Error::Vq(lumina_vq::Error::NoDecoder),
    ];
    let index = || path("omni/model.safetensors.index.json");
    let shards = ["omni/model-00001-of-00002.safetensors", "omni/model-00002-of-00002.safetensors"];
    let checkpoint = [
        lumina_checkpoint::Error::NoCheckpoint {
            folder: path("omni"),
            looked_for: lumina_checkpoint::Checkpoint::folder_files()
                .map(|name| format!("`{name}`"))
                .collect::<Vec<_>>()
                .join(", "),
        },
        lumina_checkpoint::Error::MissingShard { index: index(), shard: "model-00002-of-00002.safetensors".to_owned() },
        lumina_checkpoint::Error::Truncated { file: path(shards[1]), needed: 4_050_000_000, found: 1_200_000_000 },
        lumina_core::Error::LfsPointer { file: path(shards[0]) }.into(),
        lumina_checkpoint::Error::GgufType {
            file: path("model.gguf"),
            tensor: "output.weight".to_owned(),
            found: "iq4_xs".to_owned(),
        },
    ];
    let sampling = lumina_sampling::Error::Option {
        field: "temperature",
        value: "0".to_owned(),
        range: "a finite number from 1e-6; use `greedy` to take the most likely token",
    };
    let others = [
        lumina_nn::Error::Weights { file: path("omni"), n_problems: 2, list: String::new() }.to_string(),
        lumina_nn::Error::DeviceType { device: "wgpu", dtype: lumina_mgpt::Dtype::BF16, choices: "f32 or f16" }
            .to_string(),
        sampling.to_string(),
    ];
    let own = own.iter().map(Error::to_string);
    let checkpoint = checkpoint.iter().map(lumina_checkpoint::Error::to_string);
    own.chain(checkpoint).chain(others).collect()
}

#[cfg(feature = "hub")]
fn messages_of_downloads() -> Vec<String> {
    use lumina_hub::Error;
    let gated = |has_token| Error::Gated { repo: "Alpha-VLLM/Chameleon_7B_mGPT".to_owned(), has_token };
    let errors = [
        gated(false),
        gated(true),
        Error::NoFile { repo: "Alpha-VLLM/Next-DiT".to_owned(), file: "model.safetensors".to_owned() },
        Error::NoRepo { repo: "Alpha-VLLM/Lumina-7B".to_owned(), has_token: false },
        Error::Offline {
            repo: "Alpha-VLLM/Lumina-mGPT-7B-768".to_owned(),
            file: "config.json".to_owned(),
            cache: "/home/me/.cache/huggingface/hub".into(),
        },
        Error::Connect {
            url: "https://huggingface.co/api/models/a/b".to_owned(),
            source: io::ErrorKind::ConnectionRefused.into(),
        },
        Error::DiskFull {
            file: "model.safetensors".into(),
            missing: 4_050_000_000,
            source: io::ErrorKind::StorageFull.into(),
        },
    ];
    errors.iter().map(Error::to_string).collect()
}

/// Without the feature they are of no type that the test can name.
#[cfg(not(feature = "hub"))]
fn messages_of_downloads() -> Vec<String> {
    let is_hubs = ["the repository ", "there is no such folder, ", ": no answer; ", ": no space for "];
    quotes().into_iter().filter(|quote| is_hubs.iter().any(|words| quote.contains(words))).collect()
}

#[test]
fn what_the_page_quotes_is_what_the_errors_print() {
    let printed: Vec<String> = messages().into_iter().chain(messages_of_downloads()).collect();
    let quotes = quotes();
    // The one that names the features of the build.
    let device = "`cuda` is no device of this build; choose one of ";
    for quote in &quotes {
        assert!(printed.contains(quote) || quote.starts_with(device), "no error prints this:\n{quote}\n{printed:#?}");
    }
    for message in &printed {
        assert!(quotes.contains(message), "the page does not quote this:\n{message}");
    }
    if !cfg!(feature = "cuda") {
        let message = "cuda".parse::<Compute>().unwrap_err().to_string();
        assert!(message.starts_with(device) && message.ends_with("others come with Cargo features"), "{message}");
    }
}
