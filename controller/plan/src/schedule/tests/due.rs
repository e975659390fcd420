//! What a schedule wants: on time, late, during a run, and when the clock is set.

use lockstep_model::Millis;
use lockstep_model::schedule::{Missed, Overlap, PassedOver, Progress, ScheduleText};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::schedule::follow::{Course, Look, Place, State, passed_over, splay_of, stopped};

const MINUTE: u64 = 60_000;
/// 2026-03-01T00:00:00Z.
const BASE: u64 = 1_772_323_200_000;

fn minutes(n: u64) -> Timestamp {
    Timestamp(BASE + n * MINUTE)
}

/// A schedule that is followed; each look is one call and keeps what it says.
struct Follow {
    schedule: Schedule,
    progress: Progress,
    running: bool,
}

impl Follow {
    /// Every ten minutes from BASE on, 60 s of grace.
    fn new(missed: Missed, overlap: Overlap) -> Self {
        let mut schedule = schedule("minute=*/10", "UTC");
        schedule.policy = Policy { missed, overlap, ..Policy::default() };
        let mut follow = Self { schedule, progress: Progress::default(), running: false };
        follow.look(minutes(1));
        follow
    }

    fn place(&self) -> Place {
        if self.running { Place::Running } else { Place::Free }
    }

    fn look(&mut self, now: Timestamp) -> Look {
        self.look_as("", self.place(), now)
    }

    fn look_as(&mut self, name: &str, place: Place, now: Timestamp) -> Look {
        let look = Course::of(&self.schedule).look(name, &self.progress, place, now).unwrap();
        if let Some(progress) = &look.progress {
            assert_ne!(*progress, self.progress, "nothing is written twice");
            self.progress = progress.clone();
        }
        self.running |= look.start().is_some();
        look
    }

    /// Looks, and ends the run that it starts, until nothing is due: what was fired for.
    fn run_out(&mut self, now: Timestamp) -> Vec<u64> {
        let mut fired = Vec::new();
        while let Some(at) = self.look(now).start() {
            fired.push((at.0 - BASE) / MINUTE);
            self.running = false;
        }
        fired
    }
}

#[test]
fn each_instant_fires_once_and_says_when_to_ask_again() {
    let mut follow = Follow::new(Missed::Once, Overlap::Queue);
    let early = follow.look(minutes(9));
    assert_eq!((early.state, early.progress), (State::Waits(minutes(10)), None));
    assert_eq!(early.wake_at, Some(minutes(10)));
    let due = follow.look(minutes(10));
    assert_eq!((due.start(), due.wake_at), (Some(minutes(10)), Some(minutes(20))));
    follow.running = false;
    assert_eq!(follow.look(minutes(10)).start(), None);
    assert_eq!(follow.look(minutes(20)).start(), Some(minutes(20)));
}

#[test]
fn missed_instants_follow_the_policy() {
    // Down from 1 to 45; 10, 20, 30 and 40 went by.
    for (missed, fired, passed_over) in [
        (Missed::Skip, vec![], PassedOver { missed: 4, ..Default::default() }),
        (Missed::Once, vec![40], PassedOver { merged: 3, ..Default::default() }),
        (Missed::All, vec![10, 20, 30, 40], PassedOver::default()),
    ] {
        let mut follow = Follow::new(missed, Overlap::Skip);
        let first = follow.look(minutes(45));
        assert_eq!(follow.progress.passed_over, passed_over, "{missed}");
        let mut all: Vec<u64> = first.start().iter().map(|at| (at.0 - BASE) / MINUTE).collect();
        follow.running = false;
        all.extend(follow.run_out(minutes(45)));
        assert_eq!(all, fired, "{missed}");
        assert_eq!(follow.look(minutes(45)).state, State::Waits(minutes(50)));
    }
}

#[test]
fn within_the_grace_nothing_is_missed() {
    for (late_ms, fire) in [(0, true), (60_000, true), (60_001, false)] {
        let mut follow = Follow::new(Missed::Skip, Overlap::Skip);
        let due = follow.look(Timestamp(minutes(10).0 + late_ms));
        assert_eq!(due.start().is_some(), fire, "{late_ms} ms late");
        assert_eq!(follow.progress.passed_over.missed, u32::from(!fire));
    }
}

#[test]
fn an_instant_during_a_run_is_passed_over_or_queued_once() {
    let mut follow = Follow::new(Missed::Once, Overlap::Queue);
    assert!(follow.look(minutes(10)).start().is_some());
    let owed = State::Owed { instant: minutes(20), place: Place::Running };
    assert_eq!(follow.look(minutes(20)).state, owed);
    assert_eq!(follow.look(minutes(30)).state, owed);
    assert_eq!(follow.progress.passed_over.merged, 1);
    follow.running = false;
    assert_eq!(follow.run_out(minutes(33)), [20], "one more, at once");

    let mut follow = Follow::new(Missed::Once, Overlap::Skip);
    assert!(follow.look(minutes(10)).start().is_some());
    assert_eq!(follow.look(minutes(20)).state, State::Waits(minutes(30)));
    assert_eq!(
        passed_over(&follow.progress).unwrap(),
        "without a run up to 2026-03-01T00:20:00Z: 1 skipped, as the run before went on"
    );
    follow.running = false;
    assert_eq!(follow.run_out(minutes(29)), Vec::<u64>::new());
    assert_eq!(follow.run_out(minutes(30)), [30]);
}

#[test]
fn what_is_in_the_way_is_no_overlap() {
    for overlap in Overlap::ALL {
        let mut follow = Follow::new(Missed::Skip, overlap);
        let owed = State::Owed { instant: minutes(10), place: Place::Taken };
        assert_eq!(follow.look_as("", Place::Taken, minutes(10)).state, owed);
        assert_eq!(follow.look_as("", Place::Taken, minutes(15)).progress, None);
        assert_eq!(follow.look_as("", Place::Free, minutes(18)).start(), Some(minutes(10)));
    }
}

#[test]
fn a_clock_that_is_set_loses_and_repeats_nothing() {
    let mut follow = Follow::new(Missed::Once, Overlap::Queue);
    assert_eq!(follow.run_out(minutes(10)), [10]);
    // A day ahead: what lies between was missed.
    let day = 24 * 60;
    assert_eq!(follow.run_out(minutes(day + 15)), [day + 10]);
    // And back: nothing fires again, and it is said for how long.
    let back = follow.look(minutes(20));
    let by = Millis((day - 10) * MINUTE);
    assert_eq!(back.state, State::ClockBack { by, until: Some(minutes(day + 20)) });
    assert_eq!((back.progress, back.wake_at), (None, Some(minutes(day + 20))));
    assert_eq!(follow.run_out(minutes(day + 19)), Vec::<u64>::new());
    assert_eq!(follow.run_out(minutes(day + 20)), [day + 20]);
}

#[test]
fn a_long_absence_costs_little_and_is_bounded() {
    for missed in Missed::ALL {
        let mut follow = Follow::new(missed, Overlap::Queue);
        follow.schedule.rule = "second=*".parse().unwrap();
        follow.look(minutes(2));
        follow.look(minutes(500_000));
        assert_eq!(follow.progress.considered, minutes(500_000));
        assert!(follow.progress.owed.len() < Progress::OWED_MAX);
        let PassedOver { missed, overlapped, merged } = follow.progress.passed_over;
        assert!(missed + overlapped + merged > 90, "{:?}", follow.progress);
    }
}

#[test]
fn an_exhausted_schedule_is_a_state() {
    let mut follow = Follow::new(Missed::Once, Overlap::Queue);
    follow.schedule.rule = "year=2026 month=3 day=1 hour=1".parse().unwrap();
    follow.look(minutes(2));
    let last = follow.look(minutes(60));
    assert_eq!((last.start(), last.wake_at), (Some(minutes(60)), None));
    follow.running = false;
    let after = follow.look(minutes(100_000));
    let exhausted = Look { state: State::Exhausted, progress: None, wake_at: None };
    assert_eq!(after, exhausted);
}

#[test]
fn a_schedule_that_is_changed_or_stopped_begins_anew() {
    type Edit = fn(&mut Schedule);
    let edits: [Edit; 6] = [
        |s| s.rule = "minute=5,15,25,35,45,55".parse().unwrap(),
        |s| s.zone = "+05:30".parse().unwrap(),
        |s| s.start = Some(Moment { at: minutes(3), zone: "UTC".parse().unwrap() }),
        |s| s.end = Some(Moment { at: minutes(300), zone: "UTC".parse().unwrap() }),
        |s| s.policy.missed = Missed::All,
        |s| s.policy.grace = Millis(5),
    ];
    for (i, edit) in edits.into_iter().enumerate() {
        let mut follow = Follow::new(Missed::Once, Overlap::Queue);
        edit(&mut follow.schedule);
        assert_eq!(follow.run_out(minutes(49)), Vec::<u64>::new(), "edit {i}");
        let next = follow.progress.next.unwrap();
        assert!((minutes(50)..=minutes(55)).contains(&next), "edit {i}");
        assert_eq!(follow.look(next).start(), Some(next), "edit {i}");
    }
    let mut follow = Follow::new(Missed::All, Overlap::Queue);
    follow.look(minutes(10));
    follow.progress = stopped(&follow.progress, minutes(20)).unwrap();
    assert_eq!(stopped(&follow.progress, minutes(30)), None, "written once");
    follow.running = false;
    assert_eq!(follow.run_out(minutes(49)), Vec::<u64>::new());
    assert_eq!(follow.run_out(minutes(50)), [50]);
}

/// As if the tables of zones had changed with the program.
#[test]
fn a_next_instant_that_is_none_any_more_is_looked_for_anew() {
    let mut follow = Follow::new(Missed::Once, Overlap::Queue);
    follow.progress.next = Some(minutes(7));
    let look = follow.look(minutes(7));
    assert_eq!((look.start(), look.state), (None, State::Waits(minutes(10))));
    assert_eq!(follow.look(minutes(8)).progress, None);
}

#[test]
fn a_splay_delays_every_start_by_the_same() {
    let mut follow = Follow::new(Missed::Once, Overlap::Queue);
    follow.schedule.policy.splay = Millis(600_000);
    follow.look(minutes(1));
    let delay = splay_of("fedora", Millis(600_000));
    assert!(delay > Millis(0));
    let early = Timestamp(minutes(10).0 + delay.0 - 1);
    let look = |follow: &mut Follow, now| follow.look_as("fedora", follow.place(), now);
    let before = look(&mut follow, early);
    assert_eq!((before.state, before.progress), (State::Waits(minutes(10) + delay), None));
    let due = look(&mut follow, minutes(10) + delay);
    assert_eq!((due.start(), due.wake_at), (Some(minutes(10)), Some(minutes(20) + delay)));

    let of = |name: &str| splay_of(name, Millis(600_000)).0;
    assert_eq!(of("fedora"), of("fedora"));
    assert_eq!(splay_of("fedora", Millis(0)), Millis(0));
    let places: Vec<u64> = (0..1000).map(|i| of(&format!("mirror{i}")) / 60_000).collect();
    for minute in 0..10 {
        let here = places.iter().filter(|place| **place == minute).count();
        assert!((60..140).contains(&here), "{here} of 1000 in minute {minute}");
    }
}

#[test]
fn a_text_is_understood_whole_or_refused_by_part() {
    let now = minutes(0);
    let text = |edit: fn(&mut ScheduleText)| {
        let mut text = ScheduleText {
            rule: "hour=4".into(),
            zone: "europe/berlin".into(),
            start_date: "2026-03-29 12:00".into(),
            ..ScheduleText::default()
        };
        edit(&mut text);
        understand(&text, now)
    };
    let schedule = text(|_| ()).unwrap();
    assert_eq!(schedule.zone.as_str(), "Europe/Berlin");
    assert_eq!(schedule.start.unwrap().at, at("2026-03-29T10:00:00Z"));
    assert_eq!(text(|t| t.zone.clear()).unwrap().start.unwrap().at, at("2026-03-29T12:00:00Z"));
    for (edit, words) in [
        ((|t| t.rule.clear()) as fn(&mut ScheduleText), "schedule: nothing is given"),
        (|t| t.zone = "Berlin".into(), "timezone: \"Berlin\" is no known time zone"),
        (|t| t.start_date = "soon".into(), "start_date: \"soon\""),
        (
            |t| t.end_date = "2026-03-28".into(),
            "end_date: 2026-03-27T23:00:00Z is before the start",
        ),
        (|t| t.policy.splay = Millis(u64::MAX), "splay: is "),
    ] {
        let error = text(edit).unwrap_err().to_string();
        assert!(error.starts_with(words), "{error}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Forward(u64),
    /// The clock is set back.
    Back(u64),
    RunEnds,
}

proptest! {
    /// Whatever happens, every instant is fired, owed or passed over, and none twice.
    #[test]
    fn every_instant_is_accounted_for_once(
        missed in select(&Missed::ALL),
        overlap in select(&Overlap::ALL),
        steps in proptest::collection::vec(
            prop_oneof![
                (0u64..120).prop_map(Step::Forward),
                (0u64..120).prop_map(Step::Forward),
                (0u64..240).prop_map(Step::Back),
                Just(Step::RunEnds),
            ],
            1..60,
        ),
    ) {
        let mut follow = Follow::new(missed, overlap);
        let mut now = minutes(1000);
        follow.progress = Progress::default();
        follow.look(now);
        let start = now;
        let (mut fired, mut passed_over) = (Vec::new(), 0);
        for step in steps {
            match step {
                Step::Forward(n) => now.0 += n * MINUTE / 2,
                Step::Back(n) => now.0 -= n * MINUTE / 2,
                Step::RunEnds => follow.running = false,
            }
            let was_running = follow.running;
            let before = follow.progress.considered;
            let due = follow.look(now);
            prop_assert!(!(was_running && due.start().is_some()));
            prop_assert!(due.wake_at.is_some_and(|next| next > now));
            fired.extend(due.start());
            if follow.progress.considered != before {
                let PassedOver { missed, overlapped, merged } = follow.progress.passed_over;
                passed_over += missed + overlapped + merged;
            }
            let most = if missed_all(&follow) { Progress::OWED_MAX } else { 1 };
            prop_assert!(follow.progress.owed.len() <= most);
            prop_assert!(follow.running || follow.progress.owed.is_empty());
        }
        prop_assert!(fired.is_sorted_by(|a, b| a < b), "{:?}", fired);
        let timetable = Timetable::new(&follow.schedule).unwrap();
        let all = std::iter::successors(timetable.next_after(start), |at| timetable.next_after(*at))
            .take_while(|at| *at <= follow.progress.considered)
            .count();
        prop_assert_eq!(fired.len() + follow.progress.owed.len() + passed_over as usize, all);
    }
}

fn missed_all(follow: &Follow) -> bool {
    follow.schedule.policy.missed == Missed::All
}
