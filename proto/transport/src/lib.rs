//! How our processes speak to each other: identities, TLS, the accept loop, dialing; and what each
//! process has beside its work: health, telemetry, settings, small files that survive a crash. It
//! knows no task and no record.

pub mod accept;
pub mod boottime;
pub mod certificate;
pub mod clock;
pub mod connections;
pub mod dial;
pub mod durable;
pub mod health;
pub mod identity;
pub mod keys;
pub mod notify;
pub mod plain_http;
pub mod settings;
mod socket;
pub mod telemetry;
pub mod tls;
pub mod token;
pub mod verify;

#[cfg(any(test, feature = "test-ca"))]
#[allow(clippy::unwrap_used)]
pub mod test_ca;

#[cfg(test)]
mod wire_tests;
