//! The settings of a cluster and of its members: names, texts, defaults.

mod cluster;
mod member;
mod text;

#[cfg(test)]
mod tests {
    use crate::cluster::{ClusterOptions, MemberOptions};
    use crate::setting::Settings;

    #[test]
    fn every_setting_is_read_as_written() {
        let mut options = ClusterOptions::default();
        for (name, values) in options.all_values() {
            let values = if values.is_empty() { vec![String::new()] } else { values };
            for value in values {
                options.set([(name, value.as_str())]).unwrap_or_else(|e| panic!("{name}: {e}"));
            }
        }
        assert_eq!(options, ClusterOptions::default());
        let mut member = MemberOptions::default();
        for (name, values) in member.all_values() {
            let values = if values.is_empty() { vec![String::new()] } else { values };
            for value in values {
                member.set([(name, value.as_str())]).unwrap_or_else(|e| panic!("{name}: {e}"));
            }
        }
        assert_eq!(member, MemberOptions::default());
        ClusterOptions::default().check().unwrap();
    }

    #[test]
    fn wrong_values_are_refused_by_name() {
        for (name, text) in [
            ("sync", "0"),
            ("sync", "32"),
            ("lease", "1s"),
            ("port", "0"),
            ("manager", "systemd:x"),
            ("manager", "pg_ctlcluster:x/main"),
            ("parameter", "fsync=off"),
            ("failover", "yes"),
        ] {
            let error = ClusterOptions::from_values([(name, text)]).unwrap_err();
            assert_eq!(error.field, name, "{text}");
        }
        assert_eq!(
            ClusterOptions::from_values([("lease", "2s"), ("suspect-after", "2s")])
                .unwrap_err()
                .field,
            "lease"
        );
    }
}
