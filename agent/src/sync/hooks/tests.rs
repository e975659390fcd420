//! When hooks run, how often, and what is left of one that the agent did not see end.

use std::os::unix::fs::PermissionsExt;

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

struct Place {
    dir: tempfile::TempDir,
    site: Site,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let programs = dir.path().join("programs");
        fs::create_dir(&programs).unwrap();
        let site = Site {
            host: Host::open(&dir.path().join("run")).await.unwrap(),
            programs,
            records: dir.path().join("records"),
            sync: "webroot".parse().unwrap(),
            node: "web1".to_owned(),
            path: "/srv/www".into(),
            tasks: TaskTracker::new(),
            tell: Arc::new(|| ()),
        };
        Self { dir, site }
    }

    /// A hook that adds a line to `ran` and then does this.
    fn hook(&self, rest: &str) -> Hook {
        let path = self.site.programs.join("hook");
        let ran = self.dir.path().join("ran");
        fs::write(&path, format!("#!/bin/sh\necho x >> {}\n{rest}\n", ran.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Hook::new("hook".parse().unwrap())
    }

    fn runs(&self) -> usize {
        fs::read_to_string(self.dir.path().join("ran")).unwrap_or_default().lines().count()
    }

    fn hooks(&self, hook: &Hook) -> Hooks {
        let hooks = Hooks::new(self.site.clone());
        hooks.set([hook.clone()]);
        hooks
    }

    async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let waited = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, waited).await.is_ok(), "waited in vain for: {what}");
    }

    fn records(&self) -> usize {
        fs::read_dir(&self.site.records).map_or(0, Iterator::count)
    }

    async fn end(&self, hooks: Hooks) {
        drop(hooks);
        self.site.tasks.close();
        tokio::time::timeout(PATIENCE, self.site.tasks.wait()).await.unwrap();
    }
}

#[tokio::test]
async fn a_hook_runs_for_its_own_event_and_once_more_for_all_that_came_meanwhile() {
    let place = Place::new().await;
    let gate = place.dir.path().join("gate");
    let hook = place.hook(&format!("while [ ! -e {} ]; do sleep 0.05; done", gate.display()));
    let hooks = place.hooks(&hook);
    hooks.happened(HookEvent::Filled).await;
    hooks.happened(HookEvent::Changed).await;
    place.until("the first run", || place.runs() == 1).await;
    for _ in 0..5 {
        hooks.happened(HookEvent::Changed).await;
    }
    fs::write(gate, "").unwrap();
    place.until("the end of it all", || place.runs() == 2 && place.records() == 0).await;
    place.end(hooks).await;
    assert_eq!(place.runs(), 2);
}

#[tokio::test]
async fn a_failure_is_alerted_until_the_next_success_and_retried_only_if_so_defined() {
    let place = Place::new().await;
    let good = place.dir.path().join("good");
    let hook = place.hook(&format!("echo no; [ -e {} ]", good.display()));
    let hooks = place.hooks(&hook);
    hooks.happened(HookEvent::Changed).await;
    place.until("the problem", || !hooks.problems().is_empty()).await;
    assert!(hooks.problems()[0].ends_with(": no"), "{:?}", hooks.problems());
    assert_eq!(place.records(), 0, "it is not due again");
    // The same as a retried one: it goes on by itself.
    hooks.set([Hook { failure: HookFailure::Retry, ..hook.clone() }]);
    hooks.happened(HookEvent::Changed).await;
    place.until("a second try", || place.runs() >= 3).await;
    assert_eq!(hooks.problems().len(), 1);
    fs::write(good, "").unwrap();
    place.until("the success", || hooks.problems().is_empty()).await;
    hooks.set([Hook { failure: HookFailure::Ignore, ..hook }]);
    place.end(hooks).await;
    assert_eq!(place.records(), 0);
}

#[tokio::test]
async fn a_run_that_nobody_saw_end_is_told_and_repeated_only_if_allowed() {
    let place = Place::new().await;
    let hook = place.hook("sleep 600");
    let hooks = place.hooks(&hook);
    hooks.happened(HookEvent::Changed).await;
    place.until("the run", || place.runs() == 1).await;
    drop(hooks);
    let stopped = || fs::read_dir(place.dir.path().join("run")).unwrap().count() == 0;
    place.until("its end", stopped).await;

    let repeatable = Hook { repeatable: true, ..place.hook("true") };
    let hooks = place.hooks(&hook);
    place.until("the problem", || !hooks.problems().is_empty()).await;
    assert!(hooks.problems()[0].contains("nobody knows"), "{:?}", hooks.problems());
    drop(hooks);
    assert_eq!(place.runs(), 1);

    fs::write(place.site.records.join("hook.changed.running"), "").unwrap();
    let hooks = place.hooks(&repeatable);
    place.until("the repetition", || place.runs() == 2 && hooks.problems().is_empty()).await;
    place.end(hooks).await;
}
