//! Who may do what: owners of one mirror, projects without upstream, pushes by token.

use std::fs;

use anyhow::{Context, Result, ensure};
use lockstep_tests::fleet::CONTROLLER_PORT;
use lockstep_tests::{Fleet, Output};

use super::world;

const DENIED: Option<i32> = Some(4);

/// A user with a login of its own on the controller's host.
struct Person<'a> {
    fleet: &'a Fleet,
    name: &'static str,
}

impl<'a> Person<'a> {
    fn new(fleet: &'a Fleet, name: &'static str, role: &str) -> Result<Self> {
        let host = &fleet.controller.host;
        let token = fleet.ctl(&["user", "add", name, "--role", role])?.ok()?;
        let person = Self { fleet, name };
        let mut login = person.command();
        let controller = host.at(CONTROLLER_PORT).to_string();
        login.args(["login", "--controller", &controller, "--token", "-"]);
        host.run_with(&mut login, token.trim())?.ok()?;
        Ok(person)
    }

    fn command(&self) -> std::process::Command {
        let mut command = self.fleet.ctl_command();
        let dir = self.fleet.controller.host.path(&format!("of-{}", self.name));
        command.env("LOCKSTEP_CONFIG_DIR", dir);
        command
    }

    fn ctl(&self, args: &[&str]) -> Result<Output> {
        self.fleet.controller.host.run(self.command().args(args))
    }
}

#[test]
fn an_owner_may_do_with_its_own_what_others_may_not() -> Result<()> {
    let (_net, fleet, up) = world(&["master1", "ftp1"])?;
    let (url, roots) = (up.url(), ["master1", "ftp1"]);
    let ann = Person::new(&fleet, "ann", "owner")?;
    let bob = Person::new(&fleet, "bob", "owner")?;
    let eve = Person::new(&fleet, "eve", "viewer")?;
    fleet.create_mirror("fedora", &roots, &["--upstream", &url, "--owner", "ann"])?.ok()?;
    for (person, may) in [(&ann, true), (&bob, false), (&eve, false)] {
        for args in [
            &["mirror", "sync", "fedora"][..],
            &["mirror", "update", "fedora", "--bwlimit", "10M"],
            &["mirror", "reschedule", "fedora", "--schedule", "hour=4"],
            &["mirror", "disable", "fedora"],
            &["mirror", "enable", "fedora"],
        ] {
            let output = person.ctl(args)?;
            match may {
                true => drop(output.ok()?),
                false => ensure!(output.status.code() == DENIED, "{output}"),
            }
        }
        person.ctl(&["mirror", "list"])?.ok()?;
        person.ctl(&["mirror", "runs", "fedora"])?.ok()?;
    }
    // What makes a mirror another one, and whose it is, is for operators.
    for args in [
        &["mirror", "update", "fedora", "--owner", "bob"][..],
        &["mirror", "create", "more", "--master", "master1", "--dest", "/srv"],
        &["node", "drain", "ftp1"],
    ] {
        let output = ann.ctl(args)?;
        ensure!(output.status.code() == DENIED, "{output}");
    }
    let refused = bob.ctl(&["mirror", "delete", "fedora", "--yes"])?;
    ensure!(refused.status.code() == DENIED, "{refused}");
    ann.ctl(&["mirror", "delete", "fedora", "--yes"])?.ok()?;
    let gone = fleet.ctl(&["mirror", "show", "fedora"])?.refused()?;
    ensure!(gone.contains("fedora"), "{gone}");
    Ok(())
}

#[test]
fn who_fills_a_tree_says_when_it_is_ready() -> Result<()> {
    let (_net, fleet, _up) = world(&["master1", "ftp1"])?;
    let ann = Person::new(&fleet, "ann", "owner")?;
    let bob = Person::new(&fleet, "bob", "owner")?;
    fleet.create_mirror("our-project", &["master1", "ftp1"], &["--owner", "ann"])?.ok()?;
    let tree = fleet.mirrored("master1", "our-project")?;
    fs::create_dir_all(&tree)?;
    fs::write(tree.join("release-1"), "1")?;
    let refused = bob.ctl(&["mirror", "ready", "our-project"])?;
    ensure!(refused.status.code() == DENIED, "{refused}");
    let ready = ["mirror", "ready", "our-project", "--wait", "--timeout", "60s"];
    ann.ctl(&ready)?.ok()?;
    fleet.check_mirrored("our-project", "ftp1", &tree)?;
    fs::write(tree.join("release-2"), "2")?;
    fs::remove_file(tree.join("release-1"))?;
    ann.ctl(&ready)?.ok()?;
    fleet.check_mirrored("our-project", "ftp1", &tree)?;
    let parts = fleet.parts("our-project")?;
    ensure!(parts[0].trigger == "ready user/ann", "{parts:?}");

    // An empty tree is an accident.
    fs::remove_file(tree.join("release-2"))?;
    let held = ann.ctl(&ready)?;
    ensure!(!held.status.success(), "{held}");
    let copy = fleet.mirrored("ftp1", "our-project")?;
    ensure!(copy.join("release-2").exists());
    let upstream = fleet.mirror("our-project").context("it is there")?.upstream;
    ensure!(upstream.is_empty());
    Ok(())
}
