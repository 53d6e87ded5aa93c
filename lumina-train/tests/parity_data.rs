//! The training data of the original: `training/` of the reference data.
//!
//! Tolerance: none. Everything here is integers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's panic is its failure, in helpers too")]

use std::path::Path;

use lumina_testing::{cases, integers, json, part, report};
use lumina_train::data::{
    Batch, BatchSampler, IndexEntry, Item, ItemGroup, ItemOrder, LastLine, SamplerOptions, TokenItems, concatenate,
    read_pickled,
};
use serde_json::Value;

fn rows<T: TryFrom<i64>>(case: &Value, key: &str) -> Vec<Vec<T>> {
    case[key].as_array().unwrap_or_else(|| panic!("no `{key}`")).iter().map(integers).collect()
}

fn number(case: &Value, key: &str) -> usize {
    case[key].as_u64().unwrap_or_else(|| panic!("no `{key}`")) as usize
}

#[test]
fn batches() {
    let cases = cases("training/steps.json");
    for case in &cases {
        let (tokens, labels) = (rows(case, "tokens"), rows(case, "labels"));
        let items = tokens.into_iter().zip(labels).map(|(tokens, labels)| Item { id: 0, tokens, labels });
        let model = json(&format!("model/{}/config.json", case["model"].as_str().unwrap()));
        let max_len = &case["config"]["max_position_embeddings"];
        let max_len = if max_len.is_null() { &model["max_position_embeddings"] } else { max_len };
        let batch = Batch::collate(items, max_len.as_u64().unwrap() as usize).unwrap();
        assert_eq!(batch.n_predicted(), number(case, "counted_labels"), "{}", case["name"]);
        let padded = batch.padded();
        assert_eq!(padded.tokens, rows::<u32>(case, "collated_tokens"), "{}", case["name"]);
        assert_eq!(padded.labels, rows::<i64>(case, "collated_labels"), "{}", case["name"]);
    }
    report("batches", cases.len());
}

#[test]
fn sampler() {
    let mut ran = 0;
    for case in cases("training/sampler.json") {
        let group = |meta: &Value| ItemGroup {
            kind: meta["type"].as_str().unwrap().to_owned(),
            ratio: meta["ratio"].as_f64().unwrap(),
            lens: integers(&meta["item_len_list"]),
        };
        let groups: Vec<ItemGroup> = case["metas"].as_array().unwrap().iter().map(group).collect();
        let batch_size = number(&case, "batch_size");
        for expected in case["ranks"].as_array().unwrap() {
            let options = SamplerOptions {
                batch_size,
                accumulation: number(&case, "acc_grad"),
                rank: number(expected, "rank"),
                ranks: number(&case, "num_replicas"),
                order: ItemOrder::Stored,
            };
            let sampler = BatchSampler::new(groups.clone(), options).unwrap();
            let batches = sampler.epoch(0);
            assert!(batches.iter().all(|batch| batch.len() == batch_size));
            assert_eq!(batches.len(), sampler.n_batches());
            assert_eq!(batches.concat(), integers::<usize>(&expected["indices"]));
            assert_eq!(batches.concat().len(), number(expected, "num_samples"));
            assert_eq!(batches[2..].concat(), integers::<usize>(&expected["from_iter_2"]));
            ran += 1;
        }
    }
    report("sampler", ran);
}

/// The item as the reference has it in JSON.
fn expected_item(pickle: &Path) -> Item {
    let name = pickle.file_stem().unwrap().to_str().unwrap();
    let item = json(&format!("training/pickled/{name}.json"));
    Item { id: number(&item, "id") as u64, tokens: integers(&item["token"]), labels: integers(&item["label"]) }
}

#[test]
fn pickled_items() {
    let mut ran = 0;
    for file in std::fs::read_dir(part("training/pickled")).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "pkl") {
            assert_eq!(read_pickled(&file).unwrap(), expected_item(&file), "{}", file.display());
            ran += 1;
        }
    }
    report("pickled items", ran);

    let index = part("training/record.json");
    let items = TokenItems::open(&index).unwrap();
    let (entries, _) = IndexEntry::read_all(&index).unwrap();
    assert_eq!(items.len(), entries.len());
    for (place, entry) in entries.iter().enumerate() {
        assert_eq!(items.get(place).unwrap(), expected_item(Path::new(&entry.file)));
    }
}

#[test]
fn concatenation() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ran, mut unfinished) = (0, 0);
    for file in std::fs::read_dir(part("training")).unwrap() {
        let file = file.unwrap();
        if file.file_name().to_str().unwrap().ends_with("-record.jsonl") {
            std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
            unfinished += usize::from(IndexEntry::read_all(&file.path()).unwrap().1 == LastLine::Unfinished);
            ran += 1;
        }
    }
    let done = concatenate(folder.path()).unwrap();
    let written: Value = serde_json::from_slice(&std::fs::read(&done.index).unwrap()).unwrap();
    assert_eq!(written, json("training/record.json"));
    assert_eq!((done.items, done.unfinished.len()), (written.as_array().unwrap().len(), unfinished));
    report("concatenation", ran);
}
