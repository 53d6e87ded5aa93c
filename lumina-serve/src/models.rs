//! `GET /v1/models`: the model, and what it and the server can.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use lumina_mgpt::{Conversation, GenerateOptions, Output, Task, TaskInput};
use serde_json::{Value, json};

use crate::answer::json_response;
use crate::app::App;
use crate::error::ApiResult;

pub(crate) async fn list(State(app): State<Arc<App>>) -> ApiResult<Response> {
    Ok(json_response(StatusCode::OK, &json!({ "object": "list", "data": [describe(&app)?] })))
}

pub(crate) async fn one(State(app): State<Arc<App>>, Path(model): Path<String>) -> ApiResult<Response> {
    app.check_model(Some(&model))?;
    Ok(json_response(StatusCode::OK, &describe(&app)?))
}

fn describe(app: &App) -> ApiResult<Value> {
    let model = app.model();
    let tasks = model.preset().tasks.clone().unwrap_or_else(|| Task::ALL.to_vec());
    let options = defaults(app)?;
    let sampling = &options.sampling;
    let sizes: Vec<String> = model.image_sizes().iter().map(ToString::to_string).collect();
    let mut answer = json!({
        "id": app.options.model_id,
        "object": "model",
        "created": app.created,
        "owned_by": "lumina",
        "lumina": {
            "version": env!("CARGO_PKG_VERSION"),
            "tasks": tasks.iter().map(|task| task.spec().name).collect::<Vec<_>>(),
            "image_sizes": sizes,
            "default_size": model.default_size().to_string(),
            "target_size_px": model.target_size_px(),
            "defaults": {
                "guidance_scale": short(sampling.guidance_scale),
                "top_k": sampling.image_top_k,
                "text_top_k": sampling.text_top_k,
                "temperature": short(sampling.temperature),
                "max_tokens": options.max_new_tokens,
            },
            "limits": {
                "max_images": app.options.max_n,
                "max_pixels": app.options.max_image_pixels,
                "max_body_bytes": app.options.max_body_bytes,
            },
        },
    });
    if let Some(words) = model.preset().words() {
        answer["lumina"]["words"] = json!(words);
    }
    Ok(answer)
}

/// The settings of text to image, or of a chat where the model does not draw.
fn defaults(app: &App) -> ApiResult<GenerateOptions> {
    let model = app.model();
    let input = TaskInput::new().text("a circle").size(model.default_size());
    match model.task::<Output>(Task::TextToImage, Ok(input)).request() {
        Ok(request) => Ok(request.options),
        Err(_) => Ok(model.chat(Conversation::new().human("Hello")).request()?.options),
    }
}

/// A number with as few digits as it needs.
fn short(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}
