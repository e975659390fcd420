//! Why something was refused: one small set of codes, a stable reason word, a message that names
//! the field or resource and says what to do.

use std::fmt;

/// A value from outside that does not fit: which field, and what it must be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    pub field: String,
    pub problem: String,
}

impl Invalid {
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    /// The same problem seen from outside: `targets[2]: node name: must not be empty`.
    pub fn within(self, outer: impl fmt::Display) -> Self {
        Self { field: format!("{outer}.{}", self.field), problem: self.problem }
    }
}

/// The codes that cross the wire; each is the gRPC status of the same name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Code {
    InvalidArgument,
    NotFound,
    AlreadyExists,
    FailedPrecondition,
    Aborted,
    PermissionDenied,
    Unauthenticated,
    ResourceExhausted,
    Unavailable,
    OutOfRange,
    DeadlineExceeded,
    Unimplemented,
    Internal,
}

/// A refusal. `reason` is stable and for programs; `message` is for people.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Reject {
    pub code: Code,
    /// snake_case, never reworded once shipped; each has a paragraph in the documentation.
    pub reason: &'static str,
    /// What it is about: `node/web1`, `sync/webroot`, or the field of the request.
    pub subject: String,
    pub message: String,
}

impl Reject {
    pub fn new(
        code: Code,
        reason: &'static str,
        subject: impl fmt::Display,
        message: impl Into<String>,
    ) -> Self {
        Self { code, reason, subject: subject.to_string(), message: message.into() }
    }

    pub fn not_found(subject: impl fmt::Display, message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, "not_found", subject, message)
    }

    pub fn exists(subject: impl fmt::Display, message: impl Into<String>) -> Self {
        Self::new(Code::AlreadyExists, "already_exists", subject, message)
    }
}

impl From<Invalid> for Reject {
    fn from(invalid: Invalid) -> Self {
        Self::new(Code::InvalidArgument, "invalid", &invalid.field, invalid.to_string())
    }
}
