//! What a run is told that asks its engine for something that no run gets.

use hyper::StatusCode;

/// A refusal, in the engine's own form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) text: String,
}

impl Refusal {
    /// No run gets this.
    pub(super) fn forbidden(text: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, text: format!("interceptor: {}", text.into()) }
    }

    /// It cannot be read.
    pub(super) fn malformed(text: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: format!("interceptor: {}", text.into()) }
    }

    /// No run gives this with a call.
    pub(super) fn parameter(name: &str) -> Self {
        Self::forbidden(format!("the parameter {name:?} is none that a run may give: leave it out"))
    }

    /// The run has no such thing; whether anybody else has is not said.
    pub(super) fn missing(what: &str, name: &str) -> Self {
        // As the engine says it, since clients look for these words.
        Self { status: StatusCode::NOT_FOUND, text: format!("No such {what}: {name}") }
    }

    /// It cannot be had now.
    pub(super) fn unable(text: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, text: format!("interceptor: {}", text.into()) }
    }

    /// The body of the engine's errors.
    pub(super) fn body(&self) -> Vec<u8> {
        serde_json::json!({ "message": self.text }).to_string().into_bytes()
    }
}
