//! `POST /v1/images/generations`: images from a text.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use lumina_mgpt::{Output, Task, TaskInput};

use crate::app::App;
use crate::body;
use crate::drawing::Drawing;
use crate::error::{ApiError, ApiResult};
use crate::params::ImageParams;

pub(crate) async fn generations(State(app): State<Arc<App>>, request: Request) -> ApiResult<Response> {
    let body::Received { value: params, room } = body::json::<ImageParams>(&app, request).await?;
    let of_edits = [
        ("image", params.image.is_some()),
        ("images", params.images.is_some()),
        ("mask", params.mask.is_some()),
        ("task", params.task.is_some()),
        ("input_fidelity", params.input_fidelity.is_some()),
    ];
    if let Some((name, _)) = of_edits.into_iter().find(|(_, given)| *given) {
        return Err(ApiError::bad(name, format!("`{name}` belongs to POST /v1/images/edits")));
    }
    let plan = params.plan(&app)?;
    let prompt = params.prompt.filter(|prompt| !prompt.trim().is_empty());
    let prompt = prompt.ok_or_else(|| ApiError::bad("prompt", "`prompt` is missing or empty: say what to draw"))?;
    let size = plan.size.unwrap_or_else(|| app.model().default_size());
    let drawing = {
        let app_of_work = app.clone();
        let work = move || {
            let _room = room;
            let input = TaskInput::new().text(prompt).size(size);
            let request = app_of_work.model().task::<Output>(Task::TextToImage, Ok(input)).request()?;
            let request = request.with(|options| plan.apply(options, size.latent_rows()));
            Drawing::start(&app_of_work, plan, "image_generation", request)
        };
        app.blocking(work).await?
    };
    drawing.answer().await
}
