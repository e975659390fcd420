//! `cluster create`, `add-standby` and `edit`: definitions from what was typed.

use std::collections::BTreeMap;

use lockstep_model::NodeName;
use lockstep_model::setting::Value;
use lockstep_proto::v1;

use super::{changed, follow};
use crate::args::cluster::{AddStandby, ClusterArgs, Create, Edit, MemberArgs, MemberValue};
use crate::client::Client;
use crate::cmd::{secret, tell};
use crate::error::Failure;

pub async fn create(client: &Client, create: Create) -> Result<(), Failure> {
    let Create {
        name,
        primary,
        standby,
        adopt,
        member,
        set_superuser_password_file,
        wait,
        change,
        settings: ClusterArgs(settings),
    } = create;
    let mut members: BTreeMap<NodeName, Vec<Value>> = BTreeMap::new();
    for node in standby {
        if node == primary || members.insert(node.clone(), Vec::new()).is_some() {
            return Err(Failure::usage(format!("--standby {node}: it is named twice")));
        }
    }
    for MemberValue { node, value } in member {
        let is_member = node == primary || members.contains_key(&node);
        if !is_member {
            let problem = format!("--member {node}:{}: {node} is no member", value.name);
            return Err(Failure::usage(problem));
        }
        members.entry(node).or_default().push(value);
    }
    let superuser = set_superuser_password_file.as_deref();
    let superuser = superuser.map(|file| secret::password("--set-superuser-password-file", file));
    let request = v1::CreateClusterRequest {
        mutation: change.mutation()?,
        name: name.to_string(),
        primary: primary.to_string(),
        members: wire(members),
        settings: settings.into_iter().map(Value::into).collect(),
        adopt,
        superuser_password: superuser.transpose()?.unwrap_or_default(),
        replication_password: String::new(),
    };
    let answer = client.clusters().create_cluster(request).await?.into_inner();
    if change.dry_run || !wait.waits() {
        return changed(client, &change, answer.result.as_ref(), answer.cluster);
    }
    tell(answer.result.as_ref(), false);
    follow::until_all_follow(client, name.as_str()).await
}

pub async fn add_standby(client: &Client, add: AddStandby) -> Result<(), Failure> {
    let AddStandby { name, node, wait, change, settings: MemberArgs(settings) } = add;
    let request = v1::AddStandbyRequest {
        mutation: change.mutation()?,
        name: name.to_string(),
        node: node.to_string(),
        settings: settings.into_iter().map(Value::into).collect(),
    };
    let answer = client.clusters().add_standby(request).await?.into_inner();
    if change.dry_run || !wait.waits() {
        return changed(client, &change, answer.result.as_ref(), answer.cluster);
    }
    tell(answer.result.as_ref(), false);
    follow::until_follows(client, name.as_str(), node.as_str()).await
}

pub async fn edit(client: &Client, edit: Edit) -> Result<(), Failure> {
    let Edit { name, member, change, settings: ClusterArgs(settings) } = edit;
    if settings.is_empty() && member.is_empty() {
        return Err(Failure::usage(
            "nothing to change was named: see lockstepctl cluster edit --help",
        ));
    }
    let mut members: BTreeMap<NodeName, Vec<Value>> = BTreeMap::new();
    for MemberValue { node, value } in member {
        members.entry(node).or_default().push(value);
    }
    let request = v1::EditClusterRequest {
        mutation: change.mutation()?,
        name: name.to_string(),
        settings: settings.into_iter().map(Value::into).collect(),
        members: wire(members),
    };
    let answer = client.clusters().edit_cluster(request).await?.into_inner();
    changed(client, &change, answer.result.as_ref(), answer.cluster)
}

fn wire(members: BTreeMap<NodeName, Vec<Value>>) -> Vec<v1::MemberSettings> {
    let of = |(node, values): (NodeName, Vec<Value>)| v1::MemberSettings {
        node: node.to_string(),
        settings: values.into_iter().map(Value::into).collect(),
    };
    members.into_iter().map(of).collect()
}
