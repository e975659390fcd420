//! A mirror that gets another name keeps its tree and what is known of it.

use lockstep_model::MirrorName;
use lockstep_model::mirror::HopKind;
use lockstep_model::task::{MirrorPlace, MirrorRelease, OutcomeKind};

use super::fleet::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_with_another_name_is_filled_as_it_was() {
    let scene = Scene::new().await;
    let Scene { master, .. } = &scene;
    master.pull(scene.spec(1, &[])).await;

    let to = |name: &str| -> MirrorName { name.parse().unwrap() };
    let filled = |name: &str| {
        let reports = master.mirrors.reports().subscribe().borrow().clone();
        reports.get(&to(name)).map(|report| report.filled)
    };
    let old = master.place(HopKind::Upstream, &[]);
    // Nobody else comes into the tree.
    let other = MirrorPlace { mirror: to("other"), ..old.clone() };
    assert_eq!(master.mirrors.place(other).await.kind, OutcomeKind::Failed);

    let renamed =
        MirrorPlace { mirror: to("linux"), moved_from: Some(old.tree.clone()), ..old.clone() };
    master.assign(renamed.clone()).await;
    assert_eq!((filled("linux"), filled("fedora")), (Some(true), None));
    // Told again, and then told to let go of the old name: nothing changes.
    master.assign(renamed).await;
    let release = MirrorRelease { mirror: old.mirror.clone(), delete: Some(old.tree.clone()) };
    let released = master.mirrors.release(release, &Default::default()).await;
    assert_eq!(released.kind, OutcomeKind::Ok, "{released:?}");
    assert_eq!(filled("linux"), Some(true));
    scene.assert_same(&master.tree());
    scene.master.end().await;
}
