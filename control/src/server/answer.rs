//! What a request gets: an answer, or a refusal with a status and one sentence.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde::Serialize;

use crate::api::types::Failure;
use crate::store::StoreError;

/// The body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An answer.
pub(super) type Answer = Response<Body>;

/// A body that is there as a whole.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// An answer with a body of the given type.
pub(super) fn typed(status: StatusCode, kind: &'static str, bytes: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(whole(bytes));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

/// 200 with JSON.
pub(super) fn json<T: Serialize>(value: &T) -> Result<Answer, Denied> {
    match serde_json::to_vec(value) {
        Ok(bytes) => Ok(typed(StatusCode::OK, "application/json", bytes)),
        Err(error) => {
            Err(Denied::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the answer: {error}")))
        }
    }
}

/// A refusal.
#[derive(Debug)]
pub(super) struct Denied {
    status: StatusCode,
    failure: Box<Failure>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Denied {
    /// With one sentence that says what is wrong and what to do.
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Denied {
        Denied {
            status,
            failure: Box::new(Failure { error: error.into(), ..Failure::default() }),
            header: None,
        }
    }

    /// With the errors of documents.
    pub(super) fn invalid(failure: Failure) -> Denied {
        Denied { status: StatusCode::UNPROCESSABLE_ENTITY, failure: Box::new(failure), header: None }
    }

    /// 400.
    pub(super) fn bad(error: impl Into<String>) -> Denied {
        Denied::new(StatusCode::BAD_REQUEST, error)
    }

    /// 401: who asks is not known.
    pub(super) fn unknown() -> Denied {
        let sentence = "this needs an administrator: send `Authorization: Bearer TOKEN` (--admin-token-file), or use \
                        the Unix socket in the control plane's data folder";
        let mut denied = Denied::new(StatusCode::UNAUTHORIZED, sentence);
        denied.header = Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        denied
    }

    /// 401: what is asked for needs another proof.
    pub(super) fn unproven(error: impl Into<String>) -> Denied {
        let mut denied = Denied::new(StatusCode::UNAUTHORIZED, error);
        denied.header = Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        denied
    }

    /// 403.
    pub(super) fn forbidden(error: impl Into<String>) -> Denied {
        Denied::new(StatusCode::FORBIDDEN, error)
    }

    /// 500.
    pub(super) fn failed(error: impl Into<String>) -> Denied {
        Denied::new(StatusCode::INTERNAL_SERVER_ERROR, error)
    }

    /// 503.
    pub(super) fn unavailable(error: impl Into<String>) -> Denied {
        Denied::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }

    /// 404.
    pub(super) fn not_found(error: impl Into<String>) -> Denied {
        Denied::new(StatusCode::NOT_FOUND, error)
    }

    /// 405, with the methods that are there.
    pub(super) fn method(allowed: &str) -> Denied {
        let mut denied = Denied::new(StatusCode::METHOD_NOT_ALLOWED, format!("use {allowed}"));
        denied.header = HeaderValue::from_str(allowed).ok().map(|value| (ALLOW, value));
        denied
    }

    /// 429.
    pub(super) fn too_many(seconds: u64) -> Denied {
        let mut denied =
            Denied::new(StatusCode::TOO_MANY_REQUESTS, "too many attempts; wait, then try again");
        denied.header = Some((RETRY_AFTER, HeaderValue::from(seconds.max(1))));
        denied
    }

    /// The status.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The sentence.
    pub(super) fn why(&self) -> &str {
        &self.failure.error
    }

    /// With the time after which it may be tried again, seconds.
    pub(super) fn after(mut self, seconds: u64) -> Denied {
        self.header = Some((RETRY_AFTER, HeaderValue::from(seconds.max(1))));
        self
    }

    /// As an answer.
    pub(super) fn answer(self) -> Answer {
        let body = serde_json::to_vec(&self.failure).unwrap_or_default();
        let mut answer = typed(self.status, "application/json", body);
        if let Some((name, value)) = self.header {
            answer.headers_mut().insert(name, value);
        }
        answer
    }
}

impl From<StoreError> for Denied {
    fn from(error: StoreError) -> Denied {
        let status = match error {
            StoreError::Conflict => StatusCode::CONFLICT,
            StoreError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            StoreError::Corrupt(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Denied::new(status, error.to_string())
    }
}
