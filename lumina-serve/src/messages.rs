//! The messages of a chat, and the conversation that the model is given.

use lumina_core::CodeGrid;
use lumina_mgpt::{Content, Conversation, Lumina, Part};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{ApiError, ApiResult};
use crate::input;
use crate::list::{FromText, List, TextOrList};

/// A message, as a client sends it. What answers of this server have beside it is accepted, so that they can be sent
/// back as they are.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Message {
    role: String,
    content: Option<TextOrList<MessagePart>>,
    #[serde(default)]
    images: Option<List<AnsweredImage>>,
    #[serde(default, rename = "name")]
    _name: Option<IgnoredAny>,
    #[serde(default)]
    refusal: Option<IgnoredAny>,
    #[serde(default)]
    audio: Option<IgnoredAny>,
    #[serde(default)]
    function_call: Option<IgnoredAny>,
    #[serde(default)]
    tool_calls: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    tool_call_id: Option<IgnoredAny>,
    #[serde(default)]
    annotations: Option<Vec<IgnoredAny>>,
}

/// A part of a message.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MessagePart {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    image_url: Option<ImageUrl>,
}

/// An image that the model has drawn.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnsweredImage {
    #[serde(rename = "type")]
    _kind: Option<String>,
    image_url: ImageUrl,
    #[serde(rename = "index")]
    _index: Option<u32>,
    /// How many characters of the text come before it; all, where it is not said.
    position: Option<usize>,
    /// It was cut off.
    #[serde(rename = "incomplete")]
    _incomplete: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageUrl {
    url: String,
    #[serde(rename = "detail")]
    _detail: Option<String>,
}

impl FromText for MessagePart {
    const NAMES: &'static str = "parts";

    fn from_text(text: &str) -> Self {
        Self { kind: "text".to_owned(), text: Some(text.to_owned()), image_url: None }
    }
}

/// What the images of messages may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ImageLimits {
    pub(crate) images: usize,
    pub(crate) pixels: u64,
}

/// The conversation that messages are. It blocks: images are encoded.
///
/// The model has learnt turns of a human and its own, and no others. A system message is put before the first text of
/// the human, on a line of its own, as the templates of other such models do; without it clients that always send one
/// could not be used.
pub(crate) fn conversation(model: &Lumina, messages: List<Message>, limits: ImageLimits) -> ApiResult<Conversation> {
    let mut reader = Reader { model, limits, images: 0 };
    let mut conversation = Conversation::new();
    let mut system: Vec<Part> = Vec::new();
    let n_messages = messages.0.len();
    for (index, message) in messages.into_iter().enumerate() {
        let place = format!("messages[{index}]");
        message.refuse_what_is_not_supported(&place)?;
        match &*message.role {
            "system" | "developer" => {
                if conversation.turns.is_empty() {
                    reader.parts(&format!("{place}.content"), message.content, &mut system)?;
                } else {
                    return Err(ApiError::bad(&place, "a system message must come before all others"));
                }
            }
            "user" => {
                let mut content = std::mem::take(&mut system);
                if !content.is_empty() {
                    content.push(Part::from("\n"));
                }
                reader.parts(&format!("{place}.content"), message.content, &mut content)?;
                if content.is_empty() {
                    return Err(ApiError::bad(&place, format!("`{place}` has neither text nor images")));
                }
                conversation = conversation.human(Content(content));
            }
            "assistant" => conversation = conversation.assistant(Content(reader.answer(&place, message)?)),
            role => {
                let message =
                    format!("`{place}.role` is `{}`, expected user, assistant or system", role.escape_debug());
                return Err(ApiError::bad(&format!("{place}.role"), message));
            }
        }
    }
    // Turns must alternate: the tokenizer says which does not. That the human is last is up to us.
    if conversation.turns.len().is_multiple_of(2) {
        let what = if n_messages == 0 { "`messages` is empty" } else { "the last of `messages` must be the user's" };
        return Err(ApiError::bad(
            "messages",
            format!("{what}; user and assistant take turns, the user first and last"),
        ));
    }
    Ok(conversation)
}

impl Message {
    fn refuse_what_is_not_supported(&self, place: &str) -> ApiResult<()> {
        let given = [
            ("refusal", self.refusal.is_some()),
            ("audio", self.audio.is_some()),
            ("function_call", self.function_call.is_some()),
            ("tool_calls", self.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty())),
            ("tool_call_id", self.tool_call_id.is_some()),
            ("annotations", self.annotations.as_ref().is_some_and(|annotations| !annotations.is_empty())),
            ("images", self.images.is_some() && self.role != "assistant"),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some(("images", _)) => Err(ApiError::bad(
                &format!("{place}.images"),
                "`images` are the assistant's; those of a user are parts of `content`, of type image_url",
            )),
            Some((name, _)) => {
                let field = format!("{place}.{name}");
                Err(ApiError::bad(&field, format!("`{field}` is not supported: leave it out")))
            }
            None => Ok(()),
        }
    }
}

struct Reader<'m> {
    model: &'m Lumina,
    limits: ImageLimits,
    images: usize,
}

impl Reader<'_> {
    /// Adds the parts of a message. Between texts is a line's end, between a text and an image a space, as in the
    /// prompts that the model has learnt.
    fn parts(&mut self, place: &str, parts: Option<TextOrList<MessagePart>>, content: &mut Vec<Part>) -> ApiResult<()> {
        for (index, part) in parts.into_iter().flat_map(|parts| parts.0).enumerate() {
            let place = format!("{place}[{index}]");
            let part = match (&*part.kind, part.text, part.image_url) {
                ("text" | "input_text" | "output_text", Some(text), None) => Part::Text(text),
                ("image_url", None, Some(image)) => {
                    Part::Image(self.image(&format!("{place}.image_url.url"), &image.url)?)
                }
                _ => {
                    let message = format!(
                        "`{place}` must be {{\"type\": \"text\", \"text\": …}} or {{\"type\": \"image_url\", \
                         \"image_url\": {{\"url\": \"data:…\"}}}}"
                    );
                    return Err(ApiError::bad(&place, message));
                }
            };
            match (content.last(), &part) {
                (Some(Part::Text(before)), Part::Text(_)) if !before.ends_with('\n') => content.push(Part::from("\n")),
                (Some(Part::Text(before)), Part::Image(_)) if !before.ends_with(char::is_whitespace) => {
                    content.push(Part::from(" "));
                }
                (Some(Part::Image(_)), Part::Text(text)) if !text.starts_with(char::is_whitespace) => {
                    content.push(Part::from(" "));
                }
                _ => {}
            }
            content.push(part);
        }
        Ok(())
    }

    /// An answer of the model's, with its images in their places.
    fn answer(&mut self, place: &str, message: Message) -> ApiResult<Vec<Part>> {
        let mut text = String::new();
        for (index, part) in message.content.into_iter().flat_map(|parts| parts.0).enumerate() {
            match (&*part.kind, part.text, part.image_url) {
                ("text" | "output_text", Some(more), None) => text.push_str(&more),
                _ => {
                    let place = format!("{place}.content[{index}]");
                    let message = format!("`{place}` must be text; images of the assistant are in `images`");
                    return Err(ApiError::bad(&place, message));
                }
            }
        }
        let mut content = Vec::new();
        let (mut rest, mut position) = (&*text, 0);
        for (index, image) in message.images.into_iter().flatten().enumerate() {
            let codes = self.image(&format!("{place}.images[{index}]"), &image.image_url.url)?;
            let characters = image.position.unwrap_or(usize::MAX).saturating_sub(position);
            let at = rest.char_indices().nth(characters).map_or(rest.len(), |(at, _)| at);
            let (before, after) = rest.split_at(at);
            position += before.chars().count();
            rest = after;
            if !before.is_empty() {
                content.push(Part::from(before));
            }
            content.push(Part::Image(codes));
        }
        if !rest.is_empty() {
            content.push(Part::from(rest));
        }
        Ok(content)
    }

    fn image(&mut self, place: &str, url: &str) -> ApiResult<CodeGrid> {
        self.images += 1;
        if self.images > self.limits.images {
            return Err(ApiError::bad(place, format!("more than {} images in `messages`", self.limits.images)));
        }
        let image = input::decode(place, &input::from_data_url(place, url)?, self.limits.pixels)?;
        self.model.encode_image(&image).map_err(|error| ApiError::of(error).about(place))
    }
}
