//! Certificates: short ones, a controller that is away for longer than they live, a new root under a
//! running fleet.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_proto::v1;
use lockstep_tests::fleet::CONTROLLER_PORT;
use lockstep_tests::{Flags, Fleet, Net, Output, cmd, try_until, until};

const SOON: Duration = Duration::from_secs(90);

fn flags(controller: &[&str]) -> Flags {
    let controller = controller.iter().map(|flag| (*flag).to_owned()).collect();
    Flags { controller, ..Flags::default() }
}

#[test]
fn certificates_of_seconds_are_renewed_without_a_break() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start_with(&net, &["master1", "web1"], flags(&["--leaf-life", "6s"]))?;
    fleet.sync_www("master1", &["web1"])?;
    let since = |fleet: &Fleet| -> Result<_> {
        let node: v1::Node = fleet.ask(&["node", "show", "web1"])?;
        Ok((
            node.health_since.map(|t| (t.seconds, t.nanos)),
            node.last_contact_at.map(|t| t.seconds),
        ))
    };
    let (began, contact) = since(&fleet)?;
    let lives = |n: u64| Duration::from_secs(6 * n);
    until(lives(5), "three lives passed", || -> Result<()> {
        let (_, now) = since(&fleet)?;
        ensure!(now >= contact.map(|at| at + 18), "{now:?}");
        Ok(())
    });
    assert_eq!(since(&fleet)?.0, began, "the stream was never lost");
    fleet.wait_arrives("master1", &["web1"], "renewed")?;

    // The controller is dead for several lives: agents go on trusting each other.
    fleet.controller.daemon.kill()?;
    let ticks = fleet.www("master1")?;
    let mut n = 0;
    let dead = try_until(lives(4), "four lives without a controller", || {
        n += 1;
        fs::write(ticks.join("tick"), n.to_string()).is_err()
    });
    ensure!(dead.is_err(), "cannot write");
    fleet.wait_arrives("master1", &["web1"], "controller long dead")?;
    assert_eq!(fleet.node("web1")?.status("/sync/www"), 200);
    // An agent that starts now has nobody to renew it, and is believed all the same.
    fleet.restart_agent("web1")?;
    fleet.wait_arrives("master1", &["web1"], "and restarted")?;

    // The admin's own certificate is over by now, as after a long holiday.
    let host = fleet.controller.host.clone();
    let mut admin_token = cmd(fleet.bins().controller());
    let token =
        host.run(admin_token.arg("admin-token").arg("--data-dir").arg(host.path("data")))?.ok()?;
    fleet.restart_controller()?;
    assert_eq!(fleet.ctl(&["status"])?.status.code(), Some(4));
    let mut login = fleet.ctl_command();
    login.args(["login", "--controller", &host.at(CONTROLLER_PORT).to_string(), "--token", "-"]);
    host.run_with(&mut login, &token)?.ok()?;
    // Nodes are let in to renew, whatever their dates say.
    fleet.wait_healthy(&["master1", "web1"]);
    fleet.wait_arrives("master1", &["web1"], "all back")?;
    Ok(())
}

#[test]
fn the_root_is_rotated_under_a_running_fleet() -> Result<()> {
    let net = Net::new()?;
    let life = Duration::from_secs(8);
    let mut fleet = Fleet::start_with(&net, &["master1", "web1"], flags(&["--leaf-life", "8s"]))?;
    fleet.sync_www("master1", &["web1"])?;
    let host = fleet.controller.host.clone();
    let ca = |args: &[&str]| -> Result<Output> {
        let mut command = cmd(fleet.bins().controller());
        host.run(command.arg("ca").args(args).arg("--data-dir").arg(host.path("data")))
    };
    let trusted = |node: &str| -> Result<usize> {
        let roots = fleet.node(node)?.host.path("data/identity/roots.pem");
        Ok(fs::read_to_string(roots)?.matches("BEGIN CERTIFICATE").count())
    };
    let wait_trusted = |count: usize| {
        for node in ["master1", "web1"] {
            until(SOON, &format!("{node} trusts {count}"), || -> Result<()> {
                let now = trusted(node)?;
                ensure!(now == count, "it trusts {now}");
                // The admin's certificate lives as short, and is renewed by being used.
                fleet.ctl(&["status"])?.ok()?;
                Ok(())
            });
        }
    };
    assert_eq!(trusted("web1")?, 1);
    ca(&["rotate"])?.ok()?;
    let early = ca(&["retire", "--leaf-life", "8s"])?;
    assert_eq!(early.status.code(), Some(3), "{early}");
    assert!(ca(&["rotate"])?.refused()?.contains("retire"));
    wait_trusted(2);
    fleet.wait_arrives("master1", &["web1"], "under two roots")?;
    // Who joins now trusts both; who was made under the old one is let in.
    let old_life = try_until(life + life / 4, "the old certificates are over", || {
        fleet.ctl(&["status"]).is_ok_and(|done| !done.status.success())
    });
    ensure!(old_life.is_err(), "the admin was locked out");

    ca(&["retire", "--leaf-life", "8s"])?.ok()?;
    wait_trusted(1);
    fleet.wait_arrives("master1", &["web1"], "under the new root")?;
    fleet.restart_controller()?;
    for node in ["master1", "web1"] {
        fleet.restart_agent(node)?;
    }
    fleet.wait_healthy(&["master1", "web1"]);
    fleet.wait_arrives("master1", &["web1"], "after restarts")?;
    Ok(())
}
