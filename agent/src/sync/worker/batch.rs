//! Batches: the paths that the journal named since the last delivery, in as many runs of rsync as
//! they need. What a batch did not bring over is put back.

use lockstep_model::sync::DeliveryState;
use tokio_util::sync::CancellationToken;

use super::run::permit;
use super::{Done, Worker};
use crate::cursor::Cursor;
use crate::deliver::{Lists, Source};
use crate::rsync::exit::Exit;
use crate::rsync::{self, Form};
use crate::sync::look::list;

impl Worker {
    /// None when stopped.
    pub(super) async fn batch(&mut self, delete: bool, source: &Source) -> Option<Done> {
        let mut taken = self.begin(DeliveryState::Syncing);
        let stop = self.stop.clone();
        self.move_ahead(delete, &mut taken, &stop).await?;
        let lists = list(&self.context, taken.clone()).await;
        let done = self.send_lists(delete, &lists, &stop).await;
        if let Some(Done::Through) = done {
            self.save(Cursor { acked: taken.upto(), ..self.cursor }).await;
            self.context.remember(source).await;
        } else {
            self.shared.pending().put_back(taken);
        }
        done
    }

    pub(super) async fn send_lists(
        &mut self,
        delete: bool,
        lists: &Lists,
        stop: &CancellationToken,
    ) -> Option<Done> {
        let _permit = permit(&self.context.engine.batches, stop).await?;
        let forms =
            [(Form::Batch { delete }, &lists.names), (Form::Subtrees { delete }, &lists.subtrees)];
        for (form, names) in forms.into_iter().filter(|(_, names)| !names.is_empty()) {
            let input = rsync::list(names.iter().map(|name| &**name));
            let ended = self.transfer(form, Some(input), None, stop).await?;
            if ended.exit != Exit::Ok {
                return Some(Done::Failed(ended.exit, ended.error));
            }
        }
        Some(Done::Through)
    }
}
