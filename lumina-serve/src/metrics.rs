//! `GET /health` and `GET /metrics`: whether the server takes requests, and what it has done.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::answer::json_response;
use crate::app::App;

pub(crate) async fn health(State(app): State<Arc<App>>) -> Response {
    if app.handle.is_shut_down() {
        let mut response = json_response(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "draining" }));
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
        return response;
    }
    json_response(StatusCode::OK, &json!({ "status": "ok" }))
}

/// The format of Prometheus, 0.0.4.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, content_type)], text(&app)).into_response()
}

fn text(app: &App) -> String {
    let metrics = app.handle.metrics();
    let counted = |count: u64| count as f64;
    #[rustfmt::skip]
    let rows = [
        ("requests_waiting", "gauge", "Requests that wait for their first pass, or for memory.", metrics.waiting as f64),
        ("requests_running", "gauge", "Requests that take part in passes.", metrics.running as f64),
        ("requests_held", "gauge", "Requests left out of passes, as their readers are behind.", metrics.held as f64),
        ("kv_cache_bytes", "gauge", "Bytes of keys and values.", counted(metrics.kv_cache_bytes)),
        ("requests_submitted_total", "counter", "Requests taken on.", counted(metrics.submitted)),
        ("requests_refused_total", "counter", "Requests refused because too many waited.", counted(metrics.refused)),
        ("requests_completed_total", "counter", "Requests that have ended with an answer.", counted(metrics.completed)),
        ("requests_cancelled_total", "counter", "Requests that were cancelled.", counted(metrics.cancelled)),
        ("requests_failed_total", "counter", "Requests that have failed.", counted(metrics.failed)),
        ("passes_total", "counter", "Passes over the weights.", counted(metrics.passes)),
        ("pass_seconds_total", "counter", "Time of these passes.", metrics.pass_time.as_secs_f64()),
        ("prompt_tokens_total", "counter", "Tokens of prompts.", counted(metrics.prompt_tokens)),
        ("generated_tokens_total", "counter", "Tokens generated.", counted(metrics.generated_tokens)),
        ("forced_tokens_total", "counter", "Tokens that the grammar forced.", counted(metrics.forced_tokens)),
        ("drafts_total", "counter", "Drafts that passes tried.", counted(metrics.drafts)),
        ("accepted_drafts_total", "counter", "Drafts that came out right.", counted(metrics.accepted_drafts)),
        ("prefill_seconds_total", "counter", "Time to the first token, of all requests.", metrics.prefill.as_secs_f64()),
        ("decode_seconds_total", "counter", "Time of the passes after that, of all requests.", metrics.decode.as_secs_f64()),
        ("sampling_seconds_total", "counter", "Time of drawing tokens.", metrics.sampling.as_secs_f64()),
        ("image_decode_seconds_total", "counter", "Time of decoding images.", metrics.image_decode.as_secs_f64()),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in rows {
        let _ = write!(text, "# HELP lumina_{name} {help}\n# TYPE lumina_{name} {kind}\nlumina_{name} {value}\n");
    }
    let answers = app.answers();
    for (name, help) in
        [("http_answers_total", "Answers that have begun."), ("http_answer_seconds_total", "Time until they began.")]
    {
        let _ = write!(text, "# HELP lumina_{name} {help}\n# TYPE lumina_{name} counter\n");
        for ((route, status), alike) in &answers {
            let value = if name.contains("seconds") { alike.time.as_secs_f64() } else { counted(alike.count) };
            let _ = writeln!(text, "lumina_{name}{{route=\"{route}\",status=\"{status}\"}} {value}");
        }
    }
    text
}
