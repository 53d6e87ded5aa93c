//! `POST /v1/chat/completions`: text and images in, text and images out.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use lumina_mgpt::{Lumina, Modality, Output, Part, Request as ModelRequest, Task, TaskInput};
use lumina_tokenizer::TaskOutput;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::answer::random_seed;
use crate::app::App;
use crate::body::{self, Received};
use crate::chat_answer::ChatAnswer;
use crate::error::{ApiError, ApiResult};
use crate::list::{List, TextOrList};
use crate::messages::{ImageLimits, Message, conversation};
use crate::params::{SamplingParams, parse_size, parse_task};

/// A request to go on with a chat. Those of OpenAI's fields that would change the answer, and cannot, are refused.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ChatParams {
    messages: List<Message>,
    model: Option<String>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    modalities: Option<List<OutputKind>>,
    seed: Option<u64>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    // What OpenAI does not have.
    task: Option<String>,
    size: Option<String>,
    guidance_scale: Option<f32>,
    top_k: Option<usize>,
    image_top_k: Option<usize>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    deadline_ms: Option<u64>,
    // What can have one value.
    n: Option<u32>,
    stop: Option<TextOrList<String>>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    logprobs: Option<bool>,
    response_format: Option<ResponseFormat>,
    tools: Option<Vec<IgnoredAny>>,
    functions: Option<Vec<IgnoredAny>>,
    top_logprobs: Option<IgnoredAny>,
    logit_bias: Option<IgnoredAny>,
    audio: Option<IgnoredAny>,
    prediction: Option<IgnoredAny>,
    reasoning_effort: Option<IgnoredAny>,
    verbosity: Option<IgnoredAny>,
    web_search_options: Option<IgnoredAny>,
    // What changes nothing here.
    #[serde(rename = "tool_choice")]
    _tool_choice: Option<IgnoredAny>,
    #[serde(rename = "parallel_tool_calls")]
    _parallel_tool_calls: Option<IgnoredAny>,
    #[serde(rename = "metadata")]
    _metadata: Option<IgnoredAny>,
    #[serde(rename = "store")]
    _store: Option<IgnoredAny>,
    #[serde(rename = "user")]
    _user: Option<IgnoredAny>,
    #[serde(rename = "safety_identifier")]
    _safety_identifier: Option<IgnoredAny>,
    #[serde(rename = "service_tier")]
    _service_tier: Option<IgnoredAny>,
    #[serde(rename = "prompt_cache_key")]
    _prompt_cache_key: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct StreamOptions {
    include_usage: Option<bool>,
    #[serde(rename = "include_obfuscation")]
    _include_obfuscation: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: String,
}

/// What an answer may be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OutputKind {
    Text,
    Image,
}

pub(crate) async fn completions(State(app): State<Arc<App>>, request: Request) -> ApiResult<Response> {
    let Received { value: mut params, room } = body::json::<ChatParams>(&app, request).await?;
    app.check_model(params.model.as_deref())?;
    params.refuse_what_would_change_the_answer()?;
    let stream = params.stream.unwrap_or(false);
    let options = params.stream_options.take();
    if options.is_some() && !stream {
        return Err(ApiError::bad("stream_options", "`stream_options` needs `\"stream\": true`"));
    }
    let with_usage = options.and_then(|options| options.include_usage).unwrap_or(false);
    let limits = ImageLimits { images: app.options.max_n as usize, pixels: app.options.max_image_pixels };
    let answer = {
        let app_of_work = app.clone();
        let work = move || {
            let _room = room;
            let max_images = app_of_work.options.max_n as usize;
            let request = params.request(app_of_work.model(), limits)?.with(|options| options.max_images(max_images));
            let events = app_of_work.handle.submit(&request)?;
            Ok(ChatAnswer::new(app_of_work, &request, events, with_usage))
        };
        app.blocking(work).await?
    };
    if stream { Ok(answer.stream()) } else { answer.whole().await }
}

impl ChatParams {
    /// The request that the model is given. It blocks: images are encoded.
    fn request(mut self, model: &Lumina, limits: ImageLimits) -> ApiResult<ModelRequest> {
        let conversation = conversation(model, std::mem::take(&mut self.messages), limits)?;
        let size = parse_size(self.size.as_deref())?;
        let request = match &self.task {
            None => model.chat(conversation).request()?,
            Some(name) => {
                let task = parse_task(name)?;
                let [turn] = &*conversation.turns else {
                    return Err(ApiError::bad("messages", "with `task`, `messages` is one message, the user's"));
                };
                let input = task_input(task, &turn.content.0);
                let input = size.filter(|_| task.spec().takes_size()).into_iter().fold(input, TaskInput::size);
                model.task::<Output>(task, Ok(input)).request()?
            }
        };
        let modality = self.modality(&request)?;
        let sampling = SamplingParams {
            guidance_scale: self.guidance_scale,
            temperature: self.temperature,
            image_top_k: self.image_top_k,
            text_top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
        };
        let max_tokens = self.max_completion_tokens.or(self.max_tokens);
        Ok(request.with(|options| {
            let mut options = sampling.apply(options);
            options.sampling.seed = self.seed.unwrap_or_else(random_seed);
            options.sampling.modality = modality;
            options.sampling.image_size = size.or(options.sampling.image_size);
            options.sampling.repetition_penalty = self.repetition_penalty.or(options.sampling.repetition_penalty);
            options.max_new_tokens = max_tokens.unwrap_or(options.max_new_tokens);
            options.deadline_ms = self.deadline_ms.or(options.deadline_ms);
            options
        }))
    }

    fn modality(&self, request: &ModelRequest) -> ApiResult<Modality> {
        let Some(kinds) = &self.modalities else { return Ok(request.options.sampling.modality) };
        let asked = match (kinds.0.contains(&OutputKind::Text), kinds.0.contains(&OutputKind::Image)) {
            (true, false) => Modality::Text,
            (false, true) => Modality::Image,
            (true, true) => Modality::Any,
            (false, false) => return Err(ApiError::bad("modalities", "`modalities` is empty; leave it out")),
        };
        // A task that answers by one of them does so where both are asked for.
        Ok(if asked == Modality::Any { request.options.sampling.modality } else { asked })
    }

    fn refuse_what_would_change_the_answer(&self) -> ApiResult<()> {
        let is_set = |list: &Option<Vec<IgnoredAny>>| list.as_ref().is_some_and(|list| !list.is_empty());
        let refusals = [
            ("n", self.n.is_some_and(|n| n != 1), "one answer is made; ask again with another `seed`"),
            (
                "stop",
                self.stop.as_ref().is_some_and(|stop| stop.0.iter().any(|text| !text.is_empty())),
                "the model ends its turn itself; `max_tokens` ends it earlier",
            ),
            ("frequency_penalty", self.frequency_penalty.unwrap_or(0.0) != 0.0, "there is `repetition_penalty`"),
            ("presence_penalty", self.presence_penalty.unwrap_or(0.0) != 0.0, "there is `repetition_penalty`"),
            ("logprobs", self.logprobs.unwrap_or(false), "they are not reported"),
            ("top_logprobs", self.top_logprobs.is_some(), "they are not reported"),
            (
                "response_format",
                self.response_format.as_ref().is_some_and(|format| format.kind != "text"),
                "the model answers in its own words",
            ),
            ("tools", is_set(&self.tools), "the model has learnt no tools"),
            ("functions", is_set(&self.functions), "the model has learnt no tools"),
            ("logit_bias", self.logit_bias.is_some(), "it is not supported"),
            ("audio", self.audio.is_some(), "the model has no sounds"),
            ("prediction", self.prediction.is_some(), "drafts are the engine's own"),
            ("reasoning_effort", self.reasoning_effort.is_some(), "the model answers at once"),
            ("verbosity", self.verbosity.is_some(), "the model answers in its own words"),
            ("web_search_options", self.web_search_options.is_some(), "nothing is fetched"),
        ];
        match refusals.into_iter().find(|(_, given, _)| *given) {
            Some((name, _, why)) => Err(ApiError::bad(name, format!("`{name}` cannot be set so: {why}"))),
            None => Ok(()),
        }
    }
}

/// What a task is given: the images of a message, and its text if there is one.
fn task_input(task: Task, parts: &[Part]) -> TaskInput {
    let (mut text, mut input) = (String::new(), TaskInput::new());
    for part in parts {
        match part {
            Part::Text(more) => text.push_str(more),
            Part::Image(codes) => input = input.image(codes.clone()),
        }
    }
    let text = text.trim();
    let always = task.spec().output == TaskOutput::Any;
    if text.is_empty() && !always { input } else { input.text(text) }
}
