//! Any value that the model allows, for property tests.

pub mod cluster;
mod mirror;
pub mod schedule;

use lockstep_model::identity::{Role, Subject, Token, TokenFor, User};
use lockstep_model::label::Labels;
use lockstep_model::node::{Node, NodeAddress, NodeAdmin};
use lockstep_model::past::Past;
use lockstep_model::path::DirPath;
use lockstep_model::rate::Rate;
use lockstep_model::record::{Actor, Change, Fleet, Record, RequestDone, RequestId, Write};
use lockstep_model::sync::options::TransferOptions;
use lockstep_model::sync::{
    Comment, DeletePolicy, Filter, Hook, Pass, Pattern, Place, Remote, Schedules, Selected, Sync,
    SyncOptions, SyncState, Target, TargetAt,
};
use lockstep_model::task::{
    Ended, Outcome, OutcomeKind, Peer, Receiver, Route, SyncBarrier, SyncSource, SyncTarget,
    SyncVerify, Task, TaskSpec,
};
use lockstep_model::{
    HostPort, Incarnation, Invalid, KeyHash, LifeId, Millis, NodeName, Revision, TaskId, Timestamp,
};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::str::FromStr;

pub fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        fleet().prop_map(Record::Fleet),
        past().prop_map(Record::Past),
        node().prop_map(Record::Node),
        token().prop_map(Record::Token),
        user().prop_map(Record::User),
        sync().prop_map(Record::Sync),
        sync_state().prop_map(Record::SyncState).boxed(),
        mirror::record().boxed(),
        cluster::record().boxed(),
        task().prop_map(Record::Task).boxed(),
        request_done().prop_map(Record::Request),
    ]
}

pub fn change() -> impl Strategy<Value = Change> {
    let write = prop_oneof![
        record().prop_map(Write::Put),
        record().prop_map(|record| Write::Delete(record.key())),
    ];
    let writes = prop::collection::vec(write, 0..5);
    (revision(), timestamp(), actor(), ".{0,40}", writes).prop_map(
        |(revision, at, actor, cause, writes)| Change { revision, at, actor, cause, writes },
    )
}

/// A name of any kind.
pub fn name<T: FromStr<Err = Invalid> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    "[a-z0-9]([a-z0-9_.-]{0,30}[a-z0-9])?".prop_filter_map("has ..", |text| text.parse().ok())
}

fn text<T: FromStr<Err = Invalid> + std::fmt::Debug>(
    regex: &'static str,
) -> impl Strategy<Value = T> {
    regex.prop_filter_map("the model refuses it", |text| text.parse().ok())
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp)
}

fn revision() -> impl Strategy<Value = Revision> {
    any::<u64>().prop_map(Revision)
}

fn key_hash() -> impl Strategy<Value = KeyHash> {
    any::<[u8; 32]>().prop_map(KeyHash)
}

fn fleet() -> impl Strategy<Value = Fleet> {
    (name(), any::<u64>(), timestamp()).prop_map(|(name, incarnation, created_at)| Fleet {
        name,
        incarnation: Incarnation(incarnation),
        created_at,
    })
}

fn past() -> impl Strategy<Value = Past> {
    let life = (1..=u64::MAX, 1..=1000u64);
    prop::collection::vec(life, 0..5).prop_map(|lives| {
        let mut past = Past::default();
        let mut began = 0;
        for (id, after) in lives {
            began += after;
            past.begin(LifeId(id), Revision(began));
        }
        past
    })
}

fn labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map(
        text("[A-Za-z0-9][A-Za-z0-9_./-]{0,20}"),
        "[A-Za-z0-9_./:@-]{0,20}",
        0..4,
    )
}

fn host_port() -> impl Strategy<Value = HostPort> {
    prop_oneof![
        text("[a-z][a-z0-9-]{0,10}(\\.[a-z]{1,5})?:[1-9][0-9]{0,4}"),
        (any::<std::net::Ipv4Addr>(), 1u16..).prop_map(|(ip, port)| HostPort::new(
            &ip.to_string(),
            port
        )
        .unwrap()),
        (any::<std::net::Ipv6Addr>(), 1u16..).prop_map(|(ip, port)| HostPort::new(
            &ip.to_string(),
            port
        )
        .unwrap()),
    ]
}

fn node() -> impl Strategy<Value = Node> {
    let address =
        ("[A-Za-z0-9-]{0,8}", host_port()).prop_map(|(network, at)| NodeAddress { network, at });
    let addresses = prop::collection::vec(address, 0..4);
    (name(), labels(), select(&NodeAdmin::ALL), key_hash(), addresses, timestamp()).prop_map(
        |(name, labels, admin, key_hash, addresses, created_at)| Node {
            name,
            labels,
            admin,
            key_hash,
            addresses,
            created_at,
        },
    )
}

fn token() -> impl Strategy<Value = Token> {
    let grants = prop_oneof![
        (name(), labels()).prop_map(|(name, labels)| TokenFor::Node { name, labels }),
        name().prop_map(|name| TokenFor::User { name }),
    ];
    let used_by = option::of(key_hash());
    (name(), any::<[u8; 32]>(), grants, timestamp(), timestamp(), used_by).prop_map(
        |(id, secret_sha256, grants, created_at, expires_at, used_by)| Token {
            id,
            secret_sha256,
            grants,
            created_at,
            expires_at,
            used_by,
        },
    )
}

fn user() -> impl Strategy<Value = User> {
    (name(), select(&Role::ALL), any::<bool>(), option::of(key_hash()), timestamp()).prop_map(
        |(name, role, disabled, key_hash, created_at)| User {
            name,
            role,
            disabled,
            key_hash,
            created_at,
        },
    )
}

fn path() -> impl Strategy<Value = DirPath> {
    text("(/[^/\\p{Cc}]{1,10}){1,4}")
}

fn options() -> impl Strategy<Value = SyncOptions> {
    let filter = (any::<bool>(), text::<Pattern>("[^\\p{Cc}]{1,20}"))
        .prop_map(|(include, pattern)| Filter { include, pattern });
    let filters = prop::collection::vec(filter, 0..4);
    let hook = text::<Hook>("[a-z0-9]{1,9}( failure=(ignore|retry))?( timeout=[1-9]s)?");
    let hooks = prop::collection::vec(hook, 0..3);
    let rest =
        (hooks, option::of(2u32..100), any::<bool>(), option::of(1024u64..), schedules().boxed());
    (select(&DeletePolicy::ALL), filters, 0u64..=600, rest).prop_map(
        |(delete, filters, secs, (hooks, fanout, acls, bwlimit, schedules))| SyncOptions {
            delete,
            filters,
            delay: Millis::from_secs(secs),
            hooks,
            fanout,
            transfer: TransferOptions { acls, ..TransferOptions::default() },
            bwlimit: bwlimit.and_then(Rate::new),
            schedules,
            ..SyncOptions::default()
        },
    )
}

fn sync_state() -> impl Strategy<Value = SyncState> {
    let passes = prop::collection::btree_map(select(&Pass::ALL), schedule::progress(), 1..=3);
    (name(), name(), passes).prop_map(|(sync, target, passes)| SyncState { sync, target, passes })
}

fn schedules() -> impl Strategy<Value = Schedules> {
    let rules = (option::of(schedule::rule()), option::of(schedule::rule()));
    (rules, schedule::policy()).prop_map(|((resync, verify), policy)| Schedules {
        resync,
        scrub: None,
        verify,
        zone: "Europe/Berlin".parse().unwrap(),
        policy,
    })
}

fn remote() -> impl Strategy<Value = Remote> {
    prop_oneof![
        text(
            "ssh://([a-z]{1,5}@)?[a-z]{1,9}(:[1-9][0-9]{0,3})?/[a-z/]{0,5}[a-z](\\?key=[a-z]{1,4})?"
        ),
        text("rsync://([a-z]{1,5}@)?[a-z]{1,9}/[a-z]{1,5}(/[a-z]{1,5})?(\\?password=[a-z]{1,4})?"),
    ]
}

fn rate() -> impl Strategy<Value = Option<Rate>> {
    option::of(1024u64..).prop_map(|bytes| bytes.and_then(Rate::new))
}

fn target_at() -> impl Strategy<Value = TargetAt> {
    prop_oneof![path().prop_map(TargetAt::Node), remote().prop_map(TargetAt::Remote)]
}

fn sync() -> impl Strategy<Value = Sync> {
    let source = (name(), path()).prop_map(|(node, path)| Place { node, path });
    let targets = prop::collection::btree_map(name::<NodeName>(), (target_at(), rate()), 0..4);
    let selected = option::of((text("[a-z]{1,5}=[a-z]{1,5}(,!old)?"), path()))
        .prop_map(|s| s.map(|(selector, path)| Selected { selector, path }));
    let comment =
        (option::of(name()), "(#[a-z ]{0,9})?").prop_map(|(before, text)| Comment { before, text });
    let rest = (selected, any::<bool>(), any::<u32>(), prop::collection::vec(comment, 0..3));
    (name(), source, targets, options(), timestamp(), rest).prop_map(
        |(name, source, mut targets, options, created_at, rest)| {
            targets.remove(&source.node);
            let target = |(node, (at, bwlimit))| Target { node, at, bwlimit };
            let targets = targets.into_iter().map(target).collect();
            let (selected, paused, generation, comments) = rest;
            Sync {
                name,
                source,
                targets,
                selected,
                options,
                paused,
                generation,
                comments,
                created_at,
            }
        },
    )
}

fn receiver() -> impl Strategy<Value = Receiver> {
    let route = prop_oneof![peer().prop_map(Route::Agent), remote().prop_map(Route::Remote)];
    (name(), route, rate()).prop_map(|(node, route, bwlimit)| Receiver { node, route, bwlimit })
}

fn peer() -> impl Strategy<Value = Peer> {
    (name(), key_hash(), prop::collection::vec(host_port(), 0..3))
        .prop_map(|(node, key_hash, addresses)| Peer { node, key_hash, addresses })
}

fn task_spec() -> impl Strategy<Value = TaskSpec> {
    let receivers = || prop::collection::vec(receiver(), 0..3);
    let others = || prop::collection::vec(name(), 0..3);
    prop_oneof![
        (name(), path(), receivers(), others(), options(), any::<bool>(), any::<u32>()).prop_map(
            |(sync, path, receivers, others, options, paused, generation)| {
                TaskSpec::SyncSource(SyncSource {
                    sync,
                    path,
                    receivers,
                    others,
                    options,
                    paused,
                    generation,
                })
            }
        ),
        (name(), path(), option::of(peer()), any::<bool>(), options(), receivers()).prop_map(
            |(sync, path, source, serve, options, receivers)| {
                TaskSpec::SyncTarget(SyncTarget {
                    sync,
                    path,
                    source,
                    serve,
                    options,
                    receivers,
                    paused: !serve,
                    generation: 7,
                })
            }
        ),
        name().prop_map(|sync| TaskSpec::SyncRelease { sync }),
        (name(), name()).prop_map(|(sync, target)| TaskSpec::SyncResync { sync, target }),
        (name(), name()).prop_map(|(sync, target)| TaskSpec::SyncUnhold { sync, target }),
        (name(), name(), any::<bool>(), any::<bool>()).prop_map(
            |(sync, target, content, repair)| {
                let paths = vec![b"a/b".to_vec(), vec![0xff]];
                TaskSpec::SyncVerify(SyncVerify { sync, target, content, repair, paths })
            }
        ),
        mirror::task_spec().boxed(),
        cluster::task_spec().boxed(),
        (name(), option::of(1u32..), option::of(text("[a-z]{1,9}"))).prop_map(
            |(sync, at_least, hook)| {
                TaskSpec::SyncBarrier(SyncBarrier { sync, at_least, hook })
            }
        ),
    ]
}

fn ended() -> impl Strategy<Value = Ended> {
    const KINDS: [OutcomeKind; 8] = [
        OutcomeKind::Ok,
        OutcomeKind::Failed,
        OutcomeKind::Cancelled,
        OutcomeKind::Interrupted,
        OutcomeKind::Unknown,
        OutcomeKind::Superseded,
        OutcomeKind::Lost,
        OutcomeKind::Unsupported,
    ];
    (timestamp(), select(&KINDS), ".{0,40}", option::of(mirror::pulled())).prop_map(
        |(at, kind, message, pulled)| {
            let outcome = Outcome { pulled, ..Outcome::new(kind, message) };
            Ended { at, outcome }
        },
    )
}

fn task() -> impl Strategy<Value = Task> {
    (
        (revision(), any::<u32>()).prop_map(|(revision, n)| TaskId { revision, n }),
        name(),
        task_spec(),
        any::<u32>(),
        timestamp(),
        any::<u64>().prop_map(Millis),
        any::<bool>(),
        option::of(ended()),
        option::of("[0-9a-f-]{1,55}"),
    )
        .prop_map(
            |(id, node, spec, attempt, created_at, run_limit, cancel_requested, ended, trace)| {
                Task {
                    id,
                    node,
                    spec,
                    attempt,
                    created_at,
                    run_limit,
                    cancel_requested,
                    ended,
                    traceparent: trace,
                }
            },
        )
}

fn actor() -> impl Strategy<Value = Actor> {
    prop_oneof![
        Just(Actor::Planner),
        Just(Actor::Offline),
        Just(Actor::Anonymous),
        name().prop_map(|name| Actor::Subject(Subject::Controller(name))),
        name().prop_map(|name| Actor::Subject(Subject::Node(name))),
        name().prop_map(|name| Actor::Subject(Subject::User(name))),
    ]
}

fn request_done() -> impl Strategy<Value = RequestDone> {
    (text::<RequestId>("[A-Za-z0-9_-]{1,64}"), actor(), ".{0,40}", timestamp())
        .prop_map(|(id, actor, cause, at)| RequestDone { id, actor, cause, at })
}
