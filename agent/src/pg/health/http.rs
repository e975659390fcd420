//! Checks over plain HTTP: `/cluster/<name>/<check>`, and `/<check>` where the node has exactly one
//! member, 200 or 503, with the status as JSON for GET; pages and metrics beside them. Nothing is changed
//! from here: who asks for that is told the command.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use axum::routing::any;
use lockstep_model::{ClusterName, NodeName};
use serde_json::{Value, json};

use super::check::{self, Check};
use super::pages::{self, Page};
use super::query::Query;
use super::status::status;
use super::{Sources, metrics};

const METRICS: &str = "metrics";

/// What Patroni's API changes, and lockstepctl's command for it.
const ACTIONS: &[(&str, &str)] = &[
    ("switchover", "cluster switchover"),
    ("failover", "cluster failover"),
    ("restart", "cluster restart"),
    ("reload", "cluster reload"),
    ("reinitialize", "cluster reclone"),
    ("failsafe", "cluster explain"),
];

/// What else the node measures, in the format of [`metrics`].
pub type Further = Arc<dyn Fn() -> String + Send + Sync>;

#[derive(Clone)]
struct Listener {
    sources: Sources,
    node: NodeName,
    further: Further,
}

/// For the health listener. Paths that are not here stay the board's.
pub fn routes(sources: Sources, node: NodeName, further: Further) -> Router {
    let mut router = Router::new()
        .route("/cluster/{cluster}", any(below))
        .route("/cluster/{cluster}/", any(below))
        .route("/cluster/{cluster}/{check}", any(below));
    let names = check::NAMES.iter().map(|(name, _)| *name);
    let pages = pages::NAMES.iter().map(|(name, _)| *name);
    let actions = ACTIONS.iter().map(|(name, _)| *name);
    for name in names.chain(pages).chain(actions) {
        router = router.route(&format!("/{name}"), any(at_root));
    }
    router = router.route(&format!("/{METRICS}"), any(all_metrics));
    router.with_state(Listener { sources, node, further })
}

async fn below(
    State(listener): State<Listener>,
    Path(parts): Path<Vec<String>>,
    RawQuery(query): RawQuery,
    method: Method,
) -> Response {
    let mut parts = parts.iter().map(String::as_str);
    let cluster = parts.next().unwrap_or_default().parse::<ClusterName>().ok();
    listener.answer(cluster, parts.next().unwrap_or_default(), query, &method)
}

async fn at_root(
    State(listener): State<Listener>,
    uri: axum::http::Uri,
    RawQuery(query): RawQuery,
    method: Method,
) -> Response {
    let only = <[ClusterName; 1]>::try_from(listener.sources.clusters());
    let cluster = only.ok().map(|[cluster]| cluster);
    listener.answer(cluster, uri.path().trim_matches('/'), query, &method)
}

/// Of all members, however many there are, and what else there is.
async fn all_metrics(State(listener): State<Listener>, method: Method) -> Response {
    let clusters = listener.sources.clusters();
    listener.metrics(&clusters, &method, &*listener.further)
}

impl Listener {
    fn metrics(
        &self,
        clusters: &[ClusterName],
        method: &Method,
        more: impl Fn() -> String,
    ) -> Response {
        if !reads(method) {
            return not_allowed();
        }
        let views: Vec<_> = clusters.iter().filter_map(|name| self.sources.view(name)).collect();
        let text =
            (*method == Method::GET).then(|| metrics::text(&views, self.node.as_str()) + &more());
        respond_with(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
    }

    fn answer(
        &self,
        cluster: Option<ClusterName>,
        check: &str,
        query: Option<String>,
        method: &Method,
    ) -> Response {
        let action = ACTIONS.iter().find(|(name, _)| *name == check).map(|(_, command)| *command);
        let changes = check == "config" && [Method::PATCH, Method::PUT].contains(method);
        if let Some(command) = action.or(changes.then_some("cluster edit")) {
            let name = cluster.as_ref().map_or("NAME", ClusterName::as_str);
            let why = format!("nothing is changed from here: lockstepctl {command} {name}");
            return respond(StatusCode::NOT_IMPLEMENTED, Some(json!({ "error": why })));
        }
        if !reads(method) {
            return not_allowed();
        }
        let with_body = *method == Method::GET;
        if let (METRICS, Some(cluster)) = (check, &cluster)
            && self.sources.view(cluster).is_some()
        {
            return self.metrics(std::slice::from_ref(cluster), method, String::new);
        }
        let view = cluster.and_then(|cluster| self.sources.view(&cluster));
        if let (Some(view), Some(page)) = (&view, Page::find(check)) {
            let body = with_body.then(|| page.show(view, self.node.as_str()));
            return respond(StatusCode::OK, body);
        }
        let (Some(view), Some(check)) = (view, Check::find(check)) else {
            let why = json!({ "error": "nothing of this name is known here" });
            return respond(StatusCode::NOT_FOUND, with_body.then_some(why));
        };
        let passed = Query::read(query.as_deref().unwrap_or_default())
            .and_then(|query| check.pass(&view, &query));
        let code = match passed {
            Ok(()) => StatusCode::OK,
            Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let body = with_body.then(|| {
            let mut body = status(&view, self.node.as_str());
            body["lockstep"]["reason"] = passed.err().unwrap_or_default().into();
            body
        });
        respond(code, body)
    }
}

fn reads(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS].contains(method)
}

fn not_allowed() -> Response {
    let mut refusal = respond(StatusCode::METHOD_NOT_ALLOWED, None);
    let allowed = HeaderValue::from_static("GET, HEAD, OPTIONS");
    refusal.headers_mut().insert(header::ALLOW, allowed);
    refusal
}

fn respond(code: StatusCode, body: Option<Value>) -> Response {
    respond_with(code, "application/json", body.map(|body| format!("{body}\n")))
}

fn respond_with(code: StatusCode, kind: &'static str, text: Option<String>) -> Response {
    let mut response = Response::new(text.map_or_else(Body::empty, Body::from));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
