//! How a machine becomes a node, and how it stops being one: tokens, reboots, drains, expulsion.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_proto::v1::{self, NodeAdmin, NodeHealth};
use lockstep_tests::fleet::{AGENT_HEALTH_PORT, CONTROLLER_PORT};
use lockstep_tests::{Flags, Fleet, Net, Proc, cmd, until};

const SOON: Duration = Duration::from_secs(90);

fn names(fleet: &Fleet, selector: &str) -> Result<Vec<String>> {
    let list: v1::ListNodesResponse = fleet.ask(&["node", "list", "--selector", selector])?;
    Ok(list.nodes.into_iter().map(|node| node.name).collect())
}

#[test]
fn a_machine_joins_with_a_token_and_is_administered() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["web2"])?;
    let create =
        ["token", "create", "--node", "web1", "--label", "role=webhead", "--label", "rack=r1"];
    let token = fleet.ctl(&create)?.ok()?;
    let host = net.host("web1")?;
    let said = fleet.join(&host, &token)?;
    assert!(said.status.success(), "{said}");
    fleet.run_agent(host)?;

    let node = fleet.wait_health("web1", NodeHealth::Healthy);
    assert_eq!(node.admin(), NodeAdmin::Enabled);
    until(SOON, "its tools are known", || -> Result<()> {
        let node: v1::Node = fleet.ask(&["node", "show", "web1"])?;
        let report = node.report.unwrap_or_default();
        let has = |tool: &str, version: &str| {
            report.tools.iter().any(|t| t.name == tool && t.version.starts_with(version))
        };
        ensure!(has("rsync", "3.") && has("lsyncd", "2."), "{report:?}");
        Ok(())
    });
    let ip = fleet.node("web1")?.host.ip().to_string();
    assert!(node.addresses.iter().any(|a| a.contains(&ip)), "{:?}", node.addresses);

    fleet.wait_healthy(&["web2"]);
    assert_eq!(names(&fleet, "role=webhead")?, ["web1"]);
    assert_eq!(names(&fleet, "!role")?, ["web2"]);
    fleet.ctl(&["node", "label", "web1", "rack-", "zone=a"])?.ok()?;
    assert_eq!(names(&fleet, "zone=a,!rack,role!=db")?, ["web1"]);
    assert!(fleet.ctl(&["node", "list", "--selector", "a==b"])?.refused()?.contains("label value"));

    let pong: v1::PingNodeResponse = fleet.ask(&["node", "ping", "web1"])?;
    assert!(pong.round_trip_us > 0);
    assert_eq!(fleet.ctl(&["node", "ping", "web1", "--count", "3"])?.ok()?.lines().count(), 3);

    for (verb, admin) in [
        ("drain", NodeAdmin::Draining),
        ("resume", NodeAdmin::Enabled),
        ("disable", NodeAdmin::Disabled),
        ("enable", NodeAdmin::Enabled),
    ] {
        let node: v1::Node = fleet.ask(&["node", verb, "web1"])?;
        assert_eq!(node.admin(), admin, "{verb}");
        let again = fleet.ctl(&["node", verb, "web1"])?;
        assert!(again.status.success() && again.stderr.contains("nothing to change"), "{again}");
    }
    Ok(())
}

#[test]
fn a_token_lets_one_machine_in_once() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &[])?;
    let host = net.host("web1")?;
    let token = fleet.token("web1")?;
    let parts: Vec<&str> = token.split('.').collect();
    let [prefix, id, secret, root] = parts.as_slice() else { panic!("not a token: {token}") };

    let forged = |secret: &str, root: &str| format!("{prefix}.{id}.{secret}.{root}");
    // Two of the last letter's bits must be 0, as A's and E's are.
    let other_secret: String = secret.chars().map(|c| if c == 'A' { 'E' } else { 'A' }).collect();
    let other_root: String = root.chars().map(|c| if c == '0' { '1' } else { '0' }).collect();
    let expired = fleet.ctl(&["token", "create", "--node", "web9", "--ttl", "1s"])?.ok()?;
    let deleted = fleet.token("web8")?;
    let id = deleted.split('.').nth(1).unwrap_or_default();
    fleet.ctl(&["token", "delete", id])?.ok()?;
    fleet.ctl(&["user", "add", "anna", "--role", "viewer"])?.ok()?;
    let for_user = fleet.ctl(&["token", "create", "--user", "anna"])?.ok()?;
    until(SOON, "a token of one second is over", || -> Result<()> {
        let list = fleet.ctl(&["token", "list"])?.ok()?;
        let line = list.lines().find(|line| line.contains("node/web9")).unwrap_or("gone");
        ensure!(line == "gone" || line.contains("passed"), "{line}");
        Ok(())
    });

    for (what, token, says) in [
        ("wrong secret", forged(&other_secret, root), "not known"),
        ("wrong root", forged(secret, &other_root), "not to be trusted"),
        ("cut", token[..token.len() - 3].to_owned(), "token"),
        ("empty", String::new(), "token"),
        ("expired", expired.clone(), "expired"),
        ("deleted", deleted.clone(), "not known"),
        ("of a user", for_user.clone(), "for a user"),
    ] {
        let said = fleet.join(&host, &token)?.refused()?;
        assert!(said.contains(says), "{what}: {said}");
        assert!(!said.contains(secret), "{what}: a refusal shows no secret");
    }

    // A token in the wrong hands is not used up by that.
    let login = |token: &str| {
        let mut ctl = fleet.ctl_command();
        let at = fleet.controller.host.at(CONTROLLER_PORT).to_string();
        ctl.args(["login", "--name", "anna", "--controller", &at, "--token", "-"]);
        fleet.controller.host.run_with(&mut ctl, token)
    };
    let said = login(&token)?.refused()?;
    assert!(said.contains("for a node"), "{said}");
    login(&for_user)?.ok()?;
    fleet.ctl(&["context", "use", "test"])?.ok()?;

    // None of that made a node, or used the token up; the same machine may even ask twice.
    fleet.join(&host, &token)?.ok()?;
    let second = net.host("web2")?;
    let said = fleet.join(&second, &token)?.refused()?;
    assert!(said.contains("used"), "{said}");
    let said = fleet.ctl(&["token", "create", "--node", "web1"])?.refused()?;
    assert!(said.contains("node web1 has joined already"), "{said}");
    let said = fleet.join(&host, &token)?.refused()?;
    assert!(said.contains("--replace"), "{said}");
    let list: v1::ListNodesResponse = fleet.ask(&["node", "list"])?;
    assert_eq!(list.nodes.len(), 1);
    Ok(())
}

#[test]
fn a_second_agent_with_the_same_key_is_refused() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["web1"])?;
    fleet.wait_healthy(&["web1"]);
    let copy = net.host("copy")?;
    let from = fleet.node("web1")?.host.path("data");
    copy.run(cmd("cp").arg("-a").arg(&from).arg(copy.path("data")))?.ok()?;
    // The copied configuration may name the address of the first machine.
    let mut second = copy.spawn(
        cmd(fleet.bins().agent())
            .args(["run", "--data-dir"])
            .arg(copy.path("data"))
            .args(["--listen", &copy.at(7402).to_string()]),
    )?;
    until(SOON, "the copy is refused", || says(&mut second, "an agent of node web1 is connected"));
    let pong: v1::PingNodeResponse = fleet.ask(&["node", "ping", "web1"])?;
    assert!(pong.round_trip_us > 0, "the first one stays");
    Ok(())
}

fn says(daemon: &mut Proc, text: &str) -> Result<(), String> {
    let log = daemon.log();
    if log.contains(text) { Ok(()) } else { Err(log) }
}

#[test]
fn a_node_comes_back_after_a_reboot() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["web1"])?;
    fleet.wait_healthy(&["web1"]);
    let host = fleet.node("web1")?.host.clone();
    host.power_off()?;
    // Nobody told the controller: only silence does.
    let node = fleet.wait_health("web1", NodeHealth::Unavailable);
    assert!(!node.health_reason.is_empty());
    let said = fleet.ctl(&["node", "ping", "web1"])?.refused()?;
    assert!(said.contains("not connected"), "{said}");
    host.power_on()?;
    fleet.run_agent(host)?;
    fleet.wait_healthy(&["web1"]);
    Ok(())
}

#[test]
fn an_expelled_node_is_cut_off_at_once_and_may_join_anew() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    fleet.sync_www("master1", &["web1", "web2"])?;

    // A transfer that takes minutes is under way when the node is expelled.
    let web1 = fleet.node("web1")?.host.clone();
    web1.rate(Some(2_000_000))?;
    fs::write(fleet.www("master1")?.join("large"), vec![7; 64 << 20])?;
    until(SOON, "rsync writes on web1", || web1.pids().is_ok_and(|pids| pids.len() > 1));
    fleet.ctl(&["node", "expel", "web1", "--yes"])?.ok()?;
    until(Duration::from_secs(10), "the transfer is ended", || {
        let pids = web1.pids().map_err(|e| e.to_string())?;
        if pids.len() == 1 { Ok(()) } else { Err(format!("{pids:?}")) }
    });
    web1.rate(None)?;
    assert!(!fs::exists(fleet.www("web1")?.join("large"))?);
    let node: v1::Node = fleet.ask(&["node", "show", "web1"])?;
    assert_eq!(node.admin(), NodeAdmin::Expelled);
    assert_ne!(node.health(), NodeHealth::Healthy);
    assert!(fleet.node("web1")?.status("/sync/www") != 200);

    // Its certificate is refused from then on, also for a fresh start of the agent.
    fleet.restart_agent("web1")?;
    let member = fleet.node_mut("web1")?;
    until(SOON, "it hears why", || says(&mut member.daemon, "expelled"));
    assert!(fleet.ctl(&["node", "ping", "web1"])?.refused()?.contains("not connected"));
    // And the others go on, also by its name's last wish.
    fleet.wait_arrives("master1", &["web2"], "after")?;
    assert!(!fs::exists(fleet.www("web1")?.join("after"))?);
    let explained = fleet.ctl(&["explain", "sync/www"])?.ok()?;
    assert!(explained.contains("node_expelled"), "{explained}");

    // Gone, and back under the same name with a new key.
    let said = fleet.ctl(&["node", "remove", "web1", "--yes"])?.refused()?;
    assert!(said.contains("remove-target"), "{said}");
    fleet.ctl(&["sync", "remove-target", "www", "web1"])?.ok()?;
    fleet.ctl(&["node", "remove", "web1", "--yes"])?.ok()?;
    let node = fleet.node_mut("web1")?;
    node.daemon.kill()?;
    let token = fleet.token("web1")?;
    let mut join = fleet.join_command(&web1);
    web1.run_with(join.arg("--replace"), &token)?.ok()?;
    fleet.run_agent(web1)?;
    fleet.wait_healthy(&["web1"]);
    let place = fleet.place("web1")?;
    fleet.ctl(&["sync", "add-target", "www", &place, "--wait"])?.ok()?;
    fleet.wait_in_step("master1", &["web1", "web2"]);
    Ok(())
}

#[test]
fn users_have_roles_and_lose_them() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["web1"])?;
    fleet.wait_healthy(&["web1"]);
    let desk = net.host("desk")?;
    let token = fleet.ctl(&["user", "add", "anna", "--role", "viewer"])?.ok()?;
    let as_anna = || {
        let mut ctl = cmd(fleet.bins().ctl());
        ctl.env("LOCKSTEP_CONFIG_DIR", desk.path("ctl"));
        ctl
    };
    let controller = fleet.controller.host.at(CONTROLLER_PORT).to_string();
    let login = ["login", "--controller", &controller, "--token", "-"];
    desk.run_with(as_anna().args(login), &token)?.ok()?;
    assert!(desk.run(as_anna().args(["node", "list"]))?.ok()?.contains("web1"));

    let denied = desk.run(as_anna().args(["node", "drain", "web1"]))?;
    assert_eq!(denied.status.code(), Some(4), "{denied}");
    assert!(denied.stderr.contains("anna"), "{denied}");
    fleet.ctl(&["user", "role", "anna", "operator"])?.ok()?;
    desk.run(as_anna().args(["node", "drain", "web1"]))?.ok()?;
    assert!(
        desk.run(as_anna().args(["user", "add", "eve", "--role", "admin"]))?
            .refused()?
            .contains("anna")
    );

    // Disabling ends what is open, and refuses what comes.
    let mut watch = desk.spawn(as_anna().arg("watch"))?;
    fleet.ctl(&["user", "disable", "anna"])?.ok()?;
    assert!(!watch.wait_timeout(SOON)?.success());
    let denied = desk.run(as_anna().args(["node", "list"]))?;
    assert_eq!(denied.status.code(), Some(4), "{denied}");
    // The last admin stays one.
    let list: v1::ListUsersResponse = fleet.ask(&["user", "list"])?;
    let admin = list.users.iter().find(|u| u.role() == v1::Role::Admin).map(|u| u.name.clone());
    let admin = admin.unwrap_or_default();
    assert!(fleet.ctl(&["user", "disable", &admin])?.refused()?.contains("last admin"));
    Ok(())
}

#[test]
fn a_fleet_lives_on_ipv6_alone() -> Result<()> {
    let net = Net::new()?;
    let flags = Flags { controller: vec!["--listen=[::]:7400".to_owned()], ..Flags::default() };
    let mut fleet = Fleet::start_with(&net, &[], flags)?;
    let controller = fleet.controller.host.at6(CONTROLLER_PORT).to_string();
    for name in ["master1", "web1"] {
        let host = net.host(name)?;
        host.run(cmd("ip").args(["-4", "addr", "flush", "dev", "eth0"]))?.ok()?;
        let mut join = cmd(fleet.bins().agent());
        join.args(["join", "--controller", &controller, "--token", "-", "--data-dir"]);
        host.run_with(join.arg(host.path("data")), &fleet.token(name)?)?.ok()?;
        fleet.run_agent_at(host.clone(), host.at6(AGENT_HEALTH_PORT))?;
    }
    fleet.wait_healthy(&["master1", "web1"]);
    let node: v1::Node = fleet.ask(&["node", "show", "web1"])?;
    let expected = fleet.node("web1")?.host.at6(7402).to_string();
    assert_eq!(node.addresses, [expected]);
    fleet.sync_www("master1", &["web1"])?;
    fleet.wait_arrives("master1", &["web1"], "by IPv6")?;
    Ok(())
}
