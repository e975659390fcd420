//! When what changed of a member goes out.

use lockstep_model::Millis;
use lockstep_model::cluster::report::{Released, StandbyRow, Stream, SyncState, Trouble};
use lockstep_model::cluster::{Lineage, Lsn, Quorum, Term};

use super::*;

pub(crate) fn report(state: MemberState) -> MemberReport {
    MemberReport {
        state,
        term: Term(1),
        holds: None,
        released: None,
        system_id: None,
        version: "15.18".to_owned(),
        lineage: Lineage::default(),
        lsn: Some(Lsn(100)),
        replayed: Some(Lsn(100)),
        upstream: Some(Stream { from: "db1".parse().unwrap(), age: Millis(10), end: Lsn(100) }),
        quorum: None,
        promotable: Vec::new(),
        standbys: vec![StandbyRow {
            node: "db3".parse().unwrap(),
            streaming: true,
            sync_state: SyncState::Quorum,
            sent: Lsn(1),
            flushed: Lsn(1),
            replayed: Lsn(1),
            replay_lag: None,
            reply_age: Millis(0),
        }],
        rewindable: false,
        prepared: false,
        copy: 0,
        progress: None,
        salvaged_bytes: 0,
        certificate: String::new(),
        pending_restart: Vec::new(),
        trouble: Trouble::None,
        problem: String::new(),
        warnings: Vec::new(),
        findings: Vec::new(),
    }
}

fn reports(report: MemberReport) -> Reports {
    Arc::new([("main".parse().unwrap(), Arc::new(report))].into())
}

#[test]
fn what_flows_waits_and_what_elections_need_does_not() {
    type Edit = fn(&mut MemberReport);
    let flows: [Edit; 7] = [
        |r| r.lsn = Some(Lsn(101)),
        |r| r.replayed = Some(Lsn(99)),
        |r| r.upstream.as_mut().unwrap().age = Millis(500),
        |r| r.upstream.as_mut().unwrap().end = Lsn(500),
        |r| r.standbys[0].flushed = Lsn(7),
        |r| r.standbys[0].reply_age = Millis(7),
        |r| r.warnings.push("slot holds back 5G".to_owned()),
    ];
    let urgent: [Edit; 15] = [
        |r| r.state = MemberState::Sealed,
        |r| r.term = Term(2),
        |r| r.holds = Some(Term(1)),
        |r| r.released = Some(Released { term: Term(1), end: None, clean: true }),
        |r| {
            r.lineage =
                Lineage(vec![lockstep_model::cluster::wal::Fork { timeline: 2, begins: Lsn(5) }])
        },
        |r| r.upstream = None,
        |r| r.upstream.as_mut().unwrap().from = "db2".parse().unwrap(),
        |r| r.quorum = Some(Quorum::OFF),
        |r| r.promotable = vec!["db2".parse().unwrap()],
        |r| r.standbys[0].streaming = false,
        |r| r.rewindable = true,
        |r| r.prepared = true,
        |r| r.copy = 1,
        |r| r.trouble = Trouble::Hung,
        |r| r.problem = "cannot start".to_owned(),
    ];
    let began = Instant::now();
    let due = |edit: Edit| {
        let mut teller = Teller::default();
        let first = report(MemberState::Standby);
        teller.tell(reports(first.clone()), began);
        let mut next = first;
        edit(&mut next);
        let at = began + Duration::from_millis(1);
        teller.note(&reports(next), at);
        teller.due().unwrap() - began
    };
    for (i, edit) in flows.into_iter().enumerate() {
        assert_eq!(due(edit), INTERVAL, "flows[{i}]");
    }
    for (i, edit) in urgent.into_iter().enumerate() {
        assert_eq!(due(edit), Duration::from_millis(1), "urgent[{i}]");
    }
}

#[test]
fn positions_of_those_that_an_election_compares_go_out_at_once() {
    for (state, at_once) in [
        (MemberState::Sealed, true),
        (MemberState::Crashed, true),
        (MemberState::Stopped, true),
        (MemberState::Standby, false),
        (MemberState::Primary, false),
    ] {
        let before = report(state);
        let now = MemberReport { lsn: Some(Lsn(101)), ..before.clone() };
        assert_eq!(is_urgent(&before, &now), at_once, "{state}");
    }
}

/// An election judges by them whether a primary lives, and a switchover waits for the end of a stream.
#[test]
fn what_tells_of_the_primarys_end_goes_out_at_once() {
    let of = |age: Option<u64>, lsn| {
        let mut report = report(MemberState::Standby);
        let stream = report.upstream.take().map(|stream| (stream, age));
        report.upstream = stream.and_then(|(s, age)| age.map(|ms| Stream { age: Millis(ms), ..s }));
        MemberReport { lsn: Some(Lsn(lsn)), ..report }
    };
    for (before, now, at_once) in [
        (of(Some(900), 100), of(Some(20), 101), true),
        (of(Some(200), 100), of(Some(20), 101), false),
        (of(Some(900), 100), of(Some(1000), 100), false),
        (of(None, 100), of(None, 101), true),
    ] {
        assert_eq!(is_urgent(&before, &now), at_once, "{:?} {:?}", before.upstream, now.upstream);
    }
}

#[test]
fn a_change_that_is_due_is_not_put_off_by_the_next_one() {
    let began = Instant::now();
    let mut teller = Teller::default();
    let first = report(MemberState::Standby);
    teller.tell(reports(first.clone()), began);
    let moved = MemberReport { lsn: Some(Lsn(101)), ..first.clone() };
    teller.note(&reports(moved), began + Duration::from_millis(100));
    let further = MemberReport { lsn: Some(Lsn(102)), ..first };
    teller.note(&reports(further), began + Duration::from_millis(299));
    assert_eq!(teller.due(), Some(began + INTERVAL));
    let gone = Reports::default();
    teller.note(&gone, began + Duration::from_millis(299));
    assert_eq!(teller.due(), Some(began + Duration::from_millis(299)));
    let told = teller.tell(gone, began + INTERVAL);
    assert_eq!(told, [v1::ClusterUpdate { cluster: "main".into(), report: None }]);
}
