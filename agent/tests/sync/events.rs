//! What events lead to: hooks, a marker's release, one-shot syncs, ignored names, and what a source
//! does that cannot watch.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use lockstep_model::sync::hook::{HookEvent, HookPlace};
use lockstep_model::sync::{DeletePolicy, DeliveryState, EngineState, Hook};
use lockstep_model::task::{Outcome, OutcomeKind, SyncBarrier, TaskSpec};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::fleet::{Fleet, SYNC, eventually, is_ok};

/// A hook that adds a line to `<dir>/told`: who and what.
pub fn write_hook(dir: &Path, name: &str) {
    let hooks = dir.join("hooks");
    fs::create_dir_all(&hooks).unwrap();
    let told = dir.join("told");
    let script = format!(
        "#!/bin/sh\necho {name} $LOCKSTEP_NODE $LOCKSTEP_EVENT $LOCKSTEP_SYNC >> {}\n",
        told.display()
    );
    fs::write(hooks.join(name), script).unwrap();
    fs::set_permissions(hooks.join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

fn told(fleet: &Fleet) -> Vec<String> {
    let text = fs::read_to_string(fleet.dir.path().join("told")).unwrap_or_default();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_where_something_arrived_and_at_the_source_when_all_have_it() {
    let mut fleet = Fleet::new().await;
    for name in ["new", "each", "all", "flip"] {
        write_hook(fleet.dir.path(), name);
    }
    let hook = |name: &str| Hook::new(name.parse().unwrap());
    fleet.options.hooks = vec![
        Hook { on: HookEvent::Filled, ..hook("new") },
        hook("each"),
        Hook { at: HookPlace::Source, ..hook("all") },
    ];
    fs::write(fleet.src("first"), "1").unwrap();
    for head in ["web1", "web2"] {
        fleet.add_head(head).await;
    }
    fleet.apply().await;
    let first = [
        "all master1 changed webroot",
        "each web1 changed webroot",
        "each web2 changed webroot",
        "new web1 filled webroot",
        "new web2 filled webroot",
    ];
    let has = |lines: &[&str]| lines.iter().all(|line| told(&fleet).iter().any(|l| l == line));
    eventually("the hooks of the fill", || has(&first).then_some(())).await;
    for head in ["web1", "web2"] {
        fleet.state(head, DeliveryState::Idle).await;
    }

    let before = told(&fleet).len();
    fs::write(fleet.src("second"), "2").unwrap();
    let count = |line: &str| told(&fleet).iter().filter(|l| *l == line).count();
    eventually("the hooks of a change", || {
        let each = ["web1", "web2"].map(|head| count(&format!("each {head} changed webroot")));
        (each.iter().all(|n| *n >= 2) && count("all master1 changed webroot") >= 2).then_some(())
    })
    .await;
    assert_eq!(count("new web1 filled webroot"), 1, "after {before} lines");

    // Whatever else of the change is told has been told.
    let mut before = 0;
    while told(&fleet).len() != before {
        before = told(&fleet).len();
        assert!(is_ok(&barrier(&fleet).await));
    }
    // A barrier ends with its hook, and its canary is nothing that changed.
    let barrier = |hook: &str| {
        let (progress, lines) = mpsc::channel(16);
        drop(lines);
        let spec = SyncBarrier {
            sync: SYNC.parse().unwrap(),
            at_least: None,
            hook: Some(hook.parse().unwrap()),
        };
        fleet.master.run(TaskSpec::SyncBarrier(spec), progress, CancellationToken::new())
    };
    let outcome = barrier("flip").await;
    assert!(is_ok(&outcome), "{}", outcome.message);
    assert_eq!(count("flip master1 barrier webroot"), 1);
    let outcome = barrier("absent").await;
    assert_eq!(outcome.kind, OutcomeKind::Failed, "{}", outcome.message);
    assert_eq!(told(&fleet).len(), before + 1, "{:?}", told(&fleet));
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_hook_is_a_problem_of_its_node() {
    let mut fleet = Fleet::new().await;
    fleet.options.hooks = vec![Hook::new("absent".parse().unwrap())];
    fs::create_dir(fleet.dir.path().join("hooks")).unwrap();
    fs::write(fleet.src("first"), "1").unwrap();
    fleet.add_head("web1").await;
    fleet.apply().await;
    let problem = || Some(fleet.problem("web1")).filter(|problem| !problem.is_empty());
    let problem = eventually("the problem", problem).await;
    assert!(problem.contains("absent") && problem.contains("there is none"), "{problem}");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_wait_for_the_marker() {
    let mut fleet = Fleet::new().await;
    fleet.options.marker = Some("release/done".parse().unwrap());
    fs::create_dir(fleet.src("release")).unwrap();
    fs::write(fleet.src("first"), "1").unwrap();
    fleet.add_head("web1").await;
    fleet.apply().await;
    fleet.state("web1", DeliveryState::Idle).await;
    fleet.watching().await;
    fs::write(fleet.src("second"), "2").unwrap();
    // Told by lsyncd, and still not given to anybody.
    let place = fleet.master.now(&SYNC.parse().unwrap()).await.unwrap();
    assert!(!fleet.www("web1").join("second").exists());
    assert_eq!(fleet.delivery("web1").unwrap().state, DeliveryState::Idle);
    fs::write(fleet.src("release/done"), "1").unwrap();
    eventually("the release", || fleet.www("web1").join("second").exists().then_some(())).await;
    assert!(fleet.master.now(&SYNC.parse().unwrap()).await.unwrap() > place);

    // A marker that is written while nobody watches is found.
    fs::write(fleet.src("third"), "3").unwrap();
    fleet.master.now(&SYNC.parse().unwrap()).await.unwrap();
    assert!(!fleet.www("web1").join("third").exists());
    crate::fleet::kill(fleet.lsyncd().await);
    fs::write(fleet.src("release/done"), "22").unwrap();
    eventually("the release", || fleet.www("web1").join("third").exists().then_some(())).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_names_do_not_flap_and_passes_bring_them() {
    let mut fleet = Fleet::new().await;
    fleet.options.ignore = vec!["*.swp".parse().unwrap()];
    fs::write(fleet.src("first"), "1").unwrap();
    fleet.add_head("web1").await;
    fleet.apply().await;
    fleet.watching().await;
    let (sync, web1) = (SYNC.parse().unwrap(), "web1".parse().unwrap());
    assert!(is_ok(&barrier(&fleet).await));
    fs::write(fleet.src(".x.swp"), "2").unwrap();
    fs::write(fleet.src("second"), "2").unwrap();
    assert!(is_ok(&barrier(&fleet).await));
    assert!(fleet.www("web1").join("second").exists());
    assert!(!fleet.www("web1").join(".x.swp").exists());
    let (progress, _lines) = mpsc::channel(8);
    let pass = fleet.master.resync(&sync, &web1, progress, CancellationToken::new()).await;
    assert!(is_ok(&pass), "{}", pass.message);
    assert!(fleet.www("web1").join(".x.swp").exists());
    fleet.end().await;
}

async fn barrier(fleet: &Fleet) -> Outcome {
    let (progress, _lines) = mpsc::channel(16);
    let sync = SYNC.parse().unwrap();
    fleet.master.barrier(&sync, None, None, progress, CancellationToken::new()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn once_is_one_pass_and_no_lsyncd() {
    let mut fleet = Fleet::new().await;
    fleet.options.once = true;
    fs::write(fleet.src("first"), "1").unwrap();
    fleet.add_head("web1").await;
    fleet.apply().await;
    fleet.converged("web1").await;
    fleet.state("web1", DeliveryState::Idle).await;
    assert_eq!(fleet.report().unwrap().engine, EngineState::Still);
    assert!(fleet.children("/usr/bin/lsyncd").is_empty());
    // A target that comes later gets its own pass, and the first one nothing.
    fs::write(fleet.src("second"), "2").unwrap();
    fleet.add_head("web2").await;
    fleet.apply().await;
    fleet.converged("web2").await;
    assert!(!fleet.www("web1").join("second").exists());
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_leaves_the_source_when_all_have_it_and_not_before() {
    let mut fleet = Fleet::new().await;
    fleet.options.delete = DeletePolicy::Never;
    fleet.options.remove_source_files = true;
    fleet.options.filters = vec!["- *.tmp".parse().unwrap()];
    fs::create_dir(fleet.src("d")).unwrap();
    for name in ["first", "d/second", "x.tmp"] {
        fs::write(fleet.src(name), name).unwrap();
    }
    for head in ["web1", "web2"] {
        fleet.add_head(head).await;
    }
    fleet.apply().await;
    let gone = |name: &str| (!fleet.src(name).exists()).then_some(());
    eventually("all files to go", || gone("first").and(gone("d/second"))).await;
    for head in ["web1", "web2"] {
        for name in ["first", "d/second"] {
            assert!(fleet.www(head).join(name).exists(), "{head} lacks {name}");
        }
    }
    assert!(fleet.src("x.tmp").exists(), "nobody has it");

    fs::remove_file(fleet.dir.path().join("peers/web2")).unwrap();
    fs::write(fleet.src("third"), "3").unwrap();
    eventually("third", || fleet.www("web1").join("third").exists().then_some(())).await;
    let (progress, _lines) = mpsc::channel(16);
    let sync = SYNC.parse().unwrap();
    let one = fleet.master.barrier(&sync, Some(1), None, progress, CancellationToken::new()).await;
    assert!(is_ok(&one) && fleet.src("third").exists());
    fleet.listen("web2", &fleet.heads["web2"]);
    eventually("third to go", || gone("third")).await;
    assert!(fleet.www("web2").join("third").exists() && fleet.www("web1").join("first").exists());
    fleet.end().await;
}
