//! The answer of a chat: in one piece, or as it comes.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use axum::response::sse::Event as ServerEvent;
use futures_util::stream::{StreamExt, unfold};
use image::RgbImage;
use lumina_mgpt::{Event, Events, Request, Stats, StopReason};
use serde_json::{Value, json};

use crate::answer::{json_response, now, random};
use crate::app::App;
use crate::encode::{self, Format, Provenance};
use crate::error::{ApiError, ApiResult};
use crate::input::to_base64;
use crate::sse;

/// An answer on its way. Dropping it cancels what is not done.
pub(crate) struct ChatAnswer {
    app: Arc<App>,
    events: Events,
    id: String,
    created: u64,
    seed: u64,
    made_by: Provenance,
    /// Whether the last piece has the numbers of tokens.
    with_usage: bool,
    /// Characters of text so far.
    characters: usize,
    images: usize,
}

/// A piece of it.
enum Piece {
    Text(String),
    /// As JSON.
    Image(Value),
    Done(Box<Stats>),
}

impl ChatAnswer {
    pub(crate) fn new(app: Arc<App>, request: &Request, events: Events, with_usage: bool) -> Self {
        let made_by = Provenance::new(request, &app.options.model_id);
        let id = format!("chatcmpl-{:016x}", random());
        let seed = request.options.sampling.seed;
        Self { app, events, id, created: now(), seed, made_by, with_usage, characters: 0, images: 0 }
    }

    /// The next piece; `None` after the last.
    async fn next(&mut self) -> Option<ApiResult<Piece>> {
        // By name, since events are an iterator, too, which would block.
        while let Some(event) = StreamExt::next(&mut self.events).await {
            return Some(match event {
                Err(error) => Err(error.into()),
                Ok(Event::Text(text)) => {
                    self.characters += text.chars().count();
                    Ok(Piece::Text(text))
                }
                Ok(Event::Image { image, .. }) => self.image(image, false).await.map(Piece::Image),
                Ok(Event::Malformed { partial: Some(image), .. }) => self.image(image, true).await.map(Piece::Image),
                Ok(Event::Done { stats, .. }) if stats.stop == StopReason::Cancelled => Err(ApiError::draining()),
                Ok(Event::Done { stats, .. }) => Ok(Piece::Done(Box::new(stats))),
                Ok(_) => continue,
            });
        }
        None
    }

    /// An image, as others that answer so write it; of one that was cut off, its complete rows.
    async fn image(&mut self, image: RgbImage, is_incomplete: bool) -> ApiResult<Value> {
        let made_by = self.made_by.clone();
        let encode = move || Ok(to_base64(&encode::whole(&image, Format::Png, 100, &made_by)?));
        let file = self.app.blocking(encode).await?;
        let mut value = json!({
            "type": "image_url",
            "image_url": { "url": format!("data:image/png;base64,{file}") },
            "index": self.images,
            "position": self.characters,
        });
        if is_incomplete {
            value["incomplete"] = Value::from(true);
        }
        self.images += 1;
        Ok(value)
    }

    /// In one piece.
    pub(crate) async fn whole(mut self) -> ApiResult<Response> {
        let (mut text, mut images) = (String::new(), Vec::new());
        let mut stats = Stats::default();
        while let Some(piece) = self.next().await {
            match piece? {
                Piece::Text(more) => text.push_str(&more),
                Piece::Image(image) => images.push(image),
                Piece::Done(all) => stats = *all,
            }
        }
        let mut message = json!({ "role": "assistant", "content": text, "refusal": null });
        if !images.is_empty() {
            message["images"] = Value::from(images);
        }
        let reason = finish_reason(stats.stop);
        let choice = json!({ "index": 0, "message": message, "finish_reason": reason, "logprobs": null });
        let mut answer = self.head("chat.completion");
        answer["choices"] = json!([choice]);
        answer["usage"] = usage(&stats);
        Ok(json_response(StatusCode::OK, &answer))
    }

    /// As it comes.
    pub(crate) fn stream(self) -> Response {
        let first = self.chunk(json!({ "role": "assistant", "content": "" }), None);
        let rest = unfold(Some(self), |answer| async {
            let mut answer = answer?;
            Some(match answer.next().await? {
                Ok(Piece::Text(text)) => (vec![answer.chunk(json!({ "content": text }), None)], Some(answer)),
                Ok(Piece::Image(image)) => (vec![answer.chunk(json!({ "images": [image] }), None)], Some(answer)),
                Ok(Piece::Done(stats)) => (answer.last(&stats), None),
                Err(error) => (vec![sse::failure(&error)], None),
            })
        });
        sse::response(futures_util::stream::iter([vec![first]]).chain(rest))
    }

    fn last(&self, stats: &Stats) -> Vec<ServerEvent> {
        let mut events = vec![self.chunk(json!({}), Some(finish_reason(stats.stop)))];
        if self.with_usage {
            let mut chunk = self.head("chat.completion.chunk");
            chunk["choices"] = json!([]);
            chunk["usage"] = usage(stats);
            events.push(sse::unnamed(&chunk));
        }
        events.push(ServerEvent::default().data("[DONE]"));
        events
    }

    fn chunk(&self, delta: Value, finish_reason: Option<&str>) -> ServerEvent {
        let mut chunk = self.head("chat.completion.chunk");
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": null });
        chunk["choices"] = json!([choice]);
        if self.with_usage {
            chunk["usage"] = Value::Null;
        }
        sse::unnamed(&chunk)
    }

    /// What whole answers and chunks have in common.
    fn head(&self, object: &str) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.app.options.model_id,
            "seed": self.seed,
        })
    }
}

fn finish_reason(stop: StopReason) -> &'static str {
    match stop {
        StopReason::MaxNewTokens | StopReason::ContextFull | StopReason::Deadline => "length",
        _ => "stop",
    }
}

fn usage(stats: &Stats) -> Value {
    json!({
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.generated_tokens,
        "total_tokens": stats.prompt_tokens + stats.generated_tokens,
    })
}
