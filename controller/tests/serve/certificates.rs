//! Certificates that run out, are renewed, and get another root.

use std::time::Duration;

use lockstep_controller::identity::ca::Ca;
use lockstep_controller::server::CA_DIR;
use lockstep_model::Millis;
use lockstep_proto::v1;
use lockstep_proto::v1::controller_message::Kind as Hears;
use lockstep_proto::v1::enrollment_service_client::EnrollmentServiceClient;
use lockstep_transport::clock;
use lockstep_transport::identity::{Identity, IdentityHandle};
use tokio::time::sleep;

use crate::agent::Agent;
use crate::fleet::{Fleet, Member, until};

async fn renew(fleet: &Fleet, member: &Member) -> Member {
    let mut client = EnrollmentServiceClient::new(fleet.channel(member).await);
    let current = member.identity.current();
    let request = v1::RenewRequest { csr: current.request().unwrap() };
    let answer = client.renew(request).await.unwrap().into_inner();
    let fresh: Identity =
        current.renewed(answer.chain, answer.trust_bundle.unwrap().roots).unwrap();
    Member { identity: IdentityHandle::new(fresh) }
}

#[tokio::test]
async fn certificates_of_seconds_are_renewed_while_a_stream_goes_on() {
    let fleet = Fleet::with(&[("leaf-life", "2s")]).await;
    let web1 = fleet.join("web1").await;
    let mut agent = Agent::connect(&fleet, &web1, 1).await;
    let first = web1.identity.current().not_after;
    let past = first + Millis::from_secs(2);
    while clock::now() < past {
        sleep(Duration::from_millis(100)).await; // until certificates of before have run out
    }
    // The stream that began with the first one goes on, and an agent that was away comes back.
    agent.end("1.0", v1::OutcomeKind::Ok).await;
    let renewed = renew(&fleet, &web1).await;
    assert!(renewed.identity.current().not_after > past);
    Agent::connect(&fleet, &renewed, 1).await;
    // A person who was away for so long logs in again.
    until("the admin's certificate has run out", || async {
        let channel = fleet.try_channel(&fleet.admin).await;
        let Ok(channel) = channel else { return Some(()) };
        let mut nodes = v1::node_service_client::NodeServiceClient::new(channel);
        nodes.list_nodes(v1::ListNodesRequest::default()).await.err().map(drop)
    })
    .await;
}

#[tokio::test]
async fn the_root_changes_under_a_running_fleet() {
    let fleet = Fleet::with(&[("leaf-life", "20s")]).await;
    let ca_dir = fleet.data_dir().join(CA_DIR);
    let web1 = fleet.join("web1").await;
    let early_token = fleet.node_token("web2").await;
    let mut agent = Agent::connect(&fleet, &web1, 1).await;
    let new_root = Ca::rotate(&ca_dir, clock::now()).unwrap();
    let Some(Hears::TrustBundle(bundle)) = agent.hear().await else { panic!("no trust bundle") };
    assert_eq!(bundle.roots.len(), 2);

    // Who knows only the old root gets along with the controller's new certificate.
    let web1_new = renew(&fleet, &web1).await;
    assert_eq!(web1_new.identity.current().roots().len(), 2);
    // A token of before names the old root, one of now the new one; both find who they trust.
    let web2 =
        fleet.enroll(&early_token, lockstep_transport::keys::PrivateKey::generate().unwrap());
    web2.await.unwrap();
    let token = fleet.node_token("web3").await;
    assert_eq!(token.root_sha256(), new_root.sha256);
    let key = lockstep_transport::keys::PrivateKey::generate().unwrap();
    fleet.enroll(&token, key).await.unwrap();

    Ca::retire(&ca_dir, Millis(0), true, clock::now()).unwrap();
    let Some(Hears::TrustBundle(bundle)) = agent.hear().await else { panic!("no trust bundle") };
    assert_eq!(bundle.roots.len(), 1);
    fleet.channel(&web1_new).await;
    let refused = fleet.try_channel(&web1).await;
    let refused = match refused {
        Ok(channel) => {
            let mut client = EnrollmentServiceClient::new(channel);
            let csr = web1.identity.current().request().unwrap();
            client.renew(v1::RenewRequest { csr }).await.is_err()
        }
        Err(_) => true,
    };
    assert!(refused, "a certificate under the retired root");
}
