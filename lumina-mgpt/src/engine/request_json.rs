//! How a request is written: by the name of its task, with what it is given, or as a conversation.

use std::fmt;

use lumina_core::{CodeGrid, ImageSize};
use lumina_sampling::Modality;
use lumina_tokenizer::{Conversation, Task, TaskInput, TaskOutput};
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::request::{GenerateOptions, Prompt, Request};

/// A [`Request`] as it is written.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, expecting = "a request: an object with `task` or `conversation`")]
pub(crate) struct RequestJson {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<Task>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<ImageSize>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    images: Vec<CodeGrid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    conversation: Option<Conversation>,
    /// Those that differ from the defaults, where it is read.
    #[serde(default, deserialize_with = "options")]
    options: Map<String, Value>,
}

impl RequestJson {
    /// The request, with `defaults` for the options that are left out: those for a task, or for a conversation.
    pub(crate) fn with_defaults(
        self,
        defaults: impl FnOnce(Option<(Task, Option<ImageSize>)>) -> GenerateOptions,
    ) -> Result<Request, String> {
        let Self { task, prompt, size, images, conversation, options } = self;
        let prompt = match (task, conversation) {
            (Some(task), None) => Prompt::Task(task, TaskInput { text: prompt, size, images }),
            (None, Some(conversation)) if prompt.is_none() && size.is_none() && images.is_empty() => {
                conversation.into()
            }
            (None, Some(_)) => {
                return Err("`prompt`, `size` and `images` belong to a `task`; a `conversation` has its own".to_owned());
            }
            (Some(_), Some(_)) => return Err("`task` and `conversation` exclude each other".to_owned()),
            (None, None) => {
                return Err("`task` or `conversation` is missing; a text to draw is `\"task\": \"text_to_image\"` \
                            with `prompt` and `size`"
                    .to_owned());
            }
        };
        let defaults = match &prompt {
            Prompt::Task(task, input) => defaults(Some((*task, input.size))),
            Prompt::Conversation(_) => defaults(None),
        };
        let mut merged = serde_json::to_value(defaults).map_err(|error| error.to_string())?;
        merge(&mut merged, options, "options")?;
        let options = serde_path_to_error::deserialize(merged)
            .map_err(|error| format!("`options.{}`: {}", error.path(), error.inner()))?;
        let options: GenerateOptions = options;
        if let Prompt::Task(_, TaskInput { size: Some(size), .. }) = &prompt
            && options.sampling.image_size.is_some_and(|other| other != *size)
        {
            return Err("`size` and `options.sampling.image_size` are different sizes; give `size` alone".to_owned());
        }
        if let Prompt::Task(task, _) = &prompt
            && task.spec().output == TaskOutput::Image
            && options.sampling.modality == Modality::Text
        {
            return Err(format!("`options.sampling.modality` is `text`, and `{task}` draws an image; leave it out"));
        }
        Ok(Request { prompt, options })
    }
}

/// Puts what is given in the place of what is there, object by object.
fn merge(into: &mut Value, given: Map<String, Value>, place: &str) -> Result<(), String> {
    let Value::Object(into) = into else { return Ok(()) };
    for (key, value) in given {
        match (into.get_mut(&key), value) {
            (Some(slot @ Value::Object(_)), Value::Object(given)) => merge(slot, given, &format!("{place}.{key}"))?,
            // An empty list would stand for all defaults otherwise.
            (Some(Value::Object(_)), _) => return Err(format!("`{place}.{key}` must be an object")),
            (_, value) => drop(into.insert(key, value)),
        }
    }
    Ok(())
}

fn options<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    match (Unique { place: "options".to_owned() }).deserialize(deserializer)? {
        Value::Object(options) => Ok(options),
        other => Err(D::Error::custom(format!("`options` is {other}, expected an object"))),
    }
}

/// JSON in which an object has no key twice: of two values it would not be clear which one counts.
struct Unique {
    /// Where it is, in keys.
    place: String,
}

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) =
            entries.next_element_seed(Unique { place: format!("{}[{}]", self.place, values.len()) })?
        {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let place = format!("{}.{key}", self.place);
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("`{}` is given twice; leave one out", place.escape_debug())));
            }
            map.insert(key, entries.next_value_seed(Unique { place })?);
        }
        Ok(Value::Object(map))
    }
}

impl<'de> serde::Deserialize<'de> for Request {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = RequestJson::deserialize(deserializer)?;
        read.with_defaults(GenerateOptions::of).map_err(serde::de::Error::custom)
    }
}

impl serde::Serialize for Request {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RequestJson::from(self.clone()).serialize(serializer)
    }
}

impl From<Request> for RequestJson {
    fn from(Request { prompt, options }: Request) -> Self {
        // Numbers, names and lists alone: there is nothing in them that JSON cannot hold but for infinite scales, which
        // `null` stands for, and which are an error when it is read. By way of its text 0.4 stays 0.4: as a value it
        // would be an f64, with all digits of the f32.
        let options = serde_json::to_string(&options).and_then(|text| serde_json::from_str(&text)).unwrap_or_default();
        let empty = Self { task: None, prompt: None, size: None, images: Vec::new(), conversation: None, options };
        match prompt {
            Prompt::Conversation(conversation) => Self { conversation: Some(conversation), ..empty },
            Prompt::Task(task, TaskInput { text, size, images }) => {
                Self { task: Some(task), prompt: text, size, images, ..empty }
            }
        }
    }
}
