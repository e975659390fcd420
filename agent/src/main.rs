//! The program: command line, settings, logs, signals, exit codes. The work is the library's.

mod cli;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{ArgMatches, FromArgMatches};
use lockstep_agent::config::{
    self, CONTROLLER_PORT, Config, ConfigError, DATA_DIR, RELOADED, TABLE,
};
use lockstep_agent::join::{Wish, join};
use lockstep_agent::pg::guard;
use lockstep_agent::pg::salvage;
use lockstep_agent::run::Agent;
use lockstep_agent::{classic, dispatch, host, rsh, status};
use lockstep_model::HostPort;
use lockstep_transport::settings::{CONFIG_VARIABLE, EXIT_SETTINGS, Values};
use lockstep_transport::token::{JoinToken, TOKEN_MAX};
use lockstep_transport::{clock, notify::Notifier, telemetry};
use tokio::signal::unix::{SignalKind, signal};

use cli::{Cli, Command, Join};

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let called = args.next().unwrap_or_default();
    if let Some(state_dir) = dispatch::state_dir(&called) {
        return dispatch::run(state_dir, args, std::io::stdin().lock(), clock::now()).into();
    }
    if let Some(dir) = classic::unit_dir(&called) {
        return classic::run(dir, args, std::io::stdin().lock(), clock::now()).into();
    }
    let matches = cli::command().get_matches();
    match work(&matches) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("{error:#}"));
            match error.is::<ConfigError>() || error.is::<cli::Usage>() {
                true => EXIT_SETTINGS.into(),
                false => ExitCode::FAILURE,
            }
        }
    }
}

fn complain(text: &str) {
    // Nobody reads: nothing to be done about it.
    let _ = writeln!(std::io::stderr(), "lockstep-agent: {text}");
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn work(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let Cli { data_dir, command } = Cli::from_arg_matches(matches)?;
    let data_dir = || {
        let given = data_dir.clone().map(PathBuf::from);
        let set = std::env::var_os("LOCKSTEP_DATA_DIR").filter(|dir| !dir.is_empty());
        given.or(set.map(PathBuf::from)).unwrap_or_else(|| PathBuf::from(DATA_DIR))
    };
    match command {
        Command::Run(run) => {
            let flags = matches.subcommand_matches("run").map(|m| TABLE.flags(m));
            let variable = std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from);
            let file = run.config.or(variable);
            let flags = flags.unwrap_or_default();
            let load = move || {
                let environment = std::env::vars_os().collect();
                config::load(file.as_deref(), environment, flags.clone())
            };
            let (config, values) = load()?;
            if run.check_config {
                return print(&values.render_effective());
            }
            let _telemetry = telemetry::init("lockstep-agent", &config.telemetry)?;
            block_on(serve(config, values, load))
        }
        Command::Join(wish) => {
            let wish = read_wish(wish, std::path::absolute(data_dir())?)?;
            block_on(join_and_tell(wish))
        }
        Command::Rsh(args) => {
            rsh::run(args, &data_dir())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Guard(args) => {
            guard::run(&args)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::RestoreWal(order) => {
            let to = order.to.display().to_string();
            Ok(match salvage::restore(&order).with_context(|| format!("cannot restore {to}"))? {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            })
        }
        Command::Launch(launch) => Err(host::launch::exec(launch)),
        Command::Status => {
            let dir = data_dir();
            let flags = vec![("data-dir".to_owned(), dir.display().to_string())];
            let config = config::load(None, std::env::vars_os().collect(), flags);
            let controllers = config.map(|(config, _)| config.controllers).unwrap_or_default();
            print(&status::describe(&dir, &controllers, clock::now())?)
        }
    }
}

/// Two threads are enough: the work is rsync's and lsyncd's.
fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    const WORKERS: usize = 2;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(WORKERS).enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let done = runtime.block_on(work);
    // A thread that waits for a disk or a name server must not keep the process.
    runtime.shutdown_background();
    done
}

type Loaded = Result<(Config, Values), ConfigError>;

async fn serve(
    config: Config,
    mut values: Values,
    load: impl Fn() -> Loaded,
) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let notifier = Notifier::new(|name| std::env::var(name).ok(), std::process::id());
    let agent = Agent::start(config).await?;
    notifier.ready();
    let reloads = async {
        while hangup.recv().await.is_some() {
            reload(&agent, &mut values, load());
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = reloads => {}
        // Never ends with a watchdog, and at once without one.
        () = async { notifier.keep_watchdog(&agent.board).await; std::future::pending().await } => {}
    }
    tracing::info!("agent stops");
    notifier.stopping();
    agent.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Settings that are wrong now change nothing.
fn reload(agent: &Agent, values: &mut Values, loaded: Loaded) {
    let (config, new) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            tracing::error!(%error, "the settings stay as they were");
            return;
        }
    };
    let changed = values.differing(&new);
    let (now, later): (Vec<_>, Vec<_>) =
        changed.into_iter().partition(|key| RELOADED.contains(key));
    agent.reload(&config);
    tracing::info!(?now, after_restart = ?later, "settings were read anew");
    *values = new;
}

fn read_wish(join: Join, data_dir: PathBuf) -> anyhow::Result<Wish> {
    let usage = |e: lockstep_model::Invalid| cli::Usage(e.to_string());
    let controllers = join.controllers.iter().map(|at| HostPort::parse(at, CONTROLLER_PORT));
    let token = match (join.token.as_deref(), &join.token_file) {
        (Some("-"), _) => {
            let stdin = std::io::stdin().lock();
            if stdin.is_terminal() {
                write!(std::io::stderr(), "Token: ")?;
            }
            read_token(stdin, Path::new("standard input"))?
        }
        (Some(token), _) => token.to_owned(),
        (None, Some(file)) => {
            let opened = std::fs::File::open(file);
            read_token(opened.with_context(|| file.display().to_string())?, file)?
        }
        (None, None) => anyhow::bail!(cli::Usage("give --token or --token-file".to_owned())),
    };
    Ok(Wish {
        controllers: controllers.collect::<Result<_, _>>().map_err(usage)?,
        token: token.trim().parse::<JoinToken>().map_err(usage)?,
        data_dir,
        listen: join.listen,
        advertise: join.advertise,
        replace: join.replace,
    })
}

/// The first line, so that on a terminal Enter suffices.
fn read_token(from: impl Read, name: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    // With room for a line's end; what is longer is refused as too long.
    let read = BufReader::new(from.take(TOKEN_MAX as u64 + 16)).read_line(&mut text);
    read.with_context(|| format!("cannot read the token from {}", name.display()))?;
    Ok(text)
}

async fn join_and_tell(wish: Wish) -> anyhow::Result<ExitCode> {
    let (dir, controllers) = (wish.data_dir.clone(), wish.controllers.clone());
    let joined = join(wish).await?;
    let mut text =
        format!("joined as {}, certificate until {}\n", joined.spiffe_id, joined.not_after);
    if joined.config_kept {
        let controllers: Vec<_> = controllers.iter().map(ToString::to_string).collect();
        text += &format!(
            "{} was there and is kept; see that its controllers are {}\n",
            joined.config.display(),
            controllers.join(", ")
        );
    }
    text += "next: systemctl enable --now lockstep-agent, or: lockstep-agent run";
    if dir.as_os_str() != OsStr::new(DATA_DIR) {
        text += &format!(" --data-dir {}", dir.display());
    }
    print(&(text + "\n"))
}
