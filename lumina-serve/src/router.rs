//! The routes, and what holds for all of them: who may ask, the id of a request, a line in the log, a count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use lumina_mgpt::Handle;
use tower_http::cors::{AllowHeaders, CorsLayer};
use tracing::Instrument;

use crate::answer::random;
use crate::app::App;
use crate::error::ApiError;
use crate::options::Options;
use crate::{auth, body, chat, edits, images, metrics, models, studio};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A router that answers by an engine, to be mounted in a program of one's own or to be served by
/// [`serve`](crate::serve).
///
/// It needs a `tokio` runtime. The program that mounts it bounds its connections, how long headers may take, and for
/// how long a client may not read, and shuts `handle` down ([`Handle::shutdown`]) at its end; [`serve`](crate::serve)
/// does all of that.
pub fn router(handle: Handle, options: Options) -> Router {
    let app = Arc::new(App::new(handle, options));
    Router::new()
        .route("/", get(studio::page))
        .route("/favicon.ico", get(studio::icon))
        .route("/health", get(metrics::health))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{model}", get(models::one))
        .route("/v1/images/generations", post(images::generations))
        .route("/v1/images/edits", post(edits::edits))
        .route("/v1/chat/completions", post(chat::completions))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(app.clone(), around))
        .layer(cors(&app.options))
        .with_state(app)
}

/// Which pages of other origins may call, and what they may send and see.
fn cors(options: &Options) -> CorsLayer {
    if options.cors_origins.is_empty() {
        return CorsLayer::new();
    }
    CorsLayer::new()
        .allow_origin(options.cors_origins.clone())
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([REQUEST_ID, header::RETRY_AFTER])
        .max_age(Duration::from_secs(3600))
}

/// What is done around each request. Neither the log nor the counts have anything of what was sent but its route.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default(), %method, route);
    let headers = request.headers();
    let admitted = auth::check_host(&app.options, headers)
        .and_then(|()| auth::check_origin(&app.options, headers))
        .and_then(|()| auth::check_key(&app.options, request.uri().path(), headers));
    let mut response = match admitted {
        Ok(()) => next.run(request).instrument(span.clone()).await,
        Err(error) => {
            body::refuse(&app, request).await;
            error.into_response()
        }
    };
    response.headers_mut().insert(REQUEST_ID, id);
    let (status, time) = (response.status().as_u16(), started.elapsed());
    span.in_scope(|| tracing::info!(status, ?time, "answered"));
    app.count(&route, status, time);
    response
}

/// The client's own id, if it is short and harmless in a log, or else a new one.
fn request_id(request: &Request) -> HeaderValue {
    let is_harmless = |id: &&HeaderValue| {
        let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        (1..=64).contains(&id.len()) && id.as_bytes().iter().all(harmless)
    };
    let new = || HeaderValue::from_str(&format!("req-{:016x}", random())).unwrap_or(HeaderValue::from_static("req"));
    request.headers().get(REQUEST_ID).filter(is_harmless).cloned().unwrap_or_else(new)
}

async fn not_found() -> ApiError {
    let message = "there is no such address; see GET /v1/models, POST /v1/images/generations, POST /v1/images/edits \
                   and POST /v1/chat/completions";
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
}

async fn method_not_allowed(method: Method) -> ApiError {
    let message = format!("{method} is not for this address; its header `Allow` says what is");
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
