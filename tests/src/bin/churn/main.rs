//! `tests/churn`: random changes to a source while agents, lsyncd and rsync are killed, then quiet,
//! then every copy must be as the source is. Not part of the tests: it runs as long as one likes.

mod harm;
mod ops;

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lockstep_tests::chance::Chance;
use lockstep_tests::program;
use lockstep_tests::tree::Tree;
use lockstep_tests::wait::timed;
use lockstep_tests::{Flags, Fleet, Net, try_until};

use ops::Ops;

const USAGE: &str =
    "tests/churn [--minutes M] [--seed S] [--calm] [--verbose] [--without CHANGE]… [-- OPTION…]";
const MINUTES: u64 = 5;
const SOURCE: &str = "source";
const TARGETS: [&str; 3] = ["target-1", "target-2", "target-3"];

/// Of one seed: each starts with a new fleet and an empty tree, so that it can be replayed alone.
const ROUNDS: usize = 4;
const OPS: usize = 3000;
/// Changes without a pause.
const BURST_MAX: usize = 60;
const PAUSE_MAX_MS: usize = 250;
/// Until lsyncd has told everything: its delay is a second.
const QUIET: Duration = Duration::from_secs(5);
const DONE_WITHIN: Duration = Duration::from_secs(180);
/// For copies that Lockstep takes for complete and that are not.
const HEAL_WITHIN: Duration = Duration::from_secs(60);
const SHOWN_MAX: usize = 40;

struct Args {
    minutes: u64,
    seed: u64,
    /// Nothing is killed or cut.
    calm: bool,
    /// lsyncd tells what it does, into the record of a failure.
    verbose: bool,
    /// Changes that are left out, while what they find is known.
    without: Vec<String>,
    /// Of `sync create`.
    options: Vec<String>,
}

impl Args {
    /// Whether it can be asked when everything is there.
    fn can_wait(&self) -> bool {
        !self.options.iter().any(|option| option == "classic")
    }
}

fn main() -> ExitCode {
    program::run(USAGE, work)
}

fn work(args: Vec<String>) -> Result<ExitCode> {
    let args = read_args(args)?;
    let limit = Duration::from_secs(args.minutes * 60);
    let (mut seed, mut spent, mut failed) = (args.seed, Duration::ZERO, Vec::new());
    while spent < limit {
        let (outcome, took) = timed(|| live(seed, &args));
        spent += took;
        match outcome {
            Ok(()) => eprintln!("seed {seed}: {ROUNDS} rounds are well, {took:.0?}"),
            Err(e) => {
                eprintln!("seed {seed}: {e:#}\nreplay: tests/churn --minutes 1 --seed {seed}");
                failed.push(seed);
            }
        }
        seed = seed.wrapping_add(1);
    }
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{} seeds from {} on, failed: {failed:?}",
        seed.wrapping_sub(args.seed),
        args.seed
    )?;
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read_args(args: Vec<String>) -> Result<Args> {
    let mut found = Args {
        minutes: MINUTES,
        seed: u64::from(std::process::id()),
        calm: false,
        verbose: false,
        without: Vec::new(),
        options: Vec::new(),
    };
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.len()) {
            ("--minutes", 1..) => found.minutes = args.next().context(USAGE)?.parse()?,
            ("--seed", 1..) => found.seed = args.next().context(USAGE)?.parse()?,
            ("--calm", _) => found.calm = true,
            ("--verbose", _) => found.verbose = true,
            ("--", _) => found.options.extend(args.by_ref()),
            ("--without", 1..) => found.without.extend(args.next()),
            _ => bail!("{arg:?} is not understood: {USAGE}"),
        }
    }
    Ok(found)
}

/// One fleet with all rounds of a seed.
fn live(seed: u64, args: &Args) -> Result<()> {
    let net = Net::new()?;
    let nodes: Vec<&str> = [SOURCE].into_iter().chain(TARGETS).collect();
    let mut flags = Flags::default();
    if args.verbose {
        flags.agent = ["--log-filter", "lockstep_agent=debug", "--lsyncd"].map(Into::into).into();
        flags.agent.push(talkative_lsyncd(net.dir())?.display().to_string());
    }
    let mut fleet = Fleet::start_with(&net, &nodes, flags)?;
    fleet.wait_healthy(&nodes);
    let mut create = fleet.create_www(SOURCE, &TARGETS)?;
    create.extend(args.options.iter().cloned().chain(["--wait".to_owned()]));
    fs::create_dir_all(fleet.www(SOURCE)?)?;
    fs::write(fleet.www(SOURCE)?.join("index.html"), "<h1>first</h1>\n")?;
    fleet.ctl(&create.iter().map(String::as_str).collect::<Vec<_>>())?.ok()?;
    let mut chance = Chance::new(seed);
    let mut ops = Ops::new(&fleet.www(SOURCE)?, Chance::new(chance.number()), &args.without)?;
    for round in 1..=ROUNDS {
        let mut harms = Vec::new();
        thread::scope(|scope| -> Result<()> {
            let churn = scope.spawn(|| churn(&mut ops));
            while !args.calm && !churn.is_finished() {
                let harm = harm::once(&mut fleet, SOURCE, &TARGETS, &mut chance)?;
                harms.push(format!("{} {harm}", clock()));
            }
            churn.join().map_err(|_| anyhow::anyhow!("the churn panicked"))
        })?;
        let outcome = check(&fleet, args.can_wait());
        if let Err(e) = outcome {
            let file = std::env::temp_dir().join(format!("lockstep-churn-{seed}.log"));
            record(&file, &fleet, &ops, &harms, &e)?;
            return Err(e.context(format!("round {round}, more in {}", file.display())));
        }
    }
    Ok(())
}

/// A program that runs lsyncd so that it tells every event.
fn talkative_lsyncd(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("lsyncd");
    fs::write(&path, "#!/bin/sh\nexec /usr/bin/lsyncd -log Inotify -log Delay \"$@\"\n")?;
    fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    Ok(path)
}

fn churn(ops: &mut Ops) {
    let mut done = 0;
    while done < OPS {
        let burst = 1 + ops.chance().below(BURST_MAX);
        for _ in 0..burst {
            ops.step();
        }
        done += burst;
        let pause_ms = ops.chance().below(PAUSE_MAX_MS);
        rest(Duration::from_millis(pause_ms as u64));
    }
}

/// Waits until Lockstep says that all is done, and compares; where it cannot say so, until all is.
fn check(fleet: &Fleet, can_wait: bool) -> Result<()> {
    rest(QUIET);
    if can_wait {
        let host = &fleet.controller.host;
        let mut wait = host.spawn(fleet.ctl_command().args(["sync", "wait", "www"]))?;
        wait.output(DONE_WITHIN).context("sync wait")?.ok()?;
    }
    let compare = || -> Result<()> {
        let original = Tree::read(&fleet.www(SOURCE)?)?;
        TARGETS.iter().try_for_each(|target| {
            let mut copy = Tree::read(&fleet.www(target)?)?;
            copy.0.retain(|path, _| original.0.contains_key(path) || !is_unfinished(path));
            let differences = copy.differences(&original);
            ensure!(differences.is_empty(), "{target}: {differences}");
            Ok(())
        })
    };
    if !can_wait {
        return Ok(try_until(DONE_WITHIN, "the copies are equal", compare)?);
    }
    let Err(early) = compare() else { return Ok(()) };
    let (healed, took) = timed(|| try_until(HEAL_WITHIN, "the copies are equal", compare));
    match healed {
        Ok(()) => bail!("said to be done, and was not for another {took:.1?}:\n{early}"),
        Err(_) => bail!("said to be done, and stays different:\n{early}"),
    }
}

/// `.name.a1B2c3`: what an rsync was writing that was killed. The next comparison takes it away.
fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let Some(dot) = name.iter().rposition(|b| *b == b'.').filter(|at| *at > 1) else {
        return false;
    };
    let (base, end) = name.split_at(dot);
    base.starts_with(b".") && end.len() == 7 && end.iter().skip(1).all(u8::is_ascii_alphanumeric)
}

/// What is needed to understand a failure.
fn record(
    file: &Path,
    fleet: &Fleet,
    ops: &Ops,
    harms: &[String],
    error: &anyhow::Error,
) -> Result<()> {
    let mut out = fs::File::create(file)?;
    writeln!(out, "{error:#}\n\n{}", fleet.ctl(&["sync", "show", "www"])?)?;
    let original = Tree::read(&fleet.www(SOURCE)?)?;
    for target in TARGETS {
        let copy = Tree::read(&fleet.www(target)?)?;
        let paths = original.0.keys().chain(copy.0.keys());
        let differ: std::collections::BTreeSet<_> =
            paths.filter(|path| original.0.get(*path) != copy.0.get(*path)).collect();
        for path in differ.into_iter().take(SHOWN_MAX) {
            let (there, here) = (original.0.get(path), copy.0.get(path));
            writeln!(out, "\n{target} {path:?}\n  source {there:?}\n  target {here:?}")?;
            writeln!(
                out,
                "  the same file: {:?}",
                same_file(&fleet.www(SOURCE)?, &original, path)
            )?;
            for line in ops.told_of(path) {
                writeln!(out, "    {line}")?;
            }
        }
    }
    writeln!(out, "\nharm:\n{}\n\nall changes:", harms.join("\n"))?;
    ops.told_of(Path::new("")).try_for_each(|line| writeln!(out, "{line}"))?;
    for host in [SOURCE].iter().chain(&TARGETS) {
        let mut logs: Vec<_> = fs::read_dir(fleet.node(host)?.host.path("log"))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        logs.sort();
        for log in logs {
            writeln!(out, "--- {}\n{}", log.display(), String::from_utf8_lossy(&fs::read(&log)?))?;
        }
    }
    Ok(())
}

/// Other names of a file.
fn same_file<'a>(root: &Path, tree: &'a Tree, path: &Path) -> Vec<&'a PathBuf> {
    let inode = |path: &Path| fs::symlink_metadata(root.join(path)).map(|meta| meta.ino()).ok();
    let wanted = inode(path);
    tree.0.keys().filter(|other| *other != path && inode(other) == wanted).collect()
}

/// Time of day in UTC, as the logs have it.
fn clock() -> String {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let (s, ms) = (now.tv_sec % 86_400, now.tv_nsec / 1_000_000);
    format!("{:02}:{:02}:{:02}.{ms:03}", s / 3600, s / 60 % 60, s % 60)
}

/// Nothing is waited for but time itself: what happens in it is random.
fn rest(time: Duration) {
    try_until(time, "time has passed", || false).ok();
}
