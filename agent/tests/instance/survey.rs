//! What could break a promise later, as a running instance tells it.

use lockstep_agent::pg::instance::Wanted;
use lockstep_model::cluster::options::{HbaMode, ReplicationTls};
use lockstep_model::cluster::report::{Check, Verdict};

use crate::bed::{Bed, LIMIT, until};

const WANTED: Wanted =
    Wanted { hba: HbaMode::Managed, tls: ReplicationTls::Lockstep, rewind: true };

async fn surveyed(bed: &Bed, wanted: Wanted, check: Check) -> (Verdict, String) {
    let found = bed.instance.survey(wanted, LIMIT).await.unwrap();
    let found = found.into_iter().find(|finding| finding.check == check).unwrap();
    (found.verdict, found.text)
}

#[tokio::test]
async fn a_new_instance_has_nothing_to_mend() {
    let bed = Bed::primary("db1", &[]).await;
    let found = bed.instance.survey(WANTED, LIMIT).await.unwrap();
    for finding in &found {
        assert_eq!(finding.verdict, Verdict::Ok, "{finding:?}");
    }
    // A primary has no upstream, and others are not reached by SQL.
    let missing: Vec<Check> = Check::ALL
        .into_iter()
        .filter(|check| found.iter().all(|finding| finding.check != *check))
        .collect();
    assert_eq!(missing, [Check::Clock, Check::Reach]);
}

#[tokio::test]
async fn what_would_break_a_promise_is_found() {
    let bed = Bed::primary("db1", &[("parameter", "archive_mode=on")]).await;
    for sql in [
        "CREATE ROLE fast; ALTER ROLE fast SET synchronous_commit = 'OFF'",
        "CREATE DATABASE app",
        "ALTER DATABASE app SET synchronous_commit = local",
        "CREATE ROLE safe; ALTER ROLE safe SET synchronous_commit = 'remote_apply'",
        "SELECT pg_create_physical_replication_slot('backup')",
        // As if it had been made on a machine with another glibc, and one with more packages.
        "UPDATE pg_database SET datcollversion = '1.0' WHERE datname = 'app'",
        "SET allow_system_table_mods = on; UPDATE pg_extension SET extname = 'no_such'",
    ] {
        bed.session().await.unwrap().batch_execute(sql).await.unwrap();
    }
    let wrong = |check, verdict, words: &'static [&'static str]| (check, verdict, words);
    for (check, verdict, words) in [
        wrong(Check::Commits, Verdict::Warn, &["every role in app (local)", "fast in every data"]),
        wrong(Check::Slots, Verdict::Warn, &["backup"]),
        wrong(Check::Archive, Verdict::Warn, &["nothing archives"]),
        wrong(Check::Collations, Verdict::Fail, &["app"]),
        wrong(Check::Extensions, Verdict::Fail, &["no_such of postgres"]),
    ] {
        let (said, text) = surveyed(&bed, WANTED, check).await;
        assert_eq!(said, verdict, "{check}: {text}");
        for word in words {
            assert!(text.contains(word), "{word} is not in {text}");
        }
        assert!(!text.contains("safe"), "{text}");
    }
}

#[tokio::test]
async fn lines_that_cannot_be_read_and_lines_that_are_missing_are_found() {
    let bed = Bed::primary("db1", &[]).await;
    let hba = bed.instance.layout().data.join("pg_hba.conf");
    let text = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, format!("{text}\nhost all all nowhere/99 trust\n")).unwrap();
    let (verdict, said) = surveyed(&bed, WANTED, Check::Configuration).await;
    assert_eq!(verdict, Verdict::Fail, "{said}");
    assert!(said.contains("pg_hba.conf line"), "{said}");
    std::fs::write(&hba, "local all all trust\n").unwrap();
    let checked = Wanted { hba: HbaMode::Checked, ..WANTED };
    let (verdict, said) = surveyed(&bed, checked, Check::Configuration).await;
    assert_eq!(verdict, Verdict::Fail, "{said}");
    assert!(said.contains("lockstep_replication"), "{said}");
    std::fs::write(&hba, text).unwrap();
    until("it is well again", || async {
        surveyed(&bed, checked, Check::Configuration).await.0 == Verdict::Ok
    })
    .await;
}
