//! Tokens become certificates: once, in time, for the one who has the secret.

use lockstep_proto::v1;
use lockstep_proto::v1::enrollment_service_client::EnrollmentServiceClient;
use lockstep_proto::v1::node_service_client::NodeServiceClient;
use lockstep_proto::v1::token_service_client::TokenServiceClient;
use lockstep_proto::v1::user_service_client::UserServiceClient;
use lockstep_transport::keys::PrivateKey;
use lockstep_transport::token::JoinToken;
use tokio::time::{Duration, sleep};

use crate::fleet::{Fleet, enroll_request, reason};

fn key() -> PrivateKey {
    PrivateKey::generate().unwrap()
}

fn copy(key: &PrivateKey) -> PrivateKey {
    PrivateKey::from_pem(&key.to_pem()).unwrap()
}

#[tokio::test]
async fn a_token_is_good_once_and_for_a_lost_answer() {
    let fleet = Fleet::start().await;
    let token = fleet.node_token("web1").await;
    let first = key();
    let member = fleet.enroll(&token, copy(&first)).await.unwrap();
    assert_eq!(member.identity.current().spiffe.to_string(), "spiffe://test/node/web1");
    let again = fleet.enroll(&token, first).await.unwrap();
    assert_eq!(again.identity.current().key_hash, member.identity.current().key_hash);
    let other = fleet.enroll(&token, key()).await.err().unwrap();
    assert_eq!((other.code, other.reason.as_str()), (tonic::Code::Unauthenticated, "token_used"));

    let mut nodes = NodeServiceClient::new(fleet.admin().await);
    let list = nodes.list_nodes(v1::ListNodesRequest::default()).await.unwrap().into_inner();
    assert_eq!(list.nodes.len(), 1);
    assert_eq!(list.nodes[0].key_sha256, member.identity.current().key_hash.to_string());
}

#[tokio::test]
async fn wrong_expired_and_deleted_tokens_are_refused() {
    let fleet = Fleet::start().await;
    let token = fleet.node_token("web1").await;
    let other = JoinToken::mint(token.id().clone(), token.root_sha256()).unwrap();
    let unknown = JoinToken::mint("nosuch".parse().unwrap(), token.root_sha256()).unwrap();
    let wrong = fleet.enroll(&other, key()).await.err().unwrap();
    let absent = fleet.enroll(&unknown, key()).await.err().unwrap();
    assert_eq!(wrong.reason, "token_unknown");
    assert_eq!(
        (wrong.code, wrong.reason, wrong.message),
        (absent.code, absent.reason, absent.message)
    );

    let node = v1::create_token_request::For::Node("web2".to_owned());
    let request =
        v1::CreateTokenRequest { r#for: Some(node), ttl_ms: Some(1000), ..Default::default() };
    let short = fleet.token(request).await;
    sleep(Duration::from_millis(1100)).await; // its whole life
    assert_eq!(fleet.enroll(&short, key()).await.err().unwrap().reason, "token_expired");

    let mut tokens = TokenServiceClient::new(fleet.admin().await);
    let delete = v1::DeleteTokenRequest { mutation: None, id: token.id().to_string() };
    tokens.delete_token(delete).await.unwrap();
    assert_eq!(fleet.enroll(&token, key()).await.err().unwrap().reason, "token_unknown");
}

#[tokio::test]
async fn a_request_that_is_none_is_refused_by_name() {
    let fleet = Fleet::start().await;
    let token = fleet.node_token("web1").await;
    let mut client = EnrollmentServiceClient::new(fleet.guest(&token).await);
    let good = enroll_request(&token, &key());
    for (request, want) in [
        (v1::EnrollRequest { csr: b"garbage".to_vec(), ..good.clone() }, "bad_csr"),
        (v1::EnrollRequest { csr: vec![0; 10_000], ..good.clone() }, "bad_csr"),
        (v1::EnrollRequest { token_id: "a b".to_owned(), ..good.clone() }, "invalid"),
        (v1::EnrollRequest { token_secret: Vec::new(), ..good.clone() }, "token_unknown"),
        (v1::EnrollRequest { token_secret: vec![0; 100_000], ..good.clone() }, "token_unknown"),
    ] {
        assert_eq!(reason(client.enroll(request).await), want);
    }
    client.enroll(good).await.expect("none of them used the token");
}

#[tokio::test]
async fn a_certificate_is_renewed_for_its_own_key_only() {
    let fleet = Fleet::start().await;
    let web1 = fleet.join("web1").await;
    let mut client = EnrollmentServiceClient::new(fleet.channel(&web1).await);
    let own = v1::RenewRequest { csr: web1.identity.current().request().unwrap() };
    let renewed = client.renew(own).await.unwrap().into_inner();
    assert_eq!(renewed.trust_bundle.unwrap().roots.len(), 1);
    let other = v1::RenewRequest { csr: key().request().unwrap() };
    assert_eq!(reason(client.renew(other).await), "other_key");
}

#[tokio::test]
async fn a_user_logs_in_by_a_token_and_is_shut_out_at_once() {
    let fleet = Fleet::start().await;
    let mut users = UserServiceClient::new(fleet.admin().await);
    let request = v1::AddUserRequest {
        name: "anna".to_owned(),
        role: v1::Role::Viewer.into(),
        ..Default::default()
    };
    let added = users.add_user(request).await.unwrap().into_inner();
    let anna = fleet.enroll(&added.token_text.parse().unwrap(), key()).await.unwrap();
    let mut nodes = NodeServiceClient::new(fleet.channel(&anna).await);
    nodes.list_nodes(v1::ListNodesRequest::default()).await.unwrap();
    let drain = v1::DrainNodeRequest { node: "web1".to_owned(), ..Default::default() };
    assert_eq!(reason(nodes.drain_node(drain).await), "not_allowed");

    let mut log = v1::log_service_client::LogServiceClient::new(fleet.channel(&anna).await);
    let mut watch = log.watch_log(v1::WatchLogRequest::default()).await.unwrap().into_inner();
    let disable = v1::DisableUserRequest { name: "anna".to_owned(), ..Default::default() };
    users.disable_user(disable).await.unwrap();
    let ended = tokio::time::timeout(crate::fleet::PATIENCE, async {
        while let Ok(Some(_)) = watch.message().await {}
    });
    ended.await.expect("the watch of a disabled user ends");
    let mut nodes = NodeServiceClient::new(fleet.channel(&anna).await);
    let refused = nodes.list_nodes(v1::ListNodesRequest::default()).await;
    assert_eq!(reason(refused), "user_disabled");
    let enable = v1::EnableUserRequest { name: "anna".to_owned(), ..Default::default() };
    users.enable_user(enable).await.unwrap();
    nodes.list_nodes(v1::ListNodesRequest::default()).await.unwrap();

    let last = v1::DisableUserRequest { name: "admin".to_owned(), ..Default::default() };
    assert_eq!(reason(users.disable_user(last).await), "last_admin");
}
