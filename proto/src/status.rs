//! The one mapping between refusals and gRPC status. The stable reason word and the subject travel
//! as `google.rpc.ErrorInfo`; the message is for people.

use std::collections::HashMap;

use lockstep_model::{Code, Reject};
use tonic_types::{ErrorDetails, StatusExt};

const DOMAIN: &str = "lockstep";

pub fn from_reject(reject: &Reject) -> tonic::Status {
    let Reject { code, reason, subject, message } = reject;
    let metadata = HashMap::from([("subject".to_owned(), subject.clone())]);
    let details = ErrorDetails::with_error_info(*reason, DOMAIN, metadata);
    tonic::Status::with_error_details(to_grpc(*code), message.clone(), details)
}

/// A refusal as a client reads it back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub code: tonic::Code,
    /// Empty when the status did not come from Lockstep's own code.
    pub reason: String,
    pub subject: String,
    pub message: String,
}

pub fn read(status: &tonic::Status) -> Refusal {
    let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
    let (reason, subject) = info.map_or_else(Default::default, |mut info| {
        let subject = info.metadata.remove("subject").unwrap_or_default();
        (info.reason, subject)
    });
    Refusal { code: status.code(), reason, subject, message: status.message().to_owned() }
}

fn to_grpc(code: Code) -> tonic::Code {
    match code {
        Code::InvalidArgument => tonic::Code::InvalidArgument,
        Code::NotFound => tonic::Code::NotFound,
        Code::AlreadyExists => tonic::Code::AlreadyExists,
        Code::FailedPrecondition => tonic::Code::FailedPrecondition,
        Code::Aborted => tonic::Code::Aborted,
        Code::PermissionDenied => tonic::Code::PermissionDenied,
        Code::Unauthenticated => tonic::Code::Unauthenticated,
        Code::ResourceExhausted => tonic::Code::ResourceExhausted,
        Code::Unavailable => tonic::Code::Unavailable,
        Code::OutOfRange => tonic::Code::OutOfRange,
        Code::DeadlineExceeded => tonic::Code::DeadlineExceeded,
        Code::Unimplemented => tonic::Code::Unimplemented,
        Code::Internal => tonic::Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_survives_the_wire() {
        let reject = Reject::not_found("node/web9", "there is no node web9");
        let refusal = read(&from_reject(&reject));
        assert_eq!(refusal.code, tonic::Code::NotFound);
        assert_eq!(refusal.reason, reject.reason);
        assert_eq!(refusal.subject, reject.subject);
        assert_eq!(refusal.message, reject.message);
    }

    #[test]
    fn a_foreign_status_has_no_reason() {
        let refusal = read(&tonic::Status::unavailable("gone"));
        assert_eq!((refusal.reason.as_str(), refusal.message.as_str()), ("", "gone"));
    }
}
