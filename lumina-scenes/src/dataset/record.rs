//! One record: a conversation, its images and its ground truth.

use std::path::PathBuf;

use image::RgbImage;
use lumina_core::{CodeGrid, Vocabulary};
use lumina_tokenizer::{Part, Record, RecordTurn, Task, TaskInput};

use super::ground_truth::GroundTruth;
use super::task::SceneTask;
use crate::random::SeededRng;
use crate::{Caption, Edit, Mention, Relation, Scene, Split};

/// The folder of a dataset's images, next to the records file.
pub const IMAGES_FOLDER: &str = "images";

/// A record with its images.
#[derive(Debug, Clone, PartialEq)]
pub struct SceneRecord {
    /// What its answers are evaluated against.
    pub ground_truth: GroundTruth,
    /// The conversation, with the paths of its images on disk, relative to the records file.
    pub record: Record,
    /// The images in the order of their placeholders.
    pub images: Vec<RgbImage>,
}

impl SceneRecord {
    /// The record of a task on a scene. The prompt and the edit are random.
    pub(super) fn random(index: u64, task: SceneTask, scene: Scene, split: Split, rng: &mut SeededRng) -> Self {
        let prompt = task.has_prompt().then(|| random_prompt(&scene, rng));
        let edit = task.has_edit().then(|| random_edit(&scene, split, rng));
        let edited = edit.as_ref().map(|edit| edit.apply(&scene).expect("it is one of the possible edits"));

        let mut turns = Vec::new();
        let mut images = vec![scene.image()];
        if let Some(prompt) = &prompt {
            let input = TaskInput::new().text(prompt.to_string()).size(scene.size());
            turns.extend([question(Task::TextToImage, input), image_answer()]);
        }
        let image_input = || TaskInput::new().image(placeholder_codes());
        match task {
            SceneTask::TextToImage => {}
            SceneTask::Captioning => {
                turns.extend([question(Task::Captioning, image_input()), scene.caption().to_string()]);
            }
            SceneTask::DepthEstimation => {
                turns.extend([question(Task::DepthEstimation, image_input()), image_answer()]);
                images.push(scene.depth_map());
            }
            SceneTask::SemanticSegmentation => {
                turns.extend([question(Task::SemanticSegmentation, image_input()), image_answer()]);
                images.push(scene.segmentation_map());
            }
            SceneTask::Editing | SceneTask::ImageThenEdit => {
                let instruction = edit.as_ref().map_or_else(String::new, Edit::to_string);
                let text = match task {
                    SceneTask::Editing => question(Task::Editing, image_input().text(instruction)),
                    _ => instruction,
                };
                turns.extend([text, image_answer()]);
                images.extend(edited.as_ref().map(Scene::image));
            }
            SceneTask::ImageThenCaption => {
                let text = Task::Captioning.spec().template.replace(Vocabulary::PLACEHOLDER, "");
                turns.extend([text.trim_end().to_owned(), scene.caption().to_string()]);
            }
        }
        let paths = (0..images.len()).map(|image| PathBuf::from(format!("{IMAGES_FOLDER}/{index:06}-{image}.png")));
        let record = Record {
            conversations: turns.into_iter().zip(["human", "gpt"].into_iter().cycle()).map(turn).collect(),
            image: paths.collect(),
        };
        Self { ground_truth: GroundTruth { task, scene, prompt, edit }, record, images }
    }
}

fn turn((text, from): (String, &str)) -> RecordTurn {
    RecordTurn { from: from.to_owned(), value: Some(text) }
}

/// An answer that consists of one image.
fn image_answer() -> String {
    Vocabulary::PLACEHOLDER.to_owned()
}

/// Any codes: records contain a placeholder in their place.
fn placeholder_codes() -> CodeGrid {
    CodeGrid::new(1, 1, vec![0]).expect("one code")
}

/// The prompt of a task, with placeholders for images.
fn question(task: Task, input: TaskInput) -> String {
    let content = task.prompt(input).expect("each task gets the input that it needs");
    let text = |part: Part| match part {
        Part::Text(text) => text,
        Part::Image(_) => Vocabulary::PLACEHOLDER.to_owned(),
    };
    content.0.into_iter().map(text).collect()
}

/// A caption of the scene: its objects in random order or, one time in three if there are two objects, their relation.
fn random_prompt(scene: &Scene, rng: &mut SeededRng) -> Caption {
    let mut objects = scene.objects().to_vec();
    rng.shuffle(&mut objects);
    if let [first, second] = objects[..]
        && rng.below(3) == 0
    {
        let holds: Vec<Relation> = Relation::ALL
            .into_iter()
            .filter(|relation| relation.holds(first.centre_px(), second.centre_px()))
            .collect();
        let relation = rng.choose(&holds).expect("two objects differ in column or row");
        let [first, second] = [first, second].map(|object| Mention::of(object.kind));
        return Caption::relation(first, relation, second, Some(scene.backdrop()));
    }
    let mentions: Vec<Mention> = objects.iter().map(|object| scene.mention(object)).collect();
    Caption::list(mentions, Some(scene.backdrop())).expect("as many objects as the scene has")
}

/// A possible edit. The type of edit is chosen first, then the edit, so that no type is rare.
fn random_edit(scene: &Scene, split: Split, rng: &mut SeededRng) -> Edit {
    let mut edits = Edit::possible(scene);
    edits.retain(|edit| edit.apply(scene).is_ok_and(|edited| split.allows(&edited)));
    let mut edit_types = Vec::new();
    for edit_type in edits.iter().map(std::mem::discriminant) {
        if !edit_types.contains(&edit_type) {
            edit_types.push(edit_type);
        }
    }
    let edit_type = rng.choose(&edit_types);
    edits.retain(|edit| Some(std::mem::discriminant(edit)) == edit_type);
    rng.choose(&edits).expect("the background can always be changed")
}
