//! Answers in JSON, and what is in all of them.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::Value;

/// An answer in JSON.
pub(crate) fn json_response(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A number that differs each time: the standard library seeds its hashers by the system's random numbers. It names
/// requests and starts draws, and protects nothing.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A seed where none is given: short enough for numbers in JavaScript, and to be typed.
pub(crate) fn random_seed() -> u64 {
    random() >> 32
}
