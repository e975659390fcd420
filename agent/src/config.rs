//! The agent's settings: their one table, and the typed values of a run. Reads the config file and
//! the environment that it is given; starts nothing.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lockstep_model::node::{ADDRESSES_MAX, NodeAddress};
use lockstep_model::path::DirPath;
use lockstep_model::{HostPort, Millis};
use lockstep_transport::settings::{File, FromValue, Kind, Setting, SettingError, Table, Values};
use lockstep_transport::telemetry;

use crate::pg::guard::WatchdogSettings;
use crate::{hook, secrets};

use crate::data::limit::RATE_MIN;

/// Where an agent keeps everything, unless told otherwise.
pub const DATA_DIR: &str = "/var/lib/lockstep-agent";
/// The config file that `join` writes into the data directory.
pub const FILE: &str = "agent.toml";
/// Port of the controller where none is written.
pub const CONTROLLER_PORT: u16 = 7400;
/// Port on which other agents deliver data.
pub const DATA_PORT: u16 = 7402;
/// Most addresses of controllers.
pub const CONTROLLERS_MAX: usize = 16;
/// Most directories of the allow-list.
const ROOTS_MAX: usize = 64;
/// Highest limit of bandwidth, in bytes per second.
const RATE_MAX: u64 = 1 << 40;
/// Most pulls of mirrors at once.
const PULLS_MAX: u64 = 256;

const SETTINGS: &[Setting] = &[
    Setting::new(
        "data-dir",
        Kind::Path,
        "Identity, ledger, journals and state of this agent; on a local disk, for its use alone.",
        DATA_DIR,
    )
    .default(DATA_DIR),
    Setting::new(
        "controllers",
        Kind::List(&Kind::Checked { shape: "host:port of a controller", check: check_host_port }),
        "Controllers to call, best first; others that they name are learnt and kept. Written by `join`.",
        "controller.example.org:7400",
    )
    .required(),
    Setting::new(
        "listen",
        Kind::Socket,
        "Where other agents deliver data. By default port 7402 of the local address that reaches the controller.",
        "10.0.0.7:7402",
    ),
    Setting::new(
        "advertise",
        Kind::List(&Kind::Checked {
            shape: "[network=]host:port",
            check: check_node_address,
        }),
        "How other agents reach the data port, best first; peers with the same network prefer it. By default the listen address.",
        "lan=10.0.0.7:7402,web7.example.org:7402",
    ),
    Setting::new(
        "health-listen",
        Kind::Socket,
        "Where load balancers ask for health, over HTTP and gRPC, in plain text.",
        "10.0.0.7:7403",
    )
    .default("127.0.0.1:7403"),
    Setting::new("rsync", Kind::Path, "The rsync program; by default the first one on the usual path.", "/usr/bin/rsync"),
    Setting::new("lsyncd", Kind::Path, "The lsyncd program; by default the first one on the usual path.", "/usr/bin/lsyncd"),
    Setting::new(
        "allow-roots",
        Kind::List(&Kind::Checked { shape: "an absolute directory", check: check_dir }),
        "Syncs and mirrors may touch only these directories and what lies below. By default any directory that the agent's user can reach.",
        "/srv/www",
    ),
    Setting::new(
        "hook-dir",
        Kind::Path,
        "Programs that syncs and mirrors may name as hooks; it and they must be writable by root or the agent's user alone.",
        hook::DIR,
    )
    .default(hook::DIR),
    Setting::new(
        "secrets-dir",
        Kind::Path,
        "Keys and passwords of targets and upstreams without an agent, and known_hosts; for root or the agent's user alone.",
        secrets::DIR,
    )
    .default(secrets::DIR),
    Setting::new(
        "rsyncd-dir",
        Kind::Path,
        "Directory that this node's rsyncd.conf includes, where mirrors with rsyncd-module get a file each. By default none, and then this node lends no mirror to third parties.",
        "/etc/rsyncd.d",
    ),
    Setting::new(
        "bandwidth-limit",
        Kind::Size { min: RATE_MIN, max: RATE_MAX },
        "Most that this node sends to all targets and lends of mirrors to replicas together, a second; SIGHUP takes a new one up. By default no limit.",
        "50MiB",
    ),
    Setting::new(
        "mirror-pulls",
        Kind::Count { min: 1, max: PULLS_MAX },
        "Most pulls of mirrors on this node at once; further ones wait for their turn.",
        "4",
    )
    .default("4"),
    Setting::new(
        "watchdog",
        Kind::OneOf(&["off", "try", "required"]),
        "Whether the guard of a PostgreSQL primary feeds the kernel's watchdog, which resets the machine when nothing else ends postgres in time. With required, nothing is primary here without it.",
        "required",
    )
    .default("off"),
    Setting::new(
        "watchdog-device",
        Kind::Path,
        "The watchdog's device, for one cluster's primary at a time.",
        "/dev/watchdog1",
    )
    .default("/dev/watchdog0"),
    Setting::new(
        "watchdog-timeout",
        Kind::Duration { min: Duration::from_secs(1), max: Duration::from_secs(60) },
        "The timeout to which the device is set (wdctl --settimeout); well below the cluster's lease.",
        "2s",
    )
    .default("2s"),
    Setting::new(
        "log-filter",
        Kind::Checked { shape: "a level, or target=level,…", check: telemetry::check_filter },
        "What is logged: error, warn, info, debug or trace, also for one part only.",
        "lockstep_agent=debug,info",
    )
    .default("info"),
    Setting::new(
        "log-format",
        Kind::OneOf(&["auto", "human", "json"]),
        "How log lines look; auto is human on a terminal and JSON otherwise.",
        "json",
    )
    .default("auto"),
    Setting::new(
        "otlp-endpoint",
        Kind::Text,
        "Collector of spans, OTLP over gRPC; none are kept without it.",
        "http://127.0.0.1:4317",
    ),
];

/// Those that SIGHUP takes up; the others need a restart.
pub const RELOADED: &[&str] = &["bandwidth-limit"];

/// All settings of the agent.
pub const TABLE: Table =
    Table { program: "lockstep-agent", settings: SETTINGS, other_variables: &["LOCKSTEP_BIN_DIR"] };

fn check_host_port(text: &str) -> Result<(), String> {
    HostPort::parse(text, CONTROLLER_PORT).map(drop).map_err(|e| e.problem)
}

fn check_node_address(text: &str) -> Result<(), String> {
    text.parse::<NodeAddress>().map(drop).map_err(|e| e.problem)
}

fn check_dir(text: &str) -> Result<(), String> {
    text.parse::<DirPath>().map(drop).map_err(|e| e.problem)
}

/// The settings of one run.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    /// At least one.
    pub controllers: Vec<HostPort>,
    /// None: `DATA_PORT` of the local address that reaches the controller.
    pub listen: Option<SocketAddr>,
    /// Empty: the listen address.
    pub advertise: Vec<NodeAddress>,
    pub health_listen: SocketAddr,
    /// None: the first one on the usual path.
    pub rsync: Option<PathBuf>,
    pub lsyncd: Option<PathBuf>,
    /// Empty: anywhere.
    pub allow_roots: Vec<DirPath>,
    pub hook_dir: PathBuf,
    pub secrets_dir: PathBuf,
    /// None: no mirror becomes a module of the node's rsync daemon.
    pub rsyncd_dir: Option<PathBuf>,
    /// Bytes per second; None: as fast as it goes.
    pub bandwidth_limit: Option<u64>,
    /// Of mirrors, at once.
    pub mirror_pulls: usize,
    /// None: the kernel's watchdog is left alone.
    pub watchdog: Option<WatchdogSettings>,
    pub telemetry: telemetry::Options,
}

/// Every mistake of the settings.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError(pub Vec<SettingError>);

impl From<SettingError> for ConfigError {
    fn from(error: SettingError) -> Self {
        Self(vec![error])
    }
}

/// Resolves all sources. Without `file` the one in the data directory is read, if it is there.
pub fn load(
    file: Option<&Path>,
    environment: Vec<(OsString, OsString)>,
    flags: Vec<(String, String)>,
) -> Result<(Config, Values), ConfigError> {
    let path = file.map_or_else(|| default_file(&environment, &flags), Path::to_owned);
    let name = path.display().to_string();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(e) if e.kind() == io::ErrorKind::NotFound && file.is_none() => None,
        Err(e) => {
            let problem = format!("cannot be read: {e}");
            return Err(SettingError::new(format!("config file {name}"), problem).into());
        }
    };
    let given = text.as_deref().map(|text| File { name: &name, text });
    let values = TABLE.load(given, environment, flags).map_err(|mut errors| {
        let missing = |e: &SettingError| e.place == "setting controllers";
        if text.is_none() && errors.iter().any(missing) {
            let hint = format!("there is no {name}; run lockstep-agent join first");
            errors.push(SettingError::new("config file", hint));
        }
        ConfigError(errors)
    })?;
    Ok((Config::read(&values)?, values))
}

/// `agent.toml` in the data directory, as far as flags and environment tell where that is.
fn default_file(environment: &[(OsString, OsString)], flags: &[(String, String)]) -> PathBuf {
    let flag = flags.iter().find(|(key, _)| key == "data-dir").map(|(_, dir)| PathBuf::from(dir));
    let variable = || {
        let found = environment.iter().find(|(name, _)| name == "LOCKSTEP_DATA_DIR");
        found.filter(|(_, dir)| !dir.is_empty()).map(|(_, dir)| PathBuf::from(dir))
    };
    flag.or_else(variable).unwrap_or_else(|| PathBuf::from(DATA_DIR)).join(FILE)
}

impl Config {
    fn read(values: &Values) -> Result<Self, SettingError> {
        let controllers: Vec<String> = values.get("controllers")?;
        let controllers = parse_all("controllers", CONTROLLERS_MAX, &controllers, |text| {
            HostPort::parse(text, CONTROLLER_PORT)
        })?;
        if controllers.is_empty() {
            return Err(SettingError::new("setting controllers", "must name at least one"));
        }
        let advertise: Vec<String> = find_list(values, "advertise")?;
        let roots: Vec<String> = find_list(values, "allow-roots")?;
        let format: String = values.get("log-format")?;
        let wrong = |problem| SettingError::new("setting log-format", problem);
        Ok(Self {
            data_dir: values.get("data-dir")?,
            controllers,
            listen: values.find("listen")?,
            advertise: parse_all("advertise", ADDRESSES_MAX, &advertise, str::parse)?,
            health_listen: values.get("health-listen")?,
            rsync: values.find("rsync")?,
            lsyncd: values.find("lsyncd")?,
            hook_dir: values.get("hook-dir")?,
            secrets_dir: values.get("secrets-dir")?,
            rsyncd_dir: values.find("rsyncd-dir")?,
            allow_roots: parse_all("allow-roots", ROOTS_MAX, &roots, str::parse)?,
            bandwidth_limit: values.find("bandwidth-limit")?,
            mirror_pulls: values.get("mirror-pulls")?,
            watchdog: watchdog(values)?,
            telemetry: telemetry::Options {
                filter: values.get("log-filter")?,
                format: format.parse().map_err(wrong)?,
                otlp_endpoint: values.find("otlp-endpoint")?,
                node: None,
            },
        })
    }
}

fn watchdog(values: &Values) -> Result<Option<WatchdogSettings>, SettingError> {
    let mode: String = values.get("watchdog")?;
    let timeout: Duration = values.get("watchdog-timeout")?;
    let settings = WatchdogSettings {
        device: values.get("watchdog-device")?,
        timeout: Millis::of(timeout),
        is_required: mode == "required",
    };
    Ok((mode != "off").then_some(settings))
}

fn find_list<T: FromValue>(values: &Values, key: &str) -> Result<Vec<T>, SettingError> {
    Ok(values.find(key)?.unwrap_or_default())
}

fn parse_all<T>(
    key: &str,
    max: usize,
    texts: &[String],
    parse: impl Fn(&str) -> Result<T, lockstep_model::Invalid>,
) -> Result<Vec<T>, SettingError> {
    let wrong = |problem: String| SettingError::new(format!("setting {key}"), problem);
    if texts.len() > max {
        return Err(wrong(format!("has {} items, at most {max} fit", texts.len())));
    }
    texts.iter().map(|text| parse(text).map_err(|e| wrong(e.problem))).collect()
}

/// What `join` writes: the settings that only it can know.
pub fn write(
    controllers: &[HostPort],
    listen: Option<SocketAddr>,
    advertise: &[NodeAddress],
) -> String {
    let list = |items: Vec<String>| {
        format!("[{}]", items.iter().map(|i| format!("{i:?}")).collect::<Vec<_>>().join(", "))
    };
    let texts = |items: &[HostPort]| items.iter().map(ToString::to_string).collect();
    let mut out = String::from(
        "# Written by `lockstep-agent join`; yours to change. `lockstep-agent run --help` lists the settings.\n",
    );
    out += &format!("controllers = {}\n", list(texts(controllers)));
    if let Some(listen) = listen {
        out += &format!("listen = \"{listen}\"\n");
    }
    if !advertise.is_empty() {
        out +=
            &format!("advertise = {}\n", list(advertise.iter().map(ToString::to_string).collect()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn what_join_writes_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let controllers = ["c1:7400".parse().unwrap(), "[::1]:7411".parse().unwrap()];
        let listen = Some("127.0.0.2:7402".parse().unwrap());
        let advertise = ["lan=10.0.0.5:1".parse().unwrap(), "[fd00::5]:2".parse().unwrap()];
        std::fs::write(dir.path().join(FILE), write(&controllers, listen, &advertise)).unwrap();
        let data_dir = dir.path().to_str().unwrap();
        let (config, _) = load(None, vec![], flags(&[("data-dir", data_dir)])).unwrap();
        assert_eq!(config.controllers, controllers);
        assert_eq!(config.listen, listen);
        assert_eq!(config.advertise, advertise);
        assert_eq!(config.data_dir, dir.path());
        assert_eq!(config.health_listen.port(), 7403);
        assert!(config.allow_roots.is_empty());
        let environment = vec![("LOCKSTEP_DATA_DIR".into(), data_dir.into())];
        assert_eq!(load(None, environment, vec![]).unwrap().0.controllers, controllers);
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("my.toml");
        let text = "controlers = [\"c1\"]\nlisten = \"here\"\nadvertise = [\"l n=1:2\"]\nallow-roots = [\"srv\"]\n";
        std::fs::write(&file, text).unwrap();
        let error = load(Some(&file), vec![], flags(&[("log-format", "xml")])).unwrap_err();
        let error = error.to_string();
        for expected in
            ["did you mean controllers", "listen", "advertise", "allow-roots", "--log-format"]
        {
            assert!(error.contains(expected), "{expected} in {error}");
        }
    }

    #[test]
    fn a_machine_that_never_joined_is_told_to() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = flags(&[("data-dir", dir.path().to_str().unwrap())]);
        let error = load(None, vec![], data_dir).unwrap_err().to_string();
        assert!(error.contains("run lockstep-agent join first"), "{error}");
        let error = load(Some(&dir.path().join("none")), vec![], vec![]).unwrap_err().to_string();
        assert!(error.contains("cannot be read"), "{error}");
    }

    #[test]
    fn the_example_is_a_config() {
        TABLE.check().unwrap();
        // UPDATE_EXPECT=1 writes it.
        expect_test::expect_file!["../../deploy/config/agent.example.toml"]
            .assert_eq(&TABLE.render_example());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("example.toml");
        std::fs::write(&file, TABLE.render_example()).unwrap();
        load(Some(&file), vec![], vec![]).unwrap();
    }
}
