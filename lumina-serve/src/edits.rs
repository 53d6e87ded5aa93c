//! `POST /v1/images/edits`: images from an image.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::Response;
use lumina_mgpt::{Output, Task, TaskInput};

use crate::app::{App, Room};
use crate::body::{self, Received};
use crate::drawing::Drawing;
use crate::error::{ApiError, ApiResult};
use crate::input;
use crate::params::{ImageParams, NUMBERS, parse_task};

pub(crate) async fn edits(State(app): State<Arc<App>>, request: Request) -> ApiResult<Response> {
    let (params, files, room) = if body::is_form(request.headers()) {
        let Received { value: form, room } = body::form(&app, request, &NUMBERS).await?;
        let mut files = Vec::new();
        for (name, file) in form.files {
            match &*name {
                "image" | "images" => files.push(Image::File(file)),
                "mask" => return Err(no_mask()),
                _ => return Err(ApiError::bad(&name, format!("`{name}` is no field for a file; `image` is"))),
            }
        }
        (body::from_texts::<ImageParams>(form.texts)?, files, room)
    } else {
        let Received { value: params, room } = body::json::<ImageParams>(&app, request).await.map_err(or_form)?;
        (params, Vec::new(), room)
    };
    draw(app, params, files, room).await
}

/// Says that a form does as well.
fn or_form(error: ApiError) -> ApiError {
    if error.status == axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE {
        return body::unsupported(
            "send a form (`Content-Type: multipart/form-data`) with the file `image`, or JSON \
             (`application/json`) with `image` as a data URL",
        );
    }
    error
}

fn no_mask() -> ApiError {
    ApiError::bad("mask", "the model has no masks: say in the prompt what is to be changed, and where")
}

/// An image as it was sent.
enum Image {
    File(Bytes),
    Url(String),
}

async fn draw(app: Arc<App>, params: ImageParams, mut images: Vec<Image>, room: Room) -> ApiResult<Response> {
    let plan = params.plan(&app)?;
    if params.mask.is_some() {
        return Err(no_mask());
    }
    images.extend(params.image.into_iter().flat_map(|urls| urls.0).map(Image::Url));
    for reference in params.images.into_iter().flatten() {
        match (reference.image_url, reference.file_id) {
            (Some(url), None) => images.push(Image::Url(url)),
            _ => {
                return Err(ApiError::bad(
                    "images",
                    "each of `images` is {\"image_url\": \"data:…\"}; files are not stored",
                ));
            }
        }
    }
    let [image] = <[Image; 1]>::try_from(images).map_err(|images| {
        ApiError::bad("image", format!("one `image` is needed, got {}: tasks take one each", images.len()))
    })?;
    let task = params.task.as_deref().map_or(Ok(Task::Editing), parse_task)?;
    if matches!(task, Task::TextToImage | Task::Captioning | Task::FreeForm) {
        let message = format!("the task `{task}` draws no image from an image; it has another endpoint");
        return Err(ApiError::bad("task", message));
    }
    // A form of OpenAI's client always has a prompt; an empty one is none.
    let prompt = params.prompt.filter(|prompt| !prompt.trim().is_empty());
    match (task.spec().takes_text(), &prompt) {
        (true, None) => {
            return Err(ApiError::bad(
                "prompt",
                format!("`prompt` is missing or empty: say what the task `{task}` is to do"),
            ));
        }
        (false, Some(_)) => {
            return Err(ApiError::bad("prompt", format!("the task `{task}` takes no text: leave `prompt` out")));
        }
        _ => {}
    }
    if let Some(size) = plan.size {
        app.model().preset().check_size(size)?;
    }
    let drawing = {
        let app_of_work = app.clone();
        let work = move || {
            let _room = room;
            let model = app_of_work.model();
            let file = match image {
                Image::File(file) => file,
                Image::Url(url) => input::from_data_url("image", &url)?.into(),
            };
            let image = input::decode("image", &file, app_of_work.options.max_image_pixels)?;
            let codes = model.encode_image(&image)?;
            let rows = plan.size.map_or(codes.rows(), |size| size.latent_rows());
            let input = prompt.into_iter().fold(TaskInput::new().image(codes), TaskInput::text);
            let request = model.task::<Output>(task, Ok(input)).request()?;
            let request = request.with(|mut options| {
                options.sampling.image_size = plan.size.or(options.sampling.image_size);
                plan.apply(options, rows)
            });
            Drawing::start(&app_of_work, plan, "image_edit", request)
        };
        app.blocking(work).await?
    };
    drawing.answer().await
}
