//! From the upstream to the master, and from there to a replica through the agents.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use lockstep_model::mirror::HopKind;
use lockstep_model::task::PullFrom;

use super::fleet::{Node, Scene, peer, principal};

/// A replica that may read from the scene's master.
async fn replica(scene: &Scene, name: &str) -> Node {
    let replica = Node::start(scene.dir.path(), name).await;
    scene.master.listen_to(name, principal(name, 1));
    replica.assign(replica.place(HopKind::Replica, &[])).await;
    replica
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_goes_from_the_upstream_to_the_master_and_on_to_a_replica() {
    let scene = Scene::new().await;
    let web1 = replica(&scene, "web1").await;
    let Scene { master, .. } = &scene;
    assert!(!master.report().filled);
    let first = master.pull(scene.spec(1, &[])).await;
    scene.assert_same(&master.tree());
    assert!(first.changed && first.exit_code == Some(0), "{first:?}");
    assert_eq!((first.entries, first.files, first.tree_bytes), (8, 4, 8), "{first:?}");
    assert!(master.report().filled && master.report().problem.is_empty());

    master.assign(master.place(HopKind::Upstream, &["web1"])).await;
    let from = || PullFrom::Agent(peer("master1"));
    let copied = web1.pull(web1.spec(1, from(), &[])).await;
    scene.assert_same(&web1.tree());
    assert!(copied.changed && copied.entries == 8, "{copied:?}");
    assert!(web1.report().filled);

    // What is the same is not told as changed, and a mode alone is.
    let same = master.pull(scene.spec(2, &[])).await;
    assert!(!same.changed && same.files == 0, "{same:?}");
    fs::set_permissions(scene.up("a"), fs::Permissions::from_mode(0o600)).unwrap();
    let mode = master.pull(scene.spec(2, &[])).await;
    assert!(mode.changed && mode.files == 0, "{mode:?}");
    fs::remove_file(scene.up("d/b")).unwrap();
    let gone = master.pull(scene.spec(3, &[])).await;
    assert_eq!((gone.changed, gone.deleted), (true, 1), "{gone:?}");
    let copied = web1.pull(web1.spec(3, from(), &[])).await;
    assert_eq!((copied.changed, copied.deleted), (true, 1), "{copied:?}");
    scene.assert_same(&web1.tree());
    // Nothing of a run is left beside the tree.
    for node in [master, &web1] {
        let names: Vec<_> =
            fs::read_dir(node.dest()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["fedora"]);
    }
    web1.end().await;
    scene.master.end().await;
}
