//! Clients of each member of a cluster by itself, from outside and on its own host, and what they were
//! told: rows that were acknowledged, and counts. They follow nobody: whichever member takes a row gets
//! it, also one that should not. They judge nothing; `verdict` does.

pub mod verdict;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::host::Host;
use crate::sql;

/// Before another try to connect to a member that refused, or from a host that is off.
const AGAIN: Duration = Duration::from_millis(25);
/// To a member that says nothing; then it is tried again.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// A statement that takes longer counts as failed, and its connection is left. More than a replica's loss
/// may hold a commit up in most systems, so that few backends pile up.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Rows of a seat for one time that it counts.
const ROWS_PER_COUNT: usize = 4;
/// The expression that tells on which timeline a statement ran.
const TIMELINE: &str = "left(pg_walfile_name(pg_current_wal_lsn()), 8)";

/// One client: where it is, whom it writes to, how often.
#[derive(Clone)]
pub struct Seat {
    pub from: Host,
    /// A member's node.
    pub node: String,
    /// A libpq connection string of that member alone.
    pub target: String,
    /// It tells what others see; one on a member's own host tells what a cut-off member does.
    pub is_outside: bool,
    /// Between a row and the next one: how finely outages are told.
    pub pace: Duration,
}

/// A row that a member said it has.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    pub id: u64,
    pub node: String,
    pub timeline: u32,
    pub is_outside: bool,
    pub sent: Instant,
    pub at: Instant,
}

/// One common counter that a seat read, or made one more and was told so.
#[derive(Clone, Copy, Debug)]
pub struct Count {
    pub value: u64,
    pub is_write: bool,
    pub timeline: u32,
    pub sent: Instant,
    pub at: Instant,
}

pub struct Witness {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    table: String,
    /// Of one row with one number; none: nobody counts.
    counter: Option<String>,
    stop: AtomicBool,
    sent: AtomicU64,
    rows: Mutex<Vec<Acknowledged>>,
    counts: Mutex<Vec<Count>>,
}

impl Witness {
    /// They write into `table`, which is there, and count in `counter`, until they are dropped.
    pub fn start(table: &str, counter: Option<&str>, seats: Vec<Seat>) -> Self {
        let shared = Shared {
            table: table.to_owned(),
            counter: counter.map(Into::into),
            stop: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            rows: Mutex::default(),
            counts: Mutex::default(),
        };
        let mut witness = Self { shared: Arc::new(shared), threads: Vec::new() };
        seats.into_iter().for_each(|seat| witness.seat(seat));
        witness
    }

    /// One more. Each has a thread of its own: what a connection takes of the processor delays nobody
    /// else's rows.
    pub fn seat(&mut self, seat: Seat) {
        let shared = self.shared.clone();
        self.threads.push(thread::spawn(move || shared.sit(&seat)));
    }

    /// How many were acknowledged until now.
    pub fn acknowledged(&self) -> usize {
        lock(&self.shared.rows).len()
    }

    pub fn rows(&self) -> Vec<Acknowledged> {
        lock(&self.shared.rows).clone()
    }

    pub fn counts(&self) -> Vec<Count> {
        lock(&self.shared.counts).clone()
    }

    /// Ids are 0 to this, without it.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Returns when nothing is under way any more.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock<T>(of: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Enters the host anew for each connection: one that was off is another place afterwards.
    fn sit(&self, seat: &Seat) {
        while !self.is_over() {
            let _ = seat.from.block_on(self.write(seat));
            thread::park_timeout(AGAIN);
        }
    }

    /// Over one connection, as long as it lasts.
    async fn write(&self, seat: &Seat) -> Result<()> {
        let client = timeout(CONNECT_WITHIN, sql::connect(&seat.target)).await??;
        let mut ticks = interval(seat.pace);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for turn in 0usize.. {
            ticks.tick().await;
            if self.is_over() {
                break;
            }
            let (id, sent) = (self.sent.fetch_add(1, Ordering::Relaxed), Instant::now());
            let insert = format!("insert into {} values ({id}) returning {TIMELINE}", self.table);
            let Some(row) = answer(&client, &insert).await? else { continue };
            let [timeline] = row.as_slice() else { anyhow::bail!("no timeline") };
            let (node, at) = (seat.node.clone(), Instant::now());
            let (timeline, is_outside) = (u32::from_str_radix(timeline, 16)?, seat.is_outside);
            lock(&self.rows).push(Acknowledged { id, node, timeline, is_outside, sent, at });
            if let Some(counter) = self.counter.as_ref().filter(|_| turn % ROWS_PER_COUNT == 0) {
                self.count(&client, counter).await?;
            }
        }
        Ok(())
    }

    /// Reads, makes it one more, and writes that if nobody else wrote meanwhile.
    async fn count(&self, client: &Client, counter: &str) -> Result<()> {
        let read = format!("select value, {TIMELINE} from {counter}");
        let Some(value) = self.count_by(client, &read, false).await? else { return Ok(()) };
        let next = value + 1;
        let write = format!(
            "update {counter} set value = {next} where value = {value} returning value, {TIMELINE}"
        );
        self.count_by(client, &write, true).await.map(drop)
    }

    async fn count_by(&self, client: &Client, by: &str, is_write: bool) -> Result<Option<u64>> {
        let sent = Instant::now();
        let Some(row) = answer(client, by).await? else { return Ok(None) };
        let [value, timeline] = row.as_slice() else { return Ok(None) };
        let (value, timeline) = (value.parse()?, u32::from_str_radix(timeline, 16)?);
        let at = Instant::now();
        lock(&self.counts).push(Count { value, is_write, timeline, sent, at });
        Ok(Some(value))
    }
}

/// The first row, which may be empty; none when it was refused, by a standby for instance, whose
/// connection stays.
async fn answer(client: &Client, statement: &str) -> Result<Option<Vec<String>>> {
    let answer = match timeout(ANSWER_WITHIN, client.simple_query(statement)).await? {
        Ok(answer) => answer,
        Err(error) if error.code().is_some() && !client.is_closed() => return Ok(None),
        Err(error) => return Err(error).context("the connection is lost"),
    };
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect())
        }
        _ => None,
    });
    Ok(Some(row.unwrap_or_default()))
}
