//! Settings that a standby may not have lower than the primary whose log it applies: until the primary's
//! own change has been applied, the standby keeps the higher value.

use std::fmt::Write;

use super::control::Control;

/// In the directory of postgresql.conf; read after the cluster's own settings.
pub const FLOORS_FILE: &str = "lockstep.floors.conf";
/// What postgres has where nothing is set.
const DEFAULTS: [(&str, u64); 5] = [
    ("max_connections", 100),
    ("max_worker_processes", 8),
    ("max_wal_senders", 10),
    ("max_prepared_transactions", 0),
    ("max_locks_per_transaction", 64),
];

/// What is to be asked of postgres: what the cluster does not set, and what the log needs more of than
/// is the default.
pub fn unknown(control: &Control, parameters: &str) -> Vec<&'static str> {
    let default = |name: &str| DEFAULTS.iter().find(|(other, _)| *other == name).map(|d| d.1);
    let floors = control.floors.iter();
    let high = floors.filter(|(name, value)| default(name).is_none_or(|default| *value > default));
    high.map(|(name, _)| *name).filter(|name| configured(parameters, name).is_none()).collect()
}

/// The file's text; `asked` is what postgres answered.
pub fn render(control: &Control, parameters: &str, asked: &[(&str, u64)]) -> String {
    let mut text = String::from("# As long as the log needs them: written by Lockstep's agent.\n");
    for (name, least) in &control.floors {
        let told = asked.iter().find(|(other, _)| other == name).map(|(_, value)| *value);
        if configured(parameters, name).or(told).is_some_and(|value| value < *least) {
            let _ = writeln!(text, "{name} = {least}");
        }
    }
    text
}

/// Of the file that `Conf::render_parameters` made.
fn configured(parameters: &str, name: &str) -> Option<u64> {
    let values = parameters.lines().filter_map(|line| line.split_once(" = "));
    let value = values.filter(|(other, _)| *other == name).map(|(_, value)| value).next()?;
    value.trim_matches('\'').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::instance::control::ControlState;
    use lockstep_model::cluster::{Lsn, SystemId};

    #[test]
    fn a_standby_keeps_what_the_log_needs() {
        let control = Control {
            system_id: SystemId(1),
            major: 15,
            state: ControlState::InArchiveRecovery,
            checkpoint: Lsn(0),
            redo: Lsn(0),
            timeline: 1,
            prev_timeline: 1,
            min_recovery_end: Lsn(0),
            min_recovery_timeline: 1,
            backup_start: Lsn(0),
            backup_end_required: false,
            wal_level: "replica".to_owned(),
            wal_log_hints: true,
            checksums: true,
            wal_segment: 16 << 20,
            floors: vec![
                ("max_connections", 200),
                ("max_worker_processes", 8),
                ("max_wal_senders", 20),
            ],
        };
        let parameters = "max_connections = '150'\nmax_worker_processes = '16'\n";
        assert_eq!(unknown(&control, parameters), ["max_wal_senders"]);
        let text = render(&control, parameters, &[("max_wal_senders", 10)]);
        assert!(text.ends_with("\nmax_connections = 200\nmax_wal_senders = 20\n"), "{text}");
    }
}
