//! What can go wrong, as an exit code and a line that says what to do next.

use std::fmt;
use std::process::ExitCode;

use lockstep_model::Invalid;
use lockstep_proto::status;
use lockstep_transport::dial::{DialError, dial_error_in};

/// The exit codes, as `lockstepctl --help` documents them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Something was tried and did not succeed.
    Failed = 1,
    /// The command line or a local file is wrong; nothing was sent.
    Usage = 2,
    /// The controller refused: not found, exists already, not allowed in this state.
    Refused = 3,
    /// Not logged in, or without the right to do it.
    Denied = 4,
    /// No controller could be reached.
    Unreachable = 5,
    /// `--timeout` passed.
    TimedOut = 6,
    /// Copies were compared and are not equal.
    Differs = 7,
    /// Ctrl-C: 128 and the signal's number, as a shell has it.
    Interrupted = 130,
}

#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    message: String,
}

impl Failure {
    pub fn failed(message: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, message: message.into() }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, message: message.into() }
    }

    pub fn denied(message: impl Into<String>) -> Self {
        Self { kind: Kind::Denied, message: message.into() }
    }

    pub fn refused(message: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, message: message.into() }
    }

    pub fn differs(message: impl Into<String>) -> Self {
        Self { kind: Kind::Differs, message: message.into() }
    }

    pub fn timed_out(message: impl Into<String>) -> Self {
        Self { kind: Kind::TimedOut, message: message.into() }
    }

    pub fn interrupted(message: impl Into<String>) -> Self {
        Self { kind: Kind::Interrupted, message: message.into() }
    }

    pub fn unreachable(message: impl Into<String>) -> Self {
        Self { kind: Kind::Unreachable, message: message.into() }
    }

    /// Who reads our stdout went away; that is no news to him.
    pub fn closed() -> Self {
        Self { kind: Kind::Failed, message: String::new() }
    }

    /// The same failure, saying where.
    pub fn within(self, place: impl fmt::Display) -> Self {
        Self { message: format!("{place}: {}", self.message), ..self }
    }

    /// Somebody else may be allowed to.
    pub fn is_denied(&self) -> bool {
        self.kind == Kind::Denied
    }

    pub fn is_refused(&self) -> bool {
        self.kind == Kind::Refused
    }

    pub fn is_unreachable(&self) -> bool {
        self.kind == Kind::Unreachable
    }

    /// Whether the controller refused it with this word.
    pub fn is(&self, reason: &str) -> bool {
        self.kind == Kind::Refused && self.message.ends_with(&format!("[{reason}]"))
    }

    pub fn is_silent(&self) -> bool {
        self.message.is_empty()
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Self::usage(invalid.to_string())
    }
}

impl From<DialError> for Failure {
    fn from(error: DialError) -> Self {
        let kind = match &error {
            DialError::Untrusted { .. } | DialError::Refused { .. } => Kind::Denied,
            DialError::NoAddress
            | DialError::Resolve { .. }
            | DialError::Unreachable { .. }
            | DialError::NotTls { .. }
            | DialError::Tls { .. }
            | DialError::All(_) => Kind::Unreachable,
        };
        Self { kind, message: error.to_string() }
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        if let Some(error) = dial_error_in(&status) {
            return error.into();
        }
        let refusal = status::read(&status);
        let kind = match refusal.code {
            tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => Kind::Denied,
            tonic::Code::Unavailable => Kind::Unreachable,
            tonic::Code::DeadlineExceeded => Kind::TimedOut,
            tonic::Code::Unknown | tonic::Code::Internal | tonic::Code::DataLoss => Kind::Failed,
            _ => Kind::Refused,
        };
        let message = match (refusal.message.is_empty(), refusal.reason.as_str()) {
            (true, _) => format!("the controller answered {:?}", refusal.code),
            (false, "") => refusal.message,
            (false, reason) => format!("{} [{reason}]", refusal.message),
        };
        Self { kind, message }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::closed();
        }
        Self::failed(error.to_string())
    }
}
