//! Clients around one event, from before it until after, and what their rows tell of it. What happens
//! meanwhile is not its business.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use lockstep_tests::witness::verdict;
use lockstep_tests::witness::{Acknowledged, Seat, Witness};
use lockstep_tests::{Host, Writer, sql, try_until, writer};
use tokio::time::{Instant, sleep, timeout};

use super::results::Outcome;
use super::system::{WELL_WITHIN, World};

/// Between rows to the primary from another host.
const PACE: Duration = Duration::from_millis(25);
/// Between rows to a node from its own host.
const LOCAL_PACE: Duration = Duration::from_millis(50);
/// Before an event all must go well for so many rows, and after it again.
const CALM_ROWS: usize = 40;
/// How exactly it is known when a node streams again.
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub struct Watch {
    straight: Witness,
    writer: Writer,
    /// Of rows that were sent straight to a node.
    straight_table: String,
    writer_table: String,
    fault: Instant,
    /// What the writer had acknowledged at that time.
    before: usize,
}

impl Watch {
    /// Clients that write into tables of their own; `number` tells them from those of other events.
    pub fn start(world: &World, number: usize) -> Result<Self> {
        let tables = (format!("straight_{number}"), format!("written_{number}"));
        let make =
            format!("create table {} (id bigint); create table {} (id bigint)", tables.0, tables.1);
        let any = world.any_target();
        sql::ask(&world.client, &any, &make)?;
        let seats = (0..world.system.nodes().len()).map(|at| seat(world, at, true));
        let straight = Witness::start(&tables.0, None, seats.collect::<Result<_>>()?);
        let writer = Writer::start_into(&world.client, &any, &tables.1);
        let fault = Instant::now();
        let watch = Self {
            straight,
            writer,
            straight_table: tables.0,
            writer_table: tables.1,
            fault,
            before: 0,
        };
        watch.wait_rows(fault)?;
        Ok(watch)
    }

    /// With a further client on a node's own host.
    pub fn beside(mut self, world: &World, node: usize) -> Result<Self> {
        self.straight.seat(seat(world, node, false)?);
        self.wait(Instant::now(), false)?;
        Ok(self)
    }

    /// Now it happens.
    pub fn begin(&mut self) -> Instant {
        self.before = self.writer.acknowledged();
        self.fault = Instant::now();
        self.fault
    }

    /// Waits until rows are acknowledged that were acknowledged after a moment.
    pub fn wait_rows(&self, after: Instant) -> Result<()> {
        self.wait(after, true)
    }

    /// To clients on another host, or to that on the primary's own.
    fn wait(&self, after: Instant, is_outside: bool) -> Result<()> {
        let is_meant = |row: &&Acknowledged| row.at > after && row.is_outside == is_outside;
        Ok(try_until(WELL_WITHIN, "rows are acknowledged", || {
            self.straight.rows().iter().filter(is_meant).count() >= CALM_ROWS
        })?)
    }

    /// Outages from the event to now.
    pub fn note_outages(&self, outcome: &mut Outcome) {
        let outage = verdict::outage(&self.straight.rows(), self.fault, Instant::now());
        outcome.outage_s = outage.map(|outage| outage.as_secs_f64());
        outcome.writer_outage_s = Some(self.writer.longest_silence(self.before).as_secs_f64());
    }

    /// Ends the clients, and holds what they were promised against what is there now.
    pub fn end(mut self, world: &World, outcome: &mut Outcome) -> Result<()> {
        self.straight.stop();
        let written = self.writer.stop()?;
        let missing = written.lost(&rows(world, &self.writer_table)?)?;
        let present = rows(world, &self.straight_table)?;
        let all = self.straight.rows();
        let (outside, local): (Vec<_>, Vec<_>) = all.iter().partition(|row| row.is_outside);
        let lost = |of: &[&Acknowledged]| {
            writer::lost(of.iter().map(|row| &row.id), self.straight.sent(), &present)
        };
        outcome.lost = lost(&outside)?.len() + missing.len();
        outcome.acknowledged = outside.len() + written.acknowledged.len();
        outcome.lost_local = lost(&local)?.len();
        let last = local.iter().map(|row| row.at).max();
        let since = |last: Instant| last.saturating_duration_since(self.fault).as_secs_f64();
        outcome.last_local_s = last.map(since);
        outcome.overlap_s = verdict::overlap(&all).unwrap_or_default().as_secs_f64();
        Ok(())
    }
}

/// A client of a node, on a host of its own or on the node's.
fn seat(world: &World, node: usize, is_outside: bool) -> Result<Seat> {
    let of = world.node(node)?;
    let (from, pace) = if is_outside { (&world.client, PACE) } else { (&of.host, LOCAL_PACE) };
    let (from, node, target) = (from.clone(), of.host.name().to_owned(), world.target(of));
    Ok(Seat { from, node, target, is_outside, pace })
}

fn rows(world: &World, table: &str) -> Result<Vec<u64>> {
    let rows = sql::ask(&world.client, &world.any_target(), &format!("select id from {table}"))?;
    rows.iter().map(|row| Ok(row.first().context("no value")?.parse()?)).collect()
}

/// When a node streams again, looked for by a thread of its own.
pub struct Return(JoinHandle<Result<Instant>>);

impl Return {
    /// Connections that the primary has of the node by now do not count.
    pub fn watch(world: &World, node: usize) -> Result<Self> {
        let ip = world.node(node)?.host.ip();
        let any = world.any_target();
        let ask = format!("select pid from pg_stat_replication where client_addr = '{ip}'");
        let old = sql::ask(&world.client, &any, &ask)?.concat();
        let ask = format!("{ask} and state = 'streaming'");
        let client = world.client.clone();
        Ok(Self(thread::spawn(move || wait_streaming(&client, &any, &ask, &old))))
    }

    /// An error after [`WELL_WITHIN`].
    pub fn wait(self) -> Result<Instant> {
        self.0.join().map_err(|_| anyhow!("the look-out panicked"))?
    }
}

/// Until the statement answers with something that is not among `old`.
fn wait_streaming(from: &Host, target: &str, ask: &str, old: &[String]) -> Result<Instant> {
    let look = async || loop {
        if let Ok(client) = sql::connect(target).await {
            while let Ok(rows) = client.query(ask, &[]).await {
                let is_new = |row: &tokio_postgres::Row| {
                    row.try_get::<_, i32>(0).is_ok_and(|pid| !old.contains(&pid.to_string()))
                };
                if rows.iter().any(is_new) {
                    return Instant::now();
                }
                sleep(LOOK_EVERY).await;
            }
        }
        sleep(LOOK_EVERY).await;
    };
    from.block_on(async { timeout(WELL_WITHIN, look()).await })?
        .with_context(|| format!("it does not stream after {WELL_WITHIN:?}"))
}
