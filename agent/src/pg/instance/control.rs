//! pg_control, by pg_controldata's fields, whose names are the same in every version that we take. It
//! reads text; the program is run elsewhere.

use std::collections::BTreeMap;

use lockstep_model::cluster::{Lsn, SystemId};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Control {
    pub system_id: SystemId,
    /// PostgreSQL's major version, of PG_VERSION.
    pub major: u32,
    pub state: ControlState,
    /// Of the last checkpoint; of a clean stop the shutdown's.
    pub checkpoint: Lsn,
    pub redo: Lsn,
    pub timeline: u32,
    pub prev_timeline: u32,
    /// A standby is readable once it has replayed this; 0/0: no such need.
    pub min_recovery_end: Lsn,
    pub min_recovery_timeline: u32,
    /// A base backup that is not complete yet: not promotable.
    pub backup_start: Lsn,
    pub backup_end_required: bool,
    pub wal_level: String,
    pub wal_log_hints: bool,
    pub checksums: bool,
    /// In bytes.
    pub wal_segment: u64,
    /// What a standby may not have lower: name in postgresql.conf, value.
    pub floors: Vec<(&'static str, u64)>,
}

impl Control {
    /// pg_rewind can work on it.
    pub fn rewindable(&self) -> bool {
        self.checksums || self.wal_log_hints
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ControlState {
    StartingUp,
    ShutDown,
    ShutDownInRecovery,
    ShuttingDown,
    InCrashRecovery,
    InArchiveRecovery,
    InProduction,
}

impl ControlState {
    /// Stopped by a stop, not by a crash.
    pub fn is_clean(self) -> bool {
        matches!(self, Self::ShutDown | Self::ShutDownInRecovery)
    }

    /// Of a standby: it was not promoted, or not to the end.
    pub fn is_recovery(self) -> bool {
        matches!(self, Self::ShutDownInRecovery | Self::InArchiveRecovery)
    }

    fn read(text: &str) -> Option<Self> {
        Some(match text {
            "starting up" => Self::StartingUp,
            "shut down" => Self::ShutDown,
            "shut down in recovery" => Self::ShutDownInRecovery,
            "shutting down" => Self::ShuttingDown,
            "in crash recovery" => Self::InCrashRecovery,
            "in archive recovery" => Self::InArchiveRecovery,
            "in production" => Self::InProduction,
            _ => return None,
        })
    }
}

const FLOORS: [(&str, &str); 5] = [
    ("max_connections setting", "max_connections"),
    ("max_worker_processes setting", "max_worker_processes"),
    ("max_wal_senders setting", "max_wal_senders"),
    ("max_prepared_xacts setting", "max_prepared_transactions"),
    ("max_locks_per_xact setting", "max_locks_per_transaction"),
];

/// Reads what pg_controldata says with `LC_ALL=C`; Err: what is missing.
pub fn read(text: &str, major: u32) -> Result<Control, String> {
    let fields: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect();
    let field = |name: &str| {
        let value = fields.get(name).copied();
        value.ok_or_else(|| format!("pg_controldata does not tell its {name:?}"))
    };
    let wrong = |name: &str| format!("pg_controldata's {name:?} cannot be read");
    let number = |name: &str| field(name)?.parse::<u64>().map_err(|_| wrong(name));
    let timeline = |name: &str| field(name)?.parse::<u32>().map_err(|_| wrong(name));
    let lsn = |name: &str| field(name)?.parse::<Lsn>().map_err(|_| wrong(name));
    let state = "Database cluster state";
    let mut floors = Vec::new();
    for (name, parameter) in FLOORS {
        floors.push((parameter, number(name)?));
    }
    Ok(Control {
        system_id: SystemId(number("Database system identifier")?),
        major,
        state: ControlState::read(field(state)?).ok_or_else(|| wrong(state))?,
        checkpoint: lsn("Latest checkpoint location")?,
        redo: lsn("Latest checkpoint's REDO location")?,
        timeline: timeline("Latest checkpoint's TimeLineID")?,
        prev_timeline: timeline("Latest checkpoint's PrevTimeLineID")?,
        min_recovery_end: lsn("Minimum recovery ending location")?,
        min_recovery_timeline: timeline("Min recovery ending loc's timeline")?,
        backup_start: lsn("Backup start location")?,
        backup_end_required: field("End-of-backup record required")? == "yes",
        wal_level: field("wal_level setting")?.to_owned(),
        wal_log_hints: field("wal_log_hints setting")? == "on",
        checksums: number("Data page checksum version")? != 0,
        wal_segment: number("Bytes per WAL segment")?,
        floors,
    })
}
