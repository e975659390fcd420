//! Mirrors that are renamed, moved and removed.

use expect_test::expect;
use lockstep_model::mirror::Pulled;
use lockstep_model::observation::Observation;
use lockstep_model::request::{MirrorChange, NodeAction, Request};
use lockstep_model::task::OutcomeKind;

use super::{NODES, delete, new_mirror, rename, sync};
use crate::tests::dsl::Lab;

#[test]
fn a_removal_with_files_ends_when_every_node_is_through() {
    let mut lab = Lab::with_mirror(new_mirror("fedora", &["r1", "r2"], &[]));
    lab.ask(sync("fedora", &[]));
    lab.disconnect("r2");
    lab.ask(delete("fedora", true));
    let asked = lab.show_mirror("fedora");
    lab.end_pull("m", OutcomeKind::Cancelled, "", Pulled::default()).unwrap();
    lab.end_one("m", OutcomeKind::Ok, "").unwrap();
    lab.end_one("r1", OutcomeKind::Ok, "").unwrap();
    let left = lab.show_mirror("fedora");
    assert_eq!(lab.ask(delete("fedora", true)).writes, []);
    let refused = lab.refusal(sync("fedora", &[]));
    lab.act("r2", NodeAction::Expel);
    assert!(
        lab.world.mirrors().is_empty()
            && lab.world.runs_of(&"fedora".parse().unwrap()).count() == 0
    );
    expect![[r#"
        m: pull 1 of 1 from up.example.org:873, whole, try 1, to be cancelled
        r1: release fedora, delete Some("/data/fedora")
        r2: release fedora, delete Some("/data/fedora")
        fedora/1 m by user/anna, generation 1, 1 tries: goes on
        generation 0, distributed 0; 
        ? mirror/fedora/m release: m has to end its run first
        ? mirror/fedora/m run_moot: m has not confirmed mirror-pull 20.0, given at 2026-11-21T00:00:00Z
        ? mirror/fedora/r1 release: r1 has not confirmed mirror-release 22.0, given at 2026-11-21T00:00:00Z
        ? mirror/fedora/r2 release: r2 is not connected since 2026-11-21T00:00:00Z (link lost); mirror-release 22.1 is carried out when it returns
        --
        r2: release fedora, delete Some("/data/fedora")
        fedora/1 m by user/anna, generation 1, 1 tries: cancelled
        generation 0, distributed 0; 
        ? mirror/fedora/r2 release: r2 is not connected since 2026-11-21T00:00:00Z (link lost); mirror-release 22.1 is carried out when it returns
        --
        FailedPrecondition being_deleted mirror/fedora: mirror fedora is being deleted with its files: see lockstepctl explain mirror/fedora"#]].assert_eq(&[asked, left, refused].join("--\n"));
}

#[test]
fn a_removal_leaves_files_and_nothing_else() {
    let mut lab = Lab::with_mirror(new_mirror("fedora", &["r1"], &[]));
    lab.ask(sync("fedora", &[]));
    lab.ok("m");
    lab.ask(delete("fedora", false));
    let asked = lab.show_mirror("fedora");
    assert!(lab.end_pull("r1", OutcomeKind::Cancelled, "", Pulled::default()).is_some());
    lab.take_places();
    let tasks = lab.world.tasks().count();
    let rows = lab.world.records().len();
    lab.ask(delete("fedora", false));
    assert_eq!((tasks, lab.world.records().len()), (0, rows));
    expect![[r#"
        m: release fedora, delete None
        r1: pull 1 of 1 from m, whole, try 1, to be cancelled
        ? mirror/fedora/m release: m has not confirmed mirror-release 23.0, given at 2026-11-21T00:00:00Z
        ? mirror/fedora/r1 release: r1 has to end its run first
        ? mirror/fedora/r1 run_moot: r1 has not confirmed mirror-pull 21.0, given at 2026-11-21T00:00:00Z
    "#]].assert_eq(&asked);
}

#[test]
fn a_rename_takes_the_tree_over_and_moves_it_only_when_asked() {
    let mut lab = Lab::with_mirror(new_mirror("fedora", &["r1"], &[]));
    lab.ask(sync("fedora", &[]));
    lab.ok("m");
    lab.ok("r1");
    lab.ask(rename("fedora", "linux", false));
    let asked = lab.show_mirror("linux");
    let old = lab.show_mirror("fedora");
    lab.take_places();
    let done = lab.show_mirror("linux");
    lab.ask(rename("linux", "redhat", true));
    let moved = lab.show_mirror("redhat");
    lab.take_places();
    let slots: Vec<_> = lab.world.slots().map(|(node, slot, _)| format!("{node} {slot}")).collect();
    expect![[r#"
        m: place /data/fedora from /data/fedora for [r1]
        r1: place /data/fedora from /data/fedora for []
        generation 1, distributed 1; r1 1
        ? mirror/linux/m mirror_place: m has not confirmed mirror-place 25.0, given at 2026-11-21T00:00:00Z
        ? mirror/linux/r1 mirror_place: r1 has not confirmed mirror-place 25.1, given at 2026-11-21T00:00:00Z
        ? mirror/linux no_schedule: it has no schedule: it runs when it is asked to
        --
        m: place /data/fedora from /data/fedora for [r1]
        r1: place /data/fedora from /data/fedora for []
        ? mirror/fedora/m release: m has to take the tree over by its new name first
        ? mirror/fedora/r1 release: r1 has to take the tree over by its new name first
        --
        generation 1, distributed 1; r1 1
        ? mirror/linux no_schedule: it has no schedule: it runs when it is asked to
        --
        m: place /data/redhat from /data/fedora for [r1]
        r1: place /data/redhat from /data/fedora for []
        generation 1, distributed 1; r1 1
        ? mirror/redhat/m mirror_place: m has not confirmed mirror-place 37.0, given at 2026-11-21T00:00:00Z
        ? mirror/redhat/r1 mirror_place: r1 has not confirmed mirror-place 37.1, given at 2026-11-21T00:00:00Z
        ? mirror/redhat no_schedule: it has no schedule: it runs when it is asked to
        --
        m mirror/redhat
        r1 mirror/redhat"#]].assert_eq(&[asked, old, done, moved, slots.join("\n")].join("--\n"));
}

#[test]
fn a_tree_moves_with_its_dest_and_nothing_is_pulled_before() {
    let mut lab = Lab::with_mirror(new_mirror("fedora", &["r1"], &[]));
    lab.ask(sync("fedora", &[]));
    lab.ok("m");
    lab.ok("r1");
    let change = MirrorChange { dest: Some("/data2".parse().unwrap()), ..MirrorChange::default() };
    lab.ask(Request::UpdateMirror { mirror: "fedora".parse().unwrap(), change: change.clone() });
    lab.ask(sync("fedora", &[]));
    let moving = lab.show_mirror("fedora");
    let change = MirrorChange { dest: Some("/data3".parse().unwrap()), ..change };
    lab.ask(Request::UpdateMirror { mirror: "fedora".parse().unwrap(), change });
    let again = lab.show_mirror("fedora");
    lab.end_one("m", OutcomeKind::Ok, "").unwrap();
    let then = lab.show_mirror("fedora");
    lab.end_one("m", OutcomeKind::Ok, "").unwrap();
    let done = lab.show_mirror("fedora");
    expect![[r#"
        m: place /data2/fedora from /data/fedora for [r1]
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: ok
        generation 1, distributed 1, wants 2; r1 1
        ? mirror/fedora/m mirror_place: m has not confirmed mirror-place 25.0, given at 2026-11-21T00:00:00Z
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
        ? mirror/fedora/m no_place: m has not taken up its part yet
        --
        m: place /data2/fedora from /data/fedora for [r1]
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: ok
        generation 1, distributed 1, wants 2; r1 1
        ? mirror/fedora/m moving: m is to have the tree at /data2/fedora before anything else: m has not confirmed mirror-place 25.0, given at 2026-11-21T00:00:00Z
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
        ? mirror/fedora/m no_place: m has not taken up its part yet
        --
        m: place /data3/fedora from /data2/fedora for [r1]
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: ok
        generation 1, distributed 1, wants 2; r1 1
        ? mirror/fedora/m mirror_place: m has not confirmed mirror-place 30.0, given at 2026-11-21T00:00:00Z
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
        ? mirror/fedora/m no_place: m has not taken up its part yet
        --
        m: pull 2 of 2 from up.example.org:873, whole, try 1
        fedora/1 m by user/anna, generation 1, 1 tries: ok
        fedora/1 r1 by cascade, generation 1, 1 tries: ok
        fedora/2 m by user/anna, generation 2, 1 tries: goes on
        generation 1, distributed 1; r1 1
        ? mirror/fedora/m pull: m has not confirmed mirror-pull 33.0, given at 2026-11-21T00:00:00Z
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
    "#]].assert_eq(&[moving, again, then, done].join("--\n"));
}

#[test]
fn what_no_record_knows_is_released_and_its_files_stay() {
    let mut lab = Lab::with_nodes(&NODES);
    let report = lockstep_model::mirror::MirrorReport {
        filled: true,
        problem: String::new(),
        warnings: Vec::new(),
        pull: None,
    };
    let mirror = || "lost".parse().unwrap();
    assert!(
        lab.observe("r1", Observation::Mirror { mirror: mirror(), report: Some(report.clone()) })
    );
    lab.settle();
    let told = lab.show_mirror("lost");
    lab.take_places();
    assert_eq!(lab.world.tasks().count(), 0);
    assert!(!lab.observe("r1", Observation::Mirror { mirror: mirror(), report: None }));
    expect![[r#"
        r1: release lost, delete None
        ? mirror/lost/r1 release: r1 has not confirmed mirror-release 14.0, given at 2026-11-21T00:00:00Z
    "#]].assert_eq(&told);
}

#[test]
fn a_tree_is_not_moved_under_a_run() {
    let mut lab = Lab::with_mirror(new_mirror("fedora", &["r1"], &[]));
    lab.ask(sync("fedora", &[]));
    let change = MirrorChange { dest: Some("/data2".parse().unwrap()), ..MirrorChange::default() };
    lab.ask(Request::UpdateMirror { mirror: "fedora".parse().unwrap(), change });
    let waits = lab.show_mirror("fedora");
    lab.fail("m", "connection reset", false);
    lab.pass(1);
    let moves = lab.show_mirror("fedora");
    lab.take_places();
    let again = lab.show_mirror("fedora");
    expect![[r#"
        m: pull 1 of 1 from up.example.org:873, whole, try 1
        fedora/1 m by user/anna, generation 1, 1 tries: goes on
        generation 0, distributed 0; 
        ? mirror/fedora/m moving: m ends its run before the tree is moved
        ? mirror/fedora/m pull: m has not confirmed mirror-pull 19.0, given at 2026-11-21T00:00:00Z
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
        --
        m: place /data2/fedora from /data/fedora for [r1]
        fedora/1 m by user/anna, generation 1, 1 tries: goes on
        generation 0, distributed 0; 
        ? mirror/fedora/m mirror_place: m has not confirmed mirror-place 22.0, given at 2026-11-21T00:00:00Z
        ? mirror/fedora/m no_place: m has not taken up its part yet
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
        --
        m: pull 1 of 1 from up.example.org:873, whole, try 2
        fedora/1 m by user/anna, generation 1, 2 tries: goes on
        generation 0, distributed 0; 
        ? mirror/fedora/m pull: m has not confirmed mirror-pull 25.0, given at 2026-11-21T00:00:01Z
        ? mirror/fedora no_schedule: it has no schedule: it runs when it is asked to
    "#]].assert_eq(&[waits, moves, again].join("--\n"));
}
