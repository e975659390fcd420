//! `lockstepctl cluster …`: who carries out which command, and what several of them need.

mod act;
mod check;
mod define;
mod follow;
mod history;
mod show;
mod switch;
mod url;

use lockstep_model::cluster::{ClusterOptions, Leaving, MemberAdmin, MemberOptions};
use lockstep_proto::v1;

use super::{log, settings, tell};
use crate::args::cluster::{Leave, Of, Whole};
use crate::args::{Change, ClusterCommand, Explain, Format, Global};
use crate::client::Client;
use crate::error::Failure;
use crate::{render, wait};

pub async fn run(global: &Global, command: ClusterCommand) -> Result<(), Failure> {
    match command {
        ClusterCommand::Settings { member: false } => {
            settings::show::<ClusterOptions>(global.output)
        }
        ClusterCommand::Settings { member: true } => settings::show::<MemberOptions>(global.output),
        other => ask(&Client::connect(global).await?, other).await,
    }
}

async fn ask(client: &Client, command: ClusterCommand) -> Result<(), Failure> {
    match command {
        ClusterCommand::Create(create) => define::create(client, *create).await,
        ClusterCommand::AddStandby(add) => define::add_standby(client, *add).await,
        ClusterCommand::Edit(edit) => define::edit(client, *edit).await,
        ClusterCommand::List => {
            let request = v1::ListClustersRequest {};
            let answer = client.clusters().list_clusters(request).await?.into_inner();
            render::show(client.format, &answer, || show::list(&answer.clusters))
        }
        ClusterCommand::Show { name } => {
            let cluster = get(client, name.as_str()).await?;
            render::show(client.format, &cluster, || show::details(&cluster))
        }
        ClusterCommand::Explain { name } => {
            log::explain(client, Explain { subject: Some(format!("cluster/{name}")) }).await
        }
        ClusterCommand::History { name, number, limit } => {
            history::show(client, name.as_str(), number, limit).await
        }
        ClusterCommand::Check { name, now } => {
            if now {
                act::verify(client, &name).await?;
            }
            check::run(client, name.as_str()).await
        }
        ClusterCommand::Switchover(switch) => switch::over(client, switch).await,
        ClusterCommand::Failover(failover) => switch::failover(client, failover).await,
        ClusterCommand::Remove { of, delete_data, yes } => {
            remove(client, of, delete_data, yes).await
        }
        ClusterCommand::Reclone { of, yes, wait } => act::reclone(client, of, yes, wait).await,
        ClusterCommand::Rewind { of, wait } => act::rewind(client, of, wait).await,
        ClusterCommand::Restart { on, pending, switchover } => {
            act::restart(client, on, pending, switchover).await
        }
        ClusterCommand::Reload(on) => act::reload(client, on).await,
        ClusterCommand::Start(of) => admin(client, of, MemberAdmin::Managed).await,
        ClusterCommand::Stop(of) => admin(client, of, MemberAdmin::Stopped).await,
        ClusterCommand::Fence(of) => admin(client, of, MemberAdmin::Fenced).await,
        ClusterCommand::Unfence(of) => admin(client, of, MemberAdmin::Managed).await,
        ClusterCommand::Maintenance { of, off: false } => {
            admin(client, of, MemberAdmin::Maintenance).await
        }
        ClusterCommand::Maintenance { of, off: true } => {
            admin(client, of, MemberAdmin::Managed).await
        }
        ClusterCommand::Pause(whole) => pause(client, whole, true).await,
        ClusterCommand::Resume(whole) => pause(client, whole, false).await,
        ClusterCommand::Release(leave) => end(client, leave, Leaving::Release).await,
        ClusterCommand::Delete(leave) => end(client, leave, Leaving::Delete).await,
        ClusterCommand::Url { name, database, user, any } => {
            let cluster = get(client, name.as_str()).await?;
            let url = url::of(&cluster, &database, user.as_deref(), any)?;
            render::show(client.format, &url, || url.url.clone())
        }
        // Carried out by `run`.
        ClusterCommand::Settings { .. } => Ok(()),
    }
}

async fn get(client: &Client, name: &str) -> Result<v1::Cluster, Failure> {
    let request = v1::GetClusterRequest { name: name.to_owned() };
    Ok(client.clusters().get_cluster(request).await?.into_inner().cluster.unwrap_or_default())
}

/// Shows a cluster as a change left it.
fn changed(
    client: &Client,
    change: &Change,
    result: Option<&v1::Result>,
    cluster: Option<v1::Cluster>,
) -> Result<(), Failure> {
    tell(result, change.dry_run);
    let cluster = cluster.unwrap_or_default();
    render::show(client.format, &cluster, || show::details(&cluster))
}

async fn admin(client: &Client, of: Of, admin: MemberAdmin) -> Result<(), Failure> {
    let Of { name, node, change } = of;
    let request = v1::SetMemberAdminRequest {
        mutation: change.mutation()?,
        name: name.to_string(),
        node: node.to_string(),
        admin: admin.as_str().to_owned(),
    };
    let answer = client.clusters().set_member_admin(request).await?.into_inner();
    changed(client, &change, answer.result.as_ref(), answer.cluster)
}

async fn pause(client: &Client, whole: Whole, paused: bool) -> Result<(), Failure> {
    let Whole { name, change } = whole;
    let request = v1::SetClusterPausedRequest {
        mutation: change.mutation()?,
        name: name.to_string(),
        paused,
    };
    let answer = client.clusters().set_cluster_paused(request).await?.into_inner();
    changed(client, &change, answer.result.as_ref(), answer.cluster)
}

async fn remove(client: &Client, of: Of, delete: bool, yes: bool) -> Result<(), Failure> {
    let Of { name, node, change } = of;
    let files = if delete { "and its data directory goes" } else { "and its data stays" };
    let what = format!("{node} will be no member of cluster {name} any more, {files}.");
    wait::confirm(yes || change.dry_run || !delete, &what)?;
    let request = v1::RemoveMemberRequest {
        mutation: change.mutation()?,
        name: name.to_string(),
        node: node.to_string(),
        delete,
    };
    let answer = client.clusters().remove_member(request).await?.into_inner();
    changed(client, &change, answer.result.as_ref(), answer.cluster)
}

async fn end(client: &Client, leave: Leave, leaving: Leaving) -> Result<(), Failure> {
    let Leave { name, yes, change } = leave;
    let what = match leaving {
        Leaving::Release => "will be left to itself: no failover, no fence; its databases run on.",
        Leaving::Delete => "will be stopped, and its data removed on every member.",
    };
    wait::confirm(yes || change.dry_run, &format!("Cluster {name} {what}"))?;
    let request = v1::RemoveClusterRequest {
        mutation: change.mutation()?,
        name: name.to_string(),
        leaving: leaving.as_str().to_owned(),
    };
    let answer = client.clusters().remove_cluster(request).await?.into_inner();
    tell(answer.result.as_ref(), change.dry_run);
    match client.format {
        Format::Table => Ok(()),
        format => render::show(format, &answer, String::new),
    }
}
