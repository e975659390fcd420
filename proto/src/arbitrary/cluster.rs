//! Clusters: records, tasks, reports, leases.

use std::collections::BTreeSet;

use lockstep_model::cluster::report::{
    Check, Finding, PendingRestart, Progress, ProgressKind, Released, StandbyRow, Stream,
    SyncState, Trouble, Verdict,
};
use lockstep_model::cluster::state::{FailoverEnd, MemberRecord, Move, WantedSwitch};
use lockstep_model::cluster::wal::Fork;
use lockstep_model::cluster::{
    Act, Cause, Cluster, ClusterAct, ClusterOptions, ClusterPlace, ClusterRelease, ClusterSecret,
    ClusterState, CrashPlan, Election, Exclusion, Failover, Former, Goal, Leaving, Lineage, Lsn,
    Member, MemberAdmin, MemberOptions, MemberPeer, MemberReport, MemberState, Origin, Primary,
    Quorum, Renewal, Stage, SystemId, Term,
};
use lockstep_model::record::Record;
use lockstep_model::setting::Settings;
use lockstep_model::task::TaskSpec;
use lockstep_model::{Incarnation, Millis, NodeName, Timestamp};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{host_port, name, peer, timestamp};

pub fn record() -> impl Strategy<Value = Record> {
    let sealed = || vec(any::<u8>(), 0..40);
    prop_oneof![
        cluster().prop_map(|cluster| Record::Cluster(Box::new(cluster))),
        state().prop_map(|state| Record::ClusterState(Box::new(state))).boxed(),
        failover().prop_map(|report| Record::Failover(Box::new(report))).boxed(),
        (name(), sealed(), sealed()).prop_map(|(cluster, superuser, replication)| {
            Record::ClusterSecret(ClusterSecret { cluster, superuser, replication })
        }),
    ]
}

pub fn task_spec() -> impl Strategy<Value = TaskSpec> {
    let act = prop_oneof![
        any::<bool>().prop_map(|pending| Act::Restart { pending }),
        Just(Act::Reload),
        Just(Act::Checkpoint),
        Just(Act::Rewind),
        Just(Act::Verify),
        (name(), millis()).prop_map(|(node, timeout)| Act::Fence { node, timeout }),
    ];
    prop_oneof![
        place().prop_map(|place| TaskSpec::ClusterPlace(Box::new(place))).boxed(),
        (name(), any::<bool>()).prop_map(|(cluster, delete)| {
            TaskSpec::ClusterRelease(ClusterRelease { cluster, delete })
        }),
        (name(), act)
            .prop_map(|(cluster, act)| { TaskSpec::ClusterAct(ClusterAct { cluster, act }) }),
    ]
}

pub fn renewal() -> impl Strategy<Value = Renewal> {
    let away = option::of((1..=u64::MAX).prop_map(Millis));
    (name(), term(), any::<u64>(), away).prop_map(|(cluster, term, sent_ms, away)| Renewal {
        cluster,
        term,
        sent_ms,
        away,
    })
}

pub fn report() -> impl Strategy<Value = MemberReport> {
    let state = (select(&MemberState::ALL), select(&Trouble::ALL), term(), option::of(term()));
    let of_term = (term(), option::of(lsn()), any::<bool>());
    let released = option::of(of_term.prop_map(|(term, end, clean)| Released { term, end, clean }));
    let data = (system_id(), lineage(), option::of(lsn()), option::of(lsn()));
    let stream = (name(), millis(), lsn()).prop_map(|(from, age, end)| Stream { from, age, end });
    let standbys = (option::of(stream), vec(standby_row(), 0..3), option::of(quorum()));
    let progress = (select(&ProgressKind::ALL), any::<u64>(), option::of(any::<u64>()), millis())
        .prop_map(|(what, done_bytes, total_bytes, for_ms)| Progress {
            what,
            done_bytes,
            total_bytes,
            for_ms,
        });
    let flags = (any::<[bool; 2]>(), any::<[u64; 2]>(), option::of(progress));
    let lines = (vec("[a-z]([a-z ]{0,9}[a-z])?", 0..3), vec(name(), 0..3), vec(pending(), 0..3));
    let lines = (lines, vec(finding(), 0..3));
    (state, released, data, standbys, flags, lines).prop_map(
        |(
            (state, trouble, term, holds),
            released,
            (system_id, lineage, lsn, replayed),
            (upstream, standbys, quorum),
            ([rewindable, prepared], [copy, salvaged_bytes], progress),
            ((warnings, promotable, pending_restart), findings),
        )| MemberReport {
            state,
            term,
            holds,
            released,
            system_id,
            version: "15.18".to_owned(),
            lineage,
            lsn,
            replayed,
            upstream,
            quorum,
            promotable,
            standbys,
            rewindable,
            prepared,
            copy,
            progress,
            salvaged_bytes,
            certificate: "-----BEGIN CERTIFICATE-----\n".to_owned(),
            pending_restart,
            trouble,
            problem: warnings.first().cloned().unwrap_or_default(),
            warnings,
            findings,
        },
    )
}

fn finding() -> impl Strategy<Value = Finding> {
    (select(&Check::ALL), select(&Verdict::ALL), "[a-z]{1,9}")
        .prop_map(|(check, verdict, text)| Finding { check, verdict, text })
}

fn pending() -> impl Strategy<Value = PendingRestart> {
    ("[a-z_]{1,9}", "[0-9]{1,9}", "[0-9]{1,9}").prop_map(|(name, now, then)| PendingRestart {
        name,
        now,
        then,
    })
}

fn standby_row() -> impl Strategy<Value = StandbyRow> {
    let positions = (lsn(), lsn(), lsn());
    let times = (option::of(millis()), millis());
    (name(), any::<bool>(), select(&SyncState::ALL), positions, times).prop_map(
        |(node, streaming, sync_state, (sent, flushed, replayed), (replay_lag, reply_age))| {
            StandbyRow {
                node,
                streaming,
                sync_state,
                sent,
                flushed,
                replayed,
                replay_lag,
                reply_age,
            }
        },
    )
}

fn place() -> impl Strategy<Value = ClusterPlace> {
    let member_peer = (peer(), host_port(), "[a-z]{0,9}", any::<bool>()).prop_map(
        |(peer, postgres, certificate, clone_from)| MemberPeer {
            peer,
            postgres,
            certificate,
            clone_from,
        },
    );
    let data = (system_id(), lineage(), any::<u64>(), option::of(name()));
    let others = (vec(member_peer, 0..3), vec(name(), 0..3), any::<[bool; 3]>());
    (name(), term(), goal(), data, (options(), member_options()), others).prop_map(
        |(cluster, term, goal, (system_id, lineage, copy, holder), (options, member), others)| {
            let (peers, promotable, [sync, paused, serve]) = others;
            ClusterPlace {
                cluster,
                term,
                goal,
                system_id,
                holder,
                lineage,
                copy,
                options,
                member,
                peers,
                promotable,
                sync,
                paused,
                serve,
            }
        },
    )
}

fn goal() -> impl Strategy<Value = Goal> {
    let plan = (select(&Origin::ALL), select(&CrashPlan::ALL), any::<bool>());
    prop_oneof![
        (plan, lsn(), any::<u32>(), quorum()).prop_map(
            |((origin, crash, prepare), at_least, timeline, quorum)| {
                Goal::Primary(Primary { origin, at_least, timeline, quorum, crash, prepare })
            }
        ),
        Just(Goal::HandOver),
        option::of(name()).prop_map(|upstream| Goal::Standby { upstream }),
        option::of(name()).prop_map(|salvage| Goal::Sealed { salvage }),
        Just(Goal::Fenced),
        Just(Goal::Stopped),
        Just(Goal::Maintenance),
    ]
}

fn cluster() -> impl Strategy<Value = Cluster> {
    let leaving = || option::of(select(&Leaving::ALL));
    let member = (member_options(), select(&MemberAdmin::ALL), any::<u64>(), leaving());
    let members = btree_map(name::<NodeName>(), member, 0..4);
    (name(), any::<[bool; 2]>(), members, options(), timestamp(), leaving()).prop_map(
        |(name, [adopt, paused], members, options, created_at, leaving)| {
            let member = |(node, (options, admin, copy, leaving))| Member {
                node,
                options,
                admin,
                copy,
                leaving,
            };
            let members = members.into_iter().map(member).collect();
            Cluster { name, adopt, members, options, paused, created_at, leaving }
        },
    )
}

fn state() -> impl Strategy<Value = ClusterState> {
    let record = (any::<u64>(), option::of((1u64..).prop_map(Term)))
        .prop_map(|(copied, failed_term)| MemberRecord { copied, failed_term });
    let who = (term(), option::of(name()), stage().boxed());
    let data = (system_id(), option::of(1u32..), lineage());
    let quorums = || vec(quorum(), 1..=ClusterState::QUORUMS_MAX);
    let former = (option::of(name()), any::<u64>(), any::<u32>(), quorums())
        .prop_map(|(node, copy, timeline, quorums)| Former { node, copy, timeline, quorums });
    let formers = vec(former, 0..3);
    let sync = (quorums(), formers, any::<u32>(), promotable());
    let wanted = (option::of(name()), some_time(), "[a-z/]{0,9}")
        .prop_map(|(to, at, by)| WantedSwitch { to, at, by });
    let crashes = vec(timestamp(), 0..4);
    let rest = (
        option::of(millis()),
        crashes,
        option::of(wanted),
        any::<u64>(),
        btree_map(name(), record, 0..4),
    );
    (name(), who, data, sync, rest).prop_map(
        |(
            cluster,
            (term, holder, stage),
            (system_id, major, lineage),
            (quorums, formers, timeline, promotable),
            rest,
        )| {
            let (longest_lease, crashes, wanted, number, members) = rest;
            let incarnation = Incarnation(number);
            ClusterState {
                cluster,
                system_id,
                major,
                term,
                holder,
                stage,
                quorums,
                formers,
                timeline,
                promotable,
                lineage,
                longest_lease,
                crashes,
                wanted,
                number,
                members,
                incarnation,
            }
        },
    )
}

fn stage() -> impl Strategy<Value = Stage> {
    let moving = || {
        (name(), timestamp(), any::<u64>()).prop_map(|(to, began_at, number)| Move {
            to,
            began_at,
            number,
        })
    };
    prop_oneof![
        Just(Stage::Creating),
        Just(Stage::Steady),
        moving().prop_map(Stage::Preparing),
        moving().prop_map(Stage::Handing),
        election().prop_map(Stage::Electing).boxed(),
        election().prop_map(Stage::Promoting).boxed(),
    ]
}

fn election() -> impl Strategy<Value = Election> {
    let who = (option::of((name(), term())), option::of(name()), any::<bool>());
    let found = (option::of(select(&Exclusion::ALL)), option::of(lsn()), lsn());
    let salvage = option::of((name(), timestamp()));
    let times = (timestamp(), some_time(), some_time());
    (select(&Cause::ALL), who, times, found, salvage, any::<u64>()).prop_map(
        |(cause, (from, to, allow_loss), times, (excluded, goal, at_least), salvage, number)| {
            let (began_at, excluded_at, chosen_at) = times;
            Election {
                cause,
                from,
                to,
                allow_loss,
                began_at,
                excluded,
                excluded_at,
                chosen_at,
                at_least,
                goal,
                salvage,
                number,
            }
        },
    )
}

fn failover() -> impl Strategy<Value = Failover> {
    let who = ("[a-z/]{0,9}", option::of(name()), option::of(name()));
    let words =
        (select(&Cause::ALL), option::of(select(&Exclusion::ALL)), select(&FailoverEnd::ALL));
    let times = (timestamp(), some_time(), some_time(), some_time());
    let data = (btree_map(name(), lsn(), 0..4), option::of(lsn()), any::<u64>());
    let rest = (term(), any::<u32>(), option::of(any::<bool>()), ".{0,20}");
    (name(), any::<u64>(), who, words, times, data, rest).prop_map(
        |(cluster, number, (by, from, to), (cause, exclusion, end), times, data, rest)| {
            let (began_at, excluded_at, chosen_at, writable_at) = times;
            let (positions, old_end, salvaged_bytes) = data;
            let (term, timeline, lossless, note) = rest;
            Failover {
                cluster,
                number,
                cause,
                by,
                from,
                to,
                term,
                timeline,
                began_at,
                exclusion,
                excluded_at,
                chosen_at,
                writable_at,
                positions,
                old_end,
                salvaged_bytes,
                lossless,
                end,
                note,
            }
        },
    )
}

fn options() -> impl Strategy<Value = ClusterOptions> {
    let one = select(&[
        ("postgres-bin", "/usr/lib/postgresql/15/bin"),
        ("port", "5433"),
        ("manager", "pg_ctlcluster:15/main"),
        ("sync", "2"),
        ("on-sync-shortage", "degrade"),
        ("lease", "10s"),
        ("failover", "manual"),
        ("parameter", "max_connections=200"),
        ("hba", "hostssl app app 10.0.0.0/8 scram-sha-256"),
        ("initdb-option", "--encoding=UTF8"),
    ]);
    btree_set(one, 0..5).prop_filter_map("contradict", |set| ClusterOptions::from_values(set).ok())
}

fn member_options() -> impl Strategy<Value = MemberOptions> {
    let one = select(&[
        ("priority", "7"),
        ("never-promote", "yes"),
        ("no-sync", "yes"),
        ("clone-from", "yes"),
        ("upstream", "db2"),
        ("delay", "1h"),
        ("group", "rack-1"),
        ("host", "db1.example.org"),
        ("tag", "role=reports"),
    ]);
    btree_set(one, 0..4).prop_filter_map("contradict", |set| MemberOptions::from_values(set).ok())
}

fn quorum() -> impl Strategy<Value = Quorum> {
    prop_oneof![
        Just(Quorum::OFF),
        (1u32..4, btree_set(name(), 0..4)).prop_map(|(k, of)| Quorum { k, of }),
    ]
}

fn promotable() -> impl Strategy<Value = BTreeSet<NodeName>> {
    btree_set(name(), 0..4)
}

fn lineage() -> impl Strategy<Value = Lineage> {
    let fork = (any::<u32>(), lsn()).prop_map(|(timeline, begins)| Fork { timeline, begins });
    vec(fork, 0..3).prop_map(Lineage)
}

fn some_time() -> impl Strategy<Value = Option<Timestamp>> {
    option::of((1u64..).prop_map(Timestamp))
}

fn lsn() -> impl Strategy<Value = Lsn> {
    any::<u64>().prop_map(Lsn)
}

fn term() -> impl Strategy<Value = Term> {
    any::<u64>().prop_map(Term)
}

fn millis() -> impl Strategy<Value = Millis> {
    any::<u64>().prop_map(Millis)
}

fn system_id() -> impl Strategy<Value = Option<SystemId>> {
    option::of((1u64..).prop_map(SystemId))
}
