//! The policy's table against callers of every kind, and how each refusal reads.

use expect_test::expect;
use lockstep_model::identity::{Principal, Role, Subject};
use lockstep_model::request::{NodeAction, Request};

use super::dsl::{Lab, key};
use super::refusals::{check, enroll, for_user, set_disabled, token};
use crate::authorize::{Allow, POLICY, authorize};

#[test]
fn the_policy_lets_in_whom_it_says() {
    let mut lab = Lab::with_nodes(&["w1", "w2"]);
    for (name, role) in [("op", Role::Operator), ("own", Role::Owner), ("view", Role::Viewer)] {
        lab.ask(Request::AddUser { name: name.parse().unwrap(), role });
        lab.ask(token(name, for_user(name), 60_000));
        lab.ask(enroll(name, 2, key(name)));
    }
    let user = |name: &str, key_of: &str| Principal {
        subject: Subject::User(name.parse().unwrap()),
        key_hash: key(key_of),
    };
    let node = |name: &str, key_of: &str| Principal {
        subject: Subject::Node(name.parse().unwrap()),
        key_hash: key(key_of),
    };
    let callers = [
        None,
        Some(node("w1", "w1")),
        Some(user("view", "view")),
        Some(user("own", "own")),
        Some(user("op", "op")),
        Some(user("anna", "anna")),
    ];
    for (method, allow) in POLICY {
        let passed = callers.each_ref().map(|c| authorize(&lab.world, method, c.as_ref()).is_ok());
        let expected = match allow {
            Allow::Anyone => [true; 6],
            Allow::Known => [false, true, true, true, true, true],
            Allow::Node => [false, true, false, false, false, false],
            Allow::Viewer => [false, false, true, true, true, true],
            Allow::Owner => [false, false, false, true, true, true],
            Allow::Operator => [false, false, false, false, true, true],
            Allow::Admin => [false, false, false, false, false, true],
        };
        assert_eq!(passed, expected, "{method}");
    }

    lab.act("w2", NodeAction::Expel);
    lab.ask(set_disabled("view", true));
    let list = "/lockstep.v1.NodeService/ListNodes";
    let connect = "/lockstep.v1.AgentService/Connect";
    let refusals = [
        authorize(&lab.world, list, None),
        authorize(&lab.world, "/lockstep.v1.NodeService/Nonsense", Some(&user("anna", "anna"))),
        authorize(&lab.world, list, Some(&user("nobody", "nobody"))),
        authorize(&lab.world, list, Some(&user("view", "view"))),
        authorize(&lab.world, list, Some(&user("anna", "stolen"))),
        authorize(&lab.world, list, Some(&node("w1", "w1"))),
        authorize(&lab.world, connect, Some(&node("w9", "w9"))),
        authorize(&lab.world, connect, Some(&node("w1", "w9"))),
        authorize(&lab.world, connect, Some(&node("w2", "w2"))),
        authorize(&lab.world, connect, Some(&user("op", "op"))),
    ]
    .map(|answer| {
        let refusal = answer.unwrap_err();
        format!("{:?} {}: {refusal}", refusal.code, refusal.reason)
    });
    check(
        &refusals,
        expect![[r#"
        Unauthenticated no_certificate: a client certificate is needed: join with a token first
        PermissionDenied unknown_method: method lockstep.v1.NodeService/Nonsense does not exist here
        Unauthenticated unknown_user: user nobody is not known: an admin adds it with lockstepctl user add
        PermissionDenied user_disabled: user view is disabled: an admin can enable it
        Unauthenticated key_replaced: user anna has another key: ask an admin for a new token
        PermissionDenied not_allowed: lockstep.v1.NodeService/ListNodes is for the role viewer only, not for node/w1
        Unauthenticated unknown_node: node w9 is not known: join again with a new token
        Unauthenticated key_replaced: node w1 has another key: this certificate was replaced, or another machine has the name
        PermissionDenied node_expelled: node w2 was expelled: remove it (lockstepctl node remove w2) and join again
        PermissionDenied not_allowed: lockstep.v1.AgentService/Connect is for agents only, not for user/op, whose role is operator
    "#]],
    );
}
