//! Courses from the first step to the last, as tables of what each step told.

use super::super::ending::{End, Retry};
use super::*;
use crate::rsync::Stats;
use proptest::prelude::*;

const GIB: u64 = 1 << 30;

fn guards() -> Guards {
    let limit = Some(RemovalLimit { count: Some(100), percent: Some(10) });
    Guards { limit, min_free: Size(GIB), allow: Allow::default() }
}

/// What a step tells that is complete.
#[derive(Clone, Copy, Default)]
struct Told {
    files: u64,
    created: u64,
    deleted: u64,
    left: u64,
    bytes: u64,
    changed: bool,
}

fn run(course: &mut Course, told: &[Told], free: u64) -> Vec<String> {
    let mut steps = Vec::new();
    let mut told = told.iter();
    let mut next = course.first(free);
    loop {
        let step = match next {
            Next::Run(step) => step,
            Next::Done => {
                steps.push("done".to_owned());
                break;
            }
            Next::Refused(refusal) => {
                steps.push(refusal.to_string());
                break;
            }
        };
        steps.push(match step {
            Step::Count => "count".to_owned(),
            Step::Content => "content".to_owned(),
            Step::Removing { most } => format!("removing {most}"),
        });
        let Told { files, created, deleted, left, bytes, changed } = *told.next().unwrap();
        let mut output = Output::new(None);
        output.stats = Stats {
            files,
            created,
            deleted,
            brought_bytes: bytes,
            brought: created,
            ..Stats::default()
        };
        output.changed = changed;
        let ended = Ended { end: End::Complete, why: String::new(), left, code: Some(0) };
        next = course.next(step, &ended, &output, free);
    }
    assert!(told.next().is_none(), "{steps:?}");
    steps
}

fn course(delete: Delete, place: Place, told: &[Told]) -> String {
    run(&mut Course::new(delete, place, guards()), told, 2 * GIB).join(", ")
}

#[test]
fn removals_after_the_content_cost_nothing_when_there_are_none() {
    use Place::{First, Snapshot, Tree};
    let same = Told { files: 1001, ..Told::default() };
    let left = |left| Told { left, ..same };
    let counted = |deleted| Told { deleted, ..same };
    let more = "of 1001 entries would be removed, and the limit is 100,10%; if that is right: --allow delete";
    for (delete, place, told, expected) in [
        (Delete::After, Tree, &[same][..], "content, done".to_owned()),
        (Delete::None, Tree, &[same], "content, done".to_owned()),
        (Delete::After, Tree, &[left(5), counted(8)], "content, removing 10, done".to_owned()),
        (Delete::Excluded, Tree, &[left(5), counted(8)], "content, removing 10, done".to_owned()),
        // Not sure from the bounds alone.
        (
            Delete::After,
            Tree,
            &[left(90), counted(95), counted(95)],
            "content, count, removing 95, done".to_owned(),
        ),
        (
            Delete::After,
            Tree,
            &[left(90), counted(150)],
            format!("content, count, 150 {}", more.replace("1001", "1151")),
        ),
        (
            Delete::After,
            Tree,
            &[left(800)],
            format!("content, 800 {}", more.replace("1001", "1801")),
        ),
        (Delete::Before, Tree, &[counted(0), same], "count, removing 0, done".to_owned()),
        (Delete::During, Tree, &[counted(50), counted(50)], "count, removing 50, done".to_owned()),
        (
            Delete::Plain,
            Tree,
            &[counted(500)],
            format!("count, 500 {}", more.replace("1001", "1501")),
        ),
        // Of a new tree it is asked first whether there is room.
        (Delete::After, First, &[same, same], "count, content, done".to_owned()),
        (Delete::None, First, &[same, same], "count, content, done".to_owned()),
        (Delete::Del, First, &[counted(0), same], "count, removing 0, done".to_owned()),
        (
            Delete::After,
            First,
            &[same, left(3), same],
            "count, content, removing 6, done".to_owned(),
        ),
        // A new directory is only made when something is other.
        (Delete::After, Snapshot, &[same], "count, done".to_owned()),
        (
            Delete::After,
            Snapshot,
            &[Told { deleted: 3, changed: true, ..same }, same],
            "count, content, done".to_owned(),
        ),
        (
            Delete::Before,
            Snapshot,
            &[Told { changed: true, ..same }, same],
            "count, content, done".to_owned(),
        ),
        (
            Delete::After,
            Snapshot,
            &[Told { deleted: 300, changed: true, ..same }],
            format!("count, 300 {}", more.replace("1001", "1301")),
        ),
    ] {
        assert_eq!(course(delete, place, told), expected, "{delete} {place:?}");
    }
}

#[test]
fn nothing_comes_from_an_empty_upstream_and_nothing_into_a_full_disk() {
    let top = Told { files: 1, left: 900, ..Told::default() };
    let empty = "there is nothing to pull: the other side is empty, or everything is left out by \
                 filters; if that is right: --allow empty";
    assert_eq!(course(Delete::After, Place::Tree, &[top]), format!("content, {empty}"));
    assert_eq!(course(Delete::None, Place::Tree, &[top]), format!("content, {empty}"));
    assert_eq!(course(Delete::Before, Place::Tree, &[top]), format!("count, {empty}"));
    let much = Told { files: 9, bytes: GIB + 1, ..Told::default() };
    let full = "1073741825 bytes are to come and 2147483648 are free, of which 1073741824 must \
                stay: make room, or --allow space";
    assert_eq!(course(Delete::After, Place::First, &[much]), format!("count, {full}"));
    // Of a tree that is there nobody counts before, but what must stay free must be.
    let mut course = Course::new(Delete::After, Place::Tree, guards());
    assert!(matches!(course.first(GIB - 1), Next::Refused(Refusal::Space { needed: 0, .. })));
    assert_eq!(run(&mut course, &[Told { files: 9, ..much }], GIB), ["content", "done"]);
}

#[test]
fn each_guard_can_be_let_through_once() {
    let run = |allow, place, told: &[Told]| {
        run(&mut Course::new(Delete::After, place, Guards { allow, ..guards() }), told, 2 * GIB)
            .join(", ")
    };
    let (empty, delete, space) = (true, true, true);
    let none = Allow::default();
    let wiped = Told { files: 1, left: 900, ..Told::default() };
    let more = Allow { empty, delete, ..none };
    assert_eq!(run(more, Place::Tree, &[wiped, wiped]), "content, removing 1800, done");
    // An upstream that is emptied on purpose still removes more than the limit.
    let told = run(Allow { empty, ..none }, Place::Tree, &[wiped]);
    assert!(told.starts_with("content, 900 of 901 entries would be removed"), "{told}");
    let much = Told { files: 9, bytes: 9 * GIB, ..Told::default() };
    assert_eq!(run(Allow { space, ..none }, Place::First, &[much, much]), "count, content, done");
}

#[test]
fn a_limit_holds_when_all_of_it_is_passed() {
    let held = |count, percent, entries, before| {
        let limit = Some(RemovalLimit { count, percent });
        let course = Course::new(Delete::After, Place::Tree, Guards { limit, ..guards() });
        course.may_remove(entries, before).is_err()
    };
    for (count, percent, entries, before, expected) in [
        (None, None, u64::MAX, 1, false),
        (Some(10), None, 10, 10, false),
        (Some(10), None, 11, 1_000_000, true),
        (None, Some(50), 5, 10, false),
        (None, Some(50), 6, 10, true),
        (None, Some(0), 1, 1_000_000, true),
        (None, Some(100), 10, 10, false),
        (Some(10), Some(50), 11, 1000, false),
        (Some(10), Some(50), 9, 10, false),
        (Some(10), Some(50), 11, 12, true),
        (Some(0), Some(0), 0, 0, false),
    ] {
        assert_eq!(
            held(count, percent, entries, before),
            expected,
            "{count:?} {percent:?} {entries}/{before}"
        );
    }
}

#[test]
fn what_was_done_is_summed_over_the_steps() {
    let mut tree = Course::new(Delete::After, Place::Tree, guards());
    let content = Told { files: 1001, created: 4, left: 5, changed: true, ..Told::default() };
    run(&mut tree, &[content, Told { files: 1001, deleted: 8, ..Told::default() }], 2 * GIB);
    let Pulled { entries, created, deleted, files, changed, .. } = tree.pulled();
    assert_eq!((entries, created, deleted, files, changed), (1000, 4, 8, 4, true));
    // Of a snapshot the dry run tells what is other, and its content is all new.
    let mut snapshot = Course::new(Delete::After, Place::Snapshot, guards());
    let counted = Told { files: 1001, created: 2, deleted: 1, changed: true, ..Told::default() };
    run(&mut snapshot, &[counted, Told { files: 1001, created: 1000, ..counted }], 2 * GIB);
    let Pulled { entries, created, deleted, changed, .. } = snapshot.pulled();
    assert_eq!((entries, created, deleted, changed), (1000, 2, 1, true));
    let mut same = Course::new(Delete::After, Place::First, guards());
    let counted = Told { files: 3, changed: true, ..Told::default() };
    run(&mut same, &[counted, Told { files: 3, ..Told::default() }], 2 * GIB);
    assert!(!same.pulled().changed);
    let _ = End::Failed(Retry::Soon);
}

fn delete() -> impl Strategy<Value = Delete> {
    (0..Delete::ALL.len()).prop_map(|at| Delete::ALL[at])
}

proptest! {
    /// Whatever a peer tells: a course ends soon, and no step may remove more than the limit allows.
    #[test]
    fn no_course_is_long_or_removes_more_than_it_may(
        delete in delete(), place in 0..3usize,
        told in proptest::collection::vec((0u64..3000, 0u64..3000, 0u64..3000, 0u64..3000), 8),
    ) {
        let place = [Place::Tree, Place::First, Place::Snapshot][place];
        let mut course = Course::new(delete, place, guards());
        let mut next = course.first(u64::MAX);
        let mut steps = 0;
        for (files, created, deleted, left) in told {
            let Next::Run(step) = next else { break };
            steps += 1;
            let mut output = Output::new(None);
            output.stats = Stats { files, created, deleted, ..Stats::default() };
            output.changed = true;
            let ended = Ended { end: End::Complete, why: String::new(), left, code: Some(0) };
            next = course.next(step, &ended, &output, u64::MAX);
            if let Next::Run(Step::Removing { most }) = next {
                let before = output.stats.before() + ended.left;
                prop_assert!(most <= 100 || most * 10 <= before, "{} of {}", most, before);
                prop_assert!(files > 1);
            }
        }
        prop_assert!(!matches!(next, Next::Run(_)) && steps <= 4);
    }
}
