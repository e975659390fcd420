//! Whether what starts postgres can be trusted with it: a unit of systemd's or a cluster of Debian's that
//! nobody else starts, and a cgroup that holds nothing else. It asks, and changes nothing.

use std::time::Duration;

use lockstep_model::cluster::options::Manager;
use tokio::time::timeout;

use super::cgroup::{self, Cgroup};
use super::unit::{self, Unit};
use super::{Instance, files, manager, processes};
use crate::host::Program;

/// systemd answers at once, unless it hangs.
const SYSTEMCTL_TIMEOUT: Duration = Duration::from_secs(30);
/// Generations of processes between postgres and what it has run.
const DEPTH_MAX: usize = 16;

impl Instance {
    /// Knows by which cgroup it is ended, when it returns. Err: what starts it cannot be trusted with it;
    /// how to mend that. What runs already is not refused for a unit that is started by others too.
    pub async fn settle(&self) -> Result<(), String> {
        let Manager::Systemd(name) = &self.layout().manager else { return Ok(()) };
        let unit = self.unit(name.as_str()).await?;
        let runs = !processes::all(&self.real_data(), None).is_empty();
        if !runs {
            unit.check()?;
        }
        let path = cgroup::of_init().and_then(|init| unit.cgroup(&init));
        let cgroup = path.and_then(|path| Cgroup::at(&path));
        let cgroup = cgroup.ok_or("this machine has no cgroup hierarchy of version 2: mount it, and restart lockstep-agent")?;
        if !runs {
            self.check_alone(&unit, name.as_str(), &cgroup)?;
        }
        let _ = self.0.cgroup.set(cgroup);
        Ok(())
    }

    /// Err: what is wrong with whatever starts it, and the command that fixes it.
    pub async fn check_manager(&self) -> Result<(), String> {
        match &self.layout().manager {
            Manager::Agent => Ok(()),
            Manager::PgCtlCluster(_) => {
                let config = &self.layout().config;
                let text = files::read(&config.join("start.conf"), &self.layout().owner)?;
                manager::check_debian(config, &text.unwrap_or_default())
            }
            Manager::Systemd(name) => {
                let unit = self.unit(name.as_str()).await?;
                unit.check()?;
                let Some(cgroup) = self.cgroup() else { return Ok(()) };
                self.check_alone(&unit, name.as_str(), &cgroup)
            }
        }
    }

    /// Processes of the cgroup that are no postgres of this data, nor what that or systemd has run.
    fn check_alone(&self, unit: &Unit, name: &str, cgroup: &Cgroup) -> Result<(), String> {
        let data = self.real_data();
        let is_known = |pid: i32| {
            let chain = std::iter::successors(Some(pid), |pid| processes::parent(*pid));
            let mut chain = chain.take(DEPTH_MAX);
            chain.any(|pid| unit.control == Some(pid) || processes::is_ours(pid, &data))
        };
        let strangers = cgroup.processes().into_iter();
        let strangers: Vec<i32> = strangers.filter(|pid| !is_known(*pid)).collect();
        match strangers.as_slice() {
            [] => Ok(()),
            pids => Err(format!(
                "{name} holds processes {pids:?} that are not of the postgres in {}: ending it would end \
                 them too; give postgres a unit of its own",
                data.display()
            )),
        }
    }

    async fn unit(&self, name: &str) -> Result<Unit, String> {
        let shown = self.systemctl(&["show", unit::PROPERTIES, name]).await?;
        Ok(Unit::read(name, &shown))
    }

    /// Runs it to its end.
    pub(super) async fn systemctl(&self, args: &[&str]) -> Result<String, String> {
        let args = args.iter().map(Into::into).collect();
        let program = Program { path: "systemctl".into(), args, fed: false };
        timeout(SYSTEMCTL_TIMEOUT, self.run_as_is(&program))
            .await
            .map_err(|_| "systemctl does not come to its end: see systemctl list-jobs".to_owned())?
    }
}
