//! Answers that come piece by piece: server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};

use crate::error::ApiError;

/// How often a comment is sent where nothing happens, so that nobody on the way takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// An event by its name.
pub(crate) fn event(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}

/// An event without a name.
pub(crate) fn unnamed(data: &Value) -> Event {
    Event::default().data(data.to_string())
}

/// The event of a failure, after which nothing comes.
pub(crate) fn failure(error: &ApiError) -> Event {
    let mut data = json!({ "type": "error" });
    data["error"] = error.body()["error"].take();
    event("error", &data)
}

/// An answer of groups of events. It is made as it is sent: when the client goes away, the stream is dropped.
pub(crate) fn response(groups: impl Stream<Item = Vec<Event>> + Send + 'static) -> Response {
    // What is logged on the way is the request's.
    let (span, mut groups) = (tracing::Span::current(), Box::pin(groups));
    let groups = stream::poll_fn(move |context| span.in_scope(|| groups.as_mut().poll_next(context)));
    let events = groups.flat_map(stream::iter).map(Ok::<_, Infallible>);
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    // nginx holds answers back otherwise.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
