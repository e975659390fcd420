//! What processes take when nothing is asked of them: an agent, and the controller of many; and how
//! long it takes until many agents are back.

use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_proto::v1;
use lockstep_tests::{Fleet, Net, until};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use super::{Size, WITHIN, admin, bounded};
use crate::crowd::{self, Crowd};
use crate::figures::{Figure, Figures};
use crate::process::{look_on, rest, rss_mib};

/// For what a program does after its start, and once only.
const SETTLE: Duration = Duration::from_secs(2);

/// Real agents without a sync.
pub fn measure_agents(
    figures: &mut Figures,
    fleet: &Fleet,
    nodes: &[&str],
    size: &Size,
) -> Result<()> {
    let pid = |node: &&str| anyhow::Ok(fleet.node(node)?.daemon.pid());
    let pids = nodes.iter().map(pid).collect::<Result<Vec<_>>>()?;
    rest(SETTLE);
    let quiet = look_on(&pids, size.windows, size.window)?;
    figures.add(Figure::p50("idle agent: memory", "MiB", &quiet.rss_mib).goal(15.0));
    figures.add(Figure::mean("idle agent: CPU", "%", &quiet.cpu_percent));
    Ok(())
}

/// A crowd in this process, and the controller that serves it.
pub fn measure_crowd(
    figures: &mut Figures,
    net: &Net,
    mut fleet: Fleet,
    size: &Size,
) -> Result<()> {
    let count = size.agents;
    let alone = rss_mib(fleet.controller.daemon.pid())?;
    figures.add(Figure::p50("controller without agents: memory", "MiB", &[alone]));

    net.host("crowd")?.enter(|| -> Result<()> {
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        let began = Instant::now();
        let crowd = runtime.block_on(bounded("join", async {
            let (at, channel) = admin(&fleet).await?;
            Ok(Crowd::start(&at, crowd::enroll(&at, &channel, count).await?))
        }))?;
        runtime.block_on(crowd.all_welcome(WITHIN))?;
        let took = began.elapsed().as_secs_f64();
        figures.add(Figure::p50(format!("{count} agents join"), "s", &[took]));

        until(WITHIN, "the controller counts them", || connected_are(&fleet, count));
        rest(SETTLE);
        let quiet = look_on(&[fleet.controller.daemon.pid()], size.windows, size.window)?;
        crowd.check()?;
        let of = format!("controller, {count} idle agents");
        figures.add(Figure::mean(format!("{of}: CPU"), "%", &quiet.cpu_percent));
        figures.add(Figure::p50(format!("{of}: memory"), "MiB", &quiet.rss_mib));
        let each = |rss| (rss - alone) * 1024.0 / count as f64;
        let each: Vec<_> = quiet.rss_mib.iter().map(each).collect();
        figures.add(Figure::p50(format!("{of}: memory for each"), "KiB", &each));

        let took = returns(&crowd, &runtime, size.cuts, || {
            crowd.cut();
            Ok(())
        })?;
        figures.add(Figure::p50(format!("{count} streams cut at once: all back"), "s", &took));
        let rss = rss_mib(fleet.controller.daemon.pid())?;
        figures.add(Figure::p50(format!("{of}: memory after cuts"), "MiB", &[rss]));

        let took = returns(&crowd, &runtime, size.restarts, || fleet.start_controller())?;
        let name = format!("controller killed and started: {count} back");
        figures.add(Figure::p50(name, "s", &took));
        Ok(())
    })?
}

/// Seconds from each of some losses of all streams until every agent is welcome again.
fn returns(
    crowd: &Crowd,
    runtime: &Runtime,
    times: usize,
    mut lose: impl FnMut() -> Result<()>,
) -> Result<Vec<f64>> {
    let one = |_| {
        let began = Instant::now();
        crowd.count_anew();
        lose()?;
        runtime.block_on(crowd.all_welcome(WITHIN))?;
        let took = began.elapsed().as_secs_f64();
        rest(SETTLE);
        crowd.check()?;
        Ok(took)
    };
    (0..times).map(one).collect()
}

fn connected_are(fleet: &Fleet, wanted: usize) -> Result<()> {
    let status: v1::GetStatusResponse = fleet.ask(&["status"])?;
    ensure!(status.nodes_connected as usize == wanted, "{} are", status.nodes_connected);
    Ok(())
}
