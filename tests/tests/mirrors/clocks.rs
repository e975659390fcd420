//! The controller's clock jumps an hour ahead and back: schedules follow their rule of missed runs, and
//! no run is lost or repeated.

use std::fs;

use anyhow::{Context, Result, ensure};
use lockstep_tests::{Flags, Fleet, Net, Upstream, clock, until};
use lockstep_transport::clock::now as machine_now;

use super::{SOON, hold};

const HOUR_S: i64 = 3600;
/// Between two instants of the schedule.
const STEP_S: i64 = 600;
const RULES: [&str; 3] = ["skip", "once", "all"];

/// The instants, in seconds, that runs by schedule were for, oldest first. None is under way.
fn fired(fleet: &Fleet, mirror: &str) -> Result<Vec<i64>> {
    let heads = fleet.heads(mirror)?;
    let live = heads.iter().find(|head| head.ended_at.is_none());
    ensure!(live.is_none(), "{live:?}");
    let by_schedule = heads.iter().filter(|head| head.trigger == "schedule");
    let instant = |head: &lockstep_proto::v1::Run| head.scheduled_at.map(|at| at.seconds);
    let mut found: Vec<i64> =
        by_schedule.map(|head| instant(head).context("its instant")).collect::<Result<_>>()?;
    found.sort_unstable();
    Ok(found)
}

/// Every run there was has its number, and has ended well.
fn none_is_lost(fleet: &Fleet, mirror: &str) -> Result<()> {
    let heads = fleet.heads(mirror)?;
    let mut numbers: Vec<u64> = heads.iter().map(|head| head.number).collect();
    numbers.sort_unstable();
    let gapless: Vec<u64> = (1..=heads.len() as u64).collect();
    ensure!(numbers == gapless, "{mirror}: {numbers:?}");
    let failed = heads.iter().find(|head| !head.message.is_empty());
    ensure!(failed.is_none(), "{failed:?}");
    Ok(())
}

#[test]
fn a_clock_that_jumps_loses_no_run_and_repeats_none() -> Result<()> {
    let net = Net::new()?;
    let upstream = Upstream::start(&net)?;
    upstream.write("index.html", "<h1>first</h1>\n")?;
    let flags = Flags { clocks: true, ..Flags::default() };
    let mut fleet = Fleet::start_with(&net, &["master1", "ftp1"], flags)?;
    let go_on = hold(&mut fleet, "master1")?;
    let now = || -> Result<i64> { Ok(i64::try_from(machine_now().0 / 1000)?) };
    let shift = |fleet: &Fleet, to: i64| clock::set(&fleet.controller.host, to - now()?);

    // In the middle between two instants. The machine has some minutes for what follows.
    let first = (now()? / STEP_S + 1) * STEP_S;
    let middle = first - STEP_S / 2;
    shift(&fleet, middle)?;
    let url = upstream.url();
    let nodes = ["master1", "ftp1"];
    for rule in RULES {
        let more = ["--upstream", &url, "--schedule", "minute=*/10", "--grace", "4m"];
        fleet.create_mirror(rule, &nodes, &[&more[..], &["--missed", rule]].concat())?.ok()?;
        fleet.pull(rule, &[])?.ok()?;
        ensure!(fired(&fleet, rule)?.is_empty());
    }
    let more = ["--upstream", &url, "--hook", "hold on=before timeout=1d"];
    fleet.create_mirror("held", &nodes, &more)?.ok()?;
    fleet.ctl(&["mirror", "sync", "held"])?.ok()?;
    until(SOON, "it is held in the middle of a run", || -> Result<()> {
        let head = fleet.heads("held")?.into_iter().next().context("no run")?;
        ensure!(head.started_at.is_some() && head.ended_at.is_none(), "{head:?}");
        Ok(())
    });

    // Six instants are missed, the newest by more than the grace.
    shift(&fleet, middle + HOUR_S)?;
    let all: Vec<i64> = (0..6).map(|n| first + n * STEP_S).collect();
    let expected = [vec![], vec![all[5]], all.clone()];
    until(SOON, "each rule did what it says", || -> Result<()> {
        for (rule, expected) in RULES.iter().zip(&expected) {
            let found = fired(&fleet, rule)?;
            ensure!(found == *expected, "{rule}: {found:?} instead of {expected:?}");
        }
        Ok(())
    });
    fleet.wait_healthy(&nodes);

    // Back, nothing of it fires a second time, and that is said; who asks is heard.
    shift(&fleet, middle)?;
    until(SOON, "it is said", || -> Result<()> {
        for rule in RULES {
            let why = fleet.ctl(&["explain", &format!("mirror/{rule}")])?.ok()?;
            ensure!(why.contains("the clock was set back by "), "{why}");
        }
        Ok(())
    });
    for rule in RULES {
        fleet.pull(rule, &[])?.ok()?;
    }
    // In the middle between what has fired already and the next.
    shift(&fleet, first + STEP_S / 2)?;
    upstream.write("later", "later")?;
    for rule in RULES {
        fleet.pull(rule, &[])?.ok()?;
        fleet.wait_generation(rule, &nodes, 2);
    }
    for (rule, expected) in RULES.iter().zip(&expected) {
        ensure!(fired(&fleet, rule)? == *expected, "{rule}: {:?}", fired(&fleet, rule)?);
    }

    // What was under way all the time ends as it began.
    fs::write(go_on, "")?;
    fleet.wait_generation("held", &nodes, 1);

    // The next instant is on time for every rule.
    shift(&fleet, first + HOUR_S + 20)?;
    let next = first + HOUR_S;
    until(SOON, "all go on", || -> Result<()> {
        for (rule, expected) in RULES.iter().zip(&expected) {
            let expected = [&expected[..], &[next]].concat();
            let found = fired(&fleet, rule)?;
            ensure!(found == expected, "{rule}: {found:?} instead of {expected:?}");
        }
        Ok(())
    });
    for mirror in RULES.iter().chain(&["held"]) {
        none_is_lost(&fleet, mirror)?;
        fleet.check_mirrored(mirror, "ftp1", &upstream.tree())?;
    }
    ensure!(fleet.heads("held")?.len() == 1, "it was begun a second time");
    ensure!(fleet.controller.daemon.is_running(), "a jump ended the controller");
    Ok(())
}
