//! The program: command line, settings, logs, signals, exit codes. The work is the library's.

mod backup;
mod cli;

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::ArgMatches;
use lockstep_controller::config::{self, CONFIG_FILE, Config, TABLE};
use lockstep_controller::identity::ca::{self, Ca, RootInfo};
use lockstep_controller::init::{self, Setup};
use lockstep_controller::server::{CA_DIR, Controller};
use lockstep_controller::store::{SledStore, Store};
use lockstep_model::{HostPort, Invalid, KeyHash, Millis, UserName};
use lockstep_transport::settings::{CONFIG_VARIABLE, File, SettingError, Values};
use lockstep_transport::{clock, notify::Notifier, telemetry};
use tokio::signal::unix::{SignalKind, signal};

use cli::{Exit, absolute};

/// What calls that block get to end in, when the work is done or has failed.
const BLOCKED_GRACE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    match dispatch(&cli::command().get_matches()) {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            eprintln!("lockstep-controller: {}", describe(&error));
            Exit::of(&error).into()
        }
    }
}

/// The error and its causes, as far as it does not say them itself.
fn describe(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn dispatch(matches: &ArgMatches) -> anyhow::Result<()> {
    match matches.subcommand() {
        Some(("run", matches)) => run(matches),
        Some(("init", matches)) => init(matches),
        Some(("admin-token", matches)) => admin_token(matches),
        Some(("ca", matches)) => match matches.subcommand() {
            Some(("rotate", matches)) => rotate(matches),
            Some(("retire", matches)) => retire(matches),
            Some((_, matches)) => list_roots(matches),
            None => Ok(()), // clap asks for one
        },
        Some(("store", matches)) => backup::run(matches),
        Some(_) | None => Ok(()), // clap asks for one
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    // A thread that waits for a disk that never answers must not keep the process.
    runtime.shutdown_timeout(BLOCKED_GRACE);
    Ok(done)
}

fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let values = load(matches)?;
    let config = Config::from_values(&values).map_err(settings_refused)?;
    if matches.get_flag("check-config") {
        return print(&values.render_effective());
    }
    let _guard = telemetry::init("lockstep-controller", &config.telemetry)?;
    block_on(serve(config))?
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let notifier = Notifier::new(|name| std::env::var(name).ok(), std::process::id());
    let dir = config.data_dir.clone();
    let opened = tokio::task::spawn_blocking(move || SledStore::open(&dir)).await??;
    let store: Arc<dyn Store> = Arc::new(opened);
    let controller = Controller::start(&config, store).await?;
    let board = controller.board.clone();
    notifier.ready();
    let served = controller.run_until(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            // Never ends with a watchdog, and at once without one.
            () = async { notifier.keep_watchdog(&board).await; std::future::pending().await } => {}
        }
        notifier.stopping();
    });
    Ok(served.await?)
}

/// Config file, environment and flags, in the order that the settings have among themselves.
fn load(matches: &ArgMatches) -> anyhow::Result<Values> {
    let flags = TABLE.flags(matches);
    let named = matches.get_one::<PathBuf>("config").cloned();
    let named = named.or_else(|| std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from));
    let (path, must_be) = match named {
        Some(path) => (path, true),
        None => (data_dir(&flags)?.join(CONFIG_FILE), false),
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must_be => None,
        Err(e) => {
            let place = format!("config file {}", path.display());
            return Err(settings_refused(vec![SettingError::new(place, e.to_string())]));
        }
    };
    let name = path.display().to_string();
    let file = text.as_deref().map(|text| File { name: &name, text });
    TABLE.load(file, std::env::vars_os(), flags).map_err(settings_refused)
}

/// Where the config file is looked for: it cannot say so itself.
fn data_dir(flags: &[(String, String)]) -> anyhow::Result<PathBuf> {
    let key = config::DATA_DIR.key;
    let flags = flags.iter().filter(|(name, _)| name == key).cloned();
    let variable = config::DATA_DIR.variable();
    let environment = std::env::vars_os().filter(|(name, _)| *name == *variable);
    let values = TABLE.load(None, environment, flags).map_err(settings_refused)?;
    values.get(key).map_err(|error| settings_refused(vec![error]))
}

fn settings_refused(errors: Vec<SettingError>) -> anyhow::Error {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    cli::Usage(format!("the settings are refused:\n  {}", lines.join("\n  "))).into()
}

fn init(matches: &ArgMatches) -> anyhow::Result<()> {
    let usage = |e: Invalid| cli::Usage(e.to_string());
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str).unwrap_or_default();
    let advertise = matches.get_many::<String>("advertise").unwrap_or_default();
    let setup = Setup {
        data_dir: absolute(matches)?,
        fleet: text("name").parse().map_err(usage)?,
        listen: text("listen").parse().map_err(|_| {
            cli::Usage(
                "--listen must be an IP address with its port, such as 0.0.0.0:7400".to_owned(),
            )
        })?,
        advertise: advertise
            .map(|at| HostPort::parse(at, config::PORT))
            .collect::<Result<_, _>>()
            .map_err(usage)?,
    };
    let token = block_on(init::init(&setup, clock::now()))??;
    let dir = setup.data_dir.display();
    eprintln!("fleet {} is set up in {dir}; start its controller:", setup.fleet);
    eprintln!("  lockstep-controller run --data-dir {dir}");
    hand_over(&token, &setup.address())
}

fn admin_token(matches: &ArgMatches) -> anyhow::Result<()> {
    let user = matches.get_one::<String>("user").map(String::as_str);
    let user: UserName = user
        .unwrap_or(init::FIRST_ADMIN)
        .parse()
        .map_err(|e: Invalid| cli::Usage(e.to_string()))?;
    let token = block_on(init::admin_token(&absolute(matches)?, &user, clock::now()))??;
    hand_over(&token, "HOST:PORT")
}

/// The token alone goes to stdout; on a terminal, the line to type as well.
fn hand_over(token: &lockstep_transport::token::JoinToken, address: &str) -> anyhow::Result<()> {
    let shown = token.reveal();
    let text = if std::io::stdout().is_terminal() { shown.as_str() } else { "-" };
    eprintln!("then log in, within 24 hours and once, with the token that is shown only here:");
    eprintln!("  lockstepctl login --controller {address} --token {text}");
    print(&format!("{}\n", *shown))
}

fn list_roots(matches: &ArgMatches) -> anyhow::Result<()> {
    let mut text = String::new();
    for root in ca::list(&absolute(matches)?.join(CA_DIR))? {
        text += &format!("{}\n", show(&root));
    }
    print(&text)
}

fn show(root: &RootInfo) -> String {
    let RootInfo { number, sha256, not_before, not_after } = root;
    format!("root {number}  from {not_before}  to {not_after}  sha256 {}", KeyHash(*sha256))
}

/// Works beside a running controller, which looks at the files.
fn rotate(matches: &ArgMatches) -> anyhow::Result<()> {
    let root = Ca::rotate(&absolute(matches)?.join(CA_DIR), clock::now())?;
    eprintln!(
        "a running controller takes it up within seconds; when every node has been connected for"
    );
    eprintln!(
        "a while, and at the earliest after the life of a leaf: lockstep-controller ca retire"
    );
    print(&format!("{}\n", show(&root)))
}

fn retire(matches: &ArgMatches) -> anyhow::Result<()> {
    let values = load(matches)?;
    let config = Config::from_values(&values).map_err(settings_refused)?;
    let (dir, force) = (config.data_dir.join(CA_DIR), matches.get_flag("force"));
    let root = Ca::retire(&dir, Millis(config.leaf_life.0), force, clock::now())?;
    eprintln!("retired; members whose certificate is still under it have to join again");
    print(&format!("{}\n", show(&root)))
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
}
