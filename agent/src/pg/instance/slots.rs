//! Physical replication slots, one per member: how they are called, and what is to be done so that
//! exactly the wanted ones exist.

use lockstep_model::NodeName;
use lockstep_model::cluster::Lsn;

use super::sql::literal;
use super::status::SlotRow;

/// A slot that is to be there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotWish {
    pub node: NodeName,
    /// Move it here when it is behind and nobody uses it: on standbys, for after a failover.
    pub at_least: Option<Lsn>,
}

/// Of every slot that is Lockstep's.
pub const PREFIX: &str = "lockstep_";
/// NAMEDATALEN - 1, in bytes.
const NAME_MAX: usize = 63;

/// A slot's name may hold only a-z, 0-9 and '_': others become `_` and two hex digits, so that two
/// nodes never have the same, and a name can be read back.
pub fn name(node: &NodeName) -> String {
    let mut name = String::from(PREFIX);
    for byte in node.as_str().bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => name.push(char::from(byte)),
            _ => name += &format!("_{byte:02x}"),
        }
    }
    if name.len() > NAME_MAX {
        let hash = crc32fast::hash(node.as_str().as_bytes());
        name.truncate(NAME_MAX - 10);
        name += &format!("__{hash:08x}");
    }
    name
}

/// One change of the slots that there are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    Drop(String),
    Make(String),
    Advance(String, Lsn),
}

impl Step {
    pub fn sql(&self) -> String {
        match self {
            Self::Drop(name) => format!("SELECT pg_drop_replication_slot({})", literal(name)),
            // It holds WAL back from now on, and not only once somebody used it.
            Self::Make(name) => {
                format!("SELECT pg_create_physical_replication_slot({}, true)", literal(name))
            }
            Self::Advance(name, to) => {
                format!("SELECT pg_replication_slot_advance({}, '{to}')", literal(name))
            }
        }
    }
}

/// What makes the wanted ones of those that there are.
pub fn steps(found: &[SlotRow], wishes: &[SlotWish]) -> Vec<Step> {
    let mut steps = Vec::new();
    let wanted = |slot: &SlotRow| wishes.iter().any(|wish| name(&wish.node) == slot.name);
    for slot in found.iter().filter(|slot| slot.is_lockstep() && !slot.active) {
        if slot.lost || !wanted(slot) {
            steps.push(Step::Drop(slot.name.clone()));
        }
    }
    for wish in wishes {
        let name = name(&wish.node);
        let there = found.iter().find(|slot| slot.name == name && (slot.active || !slot.lost));
        let Some(slot) = there else {
            steps.push(Step::Make(name));
            continue;
        };
        let behind = wish.at_least.filter(|to| slot.restart.is_none_or(|at| at < *to));
        steps.extend(behind.filter(|_| !slot.active).map(|to| Step::Advance(name, to)));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_slots_differ_as_nodes_do() {
        let of = |node: &str| name(&node.parse().unwrap());
        assert_eq!(of("db1"), "lockstep_db1");
        assert_eq!(of("db-1.x"), "lockstep_db_2d1_2ex");
        assert_ne!(of("db-1"), of("db_2d1"));
        let long = of(&"a-".repeat(31));
        assert!(long.len() <= NAME_MAX && long.contains("__"), "{long}");
        assert_ne!(long, of(&format!("{}b", "a-".repeat(31))));
    }

    #[test]
    fn slots_are_made_moved_and_dropped() {
        let slot = |name: &str, active, lost| SlotRow {
            name: name.to_owned(),
            active,
            physical: true,
            restart: Some(Lsn(100)),
            held_bytes: 0,
            lost,
        };
        let found = [
            slot("lockstep_a", false, false),
            slot("lockstep_b", true, false),
            slot("lockstep_c", false, true),
            slot("lockstep_old", false, false),
            slot("lockstep_used", true, false),
            slot("theirs", false, false),
        ];
        let wish = |node: &str, at_least| SlotWish {
            node: node.parse().unwrap(),
            at_least: Some(Lsn(at_least)),
        };
        let wishes = [wish("a", 200), wish("b", 200), wish("c", 50), wish("d", 50)];
        let n = str::to_owned;
        assert_eq!(
            steps(&found, &wishes),
            [
                Step::Drop(n("lockstep_c")),
                Step::Drop(n("lockstep_old")),
                Step::Advance(n("lockstep_a"), Lsn(200)),
                Step::Make(n("lockstep_c")),
                Step::Make(n("lockstep_d")),
            ]
        );
    }
}
