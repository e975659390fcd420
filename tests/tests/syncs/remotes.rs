//! One sync with a target of each kind: an agent, plain ssh, a plain rsync daemon.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, ensure};
use lockstep_tests::sshd::{self, new_key, secret};
use lockstep_tests::tree::Tree;
use lockstep_tests::{Fleet, Host, Net, Proc, cmd, until};

use super::{SOON, fill_new};

fn rsyncd(host: &Host) -> Result<Proc> {
    let dir = host.dir().display();
    secret(&host.path("rsyncd.secrets"), "backup:open sesame\n")?;
    fs::create_dir_all(host.path("srv/www"))?;
    let config = format!(
        "use chroot = yes\nuid = 0\ngid = 0\n[www]\npath = {dir}/srv/www\nread only = no\n\
         auth users = backup\nsecrets file = {dir}/rsyncd.secrets\n"
    );
    fs::write(host.path("rsyncd.conf"), config)?;
    let mut config = std::ffi::OsString::from("--config=");
    config.push(host.path("rsyncd.conf"));
    host.spawn(cmd("rsync").args(["--daemon", "--no-detach"]).arg(config))
}

#[test]
fn an_agent_plain_ssh_and_a_plain_daemon_are_targets_of_one_sync() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["master1", "web1"])?;
    let master = fleet.node("master1")?.host.clone();
    let secrets = master.path("secrets");
    fs::create_dir(&secrets)?;
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o700))?;
    // All hosts share one /etc.
    let settings = fs::read_to_string(master.path("data/agent.toml"))?;
    let settings = format!("{settings}secrets-dir = \"{}\"\n", secrets.display());
    fs::write(master.path("data/agent.toml"), settings)?;
    fleet.restart_agent("master1")?;
    fill_new(&fleet)?;

    let (old1, old2) = (net.host("old1")?, net.host("old2")?);
    let public = new_key(&master, &secrets.join("deploy"))?;
    let rrsync =
        format!("restrict,command=\"/usr/bin/rrsync -wo {}\" {public}", old1.dir().display());
    let _sshd = sshd::start(&old1, &rrsync)?;
    let _rsyncd = rsyncd(&old2)?;
    secret(&secrets.join("old2"), "open sesame\n")?;
    let host_key = fs::read_to_string(old1.path("hostkey.pub"))?;
    let ssh = format!("old1=ssh://root@{}/www?key=deploy", old1.ip());
    let daemon = format!("old2=rsync://backup@{}/www?password=old2", old2.ip());

    let mut create = fleet.create_www("master1", &["web1"])?;
    create.extend(["--target", &ssh, "--target", &daemon].map(str::to_owned));
    fleet.ctl(&create.iter().map(String::as_str).collect::<Vec<_>>())?.ok()?;
    // Nothing goes to a machine that is not known, and the others do not wait for it.
    until(SOON, "the unknown host key is named", || {
        fleet.delivery("old1").is_ok_and(|old1| old1.last_error.contains("ssh-keyscan -p 22"))
    });
    ensure!(!old1.path("www").exists());
    fleet.ctl(&["sync", "wait", "www", "--at-least", "2"])?.ok()?;
    secret(&secrets.join("known_hosts"), &format!("{} {host_key}", old1.ip()))?;
    fleet.ctl(&["sync", "wait", "www"])?.ok()?;

    let www = fleet.www("master1")?;
    fs::write(www.join("later"), "1")?;
    fs::remove_dir_all(www.join("assets/css/deep"))?;
    fs::rename(www.join("empty"), www.join("renamed"))?;
    fleet.ctl(&["sync", "wait", "www"])?.ok()?;
    fleet.check_in_step("master1", "web1")?;
    let original = Tree::read(&www)?;
    for copy in [old1.path("www"), old2.path("srv/www")] {
        let differences = Tree::read(&copy)?.differences(&original);
        ensure!(differences.is_empty(), "{}: {differences}", copy.display());
    }
    let text = fleet.ctl(&["sync", "show", "www"])?.ok()?;
    ensure!(text.matches("no agent").count() == 2, "{text}");
    let refused = fleet.ctl(&["sync", "diff", "www", "--target", "old1"])?.refused()?;
    ensure!(refused.contains("old1 has no agent"), "{refused}");

    // No secret is in what the controller keeps or anybody is told.
    let private = fs::read_to_string(secrets.join("deploy"))?;
    let body = private.lines().nth(1).unwrap_or_default();
    let export = fleet.ctl(&["store", "export"])?.ok()?;
    ensure!(!export.contains("sesame") && !export.contains(body) && export.contains("key=deploy"));
    Ok(())
}
