//! LogService: the sequence of transactions as watch feed and audit trail, and the planner's reasons.

mod summary;

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use lockstep_model::reason::Reason;
use lockstep_model::record::{Change, Key, Write};
use lockstep_model::{Code, Reject, Revision};
use lockstep_plan::explain::explain;
use lockstep_proto::convert::to_wire_time;
use lockstep_proto::status::from_reject;
use lockstep_proto::v1;
use lockstep_proto::v1::log_service_server::LogService;
use lockstep_transport::clock;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tonic::Request;

use super::{Answer, Answers, Api, answer, open};
use crate::store::{CHANGES_MAX, ChangesError, Store};

const LIST_DEFAULT: usize = 100;
const LIST_MAX: usize = 1000;
/// Most pieces of the log that one listing reads; a rare scope may then show less than there is.
const PIECES_MAX: usize = 100;
const SCOPE_MAX: usize = 200;

#[tonic::async_trait]
impl LogService for Api {
    async fn list_entries(
        &self,
        request: Request<v1::ListEntriesRequest>,
    ) -> Answer<v1::ListEntriesResponse> {
        answer(self.list_entries(request).await)
    }

    type WatchLogStream = Answers<v1::WatchLogResponse>;

    async fn watch_log(
        &self,
        request: Request<v1::WatchLogRequest>,
    ) -> Answer<Self::WatchLogStream> {
        answer(self.watch_log(request))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Answer<v1::ExplainResponse> {
        answer(self.explain(request))
    }
}

impl Api {
    /// Goes back through the log, a piece at a time.
    async fn list_entries(
        &self,
        request: Request<v1::ListEntriesRequest>,
    ) -> Result<v1::ListEntriesResponse, Reject> {
        let (_, v1::ListEntriesRequest { scope, limit, before }) = open(request)?;
        let scope = check_scope(scope)?;
        let limit = match limit as usize {
            0 => LIST_DEFAULT,
            limit => limit.min(LIST_MAX),
        };
        let revision = self.driver().read(|world| world.revision());
        let mut before =
            if before == 0 { revision.next() } else { Revision(before).min(revision.next()) };
        let mut entries = Vec::new();
        for _ in 0..PIECES_MAX {
            let after = Revision(before.0.saturating_sub(CHANGES_MAX as u64 + 1));
            let (piece, floor) = match self.driver().store().changes(after).await {
                Ok(piece) => (piece, after),
                Err(ChangesError::Compacted { oldest }) if oldest < before => {
                    (self.driver().store().changes(oldest).await.map_err(unreadable)?, oldest)
                }
                Err(ChangesError::Compacted { .. }) => break,
                Err(error) => return Err(unreadable(error)),
            };
            let piece = piece.iter().rev().filter(|change| change.revision < before);
            entries.extend(piece.filter_map(|change| entry(change, &scope)));
            if entries.len() >= limit || floor == Revision::ZERO || floor > after {
                break;
            }
            before = floor.next();
        }
        entries.truncate(limit);
        Ok(v1::ListEntriesResponse { entries, revision: revision.0 })
    }

    fn watch_log(
        &self,
        request: Request<v1::WatchLogRequest>,
    ) -> Result<Answers<v1::WatchLogResponse>, Reject> {
        let (_, v1::WatchLogRequest { after, scope }) = open(request)?;
        let scope = check_scope(scope)?;
        // First the feed, then where to begin: so nothing falls in between.
        let changes = self.driver().subscribe();
        let now = self.driver().read(|world| world.revision());
        let watch = Watch {
            store: self.driver().store().clone(),
            changes,
            backlog: VecDeque::new(),
            live: after.is_none(),
            last: after.map_or(now, Revision),
            scope,
        };
        let entries = stream::unfold(Some(watch), |watch| async move {
            let mut watch = watch?;
            match watch.next().await? {
                Ok(entry) => Some((Ok(v1::WatchLogResponse { entry: Some(entry) }), Some(watch))),
                Err(reject) => Some((Err(from_reject(&reject)), None)),
            }
        });
        Ok(entries.take_until(self.0.shutdown.clone().cancelled_owned()).boxed())
    }

    fn explain(&self, request: Request<v1::ExplainRequest>) -> Result<v1::ExplainResponse, Reject> {
        let (_, v1::ExplainRequest { subject }) = open(request)?;
        let now = clock::now();
        let reasons = self
            .driver()
            .read_reasons(|world, reasons| explain(world, reasons, &check_scope(subject)?, now))?;
        let show = |Reason { subject, rule, text, until }| v1::Reason {
            subject,
            rule: rule.to_owned(),
            text,
            until: until.map(to_wire_time),
        };
        Ok(v1::ExplainResponse { reasons: reasons.into_iter().map(show).collect() })
    }
}

/// One reader of the log. When it is too slow for the live feed it reads from the store again.
struct Watch {
    store: Arc<dyn Store>,
    changes: broadcast::Receiver<Arc<Change>>,
    backlog: VecDeque<Change>,
    live: bool,
    last: Revision,
    scope: String,
}

impl Watch {
    /// None when the controller stops.
    async fn next(&mut self) -> Option<Result<v1::LogEntry, Reject>> {
        loop {
            let change = match self.backlog.pop_front() {
                Some(change) => Arc::new(change),
                None if self.live => match self.changes.recv().await {
                    Ok(change) => change,
                    Err(RecvError::Lagged(_)) => {
                        self.live = false;
                        continue;
                    }
                    Err(RecvError::Closed) => return None,
                },
                None => match self.store.changes(self.last).await {
                    Ok(piece) => {
                        self.live = piece.is_empty();
                        self.backlog.extend(piece);
                        continue;
                    }
                    Err(error) => return Some(Err(unreadable(error))),
                },
            };
            if change.revision <= self.last {
                continue;
            }
            self.last = change.revision;
            if let Some(entry) = entry(&change, &self.scope) {
                return Some(Ok(entry));
            }
        }
    }
}

/// The entry as far as it is in the scope; None when it is not.
fn entry(change: &Change, scope: &str) -> Option<v1::LogEntry> {
    let Change { revision, at, actor, cause, writes } = change;
    let writes: Vec<v1::LogWrite> =
        writes.iter().map(show_write).filter(|write| write.key.starts_with(scope)).collect();
    (!writes.is_empty() || scope.is_empty()).then(|| v1::LogEntry {
        revision: revision.0,
        at: Some(to_wire_time(*at)),
        actor: actor.to_string(),
        cause: cause.clone(),
        writes,
    })
}

fn show_write(write: &Write) -> v1::LogWrite {
    let key = match write.key() {
        // The store's key has the id in another, sortable form.
        Key::Task(node, id) => format!("task/{node}/{id}"),
        key => key.to_string(),
    };
    let (deleted, summary) = match write {
        Write::Put(record) => (false, summary::of(record)),
        Write::Delete(_) => (true, String::new()),
    };
    v1::LogWrite { key, deleted, summary }
}

fn check_scope(scope: String) -> Result<String, Reject> {
    if scope.len() <= SCOPE_MAX {
        return Ok(scope);
    }
    let message = format!("scope: must have at most {SCOPE_MAX} bytes, has {}", scope.len());
    Err(Reject::new(Code::InvalidArgument, "invalid", "scope", message))
}

fn unreadable(error: ChangesError) -> Reject {
    match error {
        ChangesError::Compacted { .. } => {
            Reject::new(Code::OutOfRange, "compacted", "log", error.to_string())
        }
        ChangesError::Store(error) => {
            tracing::error!(%error, "cannot read the log");
            Reject::new(Code::Internal, "store_unreadable", "log", error.to_string())
        }
    }
}
