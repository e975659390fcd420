//! Passes by schedule: given at their times to every target, across restarts, pauses and failures.

use lockstep_model::Millis;
use lockstep_model::request::{NodeAction, Request};
use lockstep_model::setting::Value;
use lockstep_model::task::{OutcomeKind, Slot, Task};

use super::*;
use crate::runs::RUN_ATTEMPTS_MAX;
use crate::tests::dsl::{Lab, START, add_targets, create_sync, remove_targets, resync};

const MINUTE: u64 = 60;

fn update(values: &[(&str, &str)]) -> Request {
    let value = |(name, text): &(&str, &str)| Value { name: (*name).into(), text: (*text).into() };
    let values = values.iter().map(value).collect();
    Request::UpdateSync { sync: "s".parse().unwrap(), values, selected: None }
}

fn pause(paused: bool) -> Request {
    Request::SetPaused { sync: "s".parse().unwrap(), paused }
}

/// A sync from m to both heads that is in force and has these settings; a little after midnight.
fn lab(values: &[(&str, &str)]) -> Lab {
    let mut lab = Lab::with_nodes(&["m", "w1", "w2"]);
    lab.ask(create_sync("s", "m:/srv", &["w1:/srv", "w2:/srv"]));
    lab.work(&["m", "w1", "w2"]);
    lab.now = lab.now + Millis::from_secs(1);
    lab.ask(update(values));
    lab.work(&["m", "w1", "w2"]);
    lab
}

/// Runs that were given and not ended: `w1 verify, w2 scrub`.
fn live(lab: &Lab) -> String {
    let shown = |task: &Task| match &task.spec {
        TaskSpec::SyncResync { target, .. } => Some(format!("{target} resync")),
        TaskSpec::SyncVerify(verify) if verify.content => Some(format!("{} scrub", verify.target)),
        TaskSpec::SyncVerify(verify) => Some(format!("{} verify", verify.target)),
        _ => None,
    };
    let tasks = lab.world.tasks().map(|task| &task.value).filter(|task| task.is_live());
    let mut shown: Vec<String> = tasks.filter_map(shown).collect();
    shown.sort();
    shown.join(", ")
}

/// The controller ends, and another one reads the store: what agents said is lost.
fn restart(lab: &mut Lab) {
    lab.world = World::from_records(lab.world.revision(), lab.world.records());
    for node in ["m", "w1", "w2"] {
        lab.connect(node);
    }
}

fn wake(lab: &mut Lab) -> u64 {
    lab.settle().wake_at.unwrap().since(START).0 / 1000 / MINUTE
}

#[test]
fn every_target_is_given_its_run_at_its_time() {
    let mut lab = lab(&[("verify-schedule", "minute=*/10"), ("resync-schedule", "hour=1")]);
    assert_eq!((live(&lab).as_str(), wake(&mut lab)), ("", 10));
    lab.pass(9 * MINUTE);
    assert_eq!(live(&lab), "");
    lab.pass(MINUTE);
    assert_eq!(live(&lab), "w1 verify, w2 verify");
    let spec = &lab.world.newest(&"m".parse().unwrap(), &slot("w1")).unwrap().spec;
    let TaskSpec::SyncVerify(verify) = spec else { panic!("{spec:?}") };
    assert!(verify.repair && !verify.content && verify.paths.is_empty());
    lab.work(&["m"]);
    assert_eq!((live(&lab).as_str(), wake(&mut lab)), ("", 20));
    lab.pass(50 * MINUTE);
    assert_eq!(live(&lab), "w1 resync, w1 verify, w2 resync, w2 verify");
}

#[test]
fn relays_are_compared_before_the_targets_that_they_feed() {
    let mut lab = Lab::with_nodes(&["m", "w1", "w2", "w3"]);
    lab.ask(create_sync("s", "m:/srv", &["w1:/srv", "w2:/srv", "w3:/srv"]));
    lab.ask(update(&[("fanout", "2"), ("verify-schedule", "minute=*/10")]));
    lab.work(&["m", "w1", "w2", "w3"]);
    let feeder = |target: &str| {
        let sync = &lab.world.syncs()[&"s".parse().unwrap()].value;
        feeder(&lab.world, sync, &target.parse().unwrap()).to_string()
    };
    assert_eq!(["w1", "w2", "w3"].map(feeder), ["m", "m", "w1"]);
    lab.pass(10 * MINUTE);
    assert_eq!(live(&lab), "w1 verify, w2 verify");
    lab.work(&["m"]);
    assert_eq!(live(&lab), "w3 verify");
    lab.work(&["w1"]);
    assert_eq!(live(&lab), "");
}

fn slot(target: &str) -> Slot {
    Slot::Verify("s".parse().unwrap(), target.parse().unwrap())
}

#[test]
fn a_splay_gives_each_target_its_own_time() {
    let mut lab = lab(&[("verify-schedule", "hour=1"), ("schedule-splay", "1h")]);
    let mut seen = Vec::new();
    for _ in 0..120 {
        lab.pass(MINUTE);
        let now = live(&lab);
        if !now.is_empty() {
            seen.push((now, lab.now.since(START).0 / 1000 / MINUTE));
            lab.work(&["m"]);
        }
    }
    let [(first, at), (second, later)] = &seen[..] else { panic!("{seen:?}") };
    assert!(first != second && (60..120).contains(at) && at < later && *later < 120, "{seen:?}");
}

#[test]
fn a_restart_neither_loses_nor_repeats_a_run() {
    let mut lab = lab(&[("verify-schedule", "minute=*/10")]);
    restart(&mut lab);
    lab.pass(10 * MINUTE);
    assert_eq!(live(&lab), "w1 verify, w2 verify");
    restart(&mut lab);
    lab.work(&["m"]);
    assert_eq!(live(&lab), "");
    restart(&mut lab);
    lab.pass(MINUTE);
    assert_eq!(live(&lab), "");
    // Down for an hour.
    for (missed, owed) in [("skip", ""), ("once", "w1 verify, w2 verify")] {
        lab.ask(update(&[("schedule-missed", missed)]));
        lab.now = lab.now + Millis::from_secs(3600);
        restart(&mut lab);
        assert_eq!(live(&lab), owed, "{missed}");
        lab.work(&["m"]);
        assert_eq!(live(&lab), "", "{missed}");
    }
    lab.ask(update(&[("schedule-missed", "all")]));
    lab.now = lab.now + Millis::from_secs(1800);
    restart(&mut lab);
    let mut runs = 0;
    while lab.end_one("m", OutcomeKind::Ok, "").is_some() {
        runs += 1;
    }
    assert_eq!(runs, 6, "three each");
}

#[test]
fn a_run_that_goes_on_is_followed_by_one_more_or_none() {
    for (overlap, after) in [("queue", "w1 verify, w2 verify"), ("skip", "")] {
        let mut lab = lab(&[("verify-schedule", "minute=*/10"), ("schedule-overlap", overlap)]);
        for _ in 0..4 {
            lab.pass(10 * MINUTE);
            assert_eq!(live(&lab), "w1 verify, w2 verify", "{overlap}");
        }
        let shown = lab.show();
        let says = match overlap {
            "queue" => {
                "waits at 2 of its targets for the run before; without a run up to \
                        2026-11-21T00:40:00Z: 1 covered by another run"
            }
            _ => {
                "next at 2026-11-21T00:50:00Z; without a run up to 2026-11-21T00:40:00Z: 1 \
                  skipped, as the run before went on"
            }
        };
        assert!(shown.contains(says), "{says} is not in\n{shown}");
        for _ in ["w1", "w2"] {
            lab.end_one("m", OutcomeKind::Ok, "").unwrap();
        }
        assert_eq!(live(&lab), after, "{overlap}");
        lab.work(&["m"]);
        lab.pass(5 * MINUTE);
        assert_eq!(live(&lab), "", "{overlap}");
    }
}

#[test]
fn what_is_in_the_slot_is_waited_for() {
    let both = [("verify-schedule", "minute=*/10"), ("scrub-schedule", "minute=*/30")];
    let mut lab = lab(&[both[0], both[1], ("schedule-overlap", "skip")]);
    lab.pass(20 * MINUTE);
    assert_eq!(live(&lab), "w1 verify, w2 verify");
    // The scrub is no overlap of the verification, and neither is lost.
    lab.pass(10 * MINUTE);
    assert_eq!(live(&lab), "w1 verify, w2 verify");
    for _ in ["w1", "w2"] {
        lab.end_one("m", OutcomeKind::Ok, "").unwrap();
    }
    assert_eq!(live(&lab), "w1 scrub, w2 scrub");
    lab.work(&["m"]);
    // At the same time: the scrub first, as it does more.
    lab.pass(30 * MINUTE - 2);
    lab.work(&["m"]);
    lab.pass(1);
    assert_eq!(live(&lab), "w1 scrub, w2 scrub");
    // What people asked for counts as well.
    lab.work(&["m"]);
    lab.ask(update(&[("resync-schedule", "minute=*/10")]));
    lab.ask(resync("s", &["w1"]));
    lab.pass(10 * MINUTE);
    assert_eq!(live(&lab), "w1 resync, w1 verify, w2 resync, w2 verify");
}

#[test]
fn a_run_with_tries_left_goes_on() {
    let mut lab = lab(&[("verify-schedule", "second=*"), ("schedule-overlap", "skip")]);
    lab.ask(remove_targets("s", &["w2"]));
    lab.work(&["m", "w1", "w2"]);
    for attempt in 1..=RUN_ATTEMPTS_MAX + 1 {
        // Longer than before any next try.
        lab.pass(MINUTE);
        let task = lab.end_one("m", OutcomeKind::Failed, "w1 is not there").unwrap();
        assert_eq!(task.attempt, if attempt > RUN_ATTEMPTS_MAX { 1 } else { attempt });
    }
}

#[test]
fn what_rests_begins_anew() {
    let mut lab = lab(&[("verify-schedule", "minute=*/10")]);
    assert_eq!(lab.world.sync_states_of(&"s".parse().unwrap()).count(), 2);
    lab.ask(pause(true));
    assert!(lab.world.sync_states().is_empty());
    lab.pass(3600);
    assert_eq!(live(&lab), "");
    lab.ask(pause(false));
    lab.work(&["m", "w1", "w2"]);
    assert_eq!(live(&lab), "");
    lab.act("w1", NodeAction::Disable);
    lab.work(&["m", "w1", "w2"]);
    lab.pass(10 * MINUTE);
    assert_eq!(live(&lab), "w2 verify");
    lab.act("w1", NodeAction::Enable);
    lab.work(&["m", "w1", "w2"]);
    assert_eq!(live(&lab), "");
    lab.pass(10 * MINUTE);
    assert_eq!(live(&lab), "w1 verify, w2 verify");
    lab.work(&["m"]);
    lab.ask(remove_targets("s", &["w2"]));
    assert_eq!(lab.world.sync_states_of(&"s".parse().unwrap()).count(), 1);
    lab.ask(add_targets("s", &["w2:/srv"]));
    lab.ask(update(&[("verify-schedule", "none")]));
    assert!(lab.world.sync_states().is_empty());
    lab.ask(update(&[("verify-schedule", "hour=1")]));
    lab.ask(Request::DeleteSync { sync: "s".parse().unwrap() });
    assert!(lab.world.sync_states().is_empty());
}

#[test]
fn only_a_resync_reaches_a_target_without_an_agent() {
    let mut lab = lab(&[]);
    let remote = "web9=ssh://deploy@10.0.0.9/srv?key=web".parse().unwrap();
    lab.ask(Request::AddTargets { sync: "s".parse().unwrap(), targets: vec![remote] });
    lab.work(&["m", "w1", "w2"]);
    lab.ask(update(&[("verify-schedule", "minute=*/10"), ("resync-schedule", "minute=*/20")]));
    lab.pass(20 * MINUTE);
    assert_eq!(live(&lab), "w1 resync, w1 verify, w2 resync, w2 verify, web9 resync");
}

/// A node that is told its part anew for nothing would interrupt what it does.
#[test]
fn nodes_are_not_told_of_schedules() {
    let mut lab = lab(&[]);
    lab.ask(update(&[("verify-schedule", "minute=*/10"), ("schedule-splay", "5m")]));
    let live = lab.world.tasks().filter(|task| task.value.is_live()).count();
    assert_eq!(live, 0, "{}", lab.show());
    let sync = &lab.world.syncs().values().next().unwrap().value;
    assert!(!sync.options.schedules.is_empty() && sync.options.for_nodes().schedules.is_empty());
}

#[test]
fn a_zone_is_known_or_refused() {
    let mut lab = lab(&[]);
    let refused = lab.refusal(update(&[("schedule-timezone", "Berlin")]));
    assert!(refused.contains("schedule-timezone") && refused.contains("no known time zone"));
    lab.ask(update(&[("schedule-timezone", "europe/berlin"), ("verify-schedule", "hour=4")]));
    let sync = &lab.world.syncs().values().next().unwrap().value;
    assert_eq!(sync.options.schedules.zone.as_str(), "Europe/Berlin");
    let shown = lab.show();
    assert!(shown.contains("verify by 'hour=4': next at 2026-11-21T03:00:00Z"), "{shown}");
}

#[test]
fn many_targets_take_many_transactions() {
    let names: Vec<String> = (0..150).map(|n| format!("w{n:03}")).collect();
    let mut lab = Lab::with_nodes(&["m"]);
    for name in &names {
        lab.join(name);
        lab.connect(name);
    }
    let targets: Vec<String> = names.iter().map(|name| format!("{name}:/srv")).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    lab.ask(create_sync("s", "m:/srv", &targets));
    lab.ask(update(&[("resync-schedule", "minute=*/10")]));
    let before = lab.log.len();
    lab.pass(10 * MINUTE);
    assert_eq!(live(&lab).split(", ").count(), 150);
    assert!(lab.log.len() - before < 6, "{} transactions", lab.log.len() - before);
}

#[test]
fn a_clock_that_is_set_back_is_said_and_woken_from() {
    let mut lab = lab(&[("verify-schedule", "minute=*/10")]);
    lab.pass(30 * MINUTE);
    lab.work(&["m"]);
    lab.now = Timestamp(lab.now.0 - 15 * MINUTE * 1000);
    let shown = lab.show();
    assert!(shown.contains("the clock was set back by 14m59s, and nothing fires"), "{shown}");
    assert_eq!((live(&lab).as_str(), wake(&mut lab)), ("", 40));
    lab.pass(24 * MINUTE);
    assert_eq!(live(&lab), "");
    lab.pass(MINUTE);
    assert_eq!(live(&lab), "w1 verify, w2 verify");
}
