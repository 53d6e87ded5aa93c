//! What `train_tiny` trains with.
#![allow(clippy::unwrap_used, reason = "a test's panic is its failure")]

#[path = "../train_tiny/plan.rs"]
#[allow(dead_code, reason = "the stages read all of it")]
mod plan;

use std::collections::{BTreeSet, HashSet};

use lumina_scenes::dataset::SceneDataset;
use lumina_scenes::free_prompts;

use plan::Plan;

#[test]
fn no_training_prompt_is_a_free_one() {
    let sentence = |text: &str| {
        let text = text.to_lowercase();
        let runs = text.split(|character: char| !(character.is_alphanumeric() || character == '\''));
        runs.filter(|run| !run.is_empty()).collect::<Vec<_>>().join(" ")
    };
    let free: HashSet<String> = free_prompts().iter().map(|prompt| sentence(prompt.text)).collect();
    let plan = Plan::full();
    let mut n_prompts = 0;
    let mut found = BTreeSet::new();
    for options in std::iter::once(&plan.fp_sft).chain(&plan.omni_sft).flat_map(|part| &part.data) {
        let training = SceneDataset::new(options.clone()).unwrap();
        for texts in (0..options.n_records).map(|index| training.texts(index)) {
            if let Some((_, prompt)) = texts[0].split_once("prompt:\n") {
                n_prompts += 1;
                found.extend(free.get(&sentence(prompt)));
            }
        }
    }
    assert!(found.is_empty(), "{found:?}");
    assert!(n_prompts > 150_000, "{n_prompts}");
}
