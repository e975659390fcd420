//! Thousands of projects with a schedule of a minute each, in one controller and one agent. In place of
//! rsync stands a program that does nothing, in this bench alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_proto::v1;
use lockstep_proto::v1::mirror_service_client::MirrorServiceClient;
use lockstep_tests::{Flags, Fleet, Net, try_until};
use tokio::runtime::Builder;

use super::{WITHIN, at};
use crate::control::admin;
use crate::figures::{Figure, Figures};
use crate::process::{cpu_s, rest, rss_mib};

struct Size {
    mirrors: usize,
    minutes: u64,
}

const FULL: Size = Size { mirrors: 5000, minutes: 5 };
const QUICK: Size = Size { mirrors: 500, minutes: 1 };

const MINUTE: Duration = Duration::from_secs(60);
const MINUTES_PER_DAY: f64 = 1440.0;
/// Most that one call is asked for.
const RUNS_MAX: u32 = 1000;

/// What rsync says of a tree of one file that is as it was.
const STUB: &str = "#!/bin/sh
case \"$*\" in *--version*) echo 'rsync  version 3.2.7  protocol version 31'; exit 0 ;; esac
echo 'Number of files: 2 (reg: 1, dir: 1)'
echo 'Number of created files: 0'
echo 'Number of deleted files: 0'
echo 'Number of regular files transferred: 0'
echo 'Total file size: 1 bytes'
echo 'Total bytes sent: 20'
echo 'Total bytes received: 60'
";

pub fn measure(figures: &mut Figures, quick: bool) -> Result<()> {
    let size = if quick { QUICK } else { FULL };
    let net = Net::new()?;
    let stub = net.dir().join("rsync-stub");
    fs::write(&stub, STUB)?;
    fs::set_permissions(&stub, fs::Permissions::from_mode(0o755))?;
    // All of them at one upstream and on one node: what is measured are the programs, not the limits.
    let flags = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let agent = flags(&["--rsync", &stub.display().to_string(), "--mirror-pulls", "64"]);
    let controller = flags(&["--pulls", "64", "--pulls-per-upstream", "64"]);
    let fleet =
        Fleet::start_with(&net, &["master"], Flags { controller, agent, ..Flags::default() })?;
    let host = fleet.controller.host.clone();
    let name = format!("{} mirrors each minute", size.mirrors);
    let dest = fleet.ftp("master")?;
    fs::create_dir_all(&dest)?;
    host.enter(|| -> Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (_, channel) = runtime.block_on(admin(&fleet))?;
        let mut mirrors = MirrorServiceClient::new(channel).max_decoding_message_size(64 << 20);
        for n in 0..size.mirrors {
            let request = v1::CreateMirrorRequest {
                name: format!("project-{n}"),
                upstream: "rsync://127.0.0.1/project".to_owned(),
                master: "master".to_owned(),
                dest: dest.display().to_string(),
                schedule: Some(v1::ScheduleText {
                    rule: "minute=*".to_owned(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            let name = request.name.clone();
            runtime.block_on(mirrors.create_mirror(request))?;
            let first = v1::SyncMirrorRequest { name, ..Default::default() };
            runtime.block_on(mirrors.sync_mirror(first))?;
        }
        Ok(())
    })??;
    let pids = [fleet.controller.daemon.pid(), fleet.node("master")?.daemon.pid()];
    // Every first generation is another thing, and is not measured.
    let last = format!("project-{}", size.mirrors - 1);
    try_until(WITHIN, "all have their first generation", || -> Result<()> {
        ensure!(fleet.mirror(&last)?.generation > 0, "{last} has none");
        let mirrors: v1::ListMirrorsResponse = fleet.ask(&["mirror", "list"])?;
        let left = mirrors.mirrors.iter().filter(|mirror| mirror.generation == 0).count();
        ensure!(left == 0, "{left} have none");
        Ok(())
    })
    .map_err(|waited| anyhow::anyhow!("{waited}"))?;
    let store = host.path("data/store");
    let (before, bytes) = (cpu_s(pids[0])?, size_of(&store)?);
    let agent_before = cpu_s(pids[1])?;
    let window = MINUTE * u32::try_from(size.minutes)?;
    rest(window);
    let share = |now: f64, before: f64| (now - before) / window.as_secs_f64() * 100.0;
    let of_controller = share(cpu_s(pids[0])?, before);
    let of_agent = share(cpu_s(pids[1])?, agent_before);
    figures.add(Figure::mean(format!("{name}: controller's CPU"), "%", &[of_controller]));
    figures.add(Figure::mean(format!("{name}: agent's CPU"), "%", &[of_agent]));
    let rss = [rss_mib(pids[0])?];
    figures.add(Figure::p50(format!("{name}: controller's memory"), "MiB", &rss));
    figures.add(Figure::p50(format!("{name}: agent's memory"), "MiB", &[rss_mib(pids[1])?]));
    let per_day = (size_of(&store)? - bytes) / size.minutes as f64 * MINUTES_PER_DAY;
    figures.add(Figure::p50(format!("{name}: store's growth a day"), "MiB", &[per_day]));

    let runs: v1::ListRunsResponse =
        fleet.ask(&["mirror", "runs", "--limit", &RUNS_MAX.to_string()])?;
    let mut lags = Vec::new();
    for run in runs.runs.iter().filter(|run| run.scheduled_at.is_some()) {
        let started = at(run.started_at.as_ref()).context("a run that began")?;
        lags.push(started - at(run.scheduled_at.as_ref())?);
    }
    ensure!(!lags.is_empty(), "nothing ran within {WITHIN:?}");
    figures.add(Figure::p99(format!("{name}: from the instant to the start"), "s", &lags));
    Ok(())
}

/// MiB on the disk.
fn size_of(dir: &Path) -> Result<f64> {
    let mut bytes = 0.0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += match meta.is_dir() {
            true => size_of(&entry.path())?,
            false => meta.len() as f64 / f64::from(1 << 20),
        };
    }
    Ok(bytes)
}
