//! What a source tells Prometheus: the true lag of each target, and what `sync show` tells.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_tests::{Fleet, Net, until};
use lockstep_transport::clock;

use super::SOON;

/// How far a lag may be from the true one.
const OFF_MAX: Duration = Duration::from_secs(2);

/// A metric of a target of `www`, as its source has it.
fn metric(fleet: &Fleet, name: &str, target: &str) -> Result<f64> {
    let reply = fleet.node("master1")?.health("/metrics")?;
    ensure!(reply.status == 200, "{reply:?}");
    let start = format!("{name}{{sync=\"www\",target=\"{target}\"}} ");
    let value = reply.body.lines().find_map(|line| line.strip_prefix(&start));
    value.with_context(|| format!("no {start}in {}", reply.body))?.parse().context("no number")
}

fn lag(fleet: &Fleet, target: &str) -> Result<Duration> {
    Ok(Duration::from_secs_f64(metric(fleet, "lockstep_sync_lag_seconds", target)?))
}

fn shown_lag(fleet: &Fleet, target: &str) -> Result<Duration> {
    Ok(Duration::from_millis(fleet.delivery(target)?.lag_ms))
}

#[test]
fn the_lag_of_each_target_is_the_true_one_and_everybody_tells_the_same() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    fleet.sync_www("master1", &["web1", "web2"])?;
    fleet.wait_in_step("master1", &["web1", "web2"]);

    fleet.node("web2")?.host.isolate()?;
    let before = clock::now();
    fs::write(fleet.www("master1")?.join("news"), "news")?;
    let after = clock::now();
    // Long enough that no delay passes for it.
    until(SOON, "its lag is the true one", || -> Result<()> {
        let least = Duration::from(clock::now().since(after));
        ensure!(least > 3 * OFF_MAX, "it is young");
        let told = lag(&fleet, "web2")?;
        let most = Duration::from(clock::now().since(before));
        ensure!(told + OFF_MAX >= least && told <= most, "{told:?} of {least:?} to {most:?}");
        Ok(())
    });
    until(SOON, "it is shown as it is measured", || -> Result<()> {
        let (shown, told) = (shown_lag(&fleet, "web2")?, lag(&fleet, "web2")?);
        ensure!(told.abs_diff(shown) <= OFF_MAX, "{shown:?} is shown for {told:?}");
        Ok(())
    });
    ensure!(metric(&fleet, "lockstep_sync_queue_entries", "web2")? >= 1.0);
    until(SOON, "the other one has it", || lag(&fleet, "web1").is_ok_and(|lag| lag.is_zero()));

    fleet.node("web2")?.host.rejoin()?;
    fleet.wait_in_step("master1", &["web1", "web2"]);
    until(SOON, "nothing is lacking", || -> Result<()> {
        for target in ["web1", "web2"] {
            ensure!(lag(&fleet, target)?.is_zero() && shown_lag(&fleet, target)?.is_zero());
            let sent = metric(&fleet, "lockstep_sync_sent_bytes_total", target)?;
            let shown = fleet.delivery(target)?.sent_bytes;
            ensure!(sent.to_string() == shown.to_string(), "{sent} and {shown}");
        }
        Ok(())
    });
    let copy = fleet.node("web1")?.health("/metrics")?;
    ensure!(copy.body.contains("lockstep_sync_filled{sync=\"www\"} 1"), "{}", copy.body);
    Ok(())
}
