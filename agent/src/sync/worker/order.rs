//! Passes that were ordered, by people or by a schedule: they run at once and tell their progress
//! and outcome.

use lockstep_model::sync::DeliveryState;
use lockstep_model::task::{Outcome, OutcomeKind};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::relay::Offered;
use super::{Done, Kind, Worker};
use crate::cursor::Cursor;
use crate::deliver::{Delivery, next_delivery};
use crate::sync::look::examine;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    /// A pass, also of a source on another file system than before.
    Resync,
    /// A pass as it may come at any time.
    Compare { content: bool },
    /// What a limit holds may go, for this once.
    Release,
}

/// What a person ordered for one target.
pub struct Order {
    pub task: Task,
    pub progress: mpsc::Sender<String>,
    pub cancel: CancellationToken,
    pub done: oneshot::Sender<Outcome>,
}

impl Worker {
    /// An ordered pass runs at once, whatever the backoff says; a person's also accepts the file
    /// system that the source is on now.
    pub(super) async fn carry_out(&mut self, order: Order) {
        let Order { task, progress, cancel, done } = order;
        if task == Task::Release {
            let _ = done.send(self.release().await);
            return;
        }
        if self.context.options().paused {
            let _ = done.send(Outcome::new(OutcomeKind::Failed, "the sync is paused"));
            return;
        }
        match self.offer().await {
            None => {
                let why = format!("{} was stopped", self.context.sync);
                let _ = done.send(Outcome::new(OutcomeKind::Interrupted, why));
                return;
            }
            Some(Offered::Refused(why)) => {
                let _ = done.send(Outcome::new(OutcomeKind::Failed, why));
                return;
            }
            Some(Offered::Taken | Offered::Changed) => {}
        }
        let sync = self.context.sync.clone();
        self.take_full().await;
        let mut facts = examine(&self.context, true).await;
        if task == Task::Resync {
            facts.known_device = None;
        }
        let wanted = Cursor { full: true, ..self.cursor };
        let policy = self.context.options().delete;
        let delivery = next_delivery(&wanted, &self.shared.pending(), policy, &facts);
        let outcome = match delivery {
            _ if cancel.is_cancelled() => Outcome::new(OutcomeKind::Cancelled, "cancelled"),
            Delivery::Pass { delete } => {
                if task == Task::Resync {
                    self.context.forget_device();
                }
                let either = self.stop.child_token();
                let watch_cancel = {
                    let (cancel, either) = (cancel.clone(), either.clone());
                    async move {
                        cancel.cancelled().await;
                        either.cancel();
                        std::future::pending::<Option<Done>>().await
                    }
                };
                self.by_content = task == Task::Compare { content: true };
                let ended = tokio::select! {
                    biased;
                    ended = self.pass(delete, &facts.source, Some(&progress), &either) => ended,
                    ended = watch_cancel => ended,
                };
                self.by_content = false;
                match ended {
                    Some(ended) => {
                        let outcome = match &ended {
                            Done::Through => Outcome::ok(),
                            Done::Left(_, error) | Done::Failed(_, error) => {
                                Outcome::new(OutcomeKind::Failed, error.clone())
                            }
                            Done::Held => Outcome::new(OutcomeKind::Failed, ""),
                        };
                        let held = matches!(ended, Done::Held);
                        self.settle(Kind::Pass, ended).await;
                        match held {
                            true => {
                                let why = self.shared.status().last_error.clone();
                                Outcome::new(OutcomeKind::Failed, why)
                            }
                            false => outcome,
                        }
                    }
                    None if cancel.is_cancelled() => {
                        self.shared.status().state = DeliveryState::Dirty;
                        Outcome::new(OutcomeKind::Cancelled, "cancelled")
                    }
                    None => Outcome::new(OutcomeKind::Interrupted, format!("{sync} was stopped")),
                }
            }
            Delivery::Held { why } => Outcome::new(OutcomeKind::Failed, why),
            Delivery::Batch { .. } | Delivery::Ack | Delivery::Nothing => {
                Outcome::new(OutcomeKind::Failed, "nothing was to be done")
            }
        };
        let _ = done.send(outcome);
    }
}
