//! What is refused of mirrors, and in which words; what is so already; who may do it.

use expect_test::expect;
use lockstep_model::identity::Role;
use lockstep_model::mirror::Trigger;
use lockstep_model::request::{MirrorChange, NewMirror, NodeAction, Request, SelectedChange};
use lockstep_model::setting::Value;
use lockstep_model::sync::Selected;

use super::{delete, new_mirror, rename, sync};
use crate::tests::dsl::{Lab, agent, create_sync, schedule, user};
use crate::tests::refusals::check;

fn update(mirror: &str, change: MirrorChange) -> Request {
    Request::UpdateMirror { mirror: mirror.parse().unwrap(), change }
}

fn selected(selector: &str, path: &str) -> Selected {
    Selected { selector: selector.parse().unwrap(), path: path.parse().unwrap() }
}

fn trigger(mirror: &str, by: Trigger) -> Request {
    match sync(mirror, &[]) {
        Request::SyncMirror { mirror, only, from, allow, .. } => {
            Request::SyncMirror { mirror, only, from, allow, trigger: by }
        }
        other => other,
    }
}

fn from(mirror: &str, node: &str, only: &[&str]) -> Request {
    match sync(mirror, only) {
        Request::SyncMirror { mirror, only, allow, trigger, .. } => {
            let from = Some(node.parse().unwrap());
            Request::SyncMirror { mirror, only, from, allow, trigger }
        }
        other => other,
    }
}

#[test]
fn snapshots_are_built_anew_and_never_written_into() {
    let mut lab = Lab::with_nodes(&["m", "r1"]);
    let with = |values: &[(&str, &str)]| {
        let values = [("publish", "snapshot")].iter().chain(values).copied().collect::<Vec<_>>();
        new_mirror("b", &["r1"], &values)
    };
    let own = |new: NewMirror| NewMirror { upstream: None, ..new };
    let mut refusals: Vec<String> = [
        with(&[("delete", "none")]),
        with(&[("replica-delete", "none")]),
        with(&[("rsync-option", "--inplace")]),
        with(&[("rsync-defaults", "-a --append-verify")]),
        with(&[("replica-rsync-option", "--ignore-non-existing")]),
        own(with(&[("delete", "none")])),
    ]
    .into_iter()
    .map(|new| lab.refusal(Request::CreateMirror(new)))
    .collect();
    // What was taken back is not meant, and the master of one without upstream pulls nothing.
    let taken_back = [("rsync-option", "--inplace"), ("rsync-option", "--no-inplace")];
    let fine = NewMirror { name: "d".parse().unwrap(), ..with(&taken_back) };
    lab.ask(Request::CreateMirror(fine));
    let mine = own(with(&[("delete", "none"), ("replica-delete", "after")]));
    lab.ask(Request::CreateMirror(mine));
    lab.ask(Request::CreateMirror(new_mirror("e", &["r1"], &[("delete", "none")])));
    let value = Value { name: "publish".to_owned(), text: "snapshot".to_owned() };
    let change = MirrorChange { values: vec![value], ..MirrorChange::default() };
    refusals.push(lab.refusal(update("e", change)));
    check(
        &refusals,
        expect![[r#"
        InvalidArgument invalid delete: delete: with publish=snapshot each tree is built anew, and entries that the other side does not have any more are lost: delete=after says so, publish=direct keeps them
        InvalidArgument invalid replica-delete: replica-delete: with publish=snapshot each tree is built anew, and entries that the other side does not have any more are lost: delete=after says so, publish=direct keeps them
        InvalidArgument invalid rsync option: rsync option: --inplace writes into files that older snapshots share: leave it away, or publish=direct
        InvalidArgument invalid rsync option: rsync option: --append-verify writes into files that older snapshots share: leave it away, or publish=direct
        InvalidArgument invalid replica-rsync-option: replica-rsync-option: --ignore-non-existing brings nothing into a new snapshot: leave it away, or publish=direct
        InvalidArgument invalid replica-delete: replica-delete: with publish=snapshot each tree is built anew, and entries that the other side does not have any more are lost: delete=after says so, publish=direct keeps them
        InvalidArgument invalid delete: delete: with publish=snapshot each tree is built anew, and entries that the other side does not have any more are lost: delete=after says so, publish=direct keeps them
    "#]],
    );
}

#[test]
fn definitions() {
    let mut lab = Lab::with_nodes(&["m", "r1", "r2"]);
    lab.join("gone");
    lab.act("gone", NodeAction::Expel);
    let new = |name: &str, replicas: &[&str]| new_mirror(name, replicas, &[]);
    lab.ask(Request::CreateMirror(new("fedora", &["r1"])));
    lab.ask(create_sync("web", "r2:/srv", &["r1:/srv/www"]));
    let place = |text: &str| vec![text.parse().unwrap()];
    let minutely = Some(schedule("minute=*"));
    let ssh = Some("ssh://u@h/pub".parse().unwrap());
    let user_up = Some("rsync://u@h/pub".parse().unwrap());
    let secret_up = Some("rsync://u@h/pub?password=x".parse().unwrap());
    let password = || Some(vec![1; 40]);
    let before = lab.world.revision();
    let refused = [
        new("fedora", &["r2"]),
        NewMirror { master: "nobody".parse().unwrap(), ..new("b", &[]) },
        NewMirror { master: "gone".parse().unwrap(), ..new("b", &[]) },
        new("b", &["nobody"]),
        new("b", &["gone"]),
        new("b", &["m"]),
        NewMirror {
            replicas: vec!["r1:/a".parse().unwrap(), "r1:/b".parse().unwrap()],
            ..new("b", &[])
        },
        // Into one tree, and below or above another's.
        NewMirror { dest: "/data/fedora".parse().unwrap(), ..new("b", &[]) },
        NewMirror { replicas: place("r1:/srv/www"), ..new("b", &[]) },
        NewMirror { selected: Some(selected("!x", "/srv/www")), ..new("b", &[]) },
        NewMirror { upstream: None, schedule: minutely.clone(), ..new("b", &[]) },
        NewMirror { upstream: None, password: password(), ..new("b", &[]) },
        NewMirror { upstream: ssh, password: password(), ..new("b", &[]) },
        NewMirror { upstream: secret_up, password: password(), ..new("b", &[]) },
        NewMirror { password: password(), ..new("b", &[]) },
        NewMirror { owner: Some("nobody".parse().unwrap()), ..new("b", &[]) },
    ];
    let mut refusals: Vec<String> =
        refused.into_iter().map(|new| lab.refusal(Request::CreateMirror(new))).collect();
    let none = MirrorChange::default;
    let value = |name: &str, text: &str| Value { name: name.to_owned(), text: text.to_owned() };
    for change in [
        MirrorChange { values: vec![value("speed", "1")], ..none() },
        MirrorChange { values: vec![value("attempts", "0")], ..none() },
        MirrorChange { replicas: Some(place("m:/data")), ..none() },
        MirrorChange { replicas: Some(place("r1:/srv/www")), ..none() },
        MirrorChange { password: Some(password()), ..none() },
        MirrorChange {
            replicas: Some(Vec::new()),
            selected: Some(SelectedChange::To(selected("!x", "/srv/www"))),
            ..none()
        },
    ] {
        refusals.push(lab.refusal(update("fedora", change)));
    }
    refusals.push(lab.refusal(update("nobody", none())));
    refusals.push(lab.refusal(rename("nobody", "x", false)));
    // A sync over what a mirror writes, and a node that a mirror needs.
    refusals.push(lab.refusal(create_sync("s", "r2:/x", &["r1:/data"])));
    assert_eq!(lab.world.revision(), before, "nothing was changed");
    lab.act("m", NodeAction::Disable);
    refusals.push(lab.refusal(Request::RemoveNode { node: "m".parse().unwrap() }));
    check(
        &refusals,
        expect![[r#"
            AlreadyExists already_exists mirror/fedora: mirror fedora exists: see lockstepctl mirror show fedora, change it with lockstepctl mirror update fedora, or choose another name
            NotFound not_found node/nobody: master: node nobody has not joined: make a token for it with lockstepctl token create --node nobody
            FailedPrecondition node_expelled node/gone: master: node gone was expelled: choose another
            NotFound not_found node/nobody: replicas: node nobody has not joined: make a token for it with lockstepctl token create --node nobody
            FailedPrecondition node_expelled node/gone: replicas: node gone was expelled: choose another
            InvalidArgument invalid replicas: replicas: m:/data: m is the master
            InvalidArgument invalid replicas: replicas: r1:/a and r1:/b: a node has one directory per mirror
            FailedPrecondition overlap mirror/fedora: m:/data/fedora/b overlaps m:/data/fedora, which mirror fedora writes: two may not write one directory; choose another
            FailedPrecondition overlap sync/web: r1:/srv/www/b overlaps r1:/srv/www, which sync web writes: two may not write one directory; choose another
            FailedPrecondition overlap sync/web: r1:/srv/www/b overlaps r1:/srv/www, which sync web writes: two may not write one directory; choose another
            InvalidArgument invalid schedule: schedule: there is no upstream to pull from: its owner says when it is ready (lockstepctl mirror ready); give an upstream, or no schedule
            InvalidArgument invalid password: password: is for an upstream, and there is none: give both or neither
            InvalidArgument invalid password: password: ssh takes a key and no password: add ?key=NAME to the upstream, a file of the secrets directory on the master
            InvalidArgument invalid password: password: the upstream names a password file of the master already: give one of the two
            InvalidArgument invalid upstream: upstream: rsync asks for a password only of a user: name it in the upstream, rsync://b@host/module
            NotFound not_found user/nobody: owner: user nobody is not known: lockstepctl user add nobody --role owner
            InvalidArgument invalid setting: setting: "speed" is unknown; there are rsync-defaults, rsync-option, delete, filter, further-upstream, replica-rsync-defaults, replica-rsync-option, replica-delete, replica-filter, run-timeout, io-timeout, connect-timeout, attempts, bwlimit, replica-bwlimit, nice, ionice, replicas-at-once, delete-limit, min-free, two-stage, late, quorum, stage-wait, publish, snapshots, address-family, proxy, trace, hook, replicas-from, rsyncd-module
            InvalidArgument invalid attempts: attempts: must be a number from 1 to 100
            InvalidArgument invalid replicas: replicas: m:/data: m is the master
            FailedPrecondition overlap sync/web: r1:/srv/www/fedora overlaps r1:/srv/www, which sync web writes: two may not write one directory; choose another
            InvalidArgument invalid upstream: upstream: rsync asks for a password only of a user: name it in the upstream, rsync://fedora@host/module
            FailedPrecondition overlap sync/web: r1:/srv/www/fedora overlaps r1:/srv/www, which sync web writes: two may not write one directory; choose another
            NotFound not_found mirror/nobody: mirror nobody does not exist: see lockstepctl mirror list
            NotFound not_found mirror/nobody: mirror nobody does not exist: see lockstepctl mirror list
            FailedPrecondition overlap mirror/fedora: r1:/data overlaps r1:/data/fedora, which mirror fedora writes: nothing may write a directory of another; choose another directory
            FailedPrecondition in_use node/m: node m is the master of mirror fedora: first lockstepctl mirror update fedora --master NODE names another, or lockstepctl mirror delete fedora
        "#]],
    );
    // What a mirror has may be read by a sync.
    lab.ask(create_sync("s", "m:/data", &["r2:/copy"]));
    // A password is for the host that it was given for.
    lab.ask(Request::CreateMirror(NewMirror {
        upstream: user_up,
        password: password(),
        ..new("p", &[])
    }));
    let other =
        MirrorChange { upstream: Some(Some("rsync://u@evil/pub".parse().unwrap())), ..none() };
    let moved = lab.refusal(update("p", other.clone()));
    lab.ask(update("p", MirrorChange { password: Some(None), ..other }));
    assert!(lab.world.secrets().is_empty());
    check(
        &[moved],
        expect![[r#"
        InvalidArgument invalid password: password: the upstream is another host: give the password for it, or none
    "#]],
    );
}

#[test]
fn what_is_so_already() {
    let mut lab = Lab::with_nodes(&["m", "r1", "r2"]);
    let new = || new_mirror("fedora", &["r1"], &[]);
    lab.ask(Request::CreateMirror(new()));
    let before = lab.world.revision();
    let name = || "fedora".parse().unwrap();
    let mut said = Vec::new();
    for request in [
        Request::CreateMirror(new()),
        update("fedora", MirrorChange::default()),
        rename("fedora", "fedora", true),
        Request::RescheduleMirror { mirror: name(), schedule: None },
        Request::SetMirrorEnabled { mirror: Some(name()), enabled: true },
        delete("nobody", true),
        delete("nobody", false),
    ] {
        said.push(lab.try_ask(request).unwrap().detail);
    }
    assert_eq!(lab.world.revision(), before);
    check(
        &said,
        expect![[r#"
        mirror fedora is just so already
        mirror fedora is just so already
        mirror fedora is called so already
        mirror fedora has just this schedule already
        mirror fedora is enabled already
        mirror nobody does not exist
        mirror nobody does not exist
    "#]],
    );
}

#[test]
fn runs() {
    let mut lab = Lab::with_nodes(&["m", "r1", "r2"]);
    lab.ask(Request::CreateMirror(new_mirror("fedora", &["r1"], &[])));
    let own = NewMirror { upstream: None, ..new_mirror("own", &["r1"], &[]) };
    lab.ask(Request::CreateMirror(own));
    lab.take_places();
    let ready = |name: &str| trigger(name, Trigger::Ready("anna".parse().unwrap()));
    let mut refusals = Vec::new();
    for request in [
        sync("nobody", &[]),
        sync("fedora", &["r2"]),
        sync("fedora", &["m"]),
        sync("fedora", &["r1"]),
        from("fedora", "r2", &[]),
        from("fedora", "r1", &[]),
        from("fedora", "r1", &["r1"]),
        trigger("fedora", Trigger::Cascade),
        ready("fedora"),
        sync("own", &[]),
    ] {
        refusals.push(lab.refusal(request));
    }
    lab.ask(Request::SetMirrorEnabled { mirror: Some("fedora".parse().unwrap()), enabled: false });
    refusals.push(lab.refusal(trigger("fedora", Trigger::Push("hook".to_owned()))));
    lab.ask(ready("own"));
    lab.ok("m");
    lab.ok("r1");
    // Asked by name it runs all the same, and goes to its replicas.
    lab.ask(sync("fedora", &[]));
    refusals.push(lab.refusal(rename("fedora", "linux", false)));
    lab.ok("m");
    lab.ok("r1");
    lab.act("m", NodeAction::Disable);
    refusals.push(lab.refusal(sync("fedora", &[])));
    check(
        &refusals,
        expect![[r#"
        NotFound not_found mirror/nobody: mirror nobody does not exist: see lockstepctl mirror list
        NotFound not_found mirror/fedora/r2: node r2 is no replica of mirror fedora: see lockstepctl mirror show fedora
        NotFound not_found mirror/fedora/m: node m is no replica of mirror fedora: see lockstepctl mirror show fedora
        FailedPrecondition no_tree mirror/fedora: the master m has no complete tree yet: lockstepctl mirror sync fedora first
        NotFound not_found mirror/fedora/r2: node r2 is no replica of mirror fedora: see lockstepctl mirror show fedora
        FailedPrecondition no_tree mirror/fedora/r1: r1 has no complete tree: choose another replica, or add --allow empty if what it has is all there is
        InvalidArgument invalid from: from: cannot be given with --only: the master pulls from it, and no replica does
        InvalidArgument invalid trigger: trigger: is not for anybody to ask for
        FailedPrecondition has_upstream mirror/fedora: mirror fedora comes from rsync://up.example.org:873/fedora: lockstepctl mirror sync fedora pulls from there
        FailedPrecondition no_upstream mirror/own: mirror own has no upstream: when its tree is complete, say so with lockstepctl mirror ready own; --only NODE brings single replicas up to date
        FailedPrecondition disabled mirror/fedora: mirror fedora is disabled: lockstepctl mirror enable fedora first
        FailedPrecondition running mirror/fedora: run fedora/1 is under way on m: wait for its end, or cancel it (lockstepctl mirror runs fedora shows its task)
        FailedPrecondition wrong_state node/m: node m is disabled: enable it first
    "#]],
    );
}

#[test]
fn owners_do_as_they_like_with_what_is_theirs() {
    let mut lab = Lab::with_nodes(&["m", "r1"]);
    for (name, role) in [
        ("olga", Role::Owner),
        ("otto", Role::Owner),
        ("vera", Role::Viewer),
        ("oper", Role::Operator),
    ] {
        lab.ask(Request::AddUser { name: name.parse().unwrap(), role });
    }
    let owner = Some("olga".parse().unwrap());
    lab.ask(Request::CreateMirror(NewMirror { owner, ..new_mirror("fedora", &["r1"], &[]) }));
    let name = || "fedora".parse().unwrap();
    let none = MirrorChange::default;
    let value = Value { name: "nice".to_owned(), text: "5".to_owned() };
    let requests = [
        update("fedora", MirrorChange { values: vec![value], ..none() }),
        update("fedora", MirrorChange { dest: Some("/more".parse().unwrap()), ..none() }),
        Request::RescheduleMirror { mirror: name(), schedule: Some(schedule("hour=*")) },
        Request::SetMirrorEnabled { mirror: Some(name()), enabled: false },
        sync("fedora", &[]),
        trigger("fedora", Trigger::Push("hook".to_owned())),
        delete("fedora", false),
    ];
    let mut shown = Vec::new();
    let anonymous = lockstep_model::record::Actor::Anonymous;
    for who in [user("olga"), user("otto"), user("vera"), user("oper"), agent("m"), anonymous] {
        let may = requests.iter().map(|request| {
            let answer = crate::admit::admit(&lab.world, &who, request, lab.now);
            answer.map_or_else(|refusal| refusal.reason, |_| "ok")
        });
        shown.push(format!("{who}: {}", may.collect::<Vec<_>>().join(" ")));
    }
    check(
        &shown,
        expect![[r#"
            user/olga: ok not_allowed ok ok ok ok ok
            user/otto: not_yours not_yours not_yours not_yours not_yours not_yours not_yours
            user/vera: not_yours not_yours not_yours not_yours not_yours not_yours not_yours
            user/oper: ok ok ok ok ok ok ok
            node/m: not_yours not_yours not_yours not_yours not_yours not_yours not_yours
            anonymous: not_yours not_yours not_yours not_yours not_yours not_yours not_yours
        "#]],
    );
    // What is not theirs is left alone.
    lab.ask(Request::CreateMirror(new_mirror("debian", &["r1"], &[])));
    let all = Request::SetMirrorEnabled { mirror: None, enabled: false };
    let switched = [user("olga"), user("otto"), user("oper")].map(|who| {
        let admitted = crate::admit::admit(&lab.world, &who, &all, lab.now).unwrap();
        format!("{who}: {}, {} writes", admitted.detail, admitted.writes.len())
    });
    check(
        &switched,
        expect![[r#"
            user/olga: 1 mirror is disabled now, 1 writes
            user/otto: all mirrors are disabled already, 0 writes
            user/oper: 2 mirrors are disabled now, 2 writes
        "#]],
    );
}
