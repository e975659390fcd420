//! Clusters: what their members are to be, what these say of themselves, their leases, and what people
//! are shown of them.

mod act;
mod goal;
mod lease;
mod part;
mod place;
mod report;
mod show;

pub use act::asked_act;
pub use part::{of_members, settings, values};
pub use report::cluster_update;

#[cfg(test)]
mod tests {
    use lockstep_model::cluster::{Answer, Grant, MemberReport, Renewal};
    use lockstep_model::observation::Observation;
    use lockstep_model::task::TaskSpec;
    use lockstep_model::{ClusterName, Millis};
    use proptest::prelude::*;

    use super::*;
    use crate::arbitrary::cluster as arbitrary;
    use crate::v1;

    proptest! {
        #[test]
        fn tasks_survive_the_wire(spec in arbitrary::task_spec()) {
            let wire = v1::TaskSpec::from(spec.clone());
            prop_assert_eq!(TaskSpec::try_from(wire).unwrap(), spec);
        }

        #[test]
        fn reports_survive_the_wire(report in arbitrary::report()) {
            let wire = v1::MemberReport::from(report.clone());
            prop_assert_eq!(MemberReport::try_from(wire).unwrap(), report);
        }

        #[test]
        fn leases_survive_the_wire(renewal in arbitrary::renewal(), length in 0u64..1 << 40) {
            let wire = v1::LeaseRenewal::from(renewal.clone());
            prop_assert_eq!(Renewal::try_from(wire).unwrap(), renewal.clone());
            let refused = Answer::Refused("it is db2's".to_owned());
            for answer in [Answer::For(Millis(length)), Answer::WithoutEnd, refused] {
                let grant = Grant::answering(renewal.clone(), answer);
                let wire = v1::LeaseGrant::from(grant.clone());
                prop_assert_eq!(Grant::try_from(wire).unwrap(), grant);
            }
        }
    }

    #[test]
    fn a_grant_without_an_answer_is_none() {
        let wire = v1::LeaseGrant { cluster: "main".into(), ..Default::default() };
        assert_eq!(Grant::try_from(wire).unwrap_err().field, "answer");
    }

    #[test]
    fn errors_name_the_field() {
        type Edit = fn(&mut v1::MemberReport);
        let cases: [(Edit, &str); 7] = [
            (|r| r.state = "asleep".into(), "state"),
            (|r| r.lsn = "1234".into(), "lsn"),
            (|r| r.trouble = String::new(), "trouble"),
            (|r| r.standbys = vec![v1::StandbyRow::default()], "standbys[0].node"),
            (|r| r.promotable = vec!["A b".into()], "promotable[0]"),
            (|r| r.certificate = "x".repeat(MemberReport::CERTIFICATE_MAX + 1), "certificate"),
            (|r| r.quorum = Some(v1::ClusterQuorum { k: 0, of: vec!["a".into()] }), "quorum.of"),
        ];
        let good = v1::MemberReport {
            state: "standby".into(),
            trouble: "none".into(),
            ..Default::default()
        };
        assert!(MemberReport::try_from(good.clone()).is_ok());
        for (edit, field) in cases {
            let mut wrong = good.clone();
            edit(&mut wrong);
            let error = MemberReport::try_from(wrong).unwrap_err();
            assert!(error.field.starts_with(field), "{error} should name {field}");
        }
    }

    #[test]
    fn an_agent_without_a_part_says_so() {
        let update = v1::ClusterUpdate { cluster: "main".into(), report: None };
        let cluster: ClusterName = "main".parse().unwrap();
        assert_eq!(cluster_update(update).unwrap(), Observation::Cluster { cluster, report: None });
    }
}
