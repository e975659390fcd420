//! A client that writes on and on, one row per commit, and remembers which of them were acknowledged.
//! A row is sent once and never again, whatever becomes of it: so what is lost and what is there twice
//! can be told.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use futures_util::future::select_all;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, Config};

use crate::host::Host;
use crate::sql;
use crate::wait::until;

/// The table that it writes to, unless told otherwise.
pub const TABLE: &str = "written";
/// Between an answer and the next row: a busy program, and no flood.
const PAUSE: Duration = Duration::from_millis(2);
/// Before a host is asked again.
const AGAIN: Duration = Duration::from_millis(20);
/// A statement may take so long before others are asked whether they take writes.
const PATIENCE: Duration = Duration::from_millis(100);
/// A connection that takes longer is given up.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// A statement that takes longer counts as failed, and its connection is left.
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);

pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    journal: Mutex<Journal>,
}

#[derive(Default)]
struct Journal {
    sent: u64,
    /// In order, with when that was.
    acknowledged: Vec<(u64, Instant)>,
    /// Of statements that were sent.
    failed: Vec<String>,
    /// Why there was no connection, last.
    refused: String,
}

/// What became of all that was sent.
#[derive(Clone, Debug)]
pub struct Written {
    /// Ids are 0 to this, without it.
    pub sent: u64,
    pub acknowledged: BTreeSet<u64>,
    /// One line per statement that was not acknowledged.
    pub failed: Vec<String>,
    /// Between two acknowledgements that follow each other.
    pub longest_gap: Duration,
    /// Of the first acknowledgement and of the last.
    pub first: Option<Instant>,
    pub last: Option<Instant>,
}

impl Writer {
    /// Writes from a host until it is stopped. `target` is a libpq connection string, of many hosts
    /// perhaps.
    pub fn start(host: &Host, target: &str) -> Self {
        Self::start_into(host, target, TABLE)
    }

    /// As [`Writer::start`], into a table of its own.
    pub fn start_into(host: &Host, target: &str, table: &str) -> Self {
        let shared = Arc::new(Shared::default());
        let (host, own) = (host.clone(), shared.clone());
        let (target, table) = (target.to_owned(), table.to_owned());
        let thread = thread::spawn(move || host.block_on(own.write(&target, &table))?);
        let writer = Self { shared, thread: Some(thread) };
        writer.wait_more(5);
        writer
    }

    /// Waits until so many further rows were acknowledged.
    #[track_caller]
    pub fn wait_more(&self, rows: usize) {
        let before = self.acknowledged();
        until(Duration::from_secs(60), "rows are acknowledged", || -> Result<()> {
            let journal = self.shared.lock();
            let now = journal.acknowledged.len();
            let (last, refused) = (journal.failed.last(), &journal.refused);
            ensure!(now >= before + rows, "{} of {rows}; {last:?}; {refused}", now - before);
            Ok(())
        });
    }

    pub fn acknowledged(&self) -> usize {
        self.shared.lock().acknowledged.len()
    }

    /// Statements that were sent and not acknowledged.
    pub fn failed(&self) -> usize {
        self.shared.lock().failed.len()
    }

    /// The longest time without an acknowledgement from the `since`th one on.
    pub fn longest_gap(&self, since: usize) -> Duration {
        self.shared.lock().longest_gap(since)
    }

    /// As [`Writer::longest_gap`], with the time since the last one.
    pub fn longest_silence(&self, since: usize) -> Duration {
        let journal = self.shared.lock();
        let last = journal.acknowledged.last().map(|(_, at)| at.elapsed());
        journal.longest_gap(since).max(last.unwrap_or_default())
    }

    pub fn stop(mut self) -> Result<Written> {
        self.end()?;
        let journal = self.shared.lock();
        Ok(Written {
            sent: journal.sent,
            acknowledged: journal.acknowledged.iter().map(|(id, _)| *id).collect(),
            failed: journal.failed.clone(),
            longest_gap: journal.longest_gap(0),
            first: journal.acknowledged.first().map(|(_, at)| *at),
            last: journal.acknowledged.last().map(|(_, at)| *at),
        })
    }

    fn end(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        ended.unwrap_or(Ok(Ok(()))).map_err(|_| anyhow!("the writer panicked"))?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, target: &str, table: &str) -> Result<()> {
        let hosts = sql::hosts(target)?;
        let mut open: Option<(usize, Client)> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let Some((at, client)) = open.take() else {
                // Looked at now and then whether it is to stop.
                open = timeout(CONNECT_WITHIN, self.seek(&hosts, None)).await.ok();
                continue;
            };
            let id = self.next_id();
            let insert = format!("insert into {table} values ({id})");
            let elsewhere = async {
                sleep(PATIENCE).await;
                self.seek(&hosts, Some(at)).await
            };
            let failed = tokio::select! {
                answer = client.simple_query(&insert) => match answer {
                    Ok(_) => {
                        self.lock().acknowledged.push((id, Instant::now()));
                        open = Some((at, client));
                        None
                    }
                    Err(error) => Some(format!("{id}: {:#}", sql::plain(error))),
                },
                found = elsewhere => {
                    open = Some(found);
                    Some(format!("{id}: no answer, and another one takes writes"))
                }
                () = sleep(ANSWER_WITHIN) => Some(format!("{id}: no answer in {ANSWER_WITHIN:?}")),
            };
            self.lock().failed.extend(failed);
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// A connection with the first one but `except` that takes writes: all are asked at once, so that
    /// a host that is off keeps nobody waiting.
    async fn seek(&self, hosts: &[Config], except: Option<usize>) -> (usize, Client) {
        let others = hosts.iter().enumerate().filter(|(at, _)| Some(*at) != except);
        let asked = others.map(|(at, host)| {
            Box::pin(async move {
                loop {
                    match timeout(CONNECT_WITHIN, sql::connect_to(host)).await {
                        Ok(Ok(client)) => return (at, client),
                        Ok(Err(error)) => self.lock().refused = format!("{error:#}"),
                        Err(_) => self.lock().refused = format!("nothing in {CONNECT_WITHIN:?}"),
                    }
                    sleep(AGAIN).await;
                }
            })
        });
        let asked: Vec<_> = asked.collect();
        match asked.is_empty() {
            true => std::future::pending().await,
            false => select_all(asked).await.0,
        }
    }

    fn next_id(&self) -> u64 {
        let mut journal = self.lock();
        journal.sent += 1;
        journal.sent - 1
    }
}

impl Journal {
    fn longest_gap(&self, since: usize) -> Duration {
        let times = self.acknowledged.iter().skip(since.saturating_sub(1)).map(|(_, at)| *at);
        let pairs = times.clone().zip(times.skip(1));
        pairs.map(|(earlier, later)| later.duration_since(earlier)).max().unwrap_or_default()
    }
}

/// Acknowledged, and not among `present`. An error when something is there twice, or is none of the
/// ids below `sent`.
pub fn lost<'a>(
    acknowledged: impl IntoIterator<Item = &'a u64>,
    sent: u64,
    present: &[u64],
) -> Result<BTreeSet<u64>> {
    let once: BTreeSet<u64> = present.iter().copied().collect();
    ensure!(once.len() == present.len(), "{} rows are there twice", present.len() - once.len());
    let strange: Vec<_> = once.iter().filter(|id| **id >= sent).collect();
    ensure!(strange.is_empty(), "{strange:?} were never sent");
    Ok(acknowledged.into_iter().copied().filter(|id| !once.contains(id)).collect())
}

impl Written {
    /// Acknowledged, and not among `present`. An error when something is there twice, or was never
    /// sent.
    pub fn lost(&self, present: &[u64]) -> Result<BTreeSet<u64>> {
        lost(&self.acknowledged, self.sent, present)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_doubles_and_strangers_are_told() {
        let written = Written {
            sent: 5,
            acknowledged: [0, 1, 3].into(),
            failed: Vec::new(),
            longest_gap: Duration::ZERO,
            first: None,
            last: None,
        };
        assert_eq!(written.lost(&[0, 1, 2, 3]).unwrap(), BTreeSet::new());
        assert_eq!(written.lost(&[1, 3]).unwrap(), [0].into());
        assert!(written.lost(&[0, 1, 1, 3]).is_err());
        assert!(written.lost(&[0, 1, 3, 5]).is_err());
    }

    #[test]
    fn the_longest_gap_is_between_two_that_follow() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let acknowledged = vec![(0, ms(10)), (1, ms(500)), (2, ms(520)), (4, ms(600))];
        let acknowledged = acknowledged.into_iter().map(|(id, at)| (id, start + at)).collect();
        let journal = Journal { acknowledged, ..Journal::default() };
        assert_eq!(journal.longest_gap(0), ms(490));
        assert_eq!(journal.longest_gap(2), ms(80));
        assert_eq!(journal.longest_gap(4), ms(0));
    }
}
