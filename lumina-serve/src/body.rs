//! Bodies of requests: how much is read and for how long, and what must be in them.

use std::sync::Arc;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::app::{App, Room};
use crate::error::{ApiError, ApiResult};

/// The most fields of a form.
const MAX_FIELDS: usize = 256;

/// What was read, with its room in memory: other requests have less as long as this is there.
pub(crate) struct Received<T> {
    pub(crate) value: T,
    pub(crate) room: Room,
}

/// A form: its texts as JSON, and its files by the names of their fields.
pub(crate) struct Form {
    pub(crate) texts: Map<String, Value>,
    pub(crate) files: Vec<(String, Bytes)>,
}

/// Reads JSON.
///
/// It is read into its type at once: fields that are not known end the reading, and take no memory.
pub(crate) async fn json<T: DeserializeOwned>(app: &Arc<App>, request: Request) -> ApiResult<Received<T>> {
    if !is_type(request.headers(), |kind| kind == "application/json") {
        refuse(app, request).await;
        return Err(unsupported("send JSON, with `Content-Type: application/json`"));
    }
    let (_, bytes, room) = read(app, request).await?;
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    let value: T = serde_path_to_error::deserialize(&mut json).map_err(|error| malformed(&error))?;
    json.end().map_err(|error| ApiError::bad("", format!("the JSON goes on after its end: {error}")))?;
    Ok(Received { value, room })
}

/// Whether a request has a form as its body.
pub(crate) fn is_form(headers: &HeaderMap) -> bool {
    is_type(headers, |kind| kind == "multipart/form-data")
}

/// Reads a form. Fields of `numbers` are numbers and truth values, all other texts are texts.
pub(crate) async fn form(app: &Arc<App>, request: Request, numbers: &[&str]) -> ApiResult<Received<Form>> {
    let (parts, bytes, room) = read(app, request).await?;
    let malformed = |message: String| ApiError::bad("", format!("the form cannot be read: {message}"));
    let request = Request::from_parts(parts, Body::from(bytes));
    let mut multipart = Multipart::from_request(request, &()).await.map_err(|error| malformed(error.body_text()))?;
    let mut form = Form { texts: Map::new(), files: Vec::new() };
    while let Some(field) = multipart.next_field().await.map_err(|error| malformed(error.body_text()))? {
        if form.texts.len() + form.files.len() >= MAX_FIELDS {
            return Err(malformed(format!("more than {MAX_FIELDS} fields")));
        }
        let name = field.name().unwrap_or_default().to_owned();
        // A list in a form: `image[]`, `image[0]`.
        let name = name.split_once('[').filter(|(_, rest)| rest.ends_with(']')).map_or(&*name, |(name, _)| name);
        let name = name.to_owned();
        let is_file = field.file_name().is_some() || matches!(&*name, "image" | "mask");
        let bytes = field.bytes().await.map_err(|error| malformed(error.body_text()))?;
        if is_file {
            form.files.push((name, bytes));
            continue;
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| ApiError::bad(&name, format!("`{name}` is no UTF-8")))?;
        let value = match serde_json::from_str::<Value>(text) {
            Ok(value @ (Value::Number(_) | Value::Bool(_))) if numbers.contains(&&*name) => value,
            _ => Value::from(text),
        };
        if form.texts.contains_key(&name) {
            return Err(ApiError::bad(&name, format!("`{name}` is given twice; leave one out")));
        }
        form.texts.insert(name, value);
    }
    Ok(Received { value: form, room })
}

/// Reads parameters from the texts of a form.
pub(crate) fn from_texts<T: DeserializeOwned>(texts: Map<String, Value>) -> ApiResult<T> {
    serde_path_to_error::deserialize(Value::Object(texts)).map_err(|error| malformed(&error))
}

/// An error of reading JSON, with the field that it is about.
fn malformed(error: &serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let message = error.inner().to_string();
    let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
    if let Some(name) = unknown.map(|(name, _)| name.to_owned()) {
        return ApiError::bad(&name, message);
    }
    match &*error.path().to_string() {
        "" | "." => ApiError::bad("", format!("the JSON cannot be read: {message}")),
        path => ApiError::bad(path, format!("`{path}`: {message}")),
    }
}

fn is_type(headers: &HeaderMap, is: impl Fn(&str) -> bool) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    is(&value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

pub(crate) fn unsupported(message: &str) -> ApiError {
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
}

/// Reads a body, within the limits of bytes and time.
async fn read(app: &Arc<App>, request: Request) -> ApiResult<(axum::http::request::Parts, Bytes, Room)> {
    let limit = app.options.max_body_bytes;
    let (parts, body) = request.into_parts();
    let stated = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let read = async {
        let mut room = app.room()?;
        let mut stream = body.into_data_stream();
        let mut bytes = Vec::with_capacity(stated.unwrap_or(0).min(1 << 20));
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| ApiError::bad("", format!("the body was cut off: {error}")))?;
            if bytes.len() + chunk.len() > limit {
                drop((bytes, room));
                pass_over(stream, limit).await;
                let message = format!("the body has more bytes than the limit of {limit}");
                return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message));
            }
            room.grow(app, bytes.len() + chunk.len())?;
            bytes.extend_from_slice(&chunk);
        }
        Ok((Bytes::from(bytes), room))
    };
    match tokio::time::timeout(app.options.body_timeout, read).await {
        Ok(read) => read.map(|(bytes, room)| (parts, bytes, room)),
        Err(_) => {
            let message = format!("the body did not arrive within {} seconds", app.options.body_timeout.as_secs_f64());
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message))
        }
    }
}

/// Reads what is not wanted, at most so many bytes: a client that still sends would not see the answer.
async fn pass_over(mut stream: BodyDataStream, bytes: usize) {
    let mut left = bytes;
    while let Some(Ok(chunk)) = stream.next().await {
        match left.checked_sub(chunk.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// Passes over the body of a request that is refused, within the limits of those that are not.
pub(crate) async fn refuse(app: &App, request: Request) {
    let passed = pass_over(request.into_body().into_data_stream(), app.options.max_body_bytes);
    let _ = tokio::time::timeout(app.options.body_timeout, passed).await;
}
