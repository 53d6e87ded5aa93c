//! The tasks that checkpoints were trained on: the prompt of each, and how the original samples its answer.

use std::fmt;
use std::str::FromStr;

use lumina_core::{CodeGrid, ImageSize};

use crate::{Content, Error, Part, Result};

/// The prompt of a task, its inputs and its output, and how the original samples the answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TaskSpec {
    /// Its name, as in JSON and on a command line.
    pub name: &'static str,
    /// Its prompt, in which `{prompt}`, `{width}`, `{height}` and `<|image|>` are replaced by the input.
    pub template: &'static str,
    /// The number of input images; `None` for any number.
    pub images: Option<usize>,
    /// What the answer is made of.
    pub output: TaskOutput,
    /// How the original samples the answer.
    pub defaults: TaskDefaults,
}

impl TaskSpec {
    /// Whether the task takes a text.
    pub fn takes_text(&self) -> bool {
        self.template.contains("{prompt}")
    }

    /// Whether the task takes the size of the image to generate.
    pub fn takes_size(&self) -> bool {
        self.template.contains("{width}")
    }
}

/// What the answer to a task is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskOutput {
    /// Text.
    Text,
    /// An image.
    Image,
    /// Text and images, as the model chooses.
    Any,
}

/// How the original samples the answer to a task: the values of its README, or else of its demos.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TaskDefaults {
    /// Scale of classifier-free guidance in images; 1 is none.
    pub guidance_scale: f32,
    /// The number of most likely image tokens to draw from.
    pub image_top_k: usize,
    /// The number of most likely text tokens to draw from.
    pub text_top_k: usize,
    /// Temperature.
    pub temperature: f32,
    /// The most tokens to generate.
    pub max_new_tokens: usize,
    /// The target size that input images are cropped for, in pixels.
    pub target_size_px: u32,
}

/// README, "simple inference".
const README: TaskDefaults = TaskDefaults {
    guidance_scale: 4.0,
    image_top_k: 2000,
    text_top_k: 10,
    temperature: 1.0,
    max_new_tokens: 8192,
    target_size_px: 768,
};

/// `demos/demo_image2image.py`.
const IMAGE_TO_IMAGE: TaskDefaults =
    TaskDefaults { guidance_scale: 1.0, image_top_k: 200, text_top_k: 5, max_new_tokens: 5000, ..README };

/// An image from an image, as `demos/demo_image2image.py` asks for it.
const fn image_to_image(name: &'static str, template: &'static str) -> TaskSpec {
    TaskSpec { name, template, images: Some(1), output: TaskOutput::Image, defaults: IMAGE_TO_IMAGE }
}

/// Declares [`Task`] from the table of tasks.
macro_rules! tasks {
    ($($(#[$attribute:meta])* $task:ident = $spec:expr,)+) => {
        /// A task that a Lumina-mGPT checkpoint is trained for (arXiv 2408.02657, Omni-SFT).
        ///
        /// A task is its [`TaskSpec`]; all tasks go through the same generation loop.
        ///
        /// ```
        /// use lumina_tokenizer::{Conversation, Task, TaskInput};
        ///
        /// let input = TaskInput::new().text("a red car").size(lumina_core::ImageSize::new(768, 512)?);
        /// let prompt = Conversation::new().human(Task::TextToImage.prompt(input)?);
        /// assert_eq!(Task::TextToImage.spec().defaults.guidance_scale, 4.0);
        /// assert_eq!("depth_estimation".parse::<Task>()?, Task::DepthEstimation);
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        #[non_exhaustive]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Task {
            $($(#[$attribute])* $task,)+
        }

        impl Task {
            /// All tasks.
            pub const ALL: [Self; [$(stringify!($task)),+].len()] = [$(Self::$task),+];

            /// The prompt of the task, its inputs and its output, and how the original samples the answer.
            pub const fn spec(self) -> TaskSpec {
                match self {
                    $(Self::$task => $spec,)+
                }
            }
        }
    };
}

// The prompts are the original's to the letter, `Segmentic` included. A task's name is its variant's, in snake case.
tasks! {
    /// An image of a given size from a text.
    TextToImage = TaskSpec {
        name: "text_to_image",
        template: "Generate an image of {width}x{height} according to the following prompt:\n{prompt}",
        images: Some(0),
        output: TaskOutput::Image,
        defaults: README,
    },
    /// A text that describes an image.
    Captioning = TaskSpec {
        name: "captioning",
        template: "Describe the image in detail. <|image|>",
        images: Some(1),
        output: TaskOutput::Text,
        defaults: TaskDefaults { target_size_px: 512, ..README },
    },
    /// A depth map of an image.
    DepthEstimation = TaskSpec {
        defaults: TaskDefaults { guidance_scale: 1.0, image_top_k: 200, ..README },
        ..image_to_image("depth_estimation", "Depth estimation. <|image|>")
    },
    /// A segmentation map of an image.
    SemanticSegmentation = image_to_image("semantic_segmentation", "Segmentic segmentation. <|image|>"),
    /// The surface normals of an image.
    SurfaceNormalEstimation = image_to_image("surface_normal_estimation", "Surface normal estimation. <|image|>"),
    /// The poses of the people in an image.
    HumanPoseEstimation = image_to_image("human_pose_estimation", "Human pose estimation. <|image|>"),
    /// An image with boxes around what a text names.
    Detection = image_to_image("detection", "Detect: {prompt} <|image|>"),
    /// An image changed as a text says.
    Editing = image_to_image("editing", "{prompt} <|image|>"),
    /// An image from a text and a guiding image: depth, segmentation, pose, ….
    ConditionalGeneration = image_to_image(
        "conditional_generation",
        "Generate an image according to the provided image, and according to the following caption:\n\
         {prompt} <|image|>",
    ),
    /// Anything: text and images in, text and images out.
    FreeForm = TaskSpec {
        name: "free_form",
        template: "{prompt}",
        images: None,
        output: TaskOutput::Any,
        defaults: TaskDefaults { image_top_k: 2000, max_new_tokens: 2048, ..IMAGE_TO_IMAGE },
    },
}

/// The input of a task.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TaskInput {
    /// The user's text.
    pub text: Option<String>,
    /// The size of the image to generate.
    pub size: Option<ImageSize>,
    /// The images.
    pub images: Vec<CodeGrid>,
}

impl TaskInput {
    /// No input.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the user's text.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Sets the size of the image to generate.
    #[must_use]
    pub fn size(mut self, size: ImageSize) -> Self {
        self.size = Some(size);
        self
    }

    /// Adds an image.
    #[must_use]
    pub fn image(mut self, image: CodeGrid) -> Self {
        self.images.push(image);
        self
    }
}

impl Task {
    /// Checks that an input is all that the task takes, and no more.
    ///
    /// # Errors
    /// [`Error::TaskInput`].
    pub fn check(self, input: &TaskInput) -> Result<()> {
        let spec = self.spec();
        let wrong = |expected: String, found: String| Err(Error::TaskInput { task: self, expected, found });
        let present = |given: bool, what: &str| if given { format!("a {what}") } else { format!("no {what}") };
        for (takes, what, given) in
            [(spec.takes_text(), "text", input.text.is_some()), (spec.takes_size(), "size", input.size.is_some())]
        {
            if takes != given {
                return wrong(present(takes, what), present(given, what));
            }
        }
        // Free-form, an image alone is something to answer.
        let is_empty = input.text.as_ref().is_some_and(|text| text.trim().is_empty());
        if is_empty && (spec.images.is_some() || input.images.is_empty()) {
            return wrong(present(true, "text"), "an empty one: say what is wanted".to_owned());
        }
        match spec.images {
            Some(images) if images != input.images.len() => {
                wrong(format!("an image count of {images}"), input.images.len().to_string())
            }
            _ => Ok(()),
        }
    }

    /// The human turn that asks for the task.
    ///
    /// Input is inserted at the slots of the template only: a text that contains `{width}` or `<|image|>` is not
    /// changed. Free-form images come before the text.
    ///
    /// # Errors
    /// [`Error::TaskInput`] where the task takes more input, or less.
    pub fn prompt(self, input: TaskInput) -> Result<Content> {
        self.check(&input)?;
        let spec = self.spec();

        let mut images = input.images.into_iter().map(Part::Image);
        let mut parts: Vec<Part> = Vec::new();
        let mut add = |part: Part| match (parts.last_mut(), part) {
            (Some(Part::Text(text)), Part::Text(more)) => text.push_str(&more),
            (_, part) => parts.push(part),
        };
        if spec.images.is_none() {
            images.by_ref().flat_map(|image| [image, Part::from(" ")]).for_each(&mut add);
        }
        for piece in pieces(spec.template) {
            let part = match piece {
                "{prompt}" => input.text.clone().map(Part::Text),
                "{width}" => input.size.map(|size| size.width_px().to_string().into()),
                "{height}" => input.size.map(|size| size.height_px().to_string().into()),
                "<|image|>" => images.next(),
                text => Some(text.into()),
            };
            part.into_iter().for_each(&mut add);
        }
        Ok(Content(parts))
    }

    /// The names of all tasks, for messages.
    pub(crate) fn names() -> String {
        Self::ALL.map(|task| format!("`{task}`")).join(", ")
    }
}

/// Splits a template into its slots and the texts between them.
fn pieces(template: &str) -> impl Iterator<Item = &str> {
    const SLOTS: [&str; 4] = ["{prompt}", "{width}", "{height}", "<|image|>"];
    let mut rest = template;
    std::iter::from_fn(move || {
        let slot = SLOTS.iter().filter_map(|slot| Some((rest.find(slot)?, slot.len()))).min();
        let length = match slot {
            Some((0, length)) => length,
            Some((before, _)) => before,
            None => rest.len(),
        };
        let (piece, after) = rest.split_at(length);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.spec().name)
    }
}

impl FromStr for Task {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|task| task.spec().name == name)
            .ok_or_else(|| Error::UnknownTask { name: name.to_owned() })
    }
}

impl std::fmt::Debug for TaskInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskInput")
            .field("text_bytes", &self.text.as_ref().map(String::len))
            .field("size", &self.size)
            .field("images", &self.images.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> CodeGrid {
        CodeGrid::new(2, 2, vec![0; 4]).expect("four codes")
    }

    fn spelled(content: &Content) -> String {
        let spell = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Image(_) => "[image]".to_owned(),
        };
        content.0.iter().map(spell).collect()
    }

    #[test]
    fn names_are_the_same_everywhere() {
        for task in Task::ALL {
            assert_eq!(task.to_string().parse::<Task>().expect("its own name"), task);
            assert_eq!(serde_json::to_value(task).expect("a string"), task.to_string());
        }
        let message = "panting".parse::<Task>().expect_err("no task").to_string();
        assert!(message.contains("`panting`") && message.contains("`editing`"), "{message}");
    }

    #[test]
    fn what_a_user_types_is_not_filled_in() {
        let size = ImageSize::new(64, 32).expect("multiples");
        let input = TaskInput::new().text("{width} {prompt} <|image|>").size(size);
        assert_eq!(
            spelled(&Task::TextToImage.prompt(input).expect("complete")),
            "Generate an image of 64x32 according to the following prompt:\n{width} {prompt} <|image|>"
        );
        let input = TaskInput::new().text("cats").image(grid());
        assert_eq!(spelled(&Task::Detection.prompt(input).expect("complete")), "Detect: cats [image]");
        let input = TaskInput::new().text("which?").image(grid()).image(grid());
        assert_eq!(spelled(&Task::FreeForm.prompt(input).expect("complete")), "[image] [image] which?");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let message = |task: Task, input| task.prompt(input).expect_err("it does not fit").to_string();
        assert_eq!(
            message(Task::TextToImage, TaskInput::new().text("a cat")),
            "task `text_to_image` takes a size, got no size"
        );
        assert_eq!(message(Task::Captioning, TaskInput::new()), "task `captioning` takes an image count of 1, got 0");
        assert_eq!(
            message(Task::Captioning, TaskInput::new().text("x").image(grid())),
            "task `captioning` takes no text, got a text"
        );
    }
}
