//! A dead instance: where its log ends, what it gives up, and that nothing of it comes back by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lockstep_model::cluster::report::Released;
use lockstep_model::cluster::{ClusterPlace, Goal};

use super::Work;
use super::seen::Seen;
use crate::pg::instance::{Control, ControlState, Data, FenceEnd, Instance, Processes};
use crate::pg::salvage::Offer;
use crate::pg::wal::{Begin, WalEnd, find_end};

/// Set when nobody waits for a search any more.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Work {
    /// Of data without processes. Looked for once, until it is started again.
    pub async fn find_end(
        &mut self,
        instance: &Instance,
        control: Option<Control>,
    ) -> Result<Arc<WalEnd>, String> {
        if let Some(end) = &self.memory.end {
            return Ok(end.clone());
        }
        let begin = control.as_ref().and_then(Begin::of);
        let begin = begin.ok_or("its control file tells nothing of its log")?;
        let (pg_wal, flag) = (instance.layout().pg_wal(), Arc::new(AtomicBool::new(false)));
        let stop = Stop(flag.clone());
        let found = tokio::task::spawn_blocking(move || find_end(&pg_wal, &begin, None, &flag));
        let found = found.await.map_err(|e| e.to_string())?;
        drop(stop);
        let end = Arc::new(found.map_err(|e| e.to_string())?);
        self.memory.end = Some(end.clone());
        Ok(end)
    }

    /// The postmaster is dead: nothing of it may go on committing for one moment longer.
    pub async fn died(&mut self, place: &ClusterPlace) {
        if place.goal == Goal::Maintenance {
            // Somebody else stops and starts it.
            return;
        }
        let Some(instance) = self.instance.borrow().clone() else { return };
        self.memory.sealed = None;
        self.memory.end = None;
        let limit = self.memory.fence;
        if let FenceEnd::Unfenced(pids) = instance.fence(limit.into()).await {
            self.memory.problem = format!("processes {pids:?} of postgres do not end");
        }
    }

    /// The primary's part is over, and can be shown to be.
    pub async fn release(&mut self, instance: &Instance) -> Result<(), String> {
        let books = self.books.read();
        let Some(term) = books.holding else { return Ok(()) };
        if instance.processes().await != Processes::None {
            return Err("processes of postgres are left".to_owned());
        }
        instance.put_standby_signal()?;
        let control = match instance.data().await {
            Data::There(control) => Some(*control),
            Data::Missing | Data::Foreign(_) => None,
        };
        let clean = control.as_ref().is_some_and(|c| c.state == ControlState::ShutDown);
        self.memory.restart = None;
        // With a quorum, standbys have every commit: nobody has to wait for the end to be found.
        let end = match books.quorum.is_off() || clean {
            true => self.find_end(instance, control).await.ok().map(|end| end.end),
            false => None,
        };
        let released = Released { term, end, clean };
        let durable = released.clone();
        let kept = self.books.change(move |books| books.release(durable)).await;
        kept.map_err(|e| e.to_string())?;
        self.tell_released(&released);
        self.keeper.clear().await
    }

    /// Tells where the dead primary's log ends, and offers what others lack.
    pub async fn attest(&mut self, place: &ClusterPlace, instance: &Instance, seen: &Seen) {
        let control = seen.control().cloned();
        let begin = control.as_ref().and_then(Begin::of);
        let end = self.find_end(instance, control).await;
        let (Ok(end), Some(begin)) = (&end, begin) else {
            let problem = end.err().unwrap_or_default();
            tracing::warn!(cluster = %place.cluster, problem, "the end of the log is not known");
            self.memory.endless = true;
            return;
        };
        let at = end.end;
        let kept = self.books.change(move |books| {
            let released = books.released.as_mut()?;
            released.end = Some(at);
            Some(released.term)
        });
        let Ok(Some(released)) = kept.await else { return };
        let offer = Offer {
            cluster: place.cluster.clone(),
            released,
            pg_wal: instance.layout().pg_wal(),
            begin,
            end: (**end).clone(),
            peers: place.peers.iter().map(|peer| peer.peer.clone()).collect(),
        };
        self.memory.offered = Some(self.site.stock.offer(offer));
    }
}
