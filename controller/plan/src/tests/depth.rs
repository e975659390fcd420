//! Targets by label, relay trees, targets without an agent, and runs, as the planner tells them.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::expect;
use lockstep_model::request::{NodeAction, Request, SelectedChange, SyncRun};
use lockstep_model::setting::Value;
use lockstep_model::sync::{Selected, SyncOptions};
use lockstep_model::task::{OutcomeKind, Slot, TaskSpec};

use super::dsl::{Lab, add_targets, create_sync, key};
use super::refusals::{enroll, for_node, token};
use super::stories::{ALL, check, in_force};

fn selected(selector: &str, path: &str) -> Selected {
    Selected { selector: selector.parse().unwrap(), path: path.parse().unwrap() }
}

fn by_label(name: &str, source: &str, selector: &str, path: &str) -> Request {
    let Request::CreateSync { name, source, options, .. } = create_sync(name, source, &[]) else {
        unreachable!()
    };
    let selected = Some(selected(selector, path));
    Request::CreateSync { name, source, targets: vec![], selected, options, paused: false }
}

fn label(node: &str, set: &str) -> Request {
    let set =
        set.split_whitespace().map(|label| lockstep_model::label::parse_label(label).unwrap());
    Request::LabelNode { node: node.parse().unwrap(), set: set.collect(), remove: vec![] }
}

fn update(sync: &str, values: &[(&str, &str)]) -> Request {
    let value =
        |(name, text): &(&str, &str)| Value { name: (*name).to_owned(), text: (*text).to_owned() };
    let values = values.iter().map(value).collect();
    Request::UpdateSync { sync: sync.parse().unwrap(), values, selected: None }
}

#[test]
fn a_node_becomes_a_target_by_its_label_and_ends_to_be_one() {
    let mut lab = Lab::with_nodes(&ALL);
    lab.ask(by_label("webroot", "master1:/srv", "role=web", "/www"));
    lab.work(&ALL);
    lab.ask(label("web1", "role=web"));
    lab.work(&ALL);
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> []: ok
        master1 15.0 #1: sync-source webroot -> [web1@web1:7402]: ok
        web1 15.1 #1: sync-target webroot <- master1: ok
    "#]],
    );
    lab.ask(label("web1", "role=db"));
    lab.work(&ALL);
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> []: ok
        master1 15.0 #1: sync-source webroot -> [web1@web1:7402]: ok
        master1 19.0 #1: sync-source webroot -> []: ok
    "#]],
    );
}

#[test]
fn a_directory_that_is_taken_is_left_alone_and_said_so() {
    let mut lab = Lab::with_nodes(&ALL);
    lab.ask(create_sync("docs", "web2:/docs", &["web1:/www/docs"]));
    lab.ask(by_label("webroot", "master1:/srv", "role=web", "/www"));
    lab.ask(label("web1", "role=web"));
    lab.ask(label("web2", "role=web"));
    lab.work(&ALL);
    check(
        &mut lab,
        expect![[r#"
        master1 14.0 #1: sync-source webroot -> []: superseded
        master1 17.0 #1: sync-source webroot -> [web2@web2:7402]: ok
        web1 12.0 #1: sync-target docs <- web2: ok
        web2 12.1 #1: sync-source docs -> [web1@web1:7402]: ok
        web2 17.1 #1: sync-target webroot <- master1: ok
        ? sync/webroot/web1 overlap: web1 matches role=web, but sync docs uses a directory there that overlaps /www: change one of them, or the label
    "#]],
    );
    expect!["InvalidArgument invalid selector: selector: role=web matches the source web2: add a term that leaves it out"].assert_eq(&lab.refusal(by_label("other", "web2:/x", "role=web", "/www")));
    lab.ask(update("docs", &[("delay", "5s")]));
    expect!["InvalidArgument invalid selector: selector: role=web matches the source web2: add a term that leaves it out"].assert_eq(&lab.refusal(Request::UpdateSync {
        sync: "docs".parse().unwrap(),
        values: vec![],
        selected: Some(SelectedChange::To(selected("role=web", "/www"))),
    }));
}

/// Six heads, two per node.
fn relays() -> (Lab, Vec<String>) {
    let heads: Vec<String> = (1..=6).map(|n| format!("w{n}")).collect();
    let names: Vec<&str> = ["m"].into_iter().chain(heads.iter().map(String::as_str)).collect();
    let mut lab = Lab::with_nodes(&names);
    let places: Vec<String> = heads.iter().map(|head| format!("{head}:/www")).collect();
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let Request::CreateSync { name, source, targets, .. } = create_sync("a", "m:/www", &places)
    else {
        unreachable!()
    };
    let options = SyncOptions { fanout: Some(2), ..SyncOptions::default() };
    let create =
        Request::CreateSync { name, source, targets, selected: None, options, paused: false };
    lab.ask(create);
    lab.work(&names);
    (lab, heads)
}

fn parents(lab: &Lab) -> BTreeMap<String, String> {
    let slot = Slot::Sync("a".parse().unwrap());
    let parent = |head: String| {
        let task = lab.world.newest(&head.parse().unwrap(), &slot)?;
        let TaskSpec::SyncTarget(target) = &task.spec else { return None };
        Some((head, target.source.as_ref()?.node.to_string()))
    };
    (1..=6).map(|n| format!("w{n}")).filter_map(parent).collect()
}

fn shown(parents: &BTreeMap<String, String>) -> String {
    let edges: Vec<String> = parents.iter().map(|(child, p)| format!("{child}<{p}")).collect();
    edges.join(" ")
}

/// Whom the source feeds, and whom others do.
fn told_to_source(lab: &Lab) -> String {
    let task = lab.world.newest(&"m".parse().unwrap(), &Slot::Sync("a".parse().unwrap())).unwrap();
    let TaskSpec::SyncSource(spec) = &task.spec else { panic!() };
    let names = |nodes: Vec<&str>| nodes.join(" ");
    let fed = names(spec.receivers.iter().map(|to| to.node.as_str()).collect());
    format!("{fed}, others {}", names(spec.others.iter().map(|node| node.as_str()).collect()))
}

#[test]
fn relays_feed_those_behind_them_and_a_dead_one_gives_them_up() {
    let (mut lab, heads) = relays();
    let before = parents(&lab);
    expect!["w1<m w2<m w3<w1 w4<w1 w5<w2 w6<w2"].assert_eq(&shown(&before));
    assert_eq!(told_to_source(&lab), "w1 w2, others w3 w4 w5 w6");
    lab.disconnect("w1");
    lab.settle();
    assert_eq!(parents(&lab), before, "a short absence moves nobody");
    lab.pass(20);
    lab.settle();
    let rest: Vec<&str> = heads.iter().map(String::as_str).filter(|head| *head != "w1").collect();
    lab.work(&["m"]);
    lab.work(&rest);
    let after = parents(&lab);
    let moved: BTreeSet<_> =
        before.iter().filter(|(child, parent)| after[*child] != **parent).collect();
    expect!["w1<w5 w2<m w3<m w4<w5 w5<w2 w6<w2"].assert_eq(&shown(&after));
    assert_eq!(told_to_source(&lab), "w2 w3, others w1 w4 w5 w6");
    assert!(moved.iter().all(|(child, parent)| *parent == "w1" || *child == "w1"));

    lab.connect("w1");
    lab.pass(1);
    lab.settle();
    lab.work(&["m", "w1", "w2", "w3", "w4", "w5", "w6"]);
    assert_eq!(parents(&lab), after, "its return moves nobody");
}

#[test]
fn a_target_moves_on_when_its_next_feeder_goes_too() {
    let (mut lab, heads) = relays();
    let mut away = BTreeSet::new();
    let mut fed_by = vec![parents(&lab)["w3"].clone()];
    for _ in 0..2 {
        let feeder = parents(&lab)["w3"].clone();
        lab.disconnect(&feeder);
        away.insert(feeder);
        lab.settle();
        lab.pass(20);
        lab.settle();
        let rest = heads.iter().map(String::as_str).filter(|head| !away.contains(*head));
        lab.work(&["m"].into_iter().chain(rest).collect::<Vec<_>>());
        let now = parents(&lab);
        assert!(now.values().all(|feeder| !away.contains(feeder)), "{}", shown(&now));
        fed_by.push(now["w3"].clone());
        if now["w3"] == "m" {
            break;
        }
    }
    expect!["w1 m"].assert_eq(&fed_by.join(" "));
}

#[test]
fn a_disabled_relay_gives_up_its_targets_at_once() {
    let (mut lab, _) = relays();
    lab.act("w2", NodeAction::Disable);
    lab.settle();
    let after = parents(&lab);
    assert!(after.values().all(|parent| parent != "w2"), "{}", shown(&after));
    assert!(!after.contains_key("w2"), "nobody writes a disabled node");
}

#[test]
fn a_target_without_an_agent_is_its_sources_alone() {
    let mut lab = Lab::with_nodes(&ALL);
    let old = "old=ssh://deploy@10.0.0.9/srv/www?key=deploy";
    expect!["InvalidArgument invalid targets: targets: h=ssh://h:22/p: ssh takes a key here and no password: add ?key=NAME, a file of the secrets directory on master1"].assert_eq(&lab.refusal(create_sync("y", "master1:/y", &["ssh://h/p"])));
    lab.ask(create_sync("webroot", "master1:/srv", &["web1:/srv", old]));
    lab.ask(update("webroot", &[("fanout", "2")]));
    lab.work(&ALL);
    let newest = |node: &str| {
        let slot = Slot::Sync("webroot".parse().unwrap());
        lab.world.newest(&node.parse().unwrap(), &slot).unwrap().spec.clone()
    };
    let TaskSpec::SyncSource(spec) = newest("master1") else { panic!() };
    let fed: Vec<&str> = spec.receivers.iter().map(|to| to.node.as_str()).collect();
    assert_eq!(fed, ["old", "web1"]);
    let TaskSpec::SyncTarget(spec) = newest("web1") else { panic!() };
    assert_eq!(spec.receivers, [], "a relay feeds agents only");

    let verify = |targets: &[&str]| Request::RunSync {
        sync: "webroot".parse().unwrap(),
        targets: targets.iter().map(|node| node.parse().unwrap()).collect(),
        run: SyncRun::Verify { content: false, repair: false, paths: vec![] },
        traceparent: None,
    };
    expect!["FailedPrecondition no_agent sync/webroot/old: old has no agent: its copy cannot be compared; lockstepctl sync resync webroot --target old brings whatever differs"].assert_eq(&lab.refusal(verify(&["old"])));
    assert_eq!(lab.ask(verify(&[])).tasks.len(), 1, "the others are compared");
    // One name is one machine, whoever comes later.
    expect!["AlreadyExists name_in_use node/old: sync webroot has a target without an agent that is called old: choose another name, or to give that machine an agent: lockstepctl sync remove-target webroot old, and add it again once it has joined"].assert_eq(&lab.refusal(token("t-old", for_node("old"), 900_000)));
    lab.ask(token("t-late", for_node("late"), 900_000));
    lab.ask(add_targets("webroot", &["late=ssh://deploy@10.0.0.8/srv/www?key=deploy"]));
    expect!["AlreadyExists name_in_use node/late: sync webroot has a target without an agent that is called late: choose another name, or to give that machine an agent: lockstepctl sync remove-target webroot late, and add it again once it has joined"].assert_eq(&lab.refusal(enroll("t-late", 2, key("late"))));
    expect!["InvalidArgument invalid targets: targets: web1=ssh://h:22/p: web1 is a node with an agent: name it web1:/path, or call this target otherwise with NAME=ssh://h:22/p"].assert_eq(&lab.refusal(create_sync("x", "master1:/x", &["web1=ssh://h/p"])));
}

#[test]
fn settings_reach_every_node_and_a_pause_too() {
    let mut lab = in_force();
    lab.ask(update("webroot", &[("delete", "never"), ("filter", "- *.tmp")]));
    lab.ask(Request::SetPaused { sync: "webroot".parse().unwrap(), paused: true });
    lab.work(&ALL);
    for (node, task) in ALL.map(|node| {
        let task =
            lab.world.newest(&node.parse().unwrap(), &Slot::Sync("webroot".parse().unwrap()));
        (node, task.unwrap().clone())
    }) {
        let (options, paused) = match &task.spec {
            TaskSpec::SyncSource(source) => (&source.options, source.paused),
            TaskSpec::SyncTarget(target) => (&target.options, target.paused),
            other => panic!("{other:?}"),
        };
        assert!(paused && options.filters.len() == 1, "{node}");
    }
    expect![[r#"InvalidArgument invalid delete: delete: must be one of always, never, startup, running, not "often""#]].assert_eq(&lab.refusal(update("webroot", &[("delete", "often")])));
    let run = Request::RunSync {
        sync: "webroot".parse().unwrap(),
        targets: vec![],
        run: SyncRun::Resync,
        traceparent: None,
    };
    expect!["FailedPrecondition paused sync/webroot: sync webroot is paused: lockstepctl sync resume webroot first"].assert_eq(&lab.refusal(run));
}

#[test]
fn a_run_that_lost_its_sense_is_not_repeated() {
    let mut lab = in_force();
    let run = |run| Request::RunSync {
        sync: "webroot".parse().unwrap(),
        targets: vec!["web1".parse().unwrap()],
        run,
        traceparent: None,
    };
    lab.ask(run(SyncRun::Unhold));
    lab.ask(Request::Barrier {
        sync: "webroot".parse().unwrap(),
        at_least: Some(1),
        hook: None,
        traceparent: None,
    });
    lab.ask(run(SyncRun::Verify { content: false, repair: true, paths: vec![] }));
    for _ in 0..3 {
        lab.end_one("master1", OutcomeKind::Interrupted, "the agent ended");
    }
    lab.pass(10);
    // Only the comparison means the same at another time.
    check(
        &mut lab,
        expect![[r#"
        master1 12.0 #1: sync-source webroot -> [web1@web1:7402 web2@web2:7402]: ok
        master1 16.0 #1: sync-unhold unhold/webroot/web1: interrupted
        master1 17.0 #1: sync-barrier barrier/webroot: interrupted
        master1 18.0 #1: sync-verify verify/webroot/web1: interrupted
        master1 22.0 #2: sync-verify verify/webroot/web1: live
        web1 12.1 #1: sync-target webroot <- master1: ok
        web2 12.2 #1: sync-target webroot <- master1: ok
        ? sync/webroot/web1 run: master1 has not confirmed sync-verify 22.0, given at 2026-11-21T00:00:10Z
    "#]],
    );
}

#[test]
fn a_target_that_is_added_again_gets_the_limit_that_is_named() {
    let mut lab = Lab::with_nodes(&["m", "w1", "w2"]);
    lab.ask(create_sync("a", "m:/srv", &["w1:/srv"]));
    let add = |places: &[&str], rate: Option<&str>| {
        let bwlimit = rate.map(|rate| rate.parse().unwrap());
        let Request::AddTargets { sync, mut targets } = add_targets("a", places) else {
            unreachable!()
        };
        targets.iter_mut().for_each(|target| target.bwlimit = bwlimit);
        Request::AddTargets { sync, targets }
    };
    let said = lab.ask(add(&["w1:/srv", "w2:/srv"], Some("1M"))).detail;
    assert_eq!(said, "w2 added to sync a; limit of w1 changed in sync a");
    // Without one, and with the same, it is there already.
    for rate in [None, Some("1M")] {
        let said = lab.ask(add(&["w1:/srv"], rate));
        assert_eq!(
            (said.detail.as_str(), said.writes.len()),
            ("sync a has these targets already", 0)
        );
    }
    assert_eq!(lab.ask(add(&["w1:/srv"], Some("2M"))).detail, "limit of w1 changed in sync a");
    let sync = &lab.world.syncs()[&"a".parse().unwrap()].value;
    let limits: Vec<_> = sync.targets.iter().map(|target| target.bwlimit).collect();
    assert_eq!(limits, ["2M", "1M"].map(|rate| Some(rate.parse().unwrap())));
    assert!(lab.refusal(add(&["w1:/other"], Some("3M"))).contains("is a target already"));
}
