//! `lockstepctl status`.

use lockstep_proto::v1;

use crate::client::Client;
use crate::error::Failure;
use crate::render;

pub async fn run(client: &Client) -> Result<(), Failure> {
    let status = client.status().get_status(v1::GetStatusRequest {}).await?.into_inner();
    render::show(client.format, &status, || {
        let old_copy = match status.old_copy.as_str() {
            "" => "".to_owned(),
            why => format!("{why}: the store is an OLD COPY, lockstepctl store adopt accepts it"),
        };
        render::fields([
            ("fleet", status.fleet.clone()),
            ("store", old_copy),
            ("version", status.version.clone()),
            ("revision", status.revision.to_string()),
            ("incarnation", status.incarnation.clone()),
            ("running", render::ago(status.started_at.as_ref()).replace(" ago", "")),
            ("nodes", format!("{} of {} connected", status.nodes_connected, status.nodes)),
            ("syncs", status.syncs.to_string()),
            ("live tasks", status.tasks_live.to_string()),
            ("you are", format!("{} ({})", status.caller, status.caller_role)),
        ])
    })
}
