//! Who may call what, against the methods that exist.

use std::collections::BTreeSet;

use lockstep_plan::authorize::POLICY;
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::Code;
use tonic::transport::Channel;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::fleet::Fleet;

/// What others define and this controller serves.
const FOREIGN: [&str; 5] = [
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/List",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

#[test]
fn every_method_has_a_row_and_every_row_a_method() {
    let files = FileDescriptorSet::decode(lockstep_proto::DESCRIPTORS).unwrap();
    let mut methods = BTreeSet::from(FOREIGN.map(str::to_owned));
    for file in &files.file {
        for service in &file.service {
            for method in &service.method {
                methods.insert(format!("{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    assert!(methods.len() > 30, "the descriptors hold {} methods", methods.len());
    let rows: BTreeSet<String> = POLICY.iter().map(|(method, _)| (*method).to_owned()).collect();
    assert_eq!(rows.len(), POLICY.len(), "a row stands twice");
    let difference: Vec<_> = methods.symmetric_difference(&rows).collect();
    assert!(difference.is_empty(), "only on one side: {difference:?}");
}

#[tokio::test]
async fn reflection_is_for_admins() {
    let fleet = Fleet::start().await;
    let node = fleet.join("web1").await;
    let ask = async |channel: Channel| {
        let message = Some(MessageRequest::ListServices(String::new()));
        let request = ServerReflectionRequest { message_request: message, ..Default::default() };
        let mut client = ServerReflectionClient::new(channel);
        let mut answers =
            client.server_reflection_info(tokio_stream::iter([request])).await?.into_inner();
        answers.message().await
    };
    let answer = ask(fleet.admin().await).await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("not a list: {answer:?}");
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"lockstep.v1.SyncService"), "{names:?}");
    let refused = ask(fleet.channel(&node).await).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}
