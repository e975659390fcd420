//! The command line: what can be typed, what its help says, and what the exit codes mean.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command as Verb, value_parser};
use lockstep_controller::config::{self, TABLE};
use lockstep_controller::driver::Fatal;
use lockstep_controller::identity::ca::CaError;
use lockstep_controller::init::{FIRST_ADMIN, InitError};
use lockstep_controller::store::StoreError;
use lockstep_controller::store::export::ImportError;
use lockstep_transport::settings::EXIT_SETTINGS;

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  failed: see the message
  2  wrong usage or settings
  3  refused: what is there does not allow it
  4  the outcome of a commit is not known; start again, what is on disk is right";

/// What the program says to its caller when it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = EXIT_SETTINGS as isize,
    Refused = 3,
    Unknown = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    pub fn of(error: &anyhow::Error) -> Self {
        if error.is::<Usage>() {
            return Self::Usage;
        }
        if let Some(error) = error.downcast_ref::<Fatal>() {
            return match error {
                Fatal::Unknown(_) => Self::Unknown,
                Fatal::Overtaken(_) => Self::Failed,
            };
        }
        let ca = |error: &CaError| matches!(error, CaError::Refused(_));
        let store = |error: &StoreError| {
            !matches!(error, StoreError::Damaged { .. } | StoreError::Io { .. })
        };
        let init = |error: &InitError| match error {
            InitError::Refused(_) | InitError::Rejected(_) | InitError::Invalid(_) => true,
            InitError::Ca(error) => ca(error),
            InitError::Store(error) => store(error),
            InitError::Commit(_) | InitError::Io { .. } => false,
        };
        let import = |error: &ImportError| match error {
            ImportError::Newer { .. }
            | ImportError::Incomplete(_)
            | ImportError::Contradiction(_) => true,
            ImportError::Store(error) => store(error),
            ImportError::Line { .. } | ImportError::Io(_) => false,
        };
        let refused = error.downcast_ref().is_some_and(init)
            || error.downcast_ref().is_some_and(import)
            || error.downcast_ref().is_some_and(ca)
            || error.downcast_ref().is_some_and(store);
        if refused {
            return Self::Refused;
        }
        Self::Failed
    }
}

/// What was typed or configured cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

pub fn command() -> Verb {
    Verb::new("lockstep-controller")
        .about("The controller of a Lockstep fleet")
        .version(lockstep_controller::VERSION)
        .after_help(EXIT_CODES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(init())
        .subcommand(run())
        .subcommand(admin_token())
        .subcommand(ca())
        .subcommand(store())
}

fn init() -> Verb {
    Verb::new("init")
        .about("Set up a new fleet: CA, store, first admin; prints the admin's single-use token")
        .after_help(
            "Example:\n  lockstep-controller init --data-dir /var/lib/lockstep-controller --listen 10.0.0.1:7400 --name prod",
        )
        .arg(data_dir().help("Where everything is made; must be empty or not there yet"))
        .arg(
            Arg::new("name")
                .long("name")
                .value_name("NAME")
                .required(true)
                .help("Name of the fleet; it stands in every certificate and cannot be changed"),
        )
        .arg(
            Arg::new("listen")
                .long("listen")
                .value_name("IP:PORT")
                .required(true)
                .help(config::LISTEN.help),
        )
        .arg(
            Arg::new("advertise")
                .long("advertise")
                .value_name("HOST[:PORT]")
                .action(ArgAction::Append)
                .help(config::ADVERTISE.help),
        )
}

fn run() -> Verb {
    Verb::new("run")
        .about("Serve, until SIGTERM or SIGINT")
        .long_about(
            "Serve, until SIGTERM or SIGINT.\n\nSettings come from flags, LOCKSTEP_* variables and the config file, \
             in this order; the config file is --config, $LOCKSTEP_CONFIG, or controller.toml in the data directory.",
        )
        .after_help(
            "Examples:\n  lockstep-controller run --data-dir /var/lib/lockstep-controller\n  \
             lockstep-controller run --config /etc/lockstep/controller.toml --check-config",
        )
        .arg(config_file())
        .arg(
            Arg::new("check-config")
                .long("check-config")
                .action(ArgAction::SetTrue)
                .help("Check the settings, print those in effect, and end"),
        )
        .args(TABLE.to_clap_args())
}

fn admin_token() -> Verb {
    Verb::new("admin-token")
        .about(
            "Make a token for an admin who lost every other way in; the controller must be stopped",
        )
        .after_help(
            "Example:\n  lockstep-controller admin-token --data-dir /var/lib/lockstep-controller",
        )
        .arg(data_dir())
        .arg(
            Arg::new("user")
                .long("user")
                .value_name("NAME")
                .default_value(FIRST_ADMIN)
                .help("Made, enabled and given the role admin, whatever it was"),
        )
}

fn ca() -> Verb {
    Verb::new("ca")
        .about("The certificate authority of the fleet")
        .subcommand_required(true)
        .subcommand(Verb::new("list").about("Show the roots").arg(data_dir()))
        .subcommand(
            Verb::new("rotate")
                .about("Begin a rotation: a new root beside the old one; members trust both")
                .long_about(
                    "Begin a rotation: a new root beside the old one. A running controller takes it up within \
                     seconds: members are told to trust both, new certificates are issued under the new root and are \
                     believed by those who know only the old one. `ca retire` ends the rotation.",
                )
                .arg(data_dir()),
        )
        .subcommand(
            Verb::new("retire")
                .about("End a rotation: the old root is trusted no more")
                .arg(config_file())
                .arg(
                    Arg::new("force")
                        .long("force")
                        .action(ArgAction::SetTrue)
                        .help("Also when certificates under the old root may be in use; their holders must join again"),
                )
                .args(TABLE.to_clap_args()),
        )
}

fn store() -> Verb {
    let file = |help: &'static str| {
        Arg::new("file")
            .value_name("FILE")
            .default_value("-")
            .value_parser(value_parser!(PathBuf))
            .help(help)
    };
    Verb::new("store")
        .about("Export, import or check the store; the controller must be stopped")
        .subcommand_required(true)
        .subcommand(
            Verb::new("export")
                .about("Write everything that can be read as NDJSON, also from a damaged store")
                .after_help("Example:\n  lockstep-controller store export backup.ndjson --log")
                .arg(file("Must not exist yet; - is stdout"))
                .arg(Arg::new("log").long("log").action(ArgAction::SetTrue).help("With the log"))
                .arg(data_dir()),
        )
        .subcommand(
            Verb::new("import")
                .about("Make a store out of an export, in a data directory that has none")
                .long_about(
                    "Make a store out of an export, in a data directory that has none. With the ca directory of the \
                     old place beside it, the fleet goes on without anybody joining again.",
                )
                .after_help(
                    "Example:\n  lockstep-controller store import backup.ndjson --data-dir /var/lib/lockstep-controller",
                )
                .arg(file("- is stdin"))
                .arg(
                    Arg::new("allow-incomplete")
                        .long("allow-incomplete")
                        .action(ArgAction::SetTrue)
                        .help("Also an export that is torn, or was made of a damaged store"),
                )
                .arg(data_dir()),
        )
        .subcommand(
            Verb::new("check")
                .about("Read every value and hold the records against the log")
                .arg(data_dir()),
        )
}

/// The data directory, absolute.
pub fn absolute(matches: &ArgMatches) -> anyhow::Result<PathBuf> {
    let dir = matches.get_one::<PathBuf>("data-dir").context("--data-dir is missing")?;
    Ok(std::path::absolute(dir)?)
}

fn data_dir() -> Arg {
    Arg::new("data-dir")
        .long("data-dir")
        .value_name("PATH")
        .env("LOCKSTEP_DATA_DIR")
        .default_value(config::DATA_DIR_DEFAULT)
        .value_parser(value_parser!(PathBuf))
        .help(config::DATA_DIR.help)
}

fn config_file() -> Arg {
    Arg::new("config").long("config").value_name("FILE").value_parser(value_parser!(PathBuf)).help(
        "The config file [env: LOCKSTEP_CONFIG] [default: controller.toml in the data directory]",
    )
}
