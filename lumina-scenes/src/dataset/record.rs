//! One record: the conversation, its pictures, and the truth about them.

use std::path::PathBuf;

use image::RgbImage;
use lumina_core::{CodeGrid, Vocabulary};
use lumina_tokenizer::{Part, Record, RecordTurn, Task, TaskInput};

use super::{IMAGES, SceneTask};
use crate::random::Draws;
use crate::{Description, Edit, Error, Mention, Relation, Result, Scene, Split};

/// What an answer is judged by.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Truth {
    /// What is asked.
    pub task: SceneTask,
    /// The scene. A caption is right where it says the same as [`Scene::description`].
    pub scene: Scene,
    /// The caption that a picture is asked for by, where one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Description>,
    /// The edit that is asked for, where one is. [`Edit::apply`] gives the right answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edit: Option<Edit>,
}

impl Truth {
    /// Reads it from a line of a records file.
    ///
    /// # Errors
    /// [`Error::Truth`] where the line is not JSON or lacks what this crate writes.
    pub fn from_json(line: &str) -> Result<Self> {
        serde_json::from_str(line).map_err(Error::Truth)
    }
}

/// A record with its pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct SceneRecord {
    /// What its answers are judged by.
    pub truth: Truth,
    /// The conversation, with the paths that its pictures have on disk, relative to the records file.
    pub record: Record,
    /// The pictures in the order of their placeholders.
    pub images: Vec<RgbImage>,
}

impl SceneRecord {
    /// The record of a task on a scene; prompts and edits are drawn.
    pub(crate) fn draw(index: u64, task: SceneTask, scene: Scene, split: Split, draws: &mut Draws) -> Self {
        let prompt = task.begins_with_prompt().then(|| draw_prompt(&scene, draws));
        let edit = task.has_edit().then(|| draw_edit(&scene, split, draws));
        let edited = edit.as_ref().map(|edit| edit.apply(&scene).expect("it was drawn from those that are possible"));

        let mut turns = Vec::new();
        let mut images = vec![scene.picture()];
        if let Some(prompt) = &prompt {
            let input = TaskInput::new().text(prompt.to_string()).size(scene.size());
            turns.extend([question(Task::TextToImage, input), picture_answer()]);
        }
        let picture = || TaskInput::new().image(any_codes());
        match task {
            SceneTask::TextToImage => {}
            SceneTask::Captioning => {
                turns.extend([question(Task::Captioning, picture()), scene.description().to_string()]);
            }
            SceneTask::DepthEstimation => {
                turns.extend([question(Task::DepthEstimation, picture()), picture_answer()]);
                images.push(scene.depth());
            }
            SceneTask::SemanticSegmentation => {
                turns.extend([question(Task::SemanticSegmentation, picture()), picture_answer()]);
                images.push(scene.segmentation());
            }
            SceneTask::Editing | SceneTask::ImageThenEdit => {
                let instruction = edit.as_ref().map_or_else(String::new, Edit::to_string);
                let asked = match task {
                    SceneTask::Editing => question(Task::Editing, picture().text(instruction)),
                    _ => instruction,
                };
                turns.extend([asked, picture_answer()]);
                images.extend(edited.as_ref().map(Scene::picture));
            }
            SceneTask::ImageThenCaption => {
                let asked = Task::Captioning.spec().template.replace(Vocabulary::PLACEHOLDER, "");
                turns.extend([asked.trim_end().to_owned(), scene.description().to_string()]);
            }
        }
        let paths = (0..images.len()).map(|image| PathBuf::from(format!("{IMAGES}/{index:06}-{image}.png")));
        let record = Record {
            conversations: turns.into_iter().zip(["human", "gpt"].into_iter().cycle()).map(turn).collect(),
            image: paths.collect(),
        };
        Self { truth: Truth { task, scene, prompt, edit }, record, images }
    }
}

fn turn((text, from): (String, &str)) -> RecordTurn {
    RecordTurn { from: from.to_owned(), value: Some(text) }
}

/// The answer that is just a picture.
fn picture_answer() -> String {
    Vocabulary::PLACEHOLDER.to_owned()
}

/// Stands for a picture where only its place in the prompt matters.
fn any_codes() -> CodeGrid {
    CodeGrid::new(1, 1, vec![0]).expect("one code")
}

/// The prompt of a task as records spell it.
fn question(task: Task, input: TaskInput) -> String {
    let content = task.prompt(input).expect("what each task takes is given above");
    let spell = |part: Part| match part {
        Part::Text(text) => text,
        Part::Image(_) => Vocabulary::PLACEHOLDER.to_owned(),
    };
    content.0.into_iter().map(spell).collect()
}

/// A caption to ask for a picture by: objects in any order, or, of two objects, one time in three how they lie to each
/// other.
fn draw_prompt(scene: &Scene, draws: &mut Draws) -> Description {
    let mut objects = scene.objects().to_vec();
    draws.shuffle(&mut objects);
    if let [first, second] = objects[..]
        && draws.below(3) == 0
    {
        let holds: Vec<Relation> =
            Relation::ALL.into_iter().filter(|relation| relation.holds(first.cell, second.cell)).collect();
        let relation = draws.pick(&holds).expect("two cells differ in column or row");
        return Description::relation(first.kind, relation, second.kind, scene.background());
    }
    let mentions: Vec<Mention> = objects.iter().map(|object| scene.mention(object)).collect();
    Description::list(mentions, scene.background()).expect("as many objects as the scene has")
}

/// An edit: first what is done, then to which object, so that no sort of edit is rare.
fn draw_edit(scene: &Scene, split: Split, draws: &mut Draws) -> Edit {
    let mut edits = Edit::possible(scene);
    edits.retain(|edit| edit.apply(scene).is_ok_and(|edited| split.admits(&edited)));
    let mut sorts = Vec::new();
    for sort in edits.iter().map(std::mem::discriminant) {
        if !sorts.contains(&sort) {
            sorts.push(sort);
        }
    }
    let sort = draws.pick(&sorts);
    edits.retain(|edit| Some(std::mem::discriminant(edit)) == sort);
    draws.pick(&edits).expect("the background can always be changed")
}
