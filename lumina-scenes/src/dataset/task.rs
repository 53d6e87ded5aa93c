//! Tasks on scenes.

use std::fmt;

use lumina_tokenizer::Task;

/// The task of a record: which question it asks, and what the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SceneTask {
    /// Draw the image of a caption: [`Task::TextToImage`].
    TextToImage,
    /// Write the canonical caption of an image: [`Task::Captioning`].
    Captioning,
    /// Draw the depth map of an image: [`Task::DepthEstimation`].
    DepthEstimation,
    /// Draw the segmentation map of an image: [`Task::SemanticSegmentation`].
    SemanticSegmentation,
    /// Edit an image as an instruction says: [`Task::Editing`].
    Editing,
    /// Answer a [`Question`](crate::Question) about an image: [`Task::FreeForm`], the image first.
    Question,
    /// Two turns: draw the image of a caption, then edit it. The second question is the instruction alone, because the
    /// image is already part of the conversation.
    ImageThenEdit,
    /// Two turns: draw the image of a caption, then write its canonical caption. The second question is that of
    /// [`Task::Captioning`] without the image, or the same in other words.
    ImageThenCaption,
    /// Two turns: draw the image of a caption, then answer a question about it.
    ImageThenQuestion,
}

impl SceneTask {
    /// All tasks.
    pub const ALL: [Self; 9] = [
        Self::TextToImage,
        Self::Captioning,
        Self::DepthEstimation,
        Self::SemanticSegmentation,
        Self::Editing,
        Self::Question,
        Self::ImageThenEdit,
        Self::ImageThenCaption,
        Self::ImageThenQuestion,
    ];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TextToImage => Task::TextToImage.spec().name,
            Self::Captioning => Task::Captioning.spec().name,
            Self::DepthEstimation => Task::DepthEstimation.spec().name,
            Self::SemanticSegmentation => Task::SemanticSegmentation.spec().name,
            Self::Editing => Task::Editing.spec().name,
            Self::Question => "question",
            Self::ImageThenEdit => "image_then_edit",
            Self::ImageThenCaption => "image_then_caption",
            Self::ImageThenQuestion => "image_then_question",
        }
    }

    /// Whether the first turn draws the image of a caption.
    pub(super) fn has_prompt(self) -> bool {
        matches!(self, Self::TextToImage | Self::ImageThenEdit | Self::ImageThenCaption | Self::ImageThenQuestion)
    }

    /// Whether a turn requests an edit.
    pub(super) fn has_edit(self) -> bool {
        matches!(self, Self::Editing | Self::ImageThenEdit)
    }

    /// Whether a turn asks a question about the image.
    pub(super) fn has_question(self) -> bool {
        matches!(self, Self::Question | Self::ImageThenQuestion)
    }

    /// Whether the last image is the scene, not a map or an edit of it.
    pub(super) fn ends_with_the_scene(self) -> bool {
        !self.has_edit() && !matches!(self, Self::DepthEstimation | Self::SemanticSegmentation)
    }
}

impl fmt::Display for SceneTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_equal_those_in_json() {
        for task in SceneTask::ALL {
            assert_eq!(serde_json::to_value(task).unwrap(), task.name());
        }
    }
}
