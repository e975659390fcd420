//! New sessions and durable writes, tried now and then beside everything else: what the session that is
//! kept cannot tell of a postmaster that hangs, or of storage.

use std::time::Duration;

use lockstep_model::cluster::options::CheckOptions;
use lockstep_model::cluster::report::Trouble;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::pg::instance::{Instance, SqlTrouble};

#[derive(Default)]
pub struct Probe {
    running: Option<JoinHandle<Result<(), SqlTrouble>>>,
    /// When the last one began.
    began: Option<Instant>,
    /// Of the last one; None: it was well.
    trouble: Option<SqlTrouble>,
    /// In a row that were not answered.
    hung: u32,
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

impl Probe {
    /// Begins one when it is time, and takes the answer of one that has ended. After one that failed
    /// the next begins at once.
    pub async fn turn(&mut self, instance: &Instance, checks: &CheckOptions) {
        if let Some(running) = self.running.take_if(|running| running.is_finished()) {
            // One that panicked tells nothing.
            let ended = running.await.unwrap_or(Ok(()));
            self.hung = if ended == Err(SqlTrouble::Hung) { self.hung + 1 } else { 0 };
            self.trouble = ended.err();
        }
        let interval = if self.trouble.is_some() { checks.poll } else { checks.verify };
        let interval = Duration::from(interval);
        let is_due = self.began.is_none_or(|began| began.elapsed() >= interval);
        if self.running.is_none() && is_due {
            self.began = Some(Instant::now());
            let (instance, limit) = (instance.clone(), checks.timeout);
            self.running = Some(tokio::spawn(async move { instance.probe(limit.into()).await }));
        }
    }

    /// `retries`: so many that were not answered count as a hang.
    pub fn trouble(&self, retries: u32) -> Trouble {
        match &self.trouble {
            Some(SqlTrouble::Hung) if self.hung >= retries => Trouble::Hung,
            Some(SqlTrouble::Busy) => Trouble::Busy,
            Some(SqlTrouble::DiskFull) => Trouble::DiskFull,
            Some(SqlTrouble::ReadOnlyFs) => Trouble::ReadOnlyFs,
            _ => Trouble::None,
        }
    }
}
