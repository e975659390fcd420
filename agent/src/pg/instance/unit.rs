//! The systemd unit that starts an instance: what systemctl tells of it, whether it can be trusted with a
//! database, and where its cgroup is, by which the instance is ended. Pure; others ask systemctl.

use std::path::PathBuf;

/// What `systemctl show` is asked for.
pub const PROPERTIES: &str = "--property=LoadState,UnitFileState,Restart,Slice,ControlPID,WantedBy,\
                              RequiredBy,UpheldBy,TriggeredBy";
/// systemd's own cgroup, in the one that all its units are below.
const INIT: &str = "/init.scope";
const SLICE: &str = ".slice";

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Unit {
    name: String,
    is_loaded: bool,
    /// `enabled`, `disabled`, `static`.
    file_state: String,
    restart: String,
    slice: String,
    /// A process of systemd's own that starts or stops it just now.
    pub control: Option<i32>,
    /// Units that have it started.
    starters: Vec<String>,
}

impl Unit {
    /// Of lines `Name=value`.
    pub fn read(name: &str, shown: &str) -> Self {
        let value = |name: &str| {
            let lines = shown.lines().filter_map(|line| line.split_once('='));
            lines.filter(|(key, _)| *key == name).map(|(_, value)| value).next().unwrap_or_default()
        };
        let starters = ["WantedBy", "RequiredBy", "UpheldBy", "TriggeredBy"];
        Self {
            name: name.to_owned(),
            is_loaded: value("LoadState") == "loaded",
            file_state: value("UnitFileState").to_owned(),
            restart: value("Restart").to_owned(),
            slice: value("Slice").to_owned(),
            control: value("ControlPID").parse().ok().filter(|pid| *pid > 0),
            starters: starters
                .iter()
                .flat_map(|s| value(s).split_whitespace())
                .map(str::to_owned)
                .collect(),
        }
    }

    /// Whether nobody but the agent starts it; Err: what is wrong, and the command that fixes it.
    pub fn check(&self) -> Result<(), String> {
        let Self { name, restart, .. } = self;
        if !self.is_loaded {
            return Err(format!(
                "there is no unit {name}: systemctl list-unit-files 'postgresql*'"
            ));
        }
        let early = format!("{name} is started at boot, before anybody knows who is primary");
        match (self.file_state.as_str(), debian_cluster(name)) {
            // Debian makes the link anew at each boot.
            ("enabled-runtime", Some(cluster)) => Err(format!(
                "{early}: write manual in place of auto in /etc/postgresql/{cluster}/start.conf, and run \
                 systemctl daemon-reload"
            )),
            ("enabled" | "enabled-runtime", _) => Err(format!("{early}: systemctl disable {name}")),
            _ if !self.starters.is_empty() => Err(format!(
                "{name} is started by {}, whoever is primary: systemctl edit --full {name}, or take it out of \
                 their Wants= and Requires=",
                self.starters.join(", ")
            )),
            _ if restart != "no" => Err(format!(
                "{name} has Restart={restart}, which starts a primary that was ended: systemctl edit {name}, \
                 and set Restart=no in [Service]"
            )),
            _ => Ok(()),
        }
    }

    /// Below the hierarchy's root, whether it runs or not; `init`: that of process 1. None: the unit is in
    /// no slice.
    pub fn cgroup(&self, init: &str) -> Option<PathBuf> {
        let parts = self.slice.strip_suffix(SLICE)?;
        let mut path =
            PathBuf::from(init.strip_suffix(INIT).unwrap_or(init).trim_start_matches('/'));
        // `-` is the root; a-b.slice is in a.slice.
        let dashes = parts.match_indices('-').map(|(at, _)| at).chain([parts.len()]);
        path.extend(dashes.filter(|_| parts != "-").map(|at| format!("{}{SLICE}", &parts[..at])));
        Some(path.join(&self.name))
    }
}

/// `15/main` of `postgresql@15-main.service`.
pub fn debian_cluster(unit: &str) -> Option<String> {
    let name = unit.strip_prefix("postgresql@")?.strip_suffix(".service")?;
    name.split_once('-').map(|(version, name)| format!("{version}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str = "LoadState=loaded\nUnitFileState=disabled\nRestart=no\nSlice=system.slice\n\
                        ControlPID=0\nWantedBy=\n";

    #[test]
    fn a_unit_that_starts_by_itself_is_refused_with_the_command() {
        assert_eq!(Unit::read("pg.service", FINE).check(), Ok(()));
        for (from, to, says) in [
            ("LoadState=loaded", "LoadState=not-found", "there is no unit"),
            ("=disabled", "=enabled", "systemctl disable pg.service"),
            ("Restart=no", "Restart=on-failure", "systemctl edit pg.service"),
            ("WantedBy=", "WantedBy=db.target", "started by db.target"),
        ] {
            let why = Unit::read("pg.service", &FINE.replace(from, to)).check().unwrap_err();
            assert!(why.contains(says), "{why}");
        }
        let debian = FINE.replace("=disabled", "=enabled-runtime");
        let why = Unit::read("postgresql@15-main.service", &debian).check().unwrap_err();
        assert!(why.contains("/etc/postgresql/15/main/start.conf"), "{why}");
    }

    #[test]
    fn its_cgroup_is_known_before_it_runs() {
        let of = |slice: &str, init: &str| {
            let unit = Unit::read("pg.service", &FINE.replace("system.slice", slice));
            unit.cgroup(init).map(|path| path.display().to_string())
        };
        let some = |path: &str| Some(path.to_owned());
        assert_eq!(of("system.slice", "/init.scope"), some("system.slice/pg.service"));
        assert_eq!(of("-.slice", "/init.scope"), some("pg.service"));
        assert_eq!(of("a-b.slice", "/box/init.scope"), some("box/a.slice/a-b.slice/pg.service"));
        assert_eq!(of("", "/init.scope"), None);
    }
}
