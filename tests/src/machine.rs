//! A host that systemd runs: a Debian of its own, booted in a container on the host's network, with the
//! agent as its unit in `deploy` has it. All of its processes are the host's, and end with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bins::Bins;
use crate::fleet::{AGENT_HEALTH_PORT, CONTROLLER_PORT, Fleet};
use crate::host::Host;
use crate::proc::{Output, Proc, cmd};
use crate::remains;
use crate::wait::{try_until, until};

/// Of the agent, as `deploy` has it.
pub const UNIT: &str = "lockstep-agent.service";
/// From power on to the last unit.
const BOOTED_WITHIN: Duration = Duration::from_secs(120);
const ENDED_WITHIN: Duration = Duration::from_secs(20);
const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

pub struct Machine {
    pub host: Host,
    /// Its root directory, as this machine sees it; what is changed below is the host's alone.
    root: PathBuf,
    bins: Bins,
    container: Option<Proc>,
}

impl Machine {
    /// A new host of the fleet's network that is not on yet. The first one makes what all are copies of,
    /// which takes minutes.
    pub fn new(fleet: &Fleet, name: &str) -> Result<Self> {
        let host = fleet.net().host(name)?;
        let image = cmd(Path::new(PACKAGE).join("debian")).output()?;
        ensure!(image.status.success(), "{}", String::from_utf8_lossy(&image.stderr));
        let image = String::from_utf8(image.stdout)?;
        let (upper, work, root) = (host.path("upper"), host.path("work"), host.path("root"));
        for dir in [&upper, &work, &root] {
            fs::create_dir(dir)?;
        }
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            image.trim(),
            upper.display(),
            work.display()
        );
        let mut mount = cmd("mount");
        mount.args(["-t", "overlay", "overlay", "-o", &layers]).arg(&root);
        host.run(&mut mount)?.ok()?;
        let machine = Self { host, root, bins: fleet.bins().clone(), container: None };
        machine.install()?;
        Ok(machine)
    }

    /// The agent's unit, and where it tells its health; it starts at boot once it has joined.
    fn install(&self) -> Result<()> {
        let unit = Path::new(PACKAGE).join("../deploy/systemd").join(UNIT);
        fs::copy(unit, self.path("etc/systemd/system").join(UNIT))?;
        let health = self.host.at(AGENT_HEALTH_PORT);
        fs::write(
            self.path("etc/default/lockstep-agent"),
            format!("LOCKSTEP_HEALTH_LISTEN={health}\n"),
        )?;
        // A program to show; the one of this build is laid over it.
        fs::write(self.path("usr/bin/lockstep-agent"), "")?;
        Ok(())
    }

    /// A path on it, as this machine sees it.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.join(below.trim_start_matches('/'))
    }

    /// Power on, and until all of its units have been started.
    pub fn boot(&mut self) -> Result<()> {
        let agent = self.bins.agent();
        let mut boot = cmd(&agent);
        // Each container needs a place of its own in the hierarchy of cgroups.
        boot.arg("launch").arg("--cgroup").arg(cgroup(&self.host)?).args(["--", "systemd-nspawn"]);
        boot.args(["--quiet", "--register=no", "--keep-unit", "--boot", "--console=pipe"]);
        boot.arg(format!("--machine={}", self.host.name()));
        boot.arg(format!("--directory={}", self.root.display()));
        boot.arg(format!("--bind-ro={}:/usr/bin/lockstep-agent", agent.display()));
        boot.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        self.container = Some(self.host.spawn(&mut boot)?);
        self.wait_booted();
        Ok(())
    }

    /// In order, by systemd; done when all of its units have been started again.
    pub fn reboot(&mut self) -> Result<()> {
        // It may be gone before it answers.
        let _ = self.run(&["systemctl", "poweroff"]);
        let mut container = self.container.take().context("it is off")?;
        container.wait_timeout(BOOTED_WITHIN)?;
        self.boot()
    }

    #[track_caller]
    fn wait_booted(&self) {
        until(BOOTED_WITHIN, &format!("{} has booted", self.host.name()), || -> Result<()> {
            let state = self.run(&["systemctl", "is-system-running"])?.stdout;
            // Something that nobody here needs may have failed.
            ensure!(["running", "degraded"].contains(&state.trim()), "{state}");
            Ok(())
        });
    }

    /// Runs a command on it to its end, as root.
    pub fn run(&self, line: &[&str]) -> Result<Output> {
        self.run_with(line, "")
    }

    pub fn run_with(&self, line: &[&str], input: &str) -> Result<Output> {
        let mut enter = cmd("nsenter");
        enter.args(["--target", &self.init()?.to_string(), "--all", "--"]).args(line);
        self.host.run_with(&mut enter, input)
    }

    /// What a command says that must succeed.
    pub fn ask(&self, line: &[&str]) -> Result<String> {
        Ok(self.run(line)?.ok()?.trim().to_owned())
    }

    /// The agent joins the fleet, and runs from now on.
    pub fn join(&self, fleet: &Fleet) -> Result<()> {
        let controller = fleet.controller.host.at(CONTROLLER_PORT).to_string();
        let join = ["lockstep-agent", "join", "--controller", &controller, "--token", "-"];
        self.run_with(&join, &fleet.token(self.host.name())?)?.ok()?;
        self.run(&["systemctl", "enable", "--now", UNIT])?.ok()?;
        Ok(())
    }

    /// Its first process, by this machine's number.
    fn init(&self) -> Result<u32> {
        let container = self.container.as_ref().context("it is off")?.pid();
        let children = fs::read_to_string(format!("/proc/{container}/task/{container}/children"))?;
        let init = children.split_whitespace().next().context("it has not begun to boot")?;
        Ok(init.parse()?)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.container.take());
        let Ok(dir) = cgroup(&self.host) else { return };
        let _ = fs::write(dir.join("cgroup.kill"), "1");
        let _ = try_until(ENDED_WITHIN, "its cgroups are gone", || remove(&dir).is_ok());
    }
}

/// With all below; only empty ones go.
fn remove(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

/// Of the container's processes.
fn cgroup(host: &Host) -> Result<PathBuf> {
    let mount = remains::cgroups().context("no cgroup2")?;
    let dir = mount.join(format!("lockstep-test-{}-{}", std::process::id(), host.name()));
    fs::create_dir_all(&dir)?;
    Ok(dir)
}
