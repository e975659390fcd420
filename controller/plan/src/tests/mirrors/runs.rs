//! Runs of the master and what follows from them.

use expect_test::expect;
use lockstep_model::Millis;
use lockstep_model::mirror::Pulled;
use lockstep_model::request::{NewMirror, Request};
use lockstep_model::task::OutcomeKind;

use super::{NODES, changed, new_mirror, sync};
use crate::tests::dsl::{Lab, schedule};

#[test]
fn what_the_master_brings_goes_to_every_replica() {
    let mut lab = Lab::with_mirror(new_mirror("fedora", &["r1", "r2"], &[]));
    lab.ask(sync("fedora", &[]));
    let begun = lab.show_mirror("fedora");
    lab.ok("m");
    let cascade = lab.show_mirror("fedora");
    lab.ok("r1");
    lab.ok("r2");
    let done = lab.show_mirror("fedora");
    lab.ask(sync("fedora", &[]));
    lab.unchanged("m");
    let same = lab.show_mirror("fedora");
    expect![[r#"
        m: pull 1 of 1 from up.example.org:873, whole, try 1
        fedora/1 m by user/anna, generation 1, 1 tries: goes on
        generation 0, distributed 0; 
        ? mirror/fedora/m pull: m has not confirmed mirror-pull 20.0, given at 2026-11-21T00:00:00Z
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
        --
        r1: pull 1 of 1 from m, whole, try 1
        r2: pull 1 of 1 from m, whole, try 1
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: goes on
        fedora/1 r2 by cascade, generation 1, 1 tries: goes on
        generation 1, distributed 0; r1 0, r2 0
        ? mirror/fedora/r1 pull: r1 has not confirmed mirror-pull 22.0, given at 2026-11-21T00:00:00Z
        ? mirror/fedora/r2 pull: r2 has not confirmed mirror-pull 22.1, given at 2026-11-21T00:00:00Z
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
        --
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: ok
        fedora/1 r2 by cascade, generation 1, 1 tries: ok
        generation 1, distributed 1; r1 1, r2 1
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
        --
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: ok
        fedora/1 r2 by cascade, generation 1, 1 tries: ok
        fedora/2 m by user/anna, generation 1, 1 tries: ok
        generation 1, distributed 1; r1 1, r2 1
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
    "#]].assert_eq(&[begun, cascade, done, same].join("--\n"));
}

#[test]
fn what_fails_is_tried_again_and_never_cascades() {
    let mut lab = Lab::with_mirror(new_mirror("fedora", &["r1"], &[("attempts", "2")]));
    lab.ask(sync("fedora", &[]));
    lab.fail("m", "connection refused", false);
    let first = lab.show_mirror("fedora");
    lab.pass(1);
    lab.fail("m", "connection refused", false);
    let gave_up = lab.show_mirror("fedora");
    lab.ask(sync("fedora", &[]));
    lab.fail("m", "auth failed on module fedora", true);
    let permanent = lab.show_mirror("fedora");
    expect![[r#"
        fedora/1 m by user/anna, generation 1, 1 tries: goes on
        generation 0, distributed 0; 
        ? mirror/fedora/m retry: m: try 1 of mirror-pull ended failed at 2026-11-21T00:00:00Z: connection refused; it is tried again
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
        --
        fedora/1 m by user/anna, generation 1, 2 tries: failed connection refused
        generation 0, distributed 0; 
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
        --
        fedora/1 m by user/anna, generation 1, 2 tries: failed connection refused
        fedora/2 m by user/anna, generation 1, 1 tries: failed auth failed on module fedora
        generation 0, distributed 0; 
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
    "#]].assert_eq(&[first, gave_up, permanent].join("--\n"));
}

#[test]
fn a_replica_that_was_away_pulls_once_to_the_newest() {
    let mut lab = Lab::with_mirror(new_mirror("fedora", &["r1", "r2"], &[]));
    lab.disconnect("r2");
    for _ in 0..3 {
        lab.ask(sync("fedora", &[]));
        lab.ok("m");
        lab.ok("r1");
    }
    let away = lab.show_mirror("fedora");
    lab.connect("r2");
    let back = lab.show_mirror("fedora");
    lab.ok("r2");
    let done = lab.show_mirror("fedora");
    expect![[r#"
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: ok
        fedora/2 m by user/anna, generation 2, 1 tries: ok
        fedora/2 r1 by cascade, generation 2, 1 tries: ok
        fedora/3 m by user/anna, generation 3, 1 tries: ok
        fedora/3 r1 by cascade, generation 3, 1 tries: ok
        generation 3, distributed 0; r1 3
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
        ? mirror/fedora/r2 node_away: r2 is not connected: it pulls when it returns, once, to the newest
        --
        r2: pull 3 of 3 from m, whole, try 1
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: ok
        fedora/2 m by user/anna, generation 2, 1 tries: ok
        fedora/2 r1 by cascade, generation 2, 1 tries: ok
        fedora/3 m by user/anna, generation 3, 1 tries: ok
        fedora/3 r1 by cascade, generation 3, 1 tries: ok
        fedora/3 r2 by cascade, generation 3, 1 tries: goes on
        generation 3, distributed 0; r1 3, r2 0
        ? mirror/fedora/r2 pull: r2 has not confirmed mirror-pull 37.0, given at 2026-11-21T00:00:00Z
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
        --
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: ok
        fedora/2 m by user/anna, generation 2, 1 tries: ok
        fedora/2 r1 by cascade, generation 2, 1 tries: ok
        fedora/3 m by user/anna, generation 3, 1 tries: ok
        fedora/3 r1 by cascade, generation 3, 1 tries: ok
        fedora/3 r2 by cascade, generation 3, 1 tries: ok
        generation 3, distributed 3; r1 3, r2 3
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
    "#]].assert_eq(&[away, back, done].join("--\n"));
}

#[test]
fn what_is_asked_for_during_a_run_is_one_run_more() {
    let mut lab = Lab::with_mirror(new_mirror("fedora", &[], &[]));
    let runs: Vec<String> =
        (0..4).flat_map(|_| lab.ask(sync("fedora", &[])).runs).map(|run| run.to_string()).collect();
    assert_eq!(runs, ["fedora/1", "fedora/2", "fedora/2", "fedora/2"]);
    lab.ok("m");
    lab.ok("m");
    assert!(lab.end_pull("m", OutcomeKind::Ok, "", changed()).is_none(), "two runs and no more");
}

#[test]
fn a_schedule_makes_runs_and_joins_what_is_asked_for() {
    let new = new_mirror("fedora", &[], &[]);
    let mut lab = Lab::with_mirror(NewMirror { schedule: Some(schedule("minute=*")), ..new });
    let before = lab.show_mirror("fedora");
    lab.pass(60);
    let due = lab.show_mirror("fedora");
    // A run goes on over the next instants, and somebody asks as well.
    lab.pass(60);
    lab.ask(sync("fedora", &[]));
    lab.pass(60);
    lab.unchanged("m");
    let one_more = lab.show_mirror("fedora");
    lab.unchanged("m");
    let quiet = lab.show_mirror("fedora");
    expect![[r#"
        generation 0, distributed 0; 
        ? mirror/fedora schedule: next at 2026-11-21T00:01:00Z
        --
        m: pull 1 of 1 from up.example.org:873, whole, try 1
        fedora/1 m by schedule, generation 1, 1 tries: goes on
        generation 0, distributed 0; 
        ? mirror/fedora/m pull: m has not confirmed mirror-pull 17.0, given at 2026-11-21T00:01:00Z
        ? mirror/fedora schedule: next at 2026-11-21T00:02:00Z
        --
        m: pull 2 of 2 from up.example.org:873, whole, try 1
        fedora/1 m by schedule, generation 1, 1 tries: ok
        fedora/2 m by user/anna, generation 2, 1 tries: goes on
        generation 1, distributed 1; 
        ? mirror/fedora/m pull: m has not confirmed mirror-pull 22.0, given at 2026-11-21T00:03:00Z
        ? mirror/fedora schedule: next at 2026-11-21T00:04:00Z
        --
        fedora/1 m by schedule, generation 1, 1 tries: ok
        fedora/2 m by user/anna, generation 1, 1 tries: ok
        generation 1, distributed 1; 
        ? mirror/fedora schedule: next at 2026-11-21T00:04:00Z
    "#]]
    .assert_eq(&[before, due, one_more, quiet].join("--\n"));
}

#[test]
fn single_replicas_are_brought_up_to_date_and_the_master_from_one_of_them() {
    let mut lab = Lab::with_mirror(new_mirror("fedora", &["r1", "r2"], &[]));
    let refused = lab.refusal(sync("fedora", &["r1"]));
    lab.ask(sync("fedora", &[]));
    lab.ok("m");
    lab.ok("r1");
    lab.ok("r2");
    let runs = lab.ask(sync("fedora", &["r1", "r2"])).runs;
    let more = lab.ask(sync("fedora", &["r1"])).runs;
    let only = lab.show_mirror("fedora");
    for node in ["r1", "r2", "r1"] {
        lab.ok(node);
    }
    assert!(lab.end_pull("r1", OutcomeKind::Ok, "", changed()).is_none());
    let from = Some("r2".parse().unwrap());
    let Request::SyncMirror { mirror, only: none, allow, trigger, .. } = sync("fedora", &[]) else {
        unreachable!()
    };
    lab.ask(Request::SyncMirror { mirror, only: none, from, allow, trigger });
    let readers = lab.show_mirror("fedora");
    lab.take_places();
    let rebuilt = lab.show_mirror("fedora");
    let runs = format!("{runs:?} {more:?}\n");
    expect![[r#"
        FailedPrecondition no_tree mirror/fedora: the master m has no complete tree yet: lockstepctl mirror sync fedora first--
        [RunId { mirror: fedora, number: 2 }] [RunId { mirror: fedora, number: 3 }]
        --
        r1: pull 2 of 1 from m, whole, try 1
        r2: pull 2 of 1 from m, whole, try 1
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: ok
        fedora/1 r2 by cascade, generation 1, 1 tries: ok
        fedora/2 r1 by user/anna, generation 1, 1 tries: goes on
        fedora/2 r2 by user/anna, generation 1, 1 tries: goes on
        generation 1, distributed 1; r1 1, r2 1
        ? mirror/fedora/r1 pull: r1 has not confirmed mirror-pull 28.0, given at 2026-11-21T00:00:00Z
        ? mirror/fedora/r2 pull: r2 has not confirmed mirror-pull 28.1, given at 2026-11-21T00:00:00Z
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
        --
        r2: place /data/fedora for [m]
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: ok
        fedora/1 r2 by cascade, generation 1, 1 tries: ok
        fedora/2 r1 by user/anna, generation 1, 1 tries: ok
        fedora/2 r2 by user/anna, generation 1, 1 tries: ok
        fedora/3 r1 by user/anna, generation 1, 1 tries: ok
        generation 1, distributed 1, wants 4; r1 1, r2 1
        ? mirror/fedora/r2 mirror_place: r2 has not confirmed mirror-place 37.0, given at 2026-11-21T00:00:00Z
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
        ? mirror/fedora/m no_place: r2 has not taken up its part yet
        --
        m: pull 4 of 2 from r2, whole, try 1
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: ok
        fedora/1 r2 by cascade, generation 1, 1 tries: ok
        fedora/2 r1 by user/anna, generation 1, 1 tries: ok
        fedora/2 r2 by user/anna, generation 1, 1 tries: ok
        fedora/3 r1 by user/anna, generation 1, 1 tries: ok
        fedora/4 m by user/anna, generation 2, 1 tries: goes on
        generation 1, distributed 1; r1 1, r2 1
        ? mirror/fedora/m pull: m has not confirmed mirror-pull 40.0, given at 2026-11-21T00:00:00Z
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
    "#]].assert_eq(&[refused, runs, only, readers, rebuilt].join("--\n"));
}

#[test]
fn one_upstream_is_asked_by_few_at_once_and_who_waits_longest_goes_first() {
    let mut lab = Lab::with_nodes(&NODES);
    for name in ["d", "c", "b", "a"] {
        lab.ask(Request::CreateMirror(new_mirror(name, &[], &[])));
    }
    lab.take_places();
    for name in ["d", "c", "b", "a"] {
        lab.now = lab.now + Millis::from_secs(1);
        lab.ask(sync(name, &[]));
    }
    let begun = |lab: &Lab| -> Vec<String> {
        let live = lab.world.tasks().map(|task| &task.value).filter(|task| task.is_live());
        live.map(|task| task.slot().to_string()).collect()
    };
    assert_eq!(begun(&lab), ["pull/d", "pull/c"]);
    let waits = lab.show_mirror("a");
    lab.ok("m");
    assert_eq!(begun(&lab), ["pull/c", "pull/b"]);
    lab.ok("m");
    assert_eq!(begun(&lab), ["pull/b", "pull/a"]);
    expect![[r#"
        m: pull 1 of 1 from up.example.org:873, whole, try 1
        m: pull 1 of 1 from up.example.org:873, whole, try 1
        generation 0, distributed 0, wants 1; 
        ? mirror/a no_schedule: it has no schedule: it runs when it is asked to
        ? mirror/a/m limit: as many pulls as may be go on: it starts when one of them ends
    "#]]
    .assert_eq(&waits);
}

#[test]
fn every_upstream_of_a_tree_counts() {
    let mut lab = Lab::with_nodes(&NODES);
    let further = [("further-upstream", "iso=rsync://iso.example.org/iso")];
    for name in ["a", "b", "c"] {
        let mut new = new_mirror(name, &[], &further);
        new.upstream = Some(format!("rsync://{name}.example.org/all").parse().unwrap());
        lab.ask(Request::CreateMirror(new));
    }
    let mut first = new_mirror("d", &[], &[]);
    first.upstream = Some("rsync://iso.example.org/d".parse().unwrap());
    lab.ask(Request::CreateMirror(first));
    lab.take_places();
    for name in ["a", "b", "c", "d"] {
        lab.now = lab.now + Millis::from_secs(1);
        lab.ask(sync(name, &[]));
    }
    let begun = |lab: &Lab| -> Vec<String> {
        let live = lab.world.tasks().map(|task| &task.value).filter(|task| task.is_live());
        live.map(|task| task.slot().to_string()).collect()
    };
    assert_eq!(begun(&lab), ["pull/a", "pull/b"]);
    lab.ok("m");
    assert_eq!(begun(&lab), ["pull/b", "pull/c"]);
    lab.ok("m");
    assert_eq!(begun(&lab), ["pull/c", "pull/d"]);
}

#[test]
fn hooks_follow_once_per_generation_when_all_have_it() {
    let hook = [("hook", "report on=distributed")];
    let mut lab = Lab::with_mirror(new_mirror("fedora", &["r1", "r2"], &hook));
    lab.disconnect("r2");
    lab.pass(30);
    lab.ask(sync("fedora", &[]));
    lab.ok("m");
    assert_eq!(lab.world.live_tasks_of(&"m".parse().unwrap()).count(), 0);
    lab.ok("r1");
    let hooks = lab.show_mirror("fedora");
    lab.end_pull("m", OutcomeKind::Interrupted, "agent restarted", Pulled::default()).unwrap();
    lab.pass(1);
    lab.ok("m");
    lab.connect("r2");
    lab.ok("r2");
    let done = lab.show_mirror("fedora");
    expect![[r#"
        m: mirror-hooks
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: ok
        generation 1, distributed 1; r1 1
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
        ? mirror/fedora/r2 node_away: r2 is not connected: it pulls when it returns, once, to the newest
        ? mirror/fedora/m hooks: m has not confirmed mirror-hooks 24.0, given at 2026-11-21T00:00:30Z
        --
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: ok
        fedora/1 r2 by cascade, generation 1, 1 tries: ok
        generation 1, distributed 1; r1 1, r2 1
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
    "#]].assert_eq(&[hooks, done].join("--\n"));
}

#[test]
fn the_newest_runs_are_kept_and_the_one_that_counts() {
    let mut lab = Lab::with_mirror(new_mirror("fedora", &["r1"], &[]));
    lab.ask(sync("fedora", &[]));
    lab.ok("m");
    for _ in 0..60 {
        lab.ask(sync("fedora", &[]));
        lab.unchanged("m");
    }
    let numbers = |lab: &Lab| -> Vec<u64> {
        lab.world.runs_of(&"fedora".parse().unwrap()).map(|(id, _)| id.number).collect()
    };
    let kept: Vec<u64> = [1].into_iter().chain(12..=61).collect();
    assert_eq!(numbers(&lab), kept);
    lab.ok("r1");
    assert_eq!(numbers(&lab), kept);
}

#[test]
fn who_asks_while_a_run_waits_for_its_next_try_does_not_wait() {
    let mut lab = Lab::with_mirror(new_mirror("fedora", &[], &[("attempts", "9")]));
    lab.ask(sync("fedora", &[]));
    for _ in 0..5 {
        lab.fail("m", "connection refused", false);
        lab.pass(300);
    }
    lab.fail("m", "connection refused", false);
    assert_eq!(lab.ask(sync("fedora", &[])).runs[0].number, 2);
    expect![[r#"
        m: pull 2 of 1 from up.example.org:873, whole, try 1
        fedora/1 m by user/anna, generation 1, 6 tries: failed connection refused
        fedora/2 m by user/anna, generation 1, 1 tries: goes on
        generation 0, distributed 0; 
        ? mirror/fedora/m pull: m has not confirmed mirror-pull 31.0, given at 2026-11-21T00:25:00Z
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
    "#]]
    .assert_eq(&lab.show_mirror("fedora"));
}
