//! The settings of a cluster: the table, its defaults, and what no single one can tell.

use super::text::{DAY, HALF_SECOND, HOUR, MINUTE, SECOND, exact, port, time, up_to};
use crate::cluster::options::{
    CheckOptions, ClusterOptions, FailoverOptions, HbaMode, Instance, Isolation, LeaseOptions,
    Manager, OnCrash, RejoinOptions, ReplicationOptions, ReplicationTls, SalvageFailure,
    SalvageOptions, Shortage, SyncPolicy,
};
use crate::cluster::parameter::{HbaEntry, InitdbOption, Parameter};
use crate::id::quote;
use crate::rate::Size;
use crate::reject::Invalid;
use crate::setting::text::{
    exact_or_none, optional, optional_of, or_none, parsed, shown, texts, within,
};
use crate::setting::{Setting, Settings, at_most, flag, many, one};
use crate::time::Millis;

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            instance: Instance {
                bin: None,
                data_dir: None,
                wal_dir: None,
                port: 5432,
                socket_dir: "/var/run/postgresql".parse().unwrap_or_else(|_| unreachable!()),
                manager: Manager::Agent,
            },
            sync: SyncPolicy::Auto,
            on_sync_shortage: Shortage::Wait,
            lease: LeaseOptions {
                length: Millis::from_secs(5),
                fence: Millis(1000),
                suspect: Millis(1000),
                on_isolation: Isolation::Fence,
            },
            failover: FailoverOptions {
                automatic: true,
                on_crash: OnCrash::Auto,
                restart_limit: Millis::from_secs(300),
                budget: 2,
                window: Millis::from_secs(600),
                max_lag: Size(16 << 20),
                switchover_limit: Millis::from_secs(60),
                external_fence: None,
                external_fence_timeout: Millis::from_secs(30),
            },
            salvage: SalvageOptions {
                enabled: true,
                max_bytes: Size(1 << 30),
                timeout: Millis::from_secs(10),
                on_failure: SalvageFailure::Restart,
            },
            rejoin: RejoinOptions { rewind: true, clone: true, keep_old: false },
            replication: ReplicationOptions {
                tls: ReplicationTls::Lockstep,
                slots: true,
                slot_ttl: Some(Millis::from_secs(24 * 3600)),
                slot_warning: Size(4 << 30),
            },
            checks: CheckOptions {
                poll: Millis(1000),
                verify: Millis::from_secs(10),
                timeout: Millis::from_secs(5),
                retries: 3,
                min_free: Size(1 << 30),
            },
            parameters: Vec::new(),
            hba: Vec::new(),
            hba_mode: HbaMode::Managed,
            initdb: Vec::new(),
            checksums: true,
        }
    }
}

impl Settings for ClusterOptions {
    const TABLE: &'static [Setting<Self>] = CLUSTER;

    fn check_together(&self) -> Result<(), Invalid> {
        at_most("parameter", self.parameters.len(), Self::PARAMETERS_MAX)?;
        at_most("hba", self.hba.len(), Self::HBA_MAX)?;
        at_most("initdb-option", self.initdb.len(), Self::INITDB_MAX)?;
        let twice =
            self.parameters.iter().enumerate().find(|(at, p)| {
                self.parameters[..*at].iter().any(|earlier| earlier.name == p.name)
            });
        if let Some((_, parameter)) = twice {
            return Err(Invalid::new("parameter", format!("{} is given twice", parameter.name)));
        }
        // A renewal that is answered late must not end a lease: three tries and the fence fit in.
        let LeaseOptions { length, fence, suspect, .. } = self.lease;
        if length.0 < 2 * suspect.0 || length.0 < fence.0 + suspect.0 {
            let least = Millis((2 * suspect.0).max(fence.0 + suspect.0)).exact();
            let problem =
                format!("must be at least {least}, for this suspect-after and fence-time");
            return Err(Invalid::new("lease", problem));
        }
        Ok(())
    }
}

fn automatic(text: &str) -> Result<bool, Invalid> {
    match text {
        "automatic" => Ok(true),
        "manual" => Ok(false),
        _ => Err(Invalid::new(
            "failover",
            format!("must be automatic or manual, not {}", quote(text)),
        )),
    }
}

const CLUSTER: &[Setting<ClusterOptions>] = &[
    one!(
        "postgres-bin",
        "DIR",
        instance.bin,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "Directory of postgres, initdb and pg_rewind; none: the newest that the node has"
    ),
    one!(
        "data-dir",
        "DIR",
        instance.data_dir,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "The data directory; none: /var/lib/postgresql/lockstep/CLUSTER"
    ),
    one!(
        "wal-dir",
        "DIR",
        instance.wal_dir,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "Where pg_wal is, when it is not in the data directory"
    ),
    one!("port", "PORT", instance.port, port, shown, "The port of every member's postgres"),
    one!("socket-dir", "DIR", instance.socket_dir, parsed, shown, "Directory of the Unix socket"),
    one!(
        "manager",
        "HOW",
        instance.manager,
        parsed::<Manager>,
        shown,
        "Who starts and stops postgres: agent, systemd:NAME.service, pg_ctlcluster:15/main"
    ),
    one!(
        "sync",
        "HOW",
        sync,
        parsed::<SyncPolicy>,
        shown,
        "How many standbys have a commit before its client hears of it: auto (1 with two or more standbys), off, or a number"
    ),
    one!(
        "on-sync-shortage",
        "WHAT",
        on_sync_shortage,
        parsed::<Shortage>,
        shown,
        "With too few standbys: wait (writes wait), degrade (writes go on unprotected)"
    ),
    one!(
        "lease",
        "TIME",
        lease.length,
        time(Millis::from_secs(2), Millis::from_secs(300)),
        exact,
        "How long a primary may write without hearing of the controller or its peers"
    ),
    one!(
        "fence-time",
        "TIME",
        lease.fence,
        time(Millis(300), Millis::from_secs(30)),
        exact,
        "Kept at the end of a lease for ending the instance"
    ),
    one!(
        "suspect-after",
        "TIME",
        lease.suspect,
        time(HALF_SECOND, MINUTE),
        exact,
        "A primary that was silent for so long is looked into"
    ),
    one!(
        "on-isolation",
        "WHAT",
        lease.on_isolation,
        parsed::<Isolation>,
        shown,
        "A primary without controller and peers: fence, or stay, which allows two primaries"
    ),
    one!(
        "failover",
        "WHO",
        failover.automatic,
        automatic,
        |v: &bool| vec![if *v { "automatic" } else { "manual" }.to_owned()],
        "automatic, or manual: only when somebody asks"
    ),
    one!(
        "on-crash",
        "WHAT",
        failover.on_crash,
        parsed::<OnCrash>,
        shown,
        "When postgres dies on a living node: auto (synchronous: failover, else restart), restart, failover"
    ),
    one!(
        "restart-limit",
        "TIME",
        failover.restart_limit,
        time(Millis::from_secs(5), HOUR),
        exact,
        "How long a restart after a crash may stand still"
    ),
    one!(
        "failover-budget",
        "N",
        failover.budget,
        up_to(100),
        shown,
        "Most failovers after crashes within failover-window; then restarts only"
    ),
    one!(
        "failover-window",
        "TIME",
        failover.window,
        time(MINUTE, DAY),
        exact,
        "The time that failover-budget is for"
    ),
    one!(
        "max-lag",
        "SIZE",
        failover.max_lag,
        parsed::<Size>,
        shown,
        "Most write-ahead log that an asynchronous failover may lose"
    ),
    one!(
        "switchover-limit",
        "TIME",
        failover.switchover_limit,
        time(SECOND, HOUR),
        exact,
        "A switchover that is not through by then ends with the old primary"
    ),
    one!(
        "external-fence",
        "HOOK",
        failover.external_fence,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "A program in the hook directory of another member that proves a node off: exit 0 alone means off"
    ),
    one!(
        "external-fence-timeout",
        "TIME",
        failover.external_fence_timeout,
        time(SECOND, HOUR),
        exact,
        "How long external-fence may take"
    ),
    flag!(
        "salvage",
        salvage.enabled,
        "Give a crashed instance's last write-ahead log to the member that is promoted"
    ),
    one!(
        "salvage-max",
        "SIZE",
        salvage.max_bytes,
        parsed::<Size>,
        shown,
        "Most write-ahead log to give"
    ),
    one!(
        "salvage-timeout",
        "TIME",
        salvage.timeout,
        time(SECOND, HOUR),
        exact,
        "How long giving may take"
    ),
    one!(
        "on-salvage-failure",
        "WHAT",
        salvage.on_failure,
        parsed::<SalvageFailure>,
        shown,
        "restart (where it crashed), or lose-data"
    ),
    flag!("rewind", rejoin.rewind, "pg_rewind for a member that went another way"),
    flag!("reclone", rejoin.clone, "A new copy for a member that cannot be rewound"),
    flag!("keep-old-data", rejoin.keep_old, "Keep a data directory that was replaced"),
    one!(
        "replication-tls",
        "HOW",
        replication.tls,
        parsed::<ReplicationTls>,
        shown,
        "lockstep (certificates that agents pin), given (as postgresql.conf says), off"
    ),
    flag!("slots", replication.slots, "A replication slot per member, on all members"),
    one!(
        "slot-ttl",
        "TIME",
        replication.slot_ttl,
        optional_of(|text| within(text.parse()?, MINUTE, Millis(365 * DAY.0))),
        |v: &Option<Millis>| exact_or_none(*v),
        "The slot of a member that is away is dropped after so long; none: never"
    ),
    one!(
        "slot-warning",
        "SIZE",
        replication.slot_warning,
        parsed::<Size>,
        shown,
        "Warn when slots hold back more write-ahead log"
    ),
    one!(
        "poll",
        "TIME",
        checks.poll,
        time(Millis(200), HOUR),
        exact,
        "How often an instance is looked at"
    ),
    one!(
        "verify",
        "TIME",
        checks.verify,
        time(SECOND, DAY),
        exact,
        "How often a new connection is made and something written"
    ),
    one!(
        "check-timeout",
        "TIME",
        checks.timeout,
        time(HALF_SECOND, MINUTE),
        exact,
        "A look that takes longer failed"
    ),
    one!(
        "check-retries",
        "N",
        checks.retries,
        up_to(100),
        shown,
        "Failed looks in a row until an instance counts as hung"
    ),
    one!(
        "min-free",
        "SIZE",
        checks.min_free,
        parsed::<Size>,
        shown,
        "Warn when less is free on a file system"
    ),
    Setting {
        name: "parameter",
        value: "NAME=VALUE",
        help: "A setting of postgresql.conf on every member: max_connections=200",
        repeated: true,
        read: |o, text| {
            let parameter = text.parse::<Parameter>()?;
            let at = o.parameters.partition_point(|p| p.name <= parameter.name);
            o.parameters.insert(at, parameter);
            Ok(())
        },
        write: |o| texts(&o.parameters),
        reset: |o, _| o.parameters.clear(),
    },
    many!(
        "hba",
        "LINE",
        hba,
        HbaEntry,
        "A line of pg_hba.conf on every member: 'hostssl app app 10.0.0.0/8 scram-sha-256'"
    ),
    one!(
        "hba-mode",
        "HOW",
        hba_mode,
        parsed::<HbaMode>,
        shown,
        "managed (a marked block of pg_hba.conf), or checked"
    ),
    many!(
        "initdb-option",
        "OPTION",
        initdb,
        InitdbOption,
        "An option of initdb, when it makes the cluster: --encoding=UTF8"
    ),
    flag!("checksums", checksums, "Data checksums, when initdb makes the cluster"),
];
