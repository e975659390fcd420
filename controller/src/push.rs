//! Runs that an upstream's own programs ask for: `POST /push/<mirror>` with a token of that mirror.
//! Plain HTTP: on loopback, or behind a proxy that speaks TLS. It says nothing to whom it does not
//! know.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{HeaderMap, StatusCode, header};
use lockstep_model::mirror::{Allow, Trigger};
use lockstep_model::record::Actor;
use lockstep_model::request::Request;
use lockstep_model::{Code, MirrorName, Reject};
use lockstep_transport::token::secret_sha256;

use crate::driver::{Ask, DriverHandle};

/// Longest text that may be a token.
const TOKEN_MAX: usize = 256;

pub fn router(driver: DriverHandle) -> Router {
    Router::new().route("/push/{mirror}", post(push)).with_state(driver)
}

async fn push(
    State(driver): State<DriverHandle>,
    Path(mirror): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some((mirror, token)) = check(&driver, &mirror, &headers) else {
        let body = serde_json::json!({ "error": "no such mirror, or not its token" });
        return answer(StatusCode::UNAUTHORIZED, &body);
    };
    let request = Request::SyncMirror {
        mirror,
        only: Vec::new(),
        from: None,
        allow: Allow::default(),
        trigger: Trigger::Push(token),
    };
    match driver.ask(Ask::new(Actor::Anonymous, "push", request)).await {
        Ok(done) => {
            let run = done.runs.first().map(ToString::to_string);
            answer(StatusCode::ACCEPTED, &serde_json::json!({ "run": run }))
        }
        Err(reject) => {
            let body = serde_json::json!({ "error": reject.message, "reason": reject.reason });
            answer(status(&reject), &body)
        }
    }
}

/// The mirror, and the id of the token that was shown. Every kind of wrong is the same.
fn check(driver: &DriverHandle, mirror: &str, headers: &HeaderMap) -> Option<(MirrorName, String)> {
    let shown = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, text) = shown.split_once(' ')?;
    let text = text.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || text.len() > TOKEN_MAX {
        return None;
    }
    let name: MirrorName = mirror.parse().ok()?;
    let sha256 = secret_sha256(text.as_bytes());
    let id = driver.read(|world| {
        let tokens = &world.mirrors().get(&name)?.value.push_tokens;
        tokens.iter().find(|token| token.fits(&sha256)).map(|token| token.id.to_string())
    })?;
    Some((name, id))
}

fn status(reject: &Reject) -> StatusCode {
    match reject.code {
        Code::FailedPrecondition => StatusCode::CONFLICT,
        // The token was deleted meanwhile.
        Code::NotFound | Code::PermissionDenied => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted | Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn answer(status: StatusCode, body: &serde_json::Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, format!("{body}\n")).into_response()
}
