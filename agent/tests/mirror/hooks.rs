//! Hooks around runs, and what an agent that ended in the middle makes of them.

use std::fs;

use lockstep_model::mirror::HopKind;
use lockstep_model::task::OutcomeKind;

use super::fleet::{Node, Scene};

fn told(scene: &Scene) -> Vec<String> {
    let text = fs::read_to_string(scene.dir.path().join("told")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn tells(scene: &Scene, name: &str, more: &str) {
    let file = scene.dir.path().join("told");
    let script = format!(
        "echo \"{name} $LOCKSTEP_EVENT $LOCKSTEP_MIRROR $LOCKSTEP_RUN $LOCKSTEP_HOP \
         $LOCKSTEP_NODE $LOCKSTEP_CHANGED\" >> {}\n{more}",
        file.display()
    );
    scene.hook(name, &script);
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_in_order_and_their_failures_mean_what_is_set() {
    let scene = Scene::new().await;
    let master = &scene.master;
    for (name, more) in [("one", ""), ("two", ""), ("bad", "echo it broke; exit 3")] {
        tells(&scene, name, more);
    }
    let hooks = [
        ("hook", "one on=before"),
        ("hook", "one on=changed"),
        ("hook", "two on=changed"),
        ("hook", "two on=after"),
        ("hook", "one on=failed"),
        ("hook", "two on=after at=replica"),
    ];
    master.pull(scene.spec(1, &hooks)).await;
    assert_eq!(
        told(&scene),
        [
            "one before fedora 1 upstream master1 ",
            "one changed fedora 1 upstream master1 yes",
            "two changed fedora 1 upstream master1 yes",
            "two after fedora 1 upstream master1 yes",
        ]
    );
    master.pull(scene.spec(2, &hooks)).await;
    assert_eq!(told(&scene)[5..], ["two after fedora 2 upstream master1 no"]);

    // Ignored, told, and the end of it.
    master.pull(scene.spec(3, &[("hook", "bad on=after failure=ignore")])).await;
    assert!(master.report().warnings.is_empty());
    master.pull(scene.spec(4, &[("hook", "bad on=after")])).await;
    let warnings = master.report().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("it broke"), "{warnings:?}");
    assert!(master.log().contains("it broke"));
    scene.write(&[("a", "new")]);
    let both = [("hook", "bad on=before failure=abort"), ("hook", "one on=failed")];
    let (why, pulled) = master.fail(scene.spec(5, &both)).await;
    assert!(why.contains("bad") && pulled.exit_code.is_none(), "{why}");
    assert_eq!(fs::read_to_string(master.tree().join("a")).unwrap(), "1");
    assert_eq!(told(&scene).last().unwrap(), "one failed fedora 5 upstream master1 ");
    // Nothing was told to have changed, so that the next one does.
    let (why, _) = master.fail(scene.spec(6, &[("hook", "bad on=changed failure=abort")])).await;
    assert!(why.contains("bad"), "{why}");
    let next = master.pull(scene.spec(6, &[("hook", "one on=changed")])).await;
    assert!(next.changed, "{next:?}");
    tells(&scene, "bad", "");
    master.pull(scene.spec(7, &[("hook", "bad on=after")])).await;
    assert!(master.report().warnings.is_empty(), "it succeeded");
    scene.master.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_of_which_nobody_knows_is_told_and_not_repeated_unless_it_may_be() {
    let scene = Scene::new().await;
    tells(&scene, "one", "");
    let place = scene.master.place(HopKind::Upstream, &[]);
    // As an agent leaves it that was killed in a hook.
    let records = scene.master.state().join("hooks");
    fs::create_dir_all(&records).unwrap();
    fs::write(records.join("one.after"), "1 begun\n").unwrap();
    let Scene { dir, daemon, master } = scene;
    master.end().await;
    let master = Node::start(dir.path(), "master1").await;
    master.assign(place).await;
    assert!(master.report().warnings[0].contains("nobody knows"), "{:?}", master.report());
    let scene = Scene { dir, daemon, master };
    scene.master.pull(scene.spec(1, &[("hook", "one on=after")])).await;
    assert_eq!(told(&scene), Vec::<String>::new());
    fs::write(records.join("one.after"), "1 begun\n").unwrap();
    scene.master.pull(scene.spec(1, &[("hook", "one on=after repeatable=yes")])).await;
    assert_eq!(told(&scene).len(), 1);
    // Of a run that is given again, what ran does not run again.
    scene.master.pull(scene.spec(1, &[("hook", "one on=after")])).await;
    assert_eq!(told(&scene).len(), 1);
    scene.master.pull(scene.spec(2, &[("hook", "one on=after")])).await;
    assert_eq!(told(&scene).len(), 2);
    assert!(scene.master.report().warnings.is_empty());
    let run = scene.master.run(scene.spec(3, &[("hook", "one on=after timeout=1s")])).await;
    assert_eq!(run.kind, OutcomeKind::Ok);
    scene.master.end().await;
}
