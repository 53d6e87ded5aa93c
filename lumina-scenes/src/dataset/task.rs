//! What is asked about a scene.

use std::fmt;

use lumina_tokenizer::Task;

/// What a record asks, and what it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SceneTask {
    /// The picture of a caption: [`Task::TextToImage`].
    TextToImage,
    /// The canonical caption of a picture: [`Task::Captioning`].
    Captioning,
    /// The depth map of a picture: [`Task::DepthEstimation`].
    DepthEstimation,
    /// The segmentation map of a picture: [`Task::SemanticSegmentation`].
    SemanticSegmentation,
    /// The picture changed as an instruction says: [`Task::Editing`].
    Editing,
    /// Two questions: the picture of a caption, and then that picture changed. The second question is the instruction
    /// alone, as the picture is already part of the conversation.
    ImageThenEdit,
    /// Two questions: the picture of a caption, and then its canonical caption. The second question is that of
    /// [`Task::Captioning`] without the picture.
    ImageThenCaption,
}

impl SceneTask {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::TextToImage,
        Self::Captioning,
        Self::DepthEstimation,
        Self::SemanticSegmentation,
        Self::Editing,
        Self::ImageThenEdit,
        Self::ImageThenCaption,
    ];

    /// The name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TextToImage => Task::TextToImage.spec().name,
            Self::Captioning => Task::Captioning.spec().name,
            Self::DepthEstimation => Task::DepthEstimation.spec().name,
            Self::SemanticSegmentation => Task::SemanticSegmentation.spec().name,
            Self::Editing => Task::Editing.spec().name,
            Self::ImageThenEdit => "image_then_edit",
            Self::ImageThenCaption => "image_then_caption",
        }
    }

    /// Whether it begins with the picture of a caption.
    pub(crate) fn begins_with_prompt(self) -> bool {
        matches!(self, Self::TextToImage | Self::ImageThenEdit | Self::ImageThenCaption)
    }

    /// Whether an edit is asked for.
    pub(crate) fn has_edit(self) -> bool {
        matches!(self, Self::Editing | Self::ImageThenEdit)
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
    fn names_are_the_same_everywhere() {
        for task in SceneTask::ALL {
            assert_eq!(serde_json::to_value(task).unwrap(), task.name());
        }
    }
}
