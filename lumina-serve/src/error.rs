//! The errors of a server as a program, and those of its answers.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use lumina_mgpt::StopReason;
use serde_json::{Value, json};

use crate::answer::json_response;

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with a server; what is wrong with a request is an answer in JSON.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option that is out of range.
    #[error("`{field}` is {value}, expected {expected}")]
    Option {
        /// The option's name.
        field: &'static str,
        /// Its value.
        value: String,
        /// Its range.
        expected: &'static str,
    },
    /// The address cannot be listened at.
    #[error(
        "{address} cannot be listened at; is the port in use, or is it not this machine's? Choose another by `--port`"
    )]
    Bind {
        /// Host and port.
        address: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The system does not report its signals.
    #[error("the system does not say when the program is asked to end")]
    Signals(#[source] std::io::Error),
    /// The system starts no thread for the end of the engine.
    #[error("the system starts no thread; lower the number of threads, or raise its limit (`ulimit -u`)")]
    Thread(#[source] std::io::Error),
}

/// What a request is answered where it cannot be answered as it should.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
    retry_after: Option<u64>,
}

/// Shorthand for what a request leads to.
pub(crate) type ApiResult<T> = std::result::Result<T, ApiError>;

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: Some(code), retry_after: None }
    }

    /// A request that must be changed; `param` is the field to change.
    pub(crate) fn bad(param: &str, message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_value", message);
        Self { param: (!param.is_empty()).then(|| param.to_owned()), ..error }
    }

    /// What the server has failed at: the client is told no more than that.
    pub(crate) fn failed(error: &dyn std::error::Error) -> Self {
        let sources = std::iter::successors(error.source(), |error| error.source());
        let causes: Vec<String> = sources.map(ToString::to_string).collect();
        tracing::error!(%error, ?causes, "a request failed");
        let message = "the server failed at this request; its log says why, under the answer's x-request-id";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    /// The server takes no further requests.
    pub(crate) fn draining() -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "draining", "the server is shutting down; try another");
        error.retry_after(10)
    }

    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// The field that the error is about, in the place of another.
    pub(crate) fn about(self, param: &str) -> Self {
        Self { param: Some(param.to_owned()), ..self }
    }

    /// The error of the library, as an answer.
    pub(crate) fn of(error: lumina_mgpt::Error) -> Self {
        use lumina_mgpt::Error as E;
        use lumina_sampling::Error as S;
        use lumina_vq::Error as V;
        match error {
            E::QueueFull { .. } => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "queue_full",
                "as many requests run and wait as may; try again after the time in `Retry-After`",
            )
            .retry_after(1),
            E::Stopped => Self::draining(),
            E::Malformed { stop: Some(StopReason::Cancelled), .. } | E::Answer { stop: StopReason::Cancelled, .. } => {
                Self::draining()
            }
            E::Malformed { stop: Some(StopReason::Deadline), .. } | E::Answer { stop: StopReason::Deadline, .. } => {
                Self::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    "deadline",
                    "the deadline has passed before the image was complete: raise `deadline_ms`",
                )
            }
            E::Vq(V::TooManyPixels { .. } | V::ImageMemory { .. }) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "image_too_large", error.to_string())
            }
            E::Vq(
                V::Core(_)
                | V::Decode { .. }
                | V::UnsupportedImage { .. }
                | V::NoPixels { .. }
                | V::TooNarrow { .. }
                | V::Memory { .. }
                | V::NoDecoder
                | V::Sides { .. },
            )
            | E::Sampling(S::Option { .. } | S::ImageSize { .. })
            | E::EmptyPrompt
            | E::PromptTooLong { .. }
            | E::Option { .. }
            | E::NoImageTokenizer
            | E::KvLimit { .. }
            | E::KvBudget { .. }
            | E::TargetSize { .. }
            | E::Request { .. }
            | E::UnknownTask { .. }
            | E::UnknownSize { .. }
            | E::ImageBeyondContext { .. }
            | E::Malformed { .. }
            | E::Answer { .. }
            | E::Core(_)
            | E::Tokenizer(_) => Self::bad(param_of(&error), error.to_string()),
            _ => Self::failed(&error),
        }
    }

    /// The error as JSON.
    pub(crate) fn body(&self) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": self.code } })
    }
}

/// The field of a request that an error is about.
fn param_of(error: &lumina_mgpt::Error) -> &'static str {
    use lumina_mgpt::Error as E;
    use lumina_sampling::Error as S;
    match error {
        E::Vq(_) | E::TargetSize { .. } => "image",
        E::EmptyPrompt => "messages",
        E::UnknownTask { .. } => "task",
        E::UnknownSize { .. } | E::ImageBeyondContext { .. } | E::Core(_) => "size",
        E::Sampling(S::Option { field: "image_top_k" | "text_top_k", .. }) => "top_k",
        E::Option { field: "max_new_tokens", .. } => "max_completion_tokens",
        E::Option { field, .. } | E::Sampling(S::Option { field, .. }) => field,
        E::Sampling(S::ImageSize { .. }) => "size",
        _ => "",
    }
}

impl From<lumina_mgpt::Error> for ApiError {
    fn from(error: lumina_mgpt::Error) -> Self {
        Self::of(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json_response(self.status, &self.body());
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
