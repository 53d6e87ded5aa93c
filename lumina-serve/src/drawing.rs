//! Images on their way: of one request, in the same passes, each with its own draws.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::StatusCode;
use axum::response::sse::Event as ServerEvent;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{SelectAll, Stream, StreamExt, select_all, unfold};
use image::RgbImage;
use lumina_mgpt::{Answer, Event, Events, ImageSize, Output, Prompt, Request, Stats};
use serde_json::{Value, json};

use crate::answer::{json_response, now};
use crate::app::App;
use crate::encode::{self, Provenance};
use crate::error::{ApiError, ApiResult};
use crate::input::to_base64;
use crate::params::Plan;
use crate::sse;

/// The images of one request. Dropping it cancels those that are not done.
pub(crate) struct Drawing {
    app: Arc<App>,
    plan: Plan,
    /// The beginning of the names of events.
    kind: &'static str,
    events: SelectAll<Indexed>,
    images: Vec<InProgress>,
    /// Tokens of the prompt that are those of images.
    image_tokens: usize,
}

/// The events of one of them, with its index.
struct Indexed {
    index: usize,
    events: Events,
}

impl Stream for Indexed {
    type Item = (usize, lumina_mgpt::Result<Event>);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let index = self.index;
        Pin::new(&mut self.events).poll_next(context).map(|event| event.map(|event| (index, event)))
    }
}

/// One of them.
struct InProgress {
    seed: u64,
    made_by: Provenance,
    size: Option<ImageSize>,
    partial_images: u32,
    output: Output,
}

/// Something that has happened to an image.
enum Step {
    Row {
        index: usize,
        row: u32,
        rows: u32,
    },
    Partial {
        index: usize,
        image: RgbImage,
        size: ImageSize,
    },
    /// `text` is what the model said that the image shows, if it did.
    Done {
        index: usize,
        image: RgbImage,
        text: Option<String>,
        stats: Box<Stats>,
    },
}

impl Drawing {
    /// Submits a request as often as the plan says, with a seed more each time. It blocks.
    pub(crate) fn start(app: &Arc<App>, plan: Plan, kind: &'static str, request: Request) -> ApiResult<Self> {
        let image_tokens = match &request.prompt {
            Prompt::Task(_, input) => {
                input.images.iter().filter_map(|codes| codes.size().ok()).map(ImageSize::n_tokens).sum()
            }
            Prompt::Conversation(_) => 0,
        };
        let (mut events, mut images) = (Vec::new(), Vec::new());
        for index in 0..plan.n as usize {
            let seed = plan.seed.wrapping_add(index as u64);
            let request = request.clone().with(|options| options.sampling(|sampling| sampling.seed(seed)));
            let submitted: Events = app.handle.submit(&request)?;
            events.push(Indexed { index, events: submitted });
            images.push(InProgress {
                seed,
                made_by: Provenance::new(&request, &app.options.model_id),
                size: None,
                partial_images: 0,
                output: Output::default(),
            });
        }
        Ok(Self { app: app.clone(), plan, kind, events: select_all(events), images, image_tokens })
    }

    /// The answer: at once, or as events.
    pub(crate) async fn answer(self) -> ApiResult<Response> {
        if self.plan.stream { Ok(self.stream()) } else { Ok(self.whole().await?.into_response()) }
    }

    /// The next thing that happens; `None` after the last image.
    async fn next(&mut self) -> Option<ApiResult<Step>> {
        while let Some((index, event)) = self.events.next().await {
            let image = &mut self.images[index];
            match event {
                Err(error) => return Some(Err(error.into())),
                Ok(Event::ImageStarted { size }) => image.size = Some(size),
                Ok(Event::ImageRow { row, .. }) => {
                    let rows = image.size.map_or(row + 1, ImageSize::latent_rows);
                    return Some(Ok(Step::Row { index, row, rows }));
                }
                Ok(Event::Preview(upper)) => {
                    if let Some(size) = image.size {
                        return Some(Ok(Step::Partial { index, image: upper, size }));
                    }
                }
                Ok(Event::Done { stats, .. }) => {
                    let output = Output { stats: stats.clone(), ..std::mem::take(&mut image.output) };
                    let text = Some(output.text_without_images()).filter(|text| !text.is_empty());
                    let step = RgbImage::from_output(output);
                    let step = step.map(|image| Step::Done { index, image, text, stats: Box::new(stats) });
                    return Some(step.map_err(ApiError::from));
                }
                Ok(Event::Special(_)) => {}
                Ok(event) => image.output.add(event),
            }
        }
        None
    }

    /// All images in one answer.
    async fn whole(mut self) -> ApiResult<Response> {
        let mut data = vec![Value::Null; self.images.len()];
        let mut usage = Usage::default();
        let mut size = None;
        while let Some(step) = self.next().await {
            let Step::Done { index, image, text, stats } = step? else { continue };
            size = Some(size_of(&image));
            usage.add(&stats, self.image_tokens, &image);
            let file = self.encode_whole(index, image).await?;
            data[index] = json!({ "b64_json": file, "revised_prompt": text, "seed": self.images[index].seed });
        }
        let answer = json!({
            "created": now(),
            "data": data,
            "usage": usage.json(),
            "size": size,
            "output_format": self.plan.format.name(),
            "background": "opaque",
        });
        Ok(json_response(StatusCode::OK, &answer))
    }

    /// The images as events, each as it comes.
    fn stream(self) -> Response {
        let steps = unfold(Some(self), |drawing| async {
            let mut drawing = drawing?;
            let mut events = VecDeque::new();
            while events.is_empty() {
                match drawing.next().await? {
                    Ok(step) => match drawing.events_of(step).await {
                        Ok(event) => events.extend(event),
                        Err(error) => return Some((vec![sse::failure(&error)], None)),
                    },
                    // The others end as well: the client has no use for a part of what it has asked for.
                    Err(error) => return Some((vec![sse::failure(&error)], None)),
                }
            }
            Some((events.into(), Some(drawing)))
        });
        sse::response(steps)
    }

    async fn events_of(&mut self, step: Step) -> ApiResult<Option<ServerEvent>> {
        let kind = self.kind;
        let common = |event: &str, index: usize| {
            let name = format!("{kind}.{event}");
            let mut data = json!({ "type": name, "index": index, "created_at": now() });
            data["output_format"] = Value::from(self.plan.format.name());
            data["background"] = Value::from("opaque");
            data["quality"] = Value::from("auto");
            (name, data)
        };
        Ok(match step {
            Step::Row { index, row, rows } if self.plan.row_events => {
                let name = format!("{kind}.row");
                let data = json!({ "type": name, "index": index, "row": row, "rows_total": rows });
                Some(sse::event(&name, &data))
            }
            Step::Row { .. } => None,
            Step::Partial { index, image, size } => {
                let place = self.images[index].partial_images;
                // An image that is larger than was to be expected has more of them.
                if place >= self.plan.partial_images {
                    return Ok(None);
                }
                self.images[index].partial_images += 1;
                let (format, quality) = (self.plan.format, self.plan.quality);
                let rows = size.latent_rows() * image.height() / size.height_px().max(1);
                let encode = move || Ok(to_base64(&encode::partial(&image, size, format, quality)?));
                let (name, mut data) = common("partial_image", index);
                data["b64_json"] = Value::from(self.app.blocking(encode).await?);
                data["size"] = Value::from(size.to_string());
                data["partial_image_index"] = Value::from(place);
                data["rows_done"] = Value::from(rows);
                data["rows_total"] = Value::from(size.latent_rows());
                Some(sse::event(&name, &data))
            }
            Step::Done { index, image, text, stats } => {
                let mut usage = Usage::default();
                usage.add(&stats, self.image_tokens, &image);
                let (name, mut data) = common("completed", index);
                data["size"] = Value::from(size_of(&image));
                data["usage"] = usage.json();
                data["seed"] = Value::from(self.images[index].seed);
                data["revised_prompt"] = Value::from(text);
                data["b64_json"] = Value::from(self.encode_whole(index, image).await?);
                Some(sse::event(&name, &data))
            }
        })
    }

    async fn encode_whole(&self, index: usize, image: RgbImage) -> ApiResult<String> {
        let (format, quality) = (self.plan.format, self.plan.quality);
        let made_by = self.images[index].made_by.clone();
        let encode = move || Ok(to_base64(&encode::whole(&image, format, quality, &made_by)?));
        self.app.blocking(encode).await
    }
}

fn size_of(image: &RgbImage) -> String {
    format!("{}x{}", image.width(), image.height())
}

/// Tokens of a request for images.
#[derive(Debug, Default)]
struct Usage {
    input: usize,
    input_images: usize,
    output: usize,
    output_images: usize,
}

impl Usage {
    fn add(&mut self, stats: &Stats, image_tokens: usize, image: &RgbImage) {
        self.input += stats.prompt_tokens;
        self.input_images += image_tokens;
        self.output += stats.generated_tokens;
        self.output_images += ImageSize::new(image.width(), image.height()).map_or(0, ImageSize::n_tokens);
    }

    fn json(&self) -> Value {
        let details =
            |all: usize, images: usize| json!({ "image_tokens": images, "text_tokens": all.saturating_sub(images) });
        json!({
            "input_tokens": self.input,
            "input_tokens_details": details(self.input, self.input_images),
            "output_tokens": self.output,
            "output_tokens_details": details(self.output, self.output_images),
            "total_tokens": self.input + self.output,
        })
    }
}
