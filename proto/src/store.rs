//! Records and log entries from and to `lockstep.store.v1`. Every read goes through the model's
//! constructors, and an error names the field; bytes, keys and checksums are the store's business.

mod cluster;
mod field;
mod log;
mod mirror;
mod mirror_task;
mod resource;
mod schedule;
mod sync;
mod task;

use lockstep_model::Invalid;
use lockstep_model::record::Record;

use crate::store_v1::{self as wire, record::Kind};
use field::missing;

impl From<&Record> for wire::Record {
    fn from(record: &Record) -> Self {
        let kind = match record {
            Record::Fleet(fleet) => Kind::Fleet(fleet.into()),
            Record::Past(past) => Kind::Past(past.into()),
            Record::Node(node) => Kind::Node(node.into()),
            Record::Token(token) => Kind::Token(token.into()),
            Record::User(user) => Kind::User(user.into()),
            Record::Sync(sync) => Kind::Sync(sync.into()),
            Record::SyncState(state) => Kind::SyncState(state.into()),
            Record::Mirror(mirror) => Kind::Mirror(mirror.into()),
            Record::MirrorState(state) => Kind::MirrorState(state.into()),
            Record::Replica(state) => Kind::Replica(state.into()),
            Record::Run(run) => Kind::Run(run.into()),
            Record::Secret(secret) => Kind::Secret(secret.into()),
            Record::Cluster(cluster) => Kind::Cluster(cluster.as_ref().into()),
            Record::ClusterState(state) => Kind::ClusterState(state.as_ref().into()),
            Record::Failover(report) => Kind::Failover(report.as_ref().into()),
            Record::ClusterSecret(secret) => Kind::ClusterSecret(secret.into()),
            Record::Task(task) => Kind::Task(task.into()),
            Record::Request(done) => Kind::Request(done.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::Record> for Record {
    type Error = Invalid;
    fn try_from(record: wire::Record) -> Result<Self, Invalid> {
        let wire::Record { kind } = record;
        let record = match kind.ok_or_else(|| missing("kind"))? {
            Kind::Fleet(fleet) => Self::Fleet(fleet.try_into()?),
            Kind::Past(past) => Self::Past(past.try_into()?),
            Kind::Node(node) => Self::Node(node.try_into()?),
            Kind::Token(token) => Self::Token(token.try_into()?),
            Kind::User(user) => Self::User(user.try_into()?),
            Kind::Sync(sync) => Self::Sync(sync.try_into()?),
            Kind::SyncState(state) => Self::SyncState(state.try_into()?),
            Kind::Mirror(mirror) => Self::Mirror(mirror.try_into()?),
            Kind::MirrorState(state) => Self::MirrorState(state.try_into()?),
            Kind::Replica(state) => Self::Replica(state.try_into()?),
            Kind::Run(run) => Self::Run(run.try_into()?),
            Kind::Secret(secret) => Self::Secret(secret.try_into()?),
            Kind::Cluster(cluster) => Self::Cluster(Box::new(cluster.try_into()?)),
            Kind::ClusterState(state) => Self::ClusterState(Box::new(state.try_into()?)),
            Kind::Failover(report) => Self::Failover(Box::new(report.try_into()?)),
            Kind::ClusterSecret(secret) => Self::ClusterSecret(secret.try_into()?),
            Kind::Task(task) => Self::Task(task.try_into()?),
            Kind::Request(done) => Self::Request(done.try_into()?),
        };
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arbitrary;
    use lockstep_model::record::{Actor, Change, Key};
    use lockstep_model::{Revision, Timestamp};
    use proptest::prelude::*;
    use prost::Message;

    proptest! {
        #[test]
        fn records_come_back_from_bytes_and_from_json(record in arbitrary::record()) {
            let bytes = wire::Record::from(&record).encode_to_vec();
            let read = wire::Record::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(&Record::try_from(read).unwrap(), &record);

            let json = serde_json::to_string(&wire::Record::from(&record)).unwrap();
            prop_assert!(!json.contains('\n'));
            let read: wire::Record = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&Record::try_from(read).unwrap(), &record);

            let key = record.key();
            prop_assert_eq!(key.to_string().parse::<Key>().unwrap(), key);
        }

        #[test]
        fn log_entries_come_back(change in arbitrary::change()) {
            let bytes = wire::LogEntry::from(&change).encode_to_vec();
            let read = wire::LogEntry::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(read.into_change(change.revision).unwrap(), change);
        }

        #[test]
        fn garbage_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(read) = wire::Record::decode(bytes.as_slice()) {
                let _ = Record::try_from(read);
            }
            if let Ok(read) = wire::LogEntry::decode(bytes.as_slice()) {
                let _ = read.into_change(Revision(1));
            }
        }
    }

    #[test]
    fn errors_name_the_field() {
        let node = |edit: fn(&mut wire::Node)| {
            let mut node = wire::Node {
                name: "web1".into(),
                admin: wire::NodeAdmin::Enabled.into(),
                key_hash: vec![7; 32],
                ..Default::default()
            };
            edit(&mut node);
            Record::try_from(wire::Record { kind: Some(Kind::Node(node)) })
        };
        assert!(node(|_| ()).is_ok());
        type Edit = fn(&mut wire::Node);
        let cases: [(Edit, &str); 6] = [
            (|n| n.name = "Web 1".into(), "name"),
            (|n| n.admin = 0, "admin"),
            (|n| n.admin = 99, "admin"),
            (|n| n.key_hash = vec![7; 31], "key_hash"),
            (|n| n.addresses = vec!["web1".into()], "addresses[0]"),
            (|n| n.labels.extend([("role".into(), "a b".into())]), "labels"),
        ];
        for (edit, field) in cases {
            let error = node(edit).unwrap_err();
            assert!(error.field.starts_with(field), "{error} should name {field}");
        }
        let empty = Record::try_from(wire::Record { kind: None }).unwrap_err();
        assert_eq!(empty.to_string(), "kind: is missing");
    }

    #[test]
    fn an_actor_must_be_named() {
        let change = Change {
            revision: Revision(1),
            at: Timestamp(5),
            actor: Actor::Offline,
            cause: "init".into(),
            writes: Vec::new(),
        };
        let mut entry = wire::LogEntry::from(&change);
        entry.actor = None;
        assert_eq!(entry.into_change(Revision(1)).unwrap_err().to_string(), "actor: is missing");
    }
}
