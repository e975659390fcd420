//! `cluster switchover` and `failover`: asked for, waited for, and told how they ended.

use lockstep_model::ClusterName;
use lockstep_proto::convert::to_wire_time;
use lockstep_proto::v1;

use super::{changed, follow, get, history};
use crate::args::Change;
use crate::args::cluster::{Failover, Switchover};
use crate::client::Client;
use crate::cmd::tell;
use crate::error::Failure;
use crate::{render, wait};

pub async fn over(client: &Client, switch: Switchover) -> Result<(), Failure> {
    let waits = switch.waits() && !switch.change.dry_run;
    let Switchover { name, to, at, cancel, wait: _, change } = switch;
    if cancel {
        let request =
            v1::CancelSwitchoverRequest { mutation: change.mutation()?, name: name.to_string() };
        let answer = client.clusters().cancel_switchover(request).await?.into_inner();
        return changed(client, &change, answer.result.as_ref(), answer.cluster);
    }
    let before = number(client, name.as_str()).await?;
    let request = v1::SwitchoverRequest {
        mutation: change.mutation()?,
        name: name.to_string(),
        to: to.map(|node| node.to_string()).unwrap_or_default(),
        at: at.map(to_wire_time),
    };
    let answer = client.clusters().switchover(request).await?.into_inner();
    if !waits || !did_change(answer.result.as_ref()) {
        return changed(client, &change, answer.result.as_ref(), answer.cluster);
    }
    tell(answer.result.as_ref(), false);
    ended(client, name.as_str(), before).await
}

pub async fn failover(client: &Client, failover: Failover) -> Result<(), Failure> {
    let Failover { name, to, allow_data_loss, yes, wait, change } = failover;
    let target = to.as_ref().map_or("the best standby".to_owned(), ToString::to_string);
    let loss = match allow_data_loss {
        true => ", even where acknowledged commits are lost",
        false => "",
    };
    let what = format!("Cluster {name}: {target} will be promoted{loss}.");
    wait::confirm(yes || change.dry_run || !allow_data_loss, &what)?;
    let before = number(client, name.as_str()).await?;
    let request = v1::FailoverRequest {
        mutation: change.mutation()?,
        name: name.to_string(),
        to: to.map(|node| node.to_string()).unwrap_or_default(),
        allow_loss: allow_data_loss,
    };
    let answer = client.clusters().failover(request).await?.into_inner();
    let waits = wait.waits() && !change.dry_run && did_change(answer.result.as_ref());
    if !waits {
        return changed(client, &change, answer.result.as_ref(), answer.cluster);
    }
    tell(answer.result.as_ref(), false);
    ended(client, name.as_str(), before).await
}

/// To the best standby, and waits for its end.
pub async fn away(client: &Client, name: &ClusterName, dry_run: bool) -> Result<(), Failure> {
    let before = number(client, name.as_str()).await?;
    let change = Change { dry_run, ..Change::default() };
    let request = v1::SwitchoverRequest {
        mutation: change.mutation()?,
        name: name.to_string(),
        ..Default::default()
    };
    let answer = client.clusters().switchover(request).await?.into_inner();
    tell(answer.result.as_ref(), dry_run);
    match dry_run || !did_change(answer.result.as_ref()) {
        true => Ok(()),
        false => ended(client, name.as_str(), before).await,
    }
}

/// Of the newest report in the history.
async fn number(client: &Client, name: &str) -> Result<u64, Failure> {
    Ok(get(client, name).await?.state.map_or(0, |state| state.number))
}

fn did_change(result: Option<&v1::Result>) -> bool {
    result.is_some_and(|result| result.changed)
}

async fn ended(client: &Client, name: &str, before: u64) -> Result<(), Failure> {
    let report = follow::until_changed(client, name, before).await?;
    render::show(client.format, &report, || history::details(&report))?;
    match report.end.as_str() {
        "done" => Ok(()),
        end => {
            let why = if report.note.is_empty() { "no reason was given" } else { &report.note };
            Err(Failure::failed(format!("it ended {end}: {why}")))
        }
    }
}
