//! What postgres says of itself in one round trip, the same query on a primary and on a standby; and
//! reading its answer.

use lockstep_model::cluster::report::{PendingRestart, StandbyRow, SyncState};
use lockstep_model::cluster::{Lsn, MemberReport, Quorum, SystemId};
use lockstep_model::{Millis, NodeName};
use tokio_postgres::SimpleQueryRow;

use super::conf::read_standby_names;
use super::slots;
use super::sql::{SqlTrouble, column, is_true};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    pub in_recovery: bool,
    /// `15.18`.
    pub version: String,
    pub system_id: SystemId,
    /// A primary's own; a standby's newest that it received or replayed.
    pub timeline: u32,
    /// A primary's write position; a standby's received and flushed one.
    pub lsn: Lsn,
    /// A primary's flushed position; a standby's received and flushed one.
    pub flushed: Lsn,
    /// Applied by a standby; of a primary None.
    pub replayed: Option<Lsn>,
    /// Replay was paused by somebody.
    pub replay_paused: bool,
    /// The walreceiver's row; None on a primary and while there is no walreceiver.
    pub receiver: Option<ReceiverRow>,
    /// Walsenders whose application_name is a node's; one that is there twice is `twice` too.
    pub standbys: Vec<StandbyRow>,
    /// Names under which more than one walsender sends: one of them is not who it says.
    pub twice: Vec<NodeName>,
    /// synchronous_standby_names as this session has it; None: something that is not Lockstep's.
    pub quorum: Option<Quorum>,
    pub pending_restart: Vec<PendingRestart>,
    pub slots: Vec<SlotRow>,
    /// Of the last checkpoint: others may rewind from a promoted one once this is its timeline.
    pub checkpoint_timeline: u32,
    /// Where the last checkpoint's redo begins: it moves with each checkpoint.
    pub checkpoint_redo: Lsn,
    /// In milliseconds since 1970, by the machine's clock: another one means another postmaster.
    pub started_at_ms: i64,
    /// `wal_level`, as in force.
    pub wal_level: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReceiverRow {
    /// Its process.
    pub pid: i32,
    /// `streaming`, and not about to be.
    pub streaming: bool,
    /// Whom it is connected to, as primary_conninfo names them.
    pub host: String,
    pub port: u16,
    pub received_timeline: u32,
    /// Since the last word of the sender.
    pub age: Millis,
    /// The sender's position as last told.
    pub latest_end: Lsn,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotRow {
    pub name: String,
    pub active: bool,
    pub physical: bool,
    pub restart: Option<Lsn>,
    /// WAL that it holds back, in bytes.
    pub held_bytes: u64,
    /// Its WAL is gone: it is of no use any more.
    pub lost: bool,
}

impl SlotRow {
    pub fn is_lockstep(&self) -> bool {
        self.physical && self.name.starts_with(slots::PREFIX)
    }
}

/// Functions of a primary fail on a standby: CASE keeps them from being called there.
pub const QUERY: &str = "\
SELECT pg_is_in_recovery() AS recovery, current_setting('server_version') AS version, \
 s.system_identifier AS system_id, c.timeline_id AS checkpoint_timeline, c.redo_lsn AS redo, \
 r.min_recovery_end_timeline AS recovery_timeline, \
 CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_lsn()) END AS wal_file, \
 CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_lsn() END AS written, \
 CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn() END AS flushed, \
 CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() END AS received, \
 CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() END AS replayed, \
 CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END AS paused, \
 current_setting('synchronous_standby_names') AS names, current_setting('wal_level') AS wal_level, \
 (extract(epoch FROM pg_postmaster_start_time()) * 1000)::bigint AS started, \
 (SELECT setting FROM pg_settings WHERE name = 'wal_segment_size') AS segment \
 FROM pg_control_system() s, pg_control_checkpoint() c, pg_control_recovery() r;\
SELECT application_name, state, sync_state, sent_lsn, flush_lsn, replay_lsn, \
 (extract(epoch FROM replay_lag) * 1000)::bigint AS lag, \
 reply_time AS reply \
 FROM pg_stat_replication ORDER BY application_name, pid LIMIT 100;\
SELECT pid, status, received_tli, latest_end_lsn, sender_host, sender_port, \
 (extract(epoch FROM clock_timestamp() - last_msg_receipt_time) * 1000)::bigint AS age \
 FROM pg_stat_wal_receiver;\
SELECT s.name, s.setting, s.unit, (SELECT f.setting FROM pg_file_settings f WHERE f.name = s.name \
 ORDER BY f.seqno DESC LIMIT 1) AS wanted FROM pg_settings s WHERE s.pending_restart LIMIT 64;\
SELECT slot_name, active, slot_type, restart_lsn, wal_status, \
 CASE WHEN restart_lsn IS NULL THEN 0 WHEN pg_is_in_recovery() \
 THEN pg_wal_lsn_diff(pg_last_wal_replay_lsn(), restart_lsn) \
 ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) END::bigint AS held \
 FROM pg_replication_slots ORDER BY slot_name LIMIT 200";

/// Where a standby's log lies that no walreceiver speaks of, for `timeline::newest`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unreceived {
    /// At least this one.
    pub timeline: u32,
    /// In bytes.
    pub segment: u64,
}

/// What one round trip gave.
pub struct Answer {
    pub status: Status,
    /// The timeline is still to be found out.
    pub unreceived: Option<Unreceived>,
    /// Of each row of `standbys` the time of its last answer, by its own clock.
    pub reply_times: Vec<(NodeName, String)>,
}

pub fn read(answer: &[Vec<SimpleQueryRow>]) -> Result<Answer, SqlTrouble> {
    let missing = |what: &str| SqlTrouble::Refused {
        code: String::new(),
        message: format!("postgres does not tell its {what}"),
    };
    let [main, senders, receivers, pending, slots] = answer else {
        return Err(missing("status"));
    };
    let main = main.first().ok_or_else(|| missing("status"))?;
    let in_recovery = is_true(main, "recovery");
    let lsn = |name: &str| column::<Lsn>(main, name);
    let checkpoint_timeline = column(main, "checkpoint_timeline").unwrap_or(0);
    let receiver = receivers.first().and_then(receiver);
    let replayed = lsn("replayed");
    let (mut written, mut flushed) = (lsn("written"), lsn("flushed"));
    let mut unreceived = None;
    let timeline = if in_recovery {
        // What was received in an earlier run of postgres is only known by having been replayed.
        let newest = lsn("received").max(replayed);
        (written, flushed) = (newest, newest);
        let recovery = column(main, "recovery_timeline").unwrap_or(0);
        let least = checkpoint_timeline.max(recovery);
        match &receiver {
            Some(row) if row.received_timeline > 0 => row.received_timeline.max(least),
            _ => {
                let segment = column(main, "segment").ok_or_else(|| missing("segment size"))?;
                unreceived = Some(Unreceived { timeline: least, segment });
                least
            }
        }
    } else {
        let file: String = column(main, "wal_file").ok_or_else(|| missing("log"))?;
        let timeline = file.get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        timeline.ok_or_else(|| missing("timeline"))?
    };
    let (rows, twice) = standbys(senders);
    let (standbys, times): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let nodes = standbys.iter().map(|row: &StandbyRow| row.node.clone());
    let reply_times = nodes.zip(times).collect();
    let names: String = column(main, "names").unwrap_or_default();
    let version: String = column(main, "version").unwrap_or_default();
    let status = Status {
        in_recovery,
        // `15.18 (Debian 15.18-0+deb12u1)`.
        version: version.split(' ').next().unwrap_or_default().to_owned(),
        // A bigint, which a large one makes negative.
        system_id: SystemId(
            column::<i64>(main, "system_id").ok_or_else(|| missing("system id"))?.cast_unsigned(),
        ),
        timeline,
        lsn: written.unwrap_or_default(),
        flushed: flushed.unwrap_or_default(),
        replayed: replayed.filter(|_| in_recovery),
        replay_paused: is_true(main, "paused"),
        receiver,
        standbys,
        twice,
        quorum: read_standby_names(&names),
        pending_restart: pending.iter().filter_map(pending_restart).collect(),
        slots: slots.iter().filter_map(slot).collect(),
        checkpoint_timeline,
        checkpoint_redo: lsn("redo").unwrap_or_default(),
        started_at_ms: column(main, "started").unwrap_or(0),
        wal_level: column(main, "wal_level").unwrap_or_default(),
    };
    Ok(Answer { status, unreceived, reply_times })
}

/// A clock that was set back gives no negative age.
fn millis(row: &SimpleQueryRow, name: &str) -> Option<Millis> {
    column::<i64>(row, name).map(|ms| Millis(u64::try_from(ms).unwrap_or(0)))
}

fn standbys(rows: &[SimpleQueryRow]) -> (Vec<(StandbyRow, String)>, Vec<NodeName>) {
    let (mut found, mut twice) = (Vec::<(StandbyRow, String)>::new(), Vec::new());
    for (row, time) in rows.iter().filter_map(standby) {
        match found.last_mut() {
            // pg_basebackup's two connections have other states; a member's old walsender may linger.
            Some((last, of)) if last.node == row.node => {
                if last.streaming && row.streaming {
                    twice.push(row.node);
                } else if row.streaming {
                    (*last, *of) = (row, time);
                }
            }
            _ => found.push((row, time)),
        }
    }
    found.truncate(MemberReport::STANDBYS_MAX);
    (found, twice)
}

fn standby(row: &SimpleQueryRow) -> Option<(StandbyRow, String)> {
    let standby = StandbyRow {
        node: column(row, "application_name")?,
        streaming: column::<String>(row, "state")? == "streaming",
        sync_state: column::<SyncState>(row, "sync_state")?,
        sent: column(row, "sent_lsn").unwrap_or_default(),
        flushed: column(row, "flush_lsn").unwrap_or_default(),
        replayed: column(row, "replay_lsn").unwrap_or_default(),
        replay_lag: millis(row, "lag"),
        // Its clock is not this machine's: found out by the change of `reply`.
        reply_age: Millis(u64::from(u32::MAX)),
    };
    Some((standby, column(row, "reply").unwrap_or_default()))
}

fn receiver(row: &SimpleQueryRow) -> Option<ReceiverRow> {
    Some(ReceiverRow {
        pid: column(row, "pid")?,
        streaming: column::<String>(row, "status")? == "streaming",
        host: column(row, "sender_host").unwrap_or_default(),
        port: column(row, "sender_port").unwrap_or(0),
        received_timeline: column(row, "received_tli").unwrap_or(0),
        age: millis(row, "age").unwrap_or(Millis(u64::from(u32::MAX))),
        latest_end: column(row, "latest_end_lsn").unwrap_or_default(),
    })
}

fn pending_restart(row: &SimpleQueryRow) -> Option<PendingRestart> {
    let unit: String = column(row, "unit").unwrap_or_default();
    Some(PendingRestart {
        name: column(row, "name")?,
        now: column::<String>(row, "setting")? + &unit,
        // Null: it goes back to its default.
        then: column(row, "wanted").unwrap_or_default(),
    })
}

fn slot(row: &SimpleQueryRow) -> Option<SlotRow> {
    Some(SlotRow {
        name: column(row, "slot_name")?,
        active: is_true(row, "active"),
        physical: column::<String>(row, "slot_type")? == "physical",
        restart: column(row, "restart_lsn"),
        held_bytes: column::<i64>(row, "held").and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
        lost: column::<String>(row, "wal_status").is_some_and(|status| status == "lost"),
    })
}
