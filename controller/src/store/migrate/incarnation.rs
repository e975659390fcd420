//! Schema 5: what is recorded of a cluster names the incarnation of the store that it was drawn in.

use lockstep_model::Invalid;
use lockstep_proto::store_v1::record::Kind;

use super::Raw;

pub fn run(raw: &mut Raw) -> Result<(), Invalid> {
    let incarnation = raw.values().find_map(|(_, record)| match &record.kind {
        Some(Kind::Fleet(fleet)) => Some(fleet.incarnation),
        _ => None,
    });
    for (_, record) in raw.values_mut() {
        if let Some(Kind::ClusterState(state)) = &mut record.kind {
            state.incarnation = incarnation.unwrap_or_default();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use lockstep_model::Revision;
    use lockstep_proto::store_v1 as wire;

    use super::*;

    #[test]
    fn every_cluster_gets_the_incarnation_of_the_store() {
        let fleet = Kind::Fleet(wire::Fleet { incarnation: 7, ..Default::default() });
        let state = Kind::ClusterState(wire::ClusterState::default());
        let mut raw: Raw = [("meta/fleet", fleet), ("cluster-state/main", state)]
            .into_iter()
            .map(|(key, kind)| (key.to_owned(), (Revision(1), wire::Record { kind: Some(kind) })))
            .collect();
        run(&mut raw).unwrap();
        let drawn = raw.values().find_map(|(_, record)| match &record.kind {
            Some(Kind::ClusterState(state)) => Some(state.incarnation),
            _ => None,
        });
        assert_eq!(drawn, Some(7));
    }
}
