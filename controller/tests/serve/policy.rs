//! Who may call what, against the methods that exist.

use std::collections::BTreeSet;

use lockstep_plan::authorize::POLICY;
use prost::Message;
use prost_types::FileDescriptorSet;

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
