//! Switchovers and failovers that are asked for: refused when they cannot go well.

use expect_test::expect;
use lockstep_model::Millis;
use lockstep_model::cluster::state::{FailoverEnd, Move};
use lockstep_model::cluster::wal::Fork;
use lockstep_model::cluster::{
    Cause, Lsn, MemberAdmin, MemberReport, MemberState, Quorum, Stage, Term,
};
use lockstep_model::request::Request;

use super::fixture::{
    edit, election, lab, lose, name, node, promoting, put_state, report, say, state,
};
use crate::tests::dsl::{Lab, START};
use crate::tests::refusals::check;

fn switchover(to: Option<&str>, after_ms: Option<u64>, lab: &Lab) -> Request {
    let at = after_ms.map(|ms| lab.now + Millis(ms));
    Request::Switchover { cluster: name("main"), to: to.map(node), at }
}

fn failover(to: Option<&str>, allow_loss: bool) -> Request {
    Request::Failover { cluster: name("main"), to: to.map(node), allow_loss }
}

fn pause(paused: bool) -> Request {
    Request::SetClusterPaused { cluster: name("main"), paused }
}

/// db3 cannot take over, so that db2 is the only one.
fn without_db3(lab: &mut Lab) {
    lab.try_ask(edit("main", &["sync=1"], &[("db3", &["never-promote=yes"])])).unwrap();
}

#[test]
fn a_switchover_that_cannot_go_well_is_refused() {
    let mut lab = lab();
    let mut refusals = vec![lab.refusal(switchover(Some("db9"), None, &lab))];
    without_db3(&mut lab);
    refusals.push(lab.refusal(switchover(Some("db3"), None, &lab)));
    let standby = || report(MemberState::Standby, 1000);
    let mut other_timeline = standby();
    other_timeline.lineage.0.push(Fork { timeline: 2, begins: Lsn(900) });
    for said in [
        report(MemberState::Standby, 1000 - 1).lagging(20 << 20),
        MemberReport { upstream: None, ..standby() },
        MemberReport {
            problem: "the password is wrong".to_owned(),
            ..report(MemberState::Starting, 1000)
        },
        MemberReport { copy: 0, ..standby() },
        other_timeline,
        report(MemberState::Fenced, 1000),
    ] {
        say(&mut lab, "db1", report(MemberState::Primary, 30 << 20));
        let end = Lsn(30 << 20);
        let said = MemberReport { lsn: said.lsn.filter(|lsn| lsn.0 != 1000).or(Some(end)), ..said };
        say(&mut lab, "db2", said);
        refusals.push(lab.refusal(switchover(Some("db2"), None, &lab)));
    }
    refusals.push(lab.refusal(switchover(None, None, &lab)));
    say(&mut lab, "db1", report(MemberState::Primary, 1000));
    say(&mut lab, "db2", standby());
    let fence = Request::SetMemberAdmin {
        cluster: name("main"),
        node: node("db2"),
        admin: MemberAdmin::Fenced,
    };
    lab.try_ask(fence).unwrap();
    refusals.push(lab.refusal(switchover(Some("db2"), None, &lab)));
    check(
        &refusals,
        expect![[r#"
        NotFound not_found cluster/main/db9: node db9 is no member of cluster main: see lockstepctl cluster show main
        FailedPrecondition no_candidate cluster/main/db3: db3 cannot take over: it has never-promote: lockstepctl cluster edit main --member db3:never-promote=no first
        FailedPrecondition no_candidate cluster/main/db2: db2 cannot take over: it is 20971520 bytes behind, more than max-lag 16M
        FailedPrecondition no_candidate cluster/main/db2: db2 cannot take over: it does not stream
        FailedPrecondition no_candidate cluster/main/db2: db2 cannot take over: it is starting: the password is wrong
        FailedPrecondition no_candidate cluster/main/db2: db2 cannot take over: it has no complete copy of the data yet
        FailedPrecondition no_candidate cluster/main/db2: db2 cannot take over: it is on timeline 2, the primary on 1
        FailedPrecondition no_candidate cluster/main/db2: db2 cannot take over: it is fenced
        FailedPrecondition no_candidate cluster/main: no member of cluster main can take over: db2: it is fenced; db3: it has never-promote: lockstepctl cluster edit main --member db3:never-promote=no first
        FailedPrecondition no_candidate cluster/main/db2: db2 cannot take over: it is fenced, by an operator
    "#]],
    );
}

trait Lagging {
    fn lagging(self, bytes: u64) -> Self;
}

impl Lagging for MemberReport {
    fn lagging(self, bytes: u64) -> Self {
        Self { lsn: Some(Lsn((30 << 20) - bytes)), ..self }
    }
}

#[test]
fn a_switchover_waits_for_nothing_else() {
    let mut lab = lab();
    let mut refusals = vec![
        lab.refusal(switchover(None, Some(0), &lab)),
        lab.refusal(switchover(None, Some(400 * 24 * 3_600_000), &lab)),
    ];
    let mut said = vec![
        lab.try_ask(switchover(Some("db1"), None, &lab)).unwrap().detail,
        lab.try_ask(Request::CancelSwitchover { cluster: name("main") }).unwrap().detail,
    ];
    assert_eq!(state(&lab).wanted, None);
    let later = switchover(Some("db2"), Some(60_000), &lab);
    said.push(lab.try_ask(later.clone()).unwrap().detail);
    let wanted = state(&lab).wanted.unwrap();
    assert_eq!((wanted.to, wanted.by.as_str()), (Some(node("db2")), "user/anna"));
    said.push(lab.try_ask(later.clone()).unwrap().detail);
    refusals.push(lab.refusal(switchover(None, None, &lab)));
    said.push(lab.try_ask(Request::CancelSwitchover { cluster: name("main") }).unwrap().detail);
    lab.try_ask(pause(true)).unwrap();
    refusals.push(lab.refusal(switchover(None, None, &lab)));
    lab.try_ask(pause(false)).unwrap();
    // How things are then is looked at then.
    lose(&mut lab, "db2");
    lab.try_ask(later).unwrap();
    lab.try_ask(Request::CancelSwitchover { cluster: name("main") }).unwrap();
    lose(&mut lab, "db1");
    refusals.push(lab.refusal(switchover(None, None, &lab)));
    refusals.push(lab.refusal(switchover(Some("db3"), None, &lab)));
    let going = Move { to: node("db2"), began_at: START, number: 1 };
    for stage in [Stage::Creating, promoting(), Stage::Electing(election()), Stage::Handing(going)]
    {
        put_state(&mut lab, |state| state.stage = stage);
        refusals.push(lab.refusal(switchover(None, None, &lab)));
    }
    refusals.push(lab.refusal(Request::CancelSwitchover { cluster: name("main") }));
    check(
        &said,
        expect![[r#"
        db1 is the primary of cluster main already
        no switchover of cluster main is asked for
        switchover of cluster main to db2 asked for at 2026-11-21T00:01:00Z
        this switchover is asked for already
        the switchover of cluster main is cancelled
    "#]],
    );
    check(
        &refusals,
        expect![[r#"
            InvalidArgument invalid at: at: 2026-11-21T00:00:00Z is past: it is 2026-11-21T00:00:00Z
            InvalidArgument invalid at: at: 2027-12-26T00:00:00Z is more than a year ahead
            FailedPrecondition under_way cluster/main: another switchover is asked for at 2026-11-21T00:01:00Z: lockstepctl cluster switchover main --cancel first
            FailedPrecondition paused cluster/main: cluster main is paused, and no switchover begins: lockstepctl cluster resume main
            FailedPrecondition no_primary cluster/main: the primary db1 is not heard of: lockstepctl cluster failover main makes another one without it
            FailedPrecondition no_candidate cluster/main/db3: db3 cannot take over: the primary db1 is not heard of
            FailedPrecondition no_primary cluster/main: cluster main has no primary yet: lockstepctl explain cluster/main says what it waits for
            FailedPrecondition under_way cluster/main: a failover is under way (promoting): wait for its end before you ask for another switchover; lockstepctl explain cluster/main says what it waits for
            FailedPrecondition under_way cluster/main: a failover is under way (electing): wait for its end before you ask for another switchover; lockstepctl explain cluster/main says what it waits for
            FailedPrecondition under_way cluster/main: a switchover is under way (handing-over): wait for its end before you ask for another switchover; lockstepctl explain cluster/main says what it waits for
            FailedPrecondition under_way cluster/main: it has begun, and ends with one of the two as primary: wait for its end
        "#]],
    );
}

#[test]
fn a_failover_that_may_lose_commits_is_refused() {
    let mut lab = lab();
    let mut refusals =
        vec![lab.refusal(failover(Some("db1"), true)), lab.refusal(failover(Some("db9"), true))];
    let before = lab.world.revision();
    let asynchronous = |lab: &mut Lab| put_state(lab, |state| state.quorums = vec![Quorum::OFF]);
    let dry = |lab: &Lab, request: &Request| {
        crate::admit::admit(&lab.world, &crate::tests::dsl::user("anna"), request, lab.now)
            .map(|_| ())
            .map_err(|e| e.reason)
    };
    // Of two that both acknowledge, one is enough.
    lose(&mut lab, "db1");
    assert_eq!(dry(&lab, &failover(None, false)), Ok(()));
    lose(&mut lab, "db2");
    assert_eq!(dry(&lab, &failover(None, false)), Ok(()));
    lose(&mut lab, "db3");
    refusals.push(lab.refusal(failover(None, true)));
    assert_eq!(lab.world.revision(), before);

    // Asynchronous: the old primary's agent has to tell.
    let mut lab = self::lab();
    asynchronous(&mut lab);
    assert_eq!(dry(&lab, &failover(None, false)), Ok(()));
    lab.try_ask(edit("main", &["salvage=no"], &[])).unwrap();
    refusals.push(lab.refusal(failover(None, false)));
    lose(&mut lab, "db1");
    refusals.push(lab.refusal(failover(None, false)));
    assert_eq!(dry(&lab, &failover(None, true)), Ok(()));
    // Two configurations may be in force: all of them count.
    put_state(&mut lab, |state| {
        let sync = Quorum { k: 1, of: [node("db2"), node("db3")].into() };
        state.quorums = vec![Quorum::OFF, sync];
    });
    assert_eq!(dry(&lab, &failover(None, false)), Err("may_lose_data"));
    put_state(&mut lab, |state| {
        state.quorums.remove(0);
    });
    assert_eq!(dry(&lab, &failover(None, false)), Ok(()));
    lose(&mut lab, "db3");
    assert_eq!(dry(&lab, &failover(None, false)), Err("may_lose_data"), "db3 may have more");
    put_state(&mut lab, |state| state.stage = promoting());
    refusals.push(lab.refusal(failover(None, true)));
    lab.try_ask(Request::SetClusterPaused { cluster: name("main"), paused: false }).unwrap();
    put_state(&mut lab, |state| state.stage = Stage::Creating);
    refusals.push(lab.refusal(failover(None, true)));
    check(
        &refusals,
        expect![[r#"
        FailedPrecondition is_primary cluster/main/db1: db1 is the primary: name another member, or lockstepctl cluster restart main db1
        NotFound not_found cluster/main/db9: node db9 is no member of cluster main: see lockstepctl cluster show main
        FailedPrecondition no_candidate cluster/main: no member of cluster main can take over: db2: its agent is not connected; db3: its agent is not connected
        FailedPrecondition may_lose_data cluster/main: it cannot be excluded that commits are lost: salvage is off: lockstepctl cluster switchover main loses nothing while db1 works; --allow-data-loss accepts that
        FailedPrecondition may_lose_data cluster/main: it cannot be excluded that commits are lost: db1 is not connected, and too few standbys have every commit; --allow-data-loss accepts that
        FailedPrecondition under_way cluster/main: db1 is being promoted: wait for it; lockstepctl explain cluster/main says what it waits for
        FailedPrecondition no_primary cluster/main: cluster main has no primary yet: lockstepctl explain cluster/main says what it waits for
    "#]],
    );
}

#[test]
fn a_failover_is_recorded_before_anything_happens() {
    let mut lab = lab();
    let number = state(&lab).number;
    // A switchover is under way.
    lab.try_ask(switchover(Some("db2"), Some(60_000), &lab)).unwrap();
    lab.try_ask(failover(Some("db3"), false)).unwrap();
    let after = state(&lab);
    let Stage::Electing(election) = &after.stage else { panic!("{:?}", after.stage) };
    assert_eq!((after.term, &after.holder, &after.wanted), (Term(4), &None, &None));
    assert_eq!(election.from, Some((node("db1"), Term(3))));
    assert_eq!((election.number, after.number), (number + 1, number + 1));
    let report = lab.world.failover(&name("main"), number + 1).unwrap();
    assert_eq!(
        (report.cause, report.end, report.term),
        (Cause::Asked, FailoverEnd::Running, Term(4))
    );
    assert_eq!((report.by.as_str(), &report.to), ("user/anna", &Some(node("db3"))));
    // Asked again, and with more.
    let said = lab.try_ask(failover(None, false)).unwrap().detail;
    assert_eq!(said, "a failover of cluster main is under way already");
    lab.try_ask(failover(Some("db2"), true)).unwrap();
    let after = state(&lab);
    let Stage::Electing(election) = &after.stage else { panic!("{:?}", after.stage) };
    assert!(election.to == Some(node("db2")) && election.allow_loss && after.term == Term(4));
}

#[test]
fn a_failover_overtakes_a_switchover() {
    let mut lab = lab();
    lab.try_ask(failover(None, false)).unwrap();
    let number = state(&lab).number;
    put_state(&mut lab, |state| {
        let going = Move { to: node("db2"), began_at: START, number };
        (state.stage, state.holder) = (Stage::Handing(going), Some(node("db1")));
    });
    lab.try_ask(failover(None, false)).unwrap();
    let end = |number| lab.world.failover(&name("main"), number).unwrap().end;
    assert_eq!((end(number), end(number + 1)), (FailoverEnd::Overtaken, FailoverEnd::Running));
}
