//! What the commands do: call, show, wait.

mod cluster;
mod context;
mod log;
mod login;
mod mirror;
mod node;
pub mod schedule;
mod secret;
mod settings;
mod status;
mod store;
mod sync;
mod task;
mod token;
mod user;

use std::time::Duration;

use clap::CommandFactory;
use lockstep_proto::v1;
use tokio::time::timeout;

use crate::args::{Args, Command, Global};
use crate::client::Client;
use crate::error::Failure;
use crate::render;

/// How long it may take beyond `--timeout` to cancel what was begun.
const CANCEL_MAX: Duration = Duration::from_secs(5);

pub async fn run(args: Args) -> Result<(), Failure> {
    let Args { global, command } = args;
    // These go on until they are stopped, or until a --timeout that was given.
    let endless = match &command {
        Command::Watch(_) => true,
        Command::Task(task) => task.follows(),
        Command::Sync(sync) => sync.follows(),
        Command::Mirror(mirror) => mirror.follows(),
        Command::Cluster(cluster) => cluster.follows(),
        _ => false,
    };
    // These leave nothing behind when their time is over.
    let cancels = matches!(&command, Command::Sync(sync) if sync.cancels());
    let limit = match (global.timeout, endless) {
        (Some(limit), _) if cancels => Some(limit.saturating_add(CANCEL_MAX)),
        (Some(limit), _) => Some(limit),
        (None, true) => None,
        (None, false) => Some(Global::TIMEOUT_DEFAULT),
    };
    let work = dispatch(&global, command);
    match limit {
        None => work.await,
        Some(limit) => timeout(limit, work).await.unwrap_or_else(|_| {
            let what = format!("not finished after {limit:?}; what was begun goes on");
            Err(Failure::timed_out(format!("{what}. Give a longer --timeout to wait for it")))
        }),
    }
}

async fn dispatch(global: &Global, command: Command) -> Result<(), Failure> {
    match command {
        Command::Login(login) => login::run(global, login).await,
        Command::Context(command) => context::run(global, command),
        Command::Completions { shell } => completions(shell),
        Command::Status => status::run(&Client::connect(global).await?).await,
        Command::Token(command) => token::run(&Client::connect(global).await?, command).await,
        Command::Node(command) => node::run(&Client::connect(global).await?, command).await,
        Command::Sync(command) => sync::run(global, command).await,
        Command::Mirror(command) => mirror::run(global, command).await,
        Command::Cluster(command) => cluster::run(global, command).await,
        Command::Schedule(command) => schedule::run(&Client::connect(global).await?, command).await,
        Command::Task(command) => task::run(&Client::connect(global).await?, command).await,
        Command::User(command) => user::run(&Client::connect(global).await?, command).await,
        Command::Watch(watch) => log::watch(&Client::connect(global).await?, watch).await,
        Command::Log(log) => log::list(&Client::connect(global).await?, log).await,
        Command::Explain(explain) => log::explain(&Client::connect(global).await?, explain).await,
        Command::Store(command) => store::run(&Client::connect(global).await?, command).await,
    }
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "lockstepctl", &mut script);
    render::raw(&script)
}

/// Tells people what became of a change; programs read it in the message.
fn tell(result: Option<&v1::Result>, dry_run: bool) {
    let Some(v1::Result { changed, revision, detail }) = result else { return };
    let detail = if detail.is_empty() { "" } else { &format!(": {detail}") };
    match (dry_run, changed) {
        (true, true) => render::note(&format!("would change{detail}; nothing was changed")),
        (_, true) => render::note(&format!("done, revision {revision}{detail}")),
        (_, false) => render::note(&format!("nothing to change{detail}")),
    }
}
