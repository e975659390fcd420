//! What is refused, and in which words; what is so already; what a repeated request gets.

use expect_test::{Expect, expect};
use lockstep_model::identity::{Role, TokenFor};
use lockstep_model::request::{NodeAction, Request};
use lockstep_model::sync::SyncOptions;
use lockstep_model::task::Outcome;
use lockstep_model::{Incarnation, KeyHash, Millis, Revision};

use super::dsl::{Lab, add_targets, agent, create_sync, key, remove_targets, resync, user};
use crate::admit::{Conditions, admit_once};

pub(super) fn check(refusals: &[String], expected: Expect) {
    expected.assert_eq(&(refusals.join("\n") + "\n"));
}

fn change(node: &str, action: NodeAction) -> Request {
    Request::ChangeNode { node: node.parse().unwrap(), action }
}

pub(super) fn token(id: &str, grants: TokenFor, ttl_ms: u64) -> Request {
    Request::CreateToken {
        id: id.parse().unwrap(),
        secret_sha256: [2; 32],
        grants,
        ttl: Millis(ttl_ms),
    }
}

pub(super) fn for_node(name: &str) -> TokenFor {
    TokenFor::Node { name: name.parse().unwrap(), labels: Default::default() }
}

pub(super) fn for_user(name: &str) -> TokenFor {
    TokenFor::User { name: name.parse().unwrap() }
}

pub(super) fn enroll(token: &str, secret: u8, key_hash: KeyHash) -> Request {
    Request::Enroll { token: token.parse().unwrap(), secret_sha256: [secret; 32], key_hash }
}

fn set_role(name: &str, role: Role) -> Request {
    Request::SetUserRole { name: name.parse().unwrap(), role }
}

pub(super) fn set_disabled(name: &str, disabled: bool) -> Request {
    Request::SetUserDisabled { name: name.parse().unwrap(), disabled }
}

#[test]
fn syncs() {
    let mut lab = Lab::with_nodes(&["m", "w1", "w2", "w3"]);
    lab.join("gone");
    lab.act("gone", NodeAction::Expel);
    lab.ask(create_sync("a", "m:/srv/www", &["w1:/srv/www"]));
    let slow = SyncOptions { delay: Millis(1500), ..SyncOptions::default() };
    let mut with_options = create_sync("b", "m:/x", &["w1:/x"]);
    if let Request::CreateSync { options, .. } = &mut with_options {
        *options = slow;
    }
    let requests = [
        create_sync("a", "m:/srv/www", &["w2:/srv/www"]),
        create_sync("b", "nobody:/x", &["w1:/x"]),
        create_sync("b", "m:/x", &["gone:/x"]),
        create_sync("b", "m:/x", &[]),
        create_sync("b", "m:/x", &["w1:/x", "m:/y"]),
        create_sync("b", "m:/x", &["w1:/x", "w1:/y"]),
        // Written by a, read by b: a chain, and with a third a loop.
        create_sync("b", "w1:/srv/www/sub", &["w2:/x"]),
        create_sync("b", "w2:/x", &["m:/srv"]),
        create_sync("b", "w2:/x", &["w1:/srv/www"]),
        with_options,
        add_targets("a", &["w1:/other"]),
        add_targets("a", &[]),
        add_targets("b", &["w1:/other"]),
        remove_targets("a", &["w2"]),
        resync("a", &["w2"]),
        Request::DeleteSync { sync: "b".parse().unwrap() },
    ];
    check(
        &requests.map(|request| lab.refusal(request)),
        expect![[r#"
            AlreadyExists already_exists sync/a: sync a exists and differs: see lockstepctl sync show a, change it with lockstepctl sync update a, or choose another name
            NotFound not_found node/nobody: source: node nobody has not joined: make a token for it with lockstepctl token create --node nobody
            FailedPrecondition node_expelled node/gone: targets: node gone was expelled: choose another
            InvalidArgument invalid targets: targets: must name at least one node:/path, or select nodes by label
            InvalidArgument invalid targets[1]: targets[1]: m is the source: a sync is between different nodes
            InvalidArgument invalid targets[1]: targets[1]: w1:/y: w1:/x is a target already, and a node has one directory per sync; remove the old one first
            FailedPrecondition overlap sync/a: w1:/srv/www/sub overlaps w1:/srv/www, which sync a writes: nothing may write a directory of another; choose another directory
            FailedPrecondition overlap sync/a: m:/srv overlaps m:/srv/www, which sync a reads: nothing may write a directory of another; choose another directory
            FailedPrecondition overlap sync/a: w1:/srv/www overlaps w1:/srv/www, which sync a writes: nothing may write a directory of another; choose another directory
            InvalidArgument invalid delay: delay: must be whole seconds
            InvalidArgument invalid targets[0]: targets[0]: w1:/other: w1:/srv/www is a target already, and a node has one directory per sync; remove the old one first
            InvalidArgument invalid targets: targets: must name at least one node:/path
            NotFound not_found sync/b: sync b does not exist: see lockstepctl sync list
            NotFound not_found sync/a/w2: node w2 is no target of sync a: see lockstepctl sync show a
            NotFound not_found sync/a/w2: node w2 is no target of sync a: see lockstepctl sync show a
            NotFound not_found sync/b: sync b does not exist: see lockstepctl sync list
        "#]],
    );
    let admitted = [
        create_sync("a", "m:/srv/www", &["w1:/srv/www"]),
        add_targets("a", &["w1:/srv/www"]),
        create_sync("c", "m:/srv", &["w2:/srv"]),
        create_sync("d", "m:/srv/www2", &["w1:/srv/www2"]),
    ];
    check(
        &admitted.map(|request| lab.ask(request).detail),
        expect![[r#"
            sync a is just so already
            sync a has these targets already
            sync c created: m:/srv to w2
            sync d created: m:/srv/www2 to w1
        "#]],
    );
}

#[test]
fn nodes() {
    let mut lab = Lab::with_nodes(&["m", "w1", "w2", "spare"]);
    lab.ask(create_sync("a", "m:/srv", &["w1:/srv"]));
    lab.act("m", NodeAction::Disable);
    lab.act("w1", NodeAction::Expel);
    lab.act("w2", NodeAction::Drain);
    let label = |set: &str, remove: &str| Request::LabelNode {
        node: "m".parse().unwrap(),
        set: vec![(set.parse().unwrap(), "1".to_owned())],
        remove: vec![remove.parse().unwrap()],
    };
    let remove = |node: &str| Request::RemoveNode { node: node.parse().unwrap() };
    let requests = [
        change("nobody", NodeAction::Drain),
        change("m", NodeAction::Drain),
        change("m", NodeAction::Resume),
        change("w1", NodeAction::Enable),
        change("w2", NodeAction::Enable),
        remove("m"),
        remove("w1"),
        remove("w2"),
        label("rack", "rack"),
    ];
    check(
        &requests.map(|request| lab.refusal(request)),
        expect![[r#"
            NotFound not_found node/nobody: node nobody does not exist: see lockstepctl node list
            FailedPrecondition wrong_state node/m: cannot drain node m, which is disabled: enable it first
            FailedPrecondition wrong_state node/m: cannot resume node m, which is disabled: enable it first
            FailedPrecondition wrong_state node/w1: cannot enable node w1, which is expelled: that is final; remove it, then join again with a new token
            FailedPrecondition wrong_state node/w2: cannot enable node w2, which is draining: resume it
            FailedPrecondition in_use node/m: node m is the source of sync a: first lockstepctl sync delete a
            FailedPrecondition in_use node/w1: node w1 is a target of sync a: first lockstepctl sync remove-target a w1
            FailedPrecondition wrong_state node/w2: node w2 is draining: disable or expel it first
            InvalidArgument invalid labels: labels: rack is set and removed at once
        "#]],
    );
    let admitted = [
        change("m", NodeAction::Disable),
        change("w1", NodeAction::Expel),
        change("m", NodeAction::Enable),
        label("rack", "old"),
        label("rack", "old"),
        change("spare", NodeAction::Disable),
        remove("spare"),
    ];
    check(
        &admitted.map(|request| lab.ask(request).detail),
        expect![[r#"
        node m is disabled already
        node w1 is expelled already
        node m is enabled
        labels of node m changed
        node m has these labels already
        node spare is disabled
        node spare removed
    "#]],
    );
}

#[test]
fn tokens() {
    let mut lab = Lab::with_nodes(&["w1", "w2"]);
    lab.act("w2", NodeAction::Expel);
    lab.ask(Request::AddUser { name: "bob".parse().unwrap(), role: Role::Viewer });
    lab.ask(Request::AddUser { name: "eve".parse().unwrap(), role: Role::Viewer });
    lab.ask(set_disabled("eve", true));
    lab.ask(token("t1", for_node("w3"), 60_000));
    lab.ask(token("t2", for_node("w3"), 60_000));
    lab.ask(token("t3", for_user("bob"), 1_000));
    let requests = [
        token("t4", for_node("w1"), 60_000),
        token("t4", for_node("w2"), 60_000),
        token("t4", for_user("carol"), 60_000),
        token("t4", for_user("eve"), 60_000),
        token("t4", for_node("w4"), 999),
        token("t4", for_node("w4"), 86_400_001),
        token("t1", for_node("w4"), 60_000),
        Request::DeleteToken { id: "t4".parse().unwrap() },
        enroll("t4", 2, key("w3")),
        enroll("t1", 3, key("w3")),
        enroll("t1", 2, key("w1")),
        enroll("t1", 2, key("anna")),
    ];
    check(
        &requests.map(|request| lab.refusal(request)),
        expect![[r#"
            AlreadyExists node_exists node/w1: node w1 has joined already: choose another name, or to replace the machine: lockstepctl node expel w1, then node remove w1
            AlreadyExists node_exists node/w2: node w2 has joined already: free the name with lockstepctl node remove w2
            NotFound not_found user/carol: user carol does not exist: see lockstepctl user list
            FailedPrecondition user_disabled user/eve: user eve is disabled: enable it first
            InvalidArgument invalid ttl: ttl: must be 1s to 1d0h, not 999 ms
            InvalidArgument invalid ttl: ttl: must be 1s to 1d0h, not 86400001 ms
            AlreadyExists already_exists token/t1: token t1 exists: draw another id
            NotFound not_found token/t4: token t4 does not exist: see lockstepctl token list
            Unauthenticated token_unknown token/t4: the token is not known: it was mistyped, deleted, or expired long ago; ask an admin for a new one
            Unauthenticated token_unknown token/t1: the token is not known: it was mistyped, deleted, or expired long ago; ask an admin for a new one
            AlreadyExists key_in_use node/w1: the key belongs to node/w1: each node and user needs its own; was the state directory copied? Start with an empty one
            AlreadyExists key_in_use user/anna: the key belongs to user/anna: each node and user needs its own; was the state directory copied? Start with an empty one
        "#]],
    );

    lab.ask(enroll("t1", 2, key("w3")));
    let again = lab.ask(enroll("t1", 2, key("w3")));
    assert_eq!(again.writes, []);
    lab.pass(1);
    let requests =
        [enroll("t1", 2, key("other")), enroll("t2", 2, key("other")), enroll("t3", 2, key("bob"))];
    check(
        &requests.map(|request| lab.refusal(request)),
        expect![[r#"
        Unauthenticated token_used token/t1: the token was used by another key: ask an admin for a new one
        AlreadyExists node_exists node/w3: node w3 has joined already: choose another name, or to replace the machine: lockstepctl node expel w3, then node remove w3
        Unauthenticated token_expired token/t3: the token expired at 2026-11-21T00:00:01Z: ask an admin for a new one
    "#]],
    );

    lab.act("w3", NodeAction::Expel);
    check(
        &[lab.refusal(enroll("t1", 2, key("w3")))],
        expect![[r#"
        PermissionDenied node_expelled node/w3: node w3 was expelled: remove it (lockstepctl node remove w3) and join again
    "#]],
    );
    lab.pass(60 + 3600 + 60);
    assert!(lab.world.tokens().keys().all(|id| id.as_str().starts_with("t-")), "pruned");
}

#[test]
fn users() {
    let mut lab = Lab::new();
    lab.ask(Request::AddUser { name: "bob".parse().unwrap(), role: Role::Admin });
    let requests = [
        set_role("anna", Role::Viewer),
        set_disabled("anna", true),
        set_role("carol", Role::Viewer),
        Request::AddUser { name: "bob".parse().unwrap(), role: Role::Viewer },
    ];
    check(
        &requests.map(|request| lab.refusal(request)),
        expect![[r#"
            FailedPrecondition last_admin user/anna: user anna is the last admin who can call: make another first
            FailedPrecondition last_admin user/anna: user anna is the last admin who can call: make another first
            NotFound not_found user/carol: user carol does not exist: see lockstepctl user list
            AlreadyExists already_exists user/bob: user bob exists, enabled, with the role admin: change that instead
        "#]],
    );
    lab.ask(token("t", for_user("bob"), 60_000));
    lab.ask(enroll("t", 2, key("bob")));
    lab.ask(set_role("anna", Role::Viewer));
    check(
        &[lab.refusal(set_disabled("bob", true))],
        expect![[r#"
        FailedPrecondition last_admin user/bob: user bob is the last admin who can call: make another first
    "#]],
    );
}

#[test]
fn tasks() {
    let mut lab = Lab::with_nodes(&["m", "w1"]);
    lab.ask(create_sync("a", "m:/srv", &["w1:/srv"]));
    let mine = lab.world.tasks_of(&"m".parse().unwrap()).next().unwrap().value.id;
    let end = |node: &str, id| Request::EndTask {
        node: node.parse().unwrap(),
        id,
        outcome: Outcome::ok(),
    };
    let forged = lab.ask_as(&agent("w1"), end("m", mine)).unwrap_err();
    let stolen = lab.ask_as(&agent("w1"), end("w1", mine)).unwrap_err();
    let by_user = lab.ask_as(&user("anna"), end("m", mine)).unwrap_err();
    let unknown = "9.9".parse().unwrap();
    let refusals = [
        forged.to_string(),
        stolen.to_string(),
        by_user.to_string(),
        lab.refusal(Request::CancelTask { id: mine }),
        lab.refusal(Request::CancelTask { id: unknown }),
    ];
    check(
        &refusals,
        expect![[r#"
        node/w1 may not speak for node m
        task 9.0 is not one of node w1
        user/anna may not speak for node m
        FailedPrecondition not_cancellable task/9.0: task 9.0 brings sync/a in force on node m: change that instead; the planner would only give it again
        NotFound not_found task/9.9: task 9.9 does not exist: see lockstepctl task list
    "#]],
    );
    let details =
        [unknown, mine, mine].map(|id| lab.ask_as(&agent("m"), end("m", id)).unwrap().detail);
    check(
        &details,
        expect![[r#"
        task 9.9 is forgotten
        task 9.0 ended: ok
        task 9.0 ended already: ok
    "#]],
    );
    assert_eq!(
        lab.try_ask(Request::AdoptStore { incarnation: Incarnation(9) }).unwrap().writes,
        []
    );
}

#[test]
fn a_request_id_is_carried_out_once() {
    let mut lab = Lab::with_nodes(&["m", "w1"]);
    lab.ask(create_sync("a", "m:/srv", &["w1:/srv"]));
    let request = resync("a", &[]);
    let conditions =
        Conditions { request_id: Some("r1".parse().unwrap()), ..Conditions::default() };
    let send = |lab: &mut Lab, who: &str, cause: &str| {
        let who = user(who);
        let admitted = admit_once(&lab.world, &who, cause, &conditions, &request, lab.now)?;
        if let Some(txn) = admitted.txn(&lab.world, lab.now, &who, cause) {
            lab.commit(txn);
        }
        lab.settle();
        Ok::<_, lockstep_model::Reject>(admitted)
    };
    assert!(!send(&mut lab, "anna", "S/Resync").unwrap().repeated);
    lab.work(&["m"]);
    let again = send(&mut lab, "anna", "S/Resync").unwrap();
    assert!(again.repeated && again.writes.is_empty());
    let refusals = [
        send(&mut lab, "anna", "S/Other").unwrap_err().to_string(),
        send(&mut lab, "bob", "S/Resync").unwrap_err().to_string(),
    ];
    check(
        &refusals,
        expect![[r#"
        request id r1 was used for S/Resync by user/anna before: make a new one per request
        request id r1 was used for S/Resync by user/anna before: make a new one per request
    "#]],
    );
    lab.pass(24 * 3600 + 60);
    assert!(!send(&mut lab, "anna", "S/Resync").unwrap().repeated, "forgotten after a day");
}

#[test]
fn a_condition_on_the_revision_holds() {
    let mut lab = Lab::with_nodes(&["m", "w1", "w2"]);
    lab.ask(create_sync("a", "m:/srv", &["w1:/srv"]));
    let seen = lab.world.syncs()[&"a".parse().unwrap()].revision;
    let send = |lab: &mut Lab, request: Request, revision: Revision| {
        let conditions = Conditions { if_revision: Some(revision), ..Conditions::default() };
        let admitted = admit_once(&lab.world, &user("anna"), "x", &conditions, &request, lab.now)?;
        lab.commit(admitted.txn(&lab.world, lab.now, &user("anna"), "x").unwrap());
        Ok::<_, lockstep_model::Reject>(())
    };
    send(&mut lab, add_targets("a", &["w2:/srv"]), seen).unwrap();
    let refusals = [
        send(&mut lab, remove_targets("a", &["w1"]), seen).unwrap_err().to_string(),
        send(&mut lab, create_sync("b", "m:/b", &["w1:/b"]), seen).unwrap_err().to_string(),
        send(&mut lab, remove_targets("b", &["w1"]), seen).unwrap_err().to_string(),
    ];
    check(
        &refusals,
        expect![[r#"
        sync/a is at revision 13, not at 11: read it again and decide anew
        sync/b does not exist, not at 11: read it again and decide anew
        sync b does not exist: see lockstepctl sync list
    "#]],
    );
}
