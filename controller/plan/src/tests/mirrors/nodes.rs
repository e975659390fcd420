//! Replicas that wait for each other, are disabled, give up or lose what they had.

use expect_test::expect;
use lockstep_model::mirror::Pulled;
use lockstep_model::observation::{Observation, Told};
use lockstep_model::request::{MirrorChange, NewMirror, NodeAction, Request};
use lockstep_model::setting::Value;
use lockstep_model::task::OutcomeKind;

use super::{NODES, changed, new_mirror, sync};
use crate::mirrors::standing;
use crate::tests::dsl::{Lab, schedule};

#[test]
fn replicas_wait_for_each_other_between_two_stages() {
    let two = [("two-stage", "yes"), ("stage-wait", "10m")];
    let mut lab = Lab::with_mirror(new_mirror("debian", &["r1", "r2", "r3"], &two));
    lab.disconnect("r3");
    lab.pass(30);
    lab.ask(sync("debian", &[]));
    lab.ok("m");
    let first = lab.show_mirror("debian");
    lab.ok("r1");
    lab.ask(sync("debian", &[]));
    let waits = lab.show_mirror("debian");
    lab.ok("r2");
    let opened = lab.show_mirror("debian");
    lab.ok("r1");
    lab.ok("r2");
    let done = lab.show_mirror("debian");
    // The next one: r2 never gets through its first stage.
    lab.ok("m");
    lab.ok("r1");
    lab.pass(599);
    assert!(lab.end_pull("r1", OutcomeKind::Ok, "", changed()).is_none(), "waits for r2");
    lab.pass(1);
    let late = lab.show_mirror("debian");
    expect![[r#"
        r1: pull 1 of 1 from m, first, try 1
        r2: pull 1 of 1 from m, first, try 1
        debian/1 m by user/anna, generation 1, 1 tries: ok
        debian/1 r1 by cascade, generation 1, 1 tries: goes on
        debian/1 r2 by cascade, generation 1, 1 tries: goes on
        generation 1, distributed 0; r1 0, r2 0
        ? mirror/debian/r1 pull: r1 has not confirmed mirror-pull 23.0, given at 2026-11-21T00:00:30Z
        ? mirror/debian/r2 pull: r2 has not confirmed mirror-pull 23.1, given at 2026-11-21T00:00:30Z
        ? mirror/debian no_schedule: it has no schedule: it runs when it is asked to
        ? mirror/debian/r3 node_away: r3 is not connected: it pulls when it returns, once, to the newest
        --
        r2: pull 1 of 1 from m, first, try 1
        debian/1 m by user/anna, generation 1, 1 tries: ok
        debian/1 r1 by cascade, generation 1, 1 tries: goes on
        debian/1 r2 by cascade, generation 1, 1 tries: goes on
        generation 1, distributed 0, wants 2; r1 0, r2 0
        ? mirror/debian/r2 pull: r2 has not confirmed mirror-pull 23.1, given at 2026-11-21T00:00:30Z
        ? mirror/debian no_schedule: it has no schedule: it runs when it is asked to
        ? mirror/debian/m two_stage: replicas are at their two stages: it starts after them, or at 2026-11-21T00:20:30Z
        ? mirror/debian/r1 two_stage: the first stage is with 1 of 2 replicas: the second starts when they have it, or at 2026-11-21T00:10:30Z
        ? mirror/debian/r3 node_away: r3 is not connected: it pulls when it returns, once, to the newest
        --
        r1: pull 1 of 1 from m, second, try 1
        r2: pull 1 of 1 from m, second, try 1
        debian/1 m by user/anna, generation 1, 1 tries: ok
        debian/1 r1 by cascade, generation 1, 1 tries: goes on
        debian/1 r2 by cascade, generation 1, 1 tries: goes on
        generation 1, distributed 0, wants 2; r1 0, r2 0
        ? mirror/debian/r1 pull: r1 has not confirmed mirror-pull 28.0, given at 2026-11-21T00:00:30Z
        ? mirror/debian/r2 pull: r2 has not confirmed mirror-pull 28.1, given at 2026-11-21T00:00:30Z
        ? mirror/debian no_schedule: it has no schedule: it runs when it is asked to
        ? mirror/debian/m two_stage: replicas are at their two stages: it starts after them, or at 2026-11-21T00:20:30Z
        ? mirror/debian/r3 node_away: r3 is not connected: it pulls when it returns, once, to the newest
        --
        m: pull 2 of 2 from up.example.org:873, whole, try 1
        debian/1 m by user/anna, generation 1, 1 tries: ok
        debian/1 r1 by cascade, generation 1, 1 tries: ok
        debian/1 r2 by cascade, generation 1, 1 tries: ok
        debian/2 m by user/anna, generation 2, 1 tries: goes on
        generation 1, distributed 1; r1 1, r2 1
        ? mirror/debian/m pull: m has not confirmed mirror-pull 32.0, given at 2026-11-21T00:00:30Z
        ? mirror/debian no_schedule: it has no schedule: it runs when it is asked to
        ? mirror/debian/r3 node_away: r3 is not connected: it pulls when it returns, once, to the newest
        --
        r1: pull 2 of 2 from m, second, try 1
        r2: pull 2 of 2 from m, first, try 1
        debian/1 m by user/anna, generation 1, 1 tries: ok
        debian/1 r1 by cascade, generation 1, 1 tries: ok
        debian/1 r2 by cascade, generation 1, 1 tries: ok
        debian/2 m by user/anna, generation 2, 1 tries: ok
        debian/2 r1 by cascade, generation 2, 1 tries: goes on
        debian/2 r2 by cascade, generation 2, 1 tries: goes on
        generation 2, distributed 1; r1 1, r2 1
        ? mirror/debian/r1 pull: r1 has not confirmed mirror-pull 37.0, given at 2026-11-21T00:10:30Z
        ? mirror/debian/r2 pull: r2 has not confirmed mirror-pull 34.1, given at 2026-11-21T00:00:30Z
        ? mirror/debian no_schedule: it has no schedule: it runs when it is asked to
        ? mirror/debian/r3 node_away: r3 is not connected: it pulls when it returns, once, to the newest
    "#]].assert_eq(&[first, waits, opened, done, late].join("--\n"));
}

#[test]
fn enough_replicas_open_the_second_stage_and_a_restart_changes_nothing() {
    let two = [("two-stage", "yes"), ("quorum", "2")];
    let mut lab = Lab::with_mirror(new_mirror("debian", &["r1", "r2", "r3"], &two));
    lab.ask(sync("debian", &[]));
    lab.ok("m");
    lab.ok("r1");
    lab.restart();
    for node in NODES {
        lab.connect(node);
    }
    assert!(lab.end_pull("r1", OutcomeKind::Ok, "", changed()).is_none(), "one is not enough");
    lab.ok("r3");
    lab.ok("r1");
    lab.ok("r3");
    lab.ok("r2");
    lab.ok("r2");
    let state = &lab.world.mirror_states()[&"debian".parse().unwrap()].value;
    assert_eq!((state.generation, state.distributed), (1, 1));
}

#[test]
fn a_node_that_is_disabled_pulls_nothing_and_goes_on_when_it_is_enabled() {
    let mut lab =
        Lab::with_mirror(new_mirror("fedora", &["r1", "r2"], &[("replicas-at-once", "1")]));
    lab.ask(sync("fedora", &[]));
    lab.ok("m");
    let one = lab.show_mirror("fedora");
    lab.act("r1", NodeAction::Disable);
    let disabled = lab.show_mirror("fedora");
    lab.end_pull("r1", OutcomeKind::Cancelled, "", Pulled::default()).unwrap();
    lab.take_places();
    lab.ok("r2");
    lab.act("r1", NodeAction::Enable);
    lab.take_places();
    let back = lab.show_mirror("fedora");
    expect![[r#"
        r1: pull 1 of 1 from m, whole, try 1
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: goes on
        generation 1, distributed 0; r1 0
        ? mirror/fedora/r1 pull: r1 has not confirmed mirror-pull 22.0, given at 2026-11-21T00:00:00Z
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
        ? mirror/fedora/r2 limit: replicas-at-once is 1, and others go first
        --
        m: place /data/fedora for [r2]
        r1: pull 1 of 1 from m, whole, try 1, to be cancelled
        r1: place /data/fedora for [], not serving
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: goes on
        generation 1, distributed 0; r1 0
        ? mirror/fedora/r1 node_disabled: r1 is disabled: nothing is pulled, load balancers are told NOT_SERVING; lockstepctl node enable r1
        ? mirror/fedora/m mirror_place: m has not confirmed mirror-place 24.0, given at 2026-11-21T00:00:00Z
        ? mirror/fedora/r1 mirror_place: r1 has not confirmed mirror-place 24.1, given at 2026-11-21T00:00:00Z
        ? mirror/fedora/r1 pull: r1 has not confirmed mirror-pull 22.0, given at 2026-11-21T00:00:00Z
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
        ? mirror/fedora/r2 no_place: the master m does not let it read the tree yet
        --
        r1: pull 1 of 1 from m, whole, try 1
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: goes on
        fedora/1 r2 by cascade, generation 1, 1 tries: ok
        generation 1, distributed 1; r1 0, r2 1
        ? mirror/fedora/r1 pull: r1 has not confirmed mirror-pull 38.0, given at 2026-11-21T00:00:00Z
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
    "#]].assert_eq(&[one, disabled, back].join("--\n"));
}

#[test]
fn a_replica_that_gave_up_begins_anew_when_something_changes_or_after_a_rest() {
    let mut lab = Lab::with_mirror(new_mirror("fedora", &["r1"], &[("attempts", "1")]));
    lab.ask(sync("fedora", &[]));
    lab.ok("m");
    lab.fail("r1", "no space left", false);
    let rests = lab.show_mirror("fedora");
    lab.pass(3599);
    assert!(lab.end_pull("r1", OutcomeKind::Ok, "", changed()).is_none());
    lab.pass(1);
    lab.fail("r1", "no space left", false);
    lab.ask(sync("fedora", &[]));
    lab.ok("m");
    lab.fail("r1", "no space left", false);
    let values = vec![Value { name: "min-free".to_owned(), text: "0".to_owned() }];
    let change = MirrorChange { values, ..MirrorChange::default() };
    lab.ask(Request::UpdateMirror { mirror: "fedora".parse().unwrap(), change });
    lab.take_places();
    lab.ok("r1");
    let done = lab.show_mirror("fedora");
    expect![[r#"
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: failed no space left
        generation 1, distributed 0; r1 0
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
        ? mirror/fedora/r1 gave_up: r1: try 1 ended failed at 2026-11-21T00:00:00Z: no space left; it begins anew at 2026-11-21T01:00:00Z, or when something changes: lockstepctl mirror sync fedora --only r1
        --
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: failed no space left
        fedora/2 m by user/anna, generation 2, 1 tries: ok
        fedora/2 r1 by cascade, generation 2, 1 tries: ok
        generation 2, distributed 2; r1 2
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
    "#]].assert_eq(&[rests, done].join("--\n"));
}

#[test]
fn a_node_without_memory_counts_as_empty() {
    let mut lab = Lab::with_mirror(new_mirror("fedora", &["r1"], &[]));
    lab.ask(sync("fedora", &[]));
    lab.ok("m");
    lab.ok("r1");
    lab.disconnect("r1");
    lab.observe("r1", Observation::Connected(Told::default()));
    lab.settle();
    lab.take_places();
    let replica = lab.show_mirror("fedora");
    lab.ok("r1");
    lab.disconnect("m");
    lab.observe("m", Observation::Connected(Told::default()));
    lab.settle();
    lab.take_places();
    lab.ask(sync("fedora", &[]));
    lab.unchanged("m");
    let master = lab.show_mirror("fedora");
    expect![[r#"
        r1: pull 1 of 1 from m, whole, try 1
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: goes on
        generation 1, distributed 1; r1 0
        ? mirror/fedora/r1 pull: r1 has not confirmed mirror-pull 27.0, given at 2026-11-21T00:00:00Z
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
        --
        r1: pull 2 of 2 from m, whole, try 1
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: ok
        fedora/2 m by user/anna, generation 2, 1 tries: ok
        fedora/2 r1 by cascade, generation 2, 1 tries: goes on
        generation 2, distributed 1; r1 1
        ? mirror/fedora/r1 pull: r1 has not confirmed mirror-pull 36.0, given at 2026-11-21T00:00:00Z
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
    "#]].assert_eq(&[replica, master].join("--\n"));
}

#[test]
fn a_mirror_that_changes_all_the_time_lets_replicas_through_both_stages() {
    let new = new_mirror("debian", &["r1"], &[("two-stage", "yes")]);
    let mut lab = Lab::with_mirror(NewMirror { schedule: Some(schedule("minute=*")), ..new });
    lab.pass(60);
    lab.ok("m");
    // Its instants come while the replica is at its stages, and are for the run after them.
    lab.pass(60);
    lab.ok("r1");
    lab.pass(60);
    lab.ok("r1");
    let state = &lab.world.mirror_states()[&"debian".parse().unwrap()].value;
    assert_eq!((state.generation, state.distributed, state.current), (1, 1, Some(2)));
    lab.ok("m");
    // A replica that takes too long holds nobody up for ever.
    lab.pass(2 * 600 + 60);
    let state = &lab.world.mirror_states()[&"debian".parse().unwrap()].value;
    assert_eq!((state.generation, state.current), (2, Some(3)));
}

#[test]
fn who_cannot_have_its_directory_is_waited_for_no_longer_than_a_few_tries() {
    let mut lab = Lab::with_nodes(&NODES);
    lab.ask(Request::CreateMirror(new_mirror("fedora", &["r1", "r2"], &[])));
    for node in ["m", "r1"] {
        lab.end_one(node, OutcomeKind::Ok, "").unwrap();
    }
    lab.ask(sync("fedora", &[]));
    lab.ok("m");
    lab.ok("r1");
    let run = "fedora/1".parse().unwrap();
    assert!(!standing(&lab.world, &run, lab.now).unwrap().done);
    for _ in 0..4 {
        lab.end_one("r2", OutcomeKind::Failed, "cannot make /data").unwrap();
        lab.pass(60);
    }
    let now = standing(&lab.world, &run, lab.now).unwrap();
    assert!(now.done && !now.ok, "{now:?}");
    assert_eq!(now.behind, [&"r2".parse().unwrap()]);
}
