//! The board over plain HTTP: the path is the name, 200 or 503 the verdict, the reason one line of
//! text.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderValue, Method, StatusCode, header};

use super::{HealthBoard, NODE, Verdict};

/// Answers any path; the listener's router sends everything here that is not gRPC.
pub(super) async fn answer(State(board): State<HealthBoard>, request: Request) -> Response {
    let method = request.method();
    if method != Method::GET && method != Method::HEAD {
        let mut refusal =
            respond(StatusCode::METHOD_NOT_ALLOWED, "ask with GET or HEAD".into(), true);
        refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    let (code, text) = match board.get(name(request.uri().path())) {
        Some(answer) => match answer.verdict {
            Verdict::Serving => (StatusCode::OK, answer.reason),
            Verdict::NotServing => (StatusCode::SERVICE_UNAVAILABLE, answer.reason),
        },
        None => (StatusCode::NOT_FOUND, "nothing of this name is known here".into()),
    };
    respond(code, text, method == Method::GET)
}

fn name(path: &str) -> &str {
    match path.strip_prefix('/') {
        Some("node/health") => NODE,
        Some(name) => name,
        None => path,
    }
}

fn respond(code: StatusCode, mut text: String, with_body: bool) -> Response {
    text.push('\n');
    let length = text.len();
    let mut response = Response::new(if with_body { Body::from(text) } else { Body::empty() });
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
