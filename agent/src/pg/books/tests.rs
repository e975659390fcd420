//! Laws of the books, against random histories.

use proptest::prelude::*;

use super::*;
use lockstep_model::cluster::{
    ClusterOptions, CrashPlan, Lineage, Lsn, MemberOptions, Origin, Primary,
};

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn place(term: u64, goal: Goal) -> ClusterPlace {
    ClusterPlace {
        cluster: "main".parse().unwrap(),
        term: Term(term),
        goal,
        system_id: None,
        holder: None,
        lineage: Lineage::default(),
        copy: 0,
        options: ClusterOptions::default(),
        member: MemberOptions::default(),
        peers: Vec::new(),
        promotable: vec![node("db1"), node("db2")],
        sync: false,
        paused: false,
        serve: true,
    }
}

fn goals() -> Vec<Goal> {
    vec![
        Goal::Primary(Primary {
            origin: Origin::Existing,
            at_least: Lsn(0),
            timeline: 0,
            quorum: Quorum::OFF,
            crash: CrashPlan::Restart,
            prepare: false,
        }),
        Goal::HandOver,
        Goal::Standby { upstream: Some(node("db1")) },
        Goal::Sealed { salvage: None },
        Goal::Fenced,
        Goal::Stopped,
        Goal::Maintenance,
    ]
}

#[test]
fn older_terms_and_other_data_are_refused() {
    let mut books = Books::default();
    books.take_up(&place(3, Goal::Sealed { salvage: None }));
    assert_eq!((books.promised, books.sealed_for), (Term(3), Some(Term(3))));
    for goal in goals() {
        let refused = books.admit(&place(2, goal.clone()), Boottime(0));
        assert!(matches!(refused, Admission::Refused(_)), "{goal:?}");
        assert_eq!(books.admit(&place(3, goal), Boottime(0)), Admission::Now);
    }
    let with_id = |id| ClusterPlace { system_id: Some(SystemId(id)), ..place(3, Goal::Stopped) };
    books.take_up(&with_id(7));
    assert!(matches!(books.admit(&with_id(8), Boottime(0)), Admission::Refused(_)));
    assert_eq!(books.admit(&with_id(7), Boottime(0)), Admission::Now);
}

#[test]
fn a_promise_outlives_a_reboot_and_is_given_to_one_only() {
    let mut books = Books::default();
    let length = Millis(5000);
    books.promise(&node("db1"), Term(4), length, "first", Boottime(1000), None).unwrap();
    let seal = place(5, Goal::Sealed { salvage: None });
    assert_eq!(books.admit(&seal, Boottime(5999)), Admission::At(Boottime(6000)));
    assert_eq!(books.admit(&seal, Boottime(6000)), Admission::Now);
    let other = books.promise(&node("db2"), Term(4), length, "first", Boottime(1000), None);
    assert!(other.is_err());
    let wanted = Some(Term(5));
    let renewed = books.promise(&node("db1"), Term(4), length, "first", Boottime(2000), wanted);
    assert!(renewed.is_err(), "a later term waits for its end");
    books.recount("second", Boottime(10));
    assert_eq!(books.admit(&seal, Boottime(5009)), Admission::At(Boottime(5010)));
    books.holding = Some(Term(4));
    let own = books.promise(&node("db1"), Term(4), length, "second", Boottime(9000), None);
    assert!(own.is_err());
}

#[test]
fn damage_is_an_error_and_not_an_empty_book() {
    let dir = tempfile::tempdir().unwrap();
    let file = BooksFile::new(dir.path());
    assert_eq!(file.load().unwrap(), Books::default());
    file.save(&Books { promised: Term(12), ..Books::default() }).unwrap();
    let path = dir.path().join("books");
    let text = std::fs::read_to_string(&path).unwrap();
    for damaged in ["", "lockstep books 1\n", &text.replace("12", "11"), &text[..text.len() - 3]] {
        std::fs::write(&path, damaged).unwrap();
        assert!(matches!(file.load(), Err(BooksError::Damaged { .. })), "{damaged:?}");
    }
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(matches!(file.load(), Err(BooksError::Damaged { .. })));
}

fn books() -> impl Strategy<Value = Books> {
    let names = || proptest::collection::btree_set("[a-z][a-z0-9]{0,6}", 0..4);
    let names =
        move || names().prop_map(|all| all.iter().map(|name| node(name)).collect::<BTreeSet<_>>());
    let released = (any::<u64>(), any::<Option<u64>>(), any::<bool>())
        .prop_map(|(term, end, clean)| Released { term: Term(term), end: end.map(Lsn), clean });
    let promise = (any::<u64>(), any::<u64>(), any::<u64>(), "[a-f0-9-]{0,36}").prop_map(
        |(term, length, until, boot)| Promise {
            term: Term(term),
            to: node("db1"),
            length: Millis(length),
            boot,
            until: Boottime(until),
        },
    );
    let numbers = (
        any::<Option<u64>>(),
        any::<u64>(),
        any::<Option<u64>>(),
        any::<Option<u64>>(),
        any::<u64>(),
        any::<(bool, bool)>(),
    );
    let option = proptest::option::of::<BoxedStrategy<Released>>;
    let parts = (numbers, option(released.boxed()), any::<u32>(), names(), names());
    (parts, proptest::option::of(promise)).prop_map(
        |((numbers, released, k, of, promotable), promise)| {
            let (system_id, promised, holding, sealed_for, copy, (fenced, led)) = numbers;
            Books {
                system_id: system_id.map(SystemId),
                promised: Term(promised),
                holding: holding.map(Term),
                led,
                released,
                sealed_for: sealed_for.map(Term),
                fenced,
                copy,
                quorum: Quorum { k, of },
                promotable,
                promise,
            }
        },
    )
}

proptest! {
    #[test]
    fn books_are_read_as_written(books in books()) {
        let dir = tempfile::tempdir().unwrap();
        let file = BooksFile::new(dir.path());
        file.save(&books).unwrap();
        prop_assert_eq!(file.load().unwrap(), books);
    }

    /// I2: what was promised never goes down, and nothing older is taken up, also over restarts.
    /// I13: while a promise lasts, its giver is not taken away from the one who has it.
    #[test]
    fn promises_are_kept(
        events in proptest::collection::vec((0u8..4, 0u64..6, 0usize..7, 0u64..2000), 1..60),
    ) {
        let mut books = Books::default();
        let mut now = Boottime(0);
        let mut given: Option<(Term, Boottime)> = None;
        for (what, term, goal, time) in events {
            let before = books.promised;
            match what {
                0 => now = now.after(Millis(time)),
                1 => {
                    let place = place(term, goals()[goal].clone());
                    if books.admit(&place, now) == Admission::Now {
                        prop_assert!(place.term >= books.promised);
                        if let Some((promised, until)) = given.filter(|given| now < given.1) {
                            let follows = matches!(
                                place.goal,
                                Goal::Primary(_) | Goal::Sealed { .. } | Goal::Standby { .. }
                            );
                            prop_assert!(
                                !follows || place.term <= promised,
                                "taken away before {until:?}"
                            );
                        }
                        books.take_up(&place);
                    }
                }
                2 => {
                    let to = node(if goal % 2 == 0 { "db1" } else { "db2" });
                    let length = Millis(time);
                    if books.promise(&to, Term(term), length, "boot", now, None).is_ok() {
                        let until = now.after(length);
                        let earlier = given.filter(|given| now < given.1);
                        let until = earlier.map_or(until, |given| given.1.max(until));
                        given = Some((Term(term), until));
                    }
                }
                _ => {
                    // The machine boots anew: its clock begins again.
                    now = Boottime(time);
                    books.recount(&format!("boot after {before} {time}"), now);
                    given = books.promise.as_ref().map(|promise| {
                        (promise.term, now.after(promise.length))
                    });
                }
            }
            prop_assert!(books.promised >= before);
        }
    }
}
