//! A cluster that Debian's tools made: taken over as it runs, and started by pg_ctlcluster from then on.

use std::process::Command;

use lockstep_agent::pg::instance::{Data, Processes, Role, StartAs};
use lockstep_model::cluster::Quorum;

use crate::bed::Bed;

/// Gone with its files in /etc when it is dropped; after the bed that is in it.
struct Debian {
    version: String,
    name: String,
}

impl Drop for Debian {
    fn drop(&mut self) {
        let _ = Command::new("pg_dropcluster").args([&self.version, &self.name, "--stop"]).status();
    }
}

fn run(program: &str, args: &[&str]) {
    let done = Command::new(program).args(args).output().unwrap();
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
}

fn newest() -> String {
    let versions = std::fs::read_dir("/usr/lib/postgresql").unwrap();
    let numbers = versions.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    numbers.max().unwrap().to_string()
}

#[tokio::test]
async fn a_cluster_of_debians_is_taken_over_as_it_runs() {
    let debian = Debian { version: newest(), name: format!("lockstep{}", std::process::id()) };
    let (version, name) = (&debian.version, &debian.name);
    let manager = format!("pg_ctlcluster:{version}/{name}");
    let bed = Bed::new("db1", &[("manager", &manager)]).await;
    let layout = bed.instance.layout();
    let (port, data) = (layout.port.to_string(), layout.data.display().to_string());
    let socket_dir = layout.socket_dir.display().to_string();
    let made = ["-d", &data, "-p", &port, "-s", &socket_dir, "--start-conf", "auto"];
    run("pg_createcluster", &[&[version, name.as_str()][..], &made].concat());
    assert_eq!(layout.config.display().to_string(), format!("/etc/postgresql/{version}/{name}"));
    run("pg_ctlcluster", &["--skip-systemctl-redirect", version, name, "start"]);

    let why = bed.instance.adopt().await.unwrap_err();
    assert!(why.contains("start.conf says auto"), "{why}");
    let boot = layout.config.join("start.conf");
    std::fs::write(&boot, "manual\n").unwrap();
    let pid = bed.postmaster().await;
    bed.instance.adopt().await.unwrap();
    assert_eq!(bed.postmaster().await, pid, "it is not restarted");
    if let Some(dir) = bed.instance.cgroup_dir() {
        let there = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap();
        assert!(
            there.lines().count() > 3 && there.lines().any(|p| p == pid.to_string()),
            "{there}"
        );
    }
    // wal_log_hints and others wait for a restart.
    let off = Role::Primary(&Quorum::OFF);
    let done = bed.configure(off).await.unwrap();
    assert!(done.changed && done.restart, "{done:?}");
    bed.instance.ensure_roles().await.unwrap();
    let before = bed.status().await;
    assert!(!before.in_recovery && !before.pending_restart.is_empty());

    bed.stop().await;
    bed.start(StartAs::Primary).await;
    assert_eq!(bed.status().await.pending_restart, []);
    assert_eq!(bed.ask("SHOW wal_log_hints").await, "on");
    assert!(bed.instance.look().await.standby_signal);
    assert!(matches!(bed.instance.data().await, Data::There(_)));
    bed.fence().await;
    assert_eq!(bed.instance.processes().await, Processes::None);
    drop(bed);
}
