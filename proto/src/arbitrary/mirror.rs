//! Mirrors, their runs and tasks.

use lockstep_model::mirror::push::PushToken;
use lockstep_model::mirror::run::RunEnd;
use lockstep_model::mirror::{
    Allow, HopKind, Mirror, MirrorOptions, MirrorState, Pulled, ReplicaState, Run, RunId, Trigger,
    Wanted,
};
use lockstep_model::record::{Record, Secret};
use lockstep_model::setting::Settings;
use lockstep_model::sync::{Place, Selected};
use lockstep_model::task::{
    MirrorHooks, MirrorPlace, MirrorPull, MirrorRelease, OutcomeKind, PullFrom, Stage, TaskSpec,
};
use lockstep_model::{NodeName, Timestamp, TokenId};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::schedule::{progress, schedule};
use super::{name, path, peer, remote, text, timestamp};

pub fn record() -> impl Strategy<Value = Record> {
    let sealed = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        mirror().prop_map(Record::Mirror),
        state().prop_map(Record::MirrorState),
        replica().prop_map(Record::Replica),
        run().prop_map(Record::Run),
        (name(), sealed).prop_map(|(mirror, sealed)| Record::Secret(Secret { mirror, sealed })),
    ]
}

pub fn task_spec() -> impl Strategy<Value = TaskSpec> {
    let from = prop_oneof![
        Just(PullFrom::Here),
        peer().prop_map(PullFrom::Agent),
        remote().prop_map(PullFrom::Remote),
    ];
    let readers = prop::collection::vec(peer(), 0..3);
    prop_oneof![
        (name(), path(), option::of(path()), hop(), readers, any::<bool>(), options()).prop_map(
            |(mirror, tree, moved_from, hop, readers, serve, options)| {
                let place = MirrorPlace { mirror, tree, moved_from, hop, readers, serve, options };
                TaskSpec::MirrorPlace(place)
            }
        ),
        (name(), option::of(path())).prop_map(|(mirror, delete)| {
            TaskSpec::MirrorRelease(MirrorRelease { mirror, delete })
        }),
        (name(), any::<[u64; 2]>(), path(), hop(), from, select(&Stage::ALL), options(), allow())
            .prop_map(|(mirror, numbers, tree, hop, from, stage, options, allow)| {
                TaskSpec::MirrorPull(MirrorPull {
                    mirror,
                    number: numbers[0],
                    generation: numbers[1],
                    tree,
                    hop,
                    from,
                    stage,
                    options,
                    allow,
                    has_password: numbers[0] % 2 == 1,
                })
            }),
        (name(), any::<[u64; 2]>(), path(), options()).prop_map(
            |(mirror, [number, generation], tree, options)| {
                TaskSpec::MirrorHooks(MirrorHooks { mirror, number, generation, tree, options })
            }
        ),
    ]
}

pub fn pulled() -> impl Strategy<Value = Pulled> {
    let exit_code = option::of(any::<u8>());
    (exit_code, any::<[u64; 9]>(), any::<[bool; 2]>()).prop_map(
        |(exit_code, n, [changed, permanent])| Pulled {
            started_at: Timestamp(n[0]),
            ended_at: Timestamp(n[1]),
            exit_code,
            entries: n[2],
            tree_bytes: n[3],
            files: n[4],
            created: n[5],
            deleted: n[6],
            received_bytes: n[7],
            changed,
            permanent,
            free_bytes: n[8],
        },
    )
}

fn hop() -> impl Strategy<Value = HopKind> {
    select(&HopKind::ALL)
}

fn allow() -> impl Strategy<Value = Allow> {
    any::<[bool; 3]>().prop_map(|[empty, delete, space]| Allow { empty, delete, space })
}

fn options() -> impl Strategy<Value = MirrorOptions> {
    let one = select(&[
        ("delete", "before"),
        ("rsync-option", "--checksum"),
        ("filter", "- *.iso"),
        ("replica-delete", "none"),
        ("run-timeout", "90s"),
        ("attempts", "7"),
        ("bwlimit", "10M"),
        ("delete-limit", "none"),
        ("min-free", "10G"),
        ("two-stage", "yes"),
        ("late", "*.idx"),
        ("publish", "snapshot"),
        ("proxy", "proxy:3128"),
        ("trace", "project/trace"),
        ("hook", "report on=after delay=5s"),
        ("replicas-from", "rsync://mirror@m1/all"),
        ("further-upstream", "images/iso=rsync://iso.example.org/fedora-iso?password=iso"),
        ("rsyncd-module", "fedora at=replica allow=10.0.0.0/8 connections=7"),
    ]);
    prop::collection::btree_set(one, 0..5)
        .prop_filter_map("contradict", |set| MirrorOptions::from_values(set).ok())
}

fn mirror() -> impl Strategy<Value = Mirror> {
    let replicas = prop::collection::btree_map(name::<NodeName>(), path(), 0..4);
    let selected = option::of((text("[a-z]{1,5}=[a-z]{1,5}"), path()))
        .prop_map(|s| s.map(|(selector, path)| Selected { selector, path }));
    let places = (name::<NodeName>(), path(), name(), replicas, selected);
    let names = (option::of(name()), option::of(name()));
    let tokens =
        prop::collection::btree_map(name::<TokenId>(), (any::<[u8; 32]>(), timestamp()), 0..3);
    let rest = (option::of(schedule()), any::<[bool; 3]>(), names, timestamp(), tokens);
    (name(), option::of(remote()), places, options(), rest).prop_map(
        |(name, upstream, (master, dest, dir, mut replicas, selected), options, rest)| {
            replicas.remove(&master);
            let (schedule, [has_password, enabled, deleting], (owner, was), created_at, tokens) =
                rest;
            Mirror {
                name,
                upstream,
                has_password,
                master,
                dest,
                dir,
                replicas: replicas.into_iter().map(|(node, path)| Place { node, path }).collect(),
                selected,
                options,
                schedule,
                enabled,
                owner,
                push_tokens: tokens
                    .into_iter()
                    .map(|(id, (secret_sha256, created_at))| PushToken {
                        id,
                        secret_sha256,
                        created_at,
                    })
                    .collect(),
                created_at,
                deleting,
                was,
            }
        },
    )
}

fn trigger() -> impl Strategy<Value = Trigger> {
    prop_oneof![
        timestamp().prop_map(Trigger::Schedule),
        "user/[a-z]{1,9}".prop_map(Trigger::Asked),
        "[a-z]{1,9}".prop_map(Trigger::Push),
        name().prop_map(Trigger::Ready),
        Just(Trigger::Cascade),
    ]
}

fn wanted() -> impl Strategy<Value = Wanted> {
    (any::<u64>(), trigger(), allow(), timestamp(), option::of(name()))
        .prop_map(|(number, trigger, allow, at, from)| Wanted { number, trigger, allow, at, from })
}

fn some_time() -> impl Strategy<Value = Option<Timestamp>> {
    option::of((1u64..).prop_map(Timestamp))
}

fn state() -> impl Strategy<Value = MirrorState> {
    let numbers = (any::<[u64; 5]>(), option::of(1u64..));
    let of_generation = (option::of(name()), allow());
    (name(), numbers, of_generation, option::of(wanted()), some_time(), progress()).prop_map(
        |(mirror, (n, current), (generation_on, allow), wanted, complete_at, progress)| {
            MirrorState {
                mirror,
                generation: n[0],
                generation_at: Timestamp(n[1]),
                generation_run: n[2],
                generation_on,
                allow,
                distributed: n[4],
                number: n[3],
                wanted,
                current,
                complete_at,
                progress,
            }
        },
    )
}

fn replica() -> impl Strategy<Value = ReplicaState> {
    let numbers = (any::<[u64; 2]>(), option::of(1u64..));
    let times = (some_time(), some_time());
    (name(), name(), numbers, option::of(wanted()), times).prop_map(
        |(mirror, node, (n, current), wanted, (staged_at, complete_at))| ReplicaState {
            mirror,
            node,
            generation: n[0],
            staged: n[1],
            staged_at,
            wanted,
            current,
            complete_at,
        },
    )
}

fn run() -> impl Strategy<Value = Run> {
    let kind = select(&[OutcomeKind::Ok, OutcomeKind::Failed, OutcomeKind::Interrupted]);
    let end = (timestamp(), kind, ".{0,40}", option::of(pulled()))
        .prop_map(|(at, kind, message, pulled)| RunEnd { at, kind, message, pulled });
    let numbers = (any::<[u64; 4]>(), any::<u32>());
    (name(), name(), hop(), trigger(), numbers, option::of(end)).prop_map(
        |(mirror, node, hop, trigger, (n, attempts), end)| Run {
            id: RunId { mirror, number: n[0] },
            node,
            hop,
            trigger,
            created_at: Timestamp(n[1]),
            started_at: Timestamp(n[2]),
            attempts,
            generation: n[3],
            end,
        },
    )
}
