//! Steps from one schema to the next: pure functions over all records, run in one pass when a newer
//! program opens an older store or imports an older export.

mod incarnation;
mod settings;

use std::collections::BTreeMap;

use lockstep_model::{Invalid, Revision};
use lockstep_proto::store_v1 as wire;

use super::{SCHEMA, StoreError};

/// All records as they are written, by key: an older schema's need not make sense to the model.
/// A field that a migration reads stays in the .proto file, marked deprecated.
pub type Raw = BTreeMap<String, (Revision, wire::Record)>;

pub struct Migration {
    /// The schema it makes, out of the one before.
    pub to: u32,
    /// For the log of the program.
    pub name: &'static str,
    pub run: fn(&mut Raw) -> Result<(), Invalid>,
}

/// In order, one for each schema after the first. The log of an older schema is not migrated: it is
/// compacted away, and stays in the export that is made before.
pub const MIGRATIONS: &[Migration] = &[
    Migration { to: 2, name: "syncs have settings and named targets", run: settings::run },
    // Nothing to change: older programs do not know the records, and are to refuse the store.
    Migration { to: 3, name: "there may be mirrors", run: |_| Ok(()) },
    Migration { to: 4, name: "there may be clusters", run: |_| Ok(()) },
    Migration { to: 5, name: "the store knows its lives", run: incarnation::run },
];

/// Brings records of schema `from` to `to`; the names of the steps it took.
pub fn migrate(
    raw: &mut Raw,
    from: u32,
    to: u32,
    migrations: &[Migration],
) -> Result<Vec<&'static str>, StoreError> {
    if from > to {
        return Err(StoreError::Newer { found: from, known: to });
    }
    let mut taken = Vec::new();
    for Migration { to: step, name, run } in migrations {
        if (from + 1..=to).contains(step) {
            run(raw).map_err(|e| StoreError::damaged(format!("migration {name}"), e))?;
            taken.push(*name);
        }
    }
    Ok(taken)
}

const _: () = assert!(MIGRATIONS.len() + 1 == SCHEMA as usize, "one migration per schema");

#[cfg(test)]
mod tests {
    use super::*;

    fn rename(raw: &mut Raw) -> Result<(), Invalid> {
        let (revision, record) = raw.remove("user/a").ok_or(Invalid::new("user/a", "missing"))?;
        raw.insert("user/b".into(), (revision, record));
        Ok(())
    }

    fn drop_all(raw: &mut Raw) -> Result<(), Invalid> {
        raw.clear();
        Ok(())
    }

    const STEPS: [Migration; 2] = [
        Migration { to: 2, name: "rename", run: rename },
        Migration { to: 3, name: "drop", run: drop_all },
    ];

    fn raw() -> Raw {
        [("user/a".to_owned(), (Revision(1), wire::Record::default()))].into()
    }

    #[test]
    fn takes_the_steps_between_in_order() {
        for (from, to, taken, keys) in [
            (1, 1, &[][..], &["user/a"][..]),
            (1, 2, &["rename"], &["user/b"]),
            (2, 3, &["drop"], &[]),
            (1, 3, &["rename", "drop"], &[]),
        ] {
            let mut raw = raw();
            assert_eq!(migrate(&mut raw, from, to, &STEPS).unwrap(), taken);
            assert!(raw.keys().eq(keys), "{from} to {to}: {:?}", raw.keys());
        }
    }

    #[test]
    fn refuses_a_newer_schema_and_what_a_step_refuses() {
        assert!(matches!(
            migrate(&mut raw(), 3, 2, &STEPS),
            Err(StoreError::Newer { found: 3, known: 2 })
        ));
        let error = migrate(&mut Raw::new(), 1, 2, &STEPS).unwrap_err().to_string();
        assert_eq!(error, "the store is damaged at migration rename: user/a: missing");
    }

    #[test]
    fn the_list_has_no_gap() {
        assert!(MIGRATIONS.iter().map(|m| m.to).eq((2..).take(MIGRATIONS.len())));
    }
}
