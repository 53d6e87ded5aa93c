//! One record: a conversation, its images and its ground truth.

use std::path::PathBuf;

use image::RgbImage;
use lumina_core::{CodeGrid, Vocabulary};
use lumina_tokenizer::{Part, Record, RecordTurn, Task, TaskInput};

use super::ground_truth::GroundTruth;
use super::prompts::random_prompt;
use super::task::SceneTask;
use crate::random::SeededRng;
use crate::{Edit, Question, Scene, Split, Wording};

/// The folder of a dataset's images, next to the records file.
pub const IMAGES_FOLDER: &str = "images";

/// A record with its images.
#[derive(Debug, Clone, PartialEq)]
pub struct SceneRecord {
    /// What its answers are evaluated against.
    pub ground_truth: GroundTruth,
    /// The conversation, with the paths of its images on disk, relative to the records file.
    pub record: Record,
    /// What a person types first: prompt, instruction or question in people's words, without what the task puts around
    /// it. Empty for tasks that take no text.
    pub typed: String,
    /// The images in the order of their placeholders.
    pub images: Vec<RgbImage>,
}

/// The texts of a record, and what its answers are evaluated against: all but its images.
pub(super) struct Texts {
    pub(super) ground_truth: GroundTruth,
    /// As in [`SceneRecord`].
    pub(super) typed: String,
    /// Questions and answers in turn.
    pub(super) turns: Vec<String>,
}

impl Texts {
    /// The texts of a task on a scene. Prompt, edit and question are random, and so is their wording.
    pub(super) fn random(
        task: SceneTask,
        scene: Scene,
        split: Split,
        rng: &mut SeededRng,
        words: &mut Wording,
    ) -> Self {
        let prompt = task.has_prompt().then(|| random_prompt(&scene, rng));
        let edit = task.has_edit().then(|| Edit::random(&scene, split, rng));
        let asked = task.has_question().then(|| Question::random(&scene, rng));

        let (mut turns, mut typed) = (Vec::new(), String::new());
        if let Some(prompt) = &prompt {
            typed = words.caption(prompt);
            let input = TaskInput::new().text(typed.as_str()).size(scene.size());
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
            }
            SceneTask::SemanticSegmentation => {
                turns.extend([question(Task::SemanticSegmentation, image_input()), image_answer()]);
            }
            SceneTask::Editing | SceneTask::ImageThenEdit => {
                let instruction = edit.as_ref().map_or_else(String::new, |edit| words.edit(edit));
                let text = match task {
                    SceneTask::Editing => {
                        typed.clone_from(&instruction);
                        question(Task::Editing, image_input().text(instruction))
                    }
                    _ => instruction,
                };
                turns.extend([text, image_answer()]);
            }
            SceneTask::ImageThenCaption => {
                let text = Task::Captioning.spec().template.replace(Vocabulary::PLACEHOLDER, "");
                turns.extend([words.describe(text.trim_end()), scene.caption().to_string()]);
            }
            SceneTask::Question | SceneTask::ImageThenQuestion => {
                if let Some((asked, answer)) = &asked {
                    let text = words.question(asked);
                    let text = match task {
                        SceneTask::Question => {
                            typed.clone_from(&text);
                            question(Task::FreeForm, image_input().text(text))
                        }
                        _ => text,
                    };
                    turns.extend([text, answer.clone()]);
                }
            }
        }
        let answer = asked.map(|(_, answer)| answer);
        Self { ground_truth: GroundTruth { task, scene, prompt, edit, answer }, typed, turns }
    }

    /// Puts the caption of the edited scene before its image, if there is an edit.
    pub(super) fn describe_edit(&mut self) {
        let GroundTruth { scene, edit, .. } = &self.ground_truth;
        if let (Some(edit), Some(answer)) = (edit, self.turns.last_mut()) {
            answer.insert_str(0, &edited(scene, *edit).caption().to_string());
        }
    }

    /// Another question about the scene, if it is the last image.
    pub(super) fn ask_more(&mut self, rng: &mut SeededRng, words: &mut Wording) {
        if self.ground_truth.task.ends_with_the_scene() {
            let (asked, answer) = Question::random(&self.ground_truth.scene, rng);
            self.turns.extend([words.question(&asked), answer]);
        }
    }
}

impl SceneRecord {
    /// The record of these texts.
    pub(super) fn new(index: u64, Texts { ground_truth, typed, turns }: Texts) -> Self {
        let scene = &ground_truth.scene;
        let mut images = vec![scene.image()];
        match ground_truth.task {
            SceneTask::DepthEstimation => images.push(scene.depth_map()),
            SceneTask::SemanticSegmentation => images.push(scene.segmentation_map()),
            _ => {}
        }
        if let Some(edit) = ground_truth.edit {
            images.push(edited(scene, edit).image());
        }
        let paths = (0..images.len()).map(|image| PathBuf::from(format!("{IMAGES_FOLDER}/{index:06}-{image}.png")));
        let record = Record {
            conversations: turns.into_iter().zip(["human", "gpt"].into_iter().cycle()).map(turn).collect(),
            image: paths.collect(),
        };
        Self { ground_truth, record, typed, images }
    }
}

fn edited(scene: &Scene, edit: Edit) -> Scene {
    edit.apply(scene).expect("it is one of the possible edits")
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
