//! What lets one node write to another: certificates and the assignment of the moment, and nothing
//! that could be stolen or mistyped beside them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_agent::data::header::{Answer, Header, Op};
use lockstep_agent::data::{Dial, MemberDial, ask};
use lockstep_model::task::Peer;
use lockstep_tests::wait::timed;
use lockstep_tests::{Fleet, Host, Net, until};
use lockstep_transport::identity::{IdentityHandle, disk};

use super::SOON;

const DATA_PORT: u16 = 7402;
const HEALTH_PORT: u16 = 7403;
/// For a transfer to be ended that has a minute to go: a moment, on a machine that does nothing else.
const ENDED_WITHIN: Duration = Duration::from_secs(15);

/// The TCP ports that somebody listens on.
fn listening(host: &Host) -> Result<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let text =
            host.enter(|| fs::read_to_string(format!("/proc/thread-self/net/{table}")))??;
        for line in text.lines().skip(1) {
            let mut words = line.split_whitespace().skip(1);
            let (local, state) = (words.next(), words.nth(1));
            let port = local.and_then(|local| local.rsplit_once(':')).context("no address")?.1;
            if state == Some("0A") {
                ports.insert(u16::from_str_radix(port, 16)?);
            }
        }
    }
    Ok(ports)
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else if entry.file_type()?.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// What anybody could find on a node: in its files, its processes and at its ports.
fn check_nothing_to_steal(host: &Host) -> Result<()> {
    let ports = listening(host)?;
    ensure!(ports == BTreeSet::from([DATA_PORT, HEALTH_PORT]), "{}: {ports:?}", host.name());
    for path in files(&host.path("data"))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
        let is_key = path.ends_with("identity/key.pem");
        let ssh = name.starts_with("id_") || name == "authorized_keys" || name == "known_hosts";
        let words = ["auth users", "secrets file", "password", "OPENSSH"];
        let secret = words.iter().any(|word| text.contains(word));
        let key = text.contains("PRIVATE KEY") != is_key;
        ensure!(!ssh && !secret && !key, "{} holds a secret", path.display());
    }
    for pid in host.pids()? {
        let of = |what| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let (argv, environ) = (of("cmdline"), of("environ"));
        let argv = String::from_utf8_lossy(&argv).replace('\0', " ");
        let environ = String::from_utf8_lossy(&environ).into_owned();
        let program = argv.split(' ').next().unwrap_or_default();
        ensure!(!program.ends_with("ssh") && !argv.contains("password"), "{argv}");
        // An empty one keeps rsync from asking.
        let password = |v: &str| {
            v.split_once('=').is_some_and(|(k, v)| k.contains("PASSWORD") && !v.is_empty())
        };
        let tells = environ.split('\0').any(password) || environ.contains("SSH_");
        ensure!(!tells, "{argv}: {environ}");
    }
    Ok(())
}

/// As which node who calls whom, with the certificate that lies on its disk.
fn knock(fleet: &Fleet, from: &str, to: &str, sync: &str) -> Result<Result<Answer, String>> {
    let identity_of = |node: &str| -> Result<_> {
        Ok(disk::load(&fleet.node(node)?.host.path("data/identity"))?)
    };
    let called = identity_of(to)?;
    let address = fleet.node(to)?.host.at(DATA_PORT).to_string().parse()?;
    let peer = Peer { node: to.parse()?, key_hash: called.key_hash, addresses: vec![address] };
    let dial = MemberDial(IdentityHandle::new(identity_of(from)?));
    let header = Header { sync: sync.parse()?, op: Op::Push { pass: true } };
    fleet.node(from)?.host.block_on(async {
        let mut stream = dial.dial(&peer).await?;
        ask(&mut stream, &header).await
    })
}

#[test]
fn certificates_and_assignments_are_all_that_opens_a_copy() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "master2", "web1"])?;
    let (web, master2) = (fleet.node("web1")?.host.clone(), fleet.node("master2")?.host.clone());
    fleet.sync_www("master1", &["web1"])?;
    fs::create_dir_all(master2.path("other"))?;
    fs::write(master2.path("other/file"), "other")?;
    let source = format!("master2:{}", master2.path("other").display());
    let target = format!("web1:{}", web.path("other").display());
    let create = ["sync", "create", "other", "--source", &source, "--target", &target, "--wait"];
    fleet.ctl(&create)?.ok()?;

    // An assignment opens its own sync, to its own source.
    assert_eq!(knock(&fleet, "master2", "web1", "other")?, Ok(Answer::Go));
    for (from, to, sync, why) in [
        ("master2", "web1", "www", "not the source of www"),
        ("web1", "web1", "www", "not the source of www"),
        ("master1", "web1", "other", "not the source of other"),
        ("web1", "master1", "www", "no target of www"),
        ("master1", "web1", "unheard-of", "no target of unheard-of"),
    ] {
        match knock(&fleet, from, to, sync)? {
            Ok(Answer::Refused(said)) => ensure!(said.contains(why), "{from} {to} {sync}: {said}"),
            other => anyhow::bail!("{from} {to} {sync}: {other:?}"),
        }
    }

    // In the middle of a transfer there is nothing more to find than otherwise.
    web.rate(Some(1_000_000))?;
    fs::write(master2.path("other/large"), vec![5; 8 << 20])?;
    until(SOON, "a transfer runs", || web.processes("rsync").is_ok_and(|found| !found.is_empty()));
    for node in ["master1", "master2", "web1"] {
        check_nothing_to_steal(&fleet.node(node)?.host)?;
    }

    // Who is thrown out is out at once, and for good.
    fleet.ctl(&["node", "expel", "master2", "--yes"])?.ok()?;
    let (_, took) = timed(|| {
        until(SOON, "its transfer ends", || web.processes("rsync").is_ok_and(|p| p.is_empty()));
    });
    assert!(took < ENDED_WITHIN, "{took:?}");
    assert!(!fs::exists(web.path("other/large"))?);
    let refused = knock(&fleet, "master2", "web1", "other")?;
    assert!(!matches!(refused, Ok(Answer::Go | Answer::Unfilled)), "{refused:?}");
    web.rate(None)?;
    fleet.wait_arrives("master1", &["web1"], "unmoved")?;
    Ok(())
}
