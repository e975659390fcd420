//! The settings of `lockstep-controller run`: their one table, and the checked values. It reads no
//! file and no environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lockstep_model::{HostPort, Millis};
use lockstep_plan::Limits;
use lockstep_transport::settings::{Kind, Setting, SettingError, Table, Values};
use lockstep_transport::telemetry;

use crate::identity::ca::LEAF_LIFE_MAX;

pub const DATA_DIR_DEFAULT: &str = "/var/lib/lockstep-controller";
/// Where none is written.
pub const PORT: u16 = 7400;
/// The config file that `init` writes, in the data directory.
pub const CONFIG_FILE: &str = "controller.toml";

pub const DATA_DIR: Setting = Setting::new(
    "data-dir",
    Kind::Path,
    "Where the store and the CA are; made by `lockstep-controller init`.",
    DATA_DIR_DEFAULT,
)
.default(DATA_DIR_DEFAULT);

pub const LISTEN: Setting = Setting::new(
    "listen",
    Kind::Socket,
    "Where agents and lockstepctl connect; TLS with certificates of the fleet. Written by `init`.",
    "10.0.0.1:7400",
);

pub const ADVERTISE: Setting = Setting::new(
    "advertise",
    Kind::List(&Kind::Endpoint),
    "Under which addresses agents and people reach the controllers; agents keep the list.",
    "ctl.example.org:7400",
);

pub const TABLE: Table = Table {
    program: "lockstep-controller",
    settings: &[
        DATA_DIR,
        LISTEN,
        ADVERTISE,
        Setting::new(
            "health-listen",
            Kind::Socket,
            "Where load balancers ask for health, over HTTP and gRPC, in plain text.",
            "10.0.0.1:7401",
        )
        .default("127.0.0.1:7401"),
        Setting::new(
            "push-listen",
            Kind::Socket,
            "Where upstreams ask for runs of mirrors with a push token, over plain HTTP: loopback, or behind a proxy with \
             TLS. Without it nobody is listened to.",
            "127.0.0.1:7404",
        ),
        Setting::new(
            "leaf-life",
            Kind::Duration {
                min: Duration::from_secs(2),
                max: Duration::from_millis(LEAF_LIFE_MAX.0),
            },
            "How long a certificate of a node or user is valid; it is renewed daily, or at half of this if that is \
             sooner.",
            "30d",
        )
        .default("30d"),
        Setting::new(
            "heartbeat",
            Kind::Duration { min: Duration::from_millis(100), max: Duration::from_secs(60) },
            "How often agents and controller tell each other that they are there; three missed ones end a stream.",
            "2s",
        )
        .default("2s"),
        Setting::new(
            "pulls",
            Kind::Count { min: 1, max: 10_000 },
            "How many pulls of mirrors go on at once in the whole fleet.",
            "200",
        )
        .default("100"),
        Setting::new(
            "pulls-per-upstream",
            Kind::Count { min: 1, max: 10_000 },
            "How many of them pull from one upstream's host, further ones of a tree included; public mirrors refuse more than a few of one address.",
            "4",
        )
        .default("2"),
        telemetry::LOG_FILTER,
        telemetry::LOG_FORMAT,
        telemetry::OTLP_ENDPOINT,
    ],
    other_variables: &[
        "LOCKSTEP_CONFIG_DIR",
        "LOCKSTEP_CONTEXT",
        "LOCKSTEP_CONTROLLER",
        "LOCKSTEP_CONTROLLERS",
        "LOCKSTEP_TOKEN",
    ],
};

/// What `run` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub health_listen: SocketAddr,
    pub push_listen: Option<SocketAddr>,
    pub advertise: Vec<HostPort>,
    pub leaf_life: Millis,
    pub heartbeat: Millis,
    pub pulls: Limits,
    pub telemetry: telemetry::Options,
}

impl Config {
    pub fn from_values(values: &Values) -> Result<Self, Vec<SettingError>> {
        let config = Self::read(values).map_err(|error| vec![error])?;
        if config.listen == config.health_listen && config.listen.port() != 0 {
            let problem = format!("is {}, as is listen; give each its own port", config.listen);
            return Err(vec![SettingError::new("setting health-listen", problem)]);
        }
        Ok(config)
    }

    fn read(values: &Values) -> Result<Self, SettingError> {
        let millis =
            |duration: Duration| Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        let advertise: Vec<String> = values.find("advertise")?.unwrap_or_default();
        let advertise = advertise.iter().map(|text| text.parse()).collect::<Result<_, _>>();
        Ok(Self {
            data_dir: values.get("data-dir")?,
            // No wildcard by default, and no guess: whoever sets a fleet up says where it listens.
            listen: values.find("listen")?.ok_or_else(|| {
                let file = format!("`lockstep-controller init` writes it to {CONFIG_FILE}");
                SettingError::new("setting listen", format!("is missing; {file}, or give --listen"))
            })?,
            health_listen: values.get("health-listen")?,
            push_listen: values.find("push-listen")?,
            advertise: advertise.map_err(|e: lockstep_model::Invalid| {
                SettingError::new("setting advertise", e.to_string())
            })?,
            leaf_life: millis(values.get("leaf-life")?),
            heartbeat: millis(values.get("heartbeat")?),
            pulls: Limits {
                pulls_max: values.get("pulls")?,
                per_upstream_max: values.get("pulls-per-upstream")?,
            },
            telemetry: telemetry::Options::from_values(values, None)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, Vec<SettingError>> {
        let file = lockstep_transport::settings::File { name: "controller.toml", text };
        Config::from_values(&TABLE.load(Some(file), [], [])?)
    }

    #[test]
    fn the_defaults_are_a_configuration() {
        let config = load("listen = \"10.0.0.1:7400\"").unwrap();
        assert_eq!(config.data_dir, PathBuf::from(DATA_DIR_DEFAULT));
        assert_eq!(config.leaf_life, Millis::from_secs(30 * 24 * 3600));
        assert_eq!(config.heartbeat, Millis::from_secs(2));
        assert!(config.advertise.is_empty());
        assert_eq!(config.pulls, Limits::default());
    }

    #[test]
    fn the_example_is_a_configuration() {
        let example = TABLE.render_example();
        load(&example.replace("# listen", "listen")).unwrap();
        expect_test::expect_file!["../../deploy/config/controller.example.toml"]
            .assert_eq(&example);
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let errors = load(
            "data-dir = \"relative\"\nlisten = \"here\"\nleaf-life = \"1s\"\nheartbeat = 5\n\
             log-filter = \"=\"\nlog-format = \"xml\"\nadvertise = [\"a b:1\"]\nhealth-listn = \"x\"\n",
        )
        .unwrap_err();
        assert_eq!(errors.len(), 8, "{errors:?}");
        let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(text.contains("did you mean health-listen?"), "{text}");
    }

    #[test]
    fn where_to_listen_must_be_said() {
        let errors = load("").unwrap_err();
        assert!(errors[0].to_string().contains("lockstep-controller init"), "{errors:?}");
    }

    #[test]
    fn one_port_cannot_serve_both() {
        let errors = load("listen = \"0.0.0.0:7\"\nhealth-listen = \"0.0.0.0:7\"").unwrap_err();
        assert!(errors[0].to_string().contains("health-listen"), "{errors:?}");
    }
}
