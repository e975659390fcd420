//! Export, import and check, also of damaged and truncated stores.

use std::io::Cursor;

use lockstep_model::identity::Subject;
use lockstep_model::record::{Actor, Change};

use super::*;
use crate::store::conformance::{commit, fold, large, log, user};
use crate::store::sled::SledStore;
use crate::store::{ChangesError, Snapshot, Store};
use lockstep_model::record::Write::{Delete, Put};

const NOW: Timestamp = Timestamp(1_795_232_959_000);

/// A store with some history, closed.
async fn data_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::create(dir.path()).unwrap();
    commit(&store, vec![Put(user("anna", 1)), Put(user("ben", 1))]).await;
    commit(&store, vec![Put(large("webroot", 2, 20_000)), Delete(user("ben", 1).key())]).await;
    commit(&store, vec![Put(user("anna", 3))]).await;
    dir
}

fn exported(dir: &Path, with_log: bool) -> String {
    let mut out = Vec::new();
    let done = export(dir, &mut out, with_log, NOW).unwrap();
    assert_eq!(done.damage, []);
    String::from_utf8(out).unwrap()
}

fn import_text(dir: &Path, text: &str) -> Result<Import, ImportError> {
    import(dir, Cursor::new(text), false)
}

async fn contents(dir: &Path) -> (Snapshot, Result<Vec<Change>, ChangesError>) {
    let store = SledStore::open(dir).unwrap();
    (store.snapshot().await.unwrap(), store.changes(Revision::ZERO).await)
}

#[tokio::test]
async fn an_import_is_the_store_that_was_exported() {
    let source = data_dir().await;
    let text = exported(source.path(), true);
    assert_eq!(text.lines().count(), 1 + 2 + 3 + 1, "{text}");
    assert!(text.lines().next().unwrap().contains("\"exported_at\":\"2026-11-21T03:49:19Z\""));

    let target = tempfile::tempdir().unwrap();
    import_text(&target.path().join("new"), &text).unwrap();
    let (snapshot, entries) = contents(&target.path().join("new")).await;
    let (original, original_entries) = contents(source.path()).await;
    assert_eq!(snapshot, original);
    assert_eq!(entries.unwrap(), original_entries.unwrap());
    assert_eq!(check(&target.path().join("new")).unwrap().damage, []);
    assert_eq!(exported(&target.path().join("new"), true), text, "and exports the same again");
}

#[tokio::test]
async fn an_import_without_the_log_goes_on_from_its_revision() {
    let source = data_dir().await;
    let target = tempfile::tempdir().unwrap();
    import_text(target.path(), &exported(source.path(), false)).unwrap();
    let (snapshot, entries) = contents(target.path()).await;
    assert_eq!(snapshot, contents(source.path()).await.0);
    assert!(matches!(entries, Err(ChangesError::Compacted { oldest: Revision(3) })));

    let store = SledStore::open(target.path()).unwrap();
    commit(&store, vec![Put(user("carl", 4))]).await;
    assert_eq!(log(&store, Revision(3)).await.len(), 1);
    drop(store);
    assert_eq!(check(target.path()).unwrap().damage, []);
}

#[tokio::test]
async fn an_import_replaces_nothing() {
    let source = data_dir().await;
    let text = exported(source.path(), true);
    let refused = import_text(source.path(), &text).unwrap_err().to_string();
    assert!(refused.contains("holds a store already"), "{refused}");
    let open = SledStore::open(source.path()).unwrap();
    let refused = import_text(source.path(), &text).unwrap_err().to_string();
    assert!(refused.contains("in use by process"), "{refused}");
    drop(open);
}

#[tokio::test]
async fn what_is_wrong_with_an_export_is_named_and_nothing_is_left_behind() {
    let source = data_dir().await;
    let text = exported(source.path(), true);
    let target = tempfile::tempdir().unwrap();
    let line = |n: usize| text.lines().nth(n - 1).unwrap().to_owned() + "\n";
    let lines: Vec<String> = (1..=7).map(line).collect();
    let with = |n: usize, from: &str, to: &str| {
        assert!(lines[n - 1].contains(from), "{}", lines[n - 1]);
        let mut lines = lines.clone();
        lines[n - 1] = lines[n - 1].replace(from, to);
        lines.concat()
    };
    let cases = [
        (String::new(), "the export is empty"),
        ("hello\n".to_owned(), "line 1: expected"),
        (with(1, "lockstep-store", "mongodump"), "line 1: format must be"),
        (with(1, &format!("\"schema\":{SCHEMA}"), "\"schema\":99"), "schema 99"),
        (with(1, "\"schema\"", "\"shema\""), "line 1: unknown field `shema`"),
        (with(2, "\"name\":\"anna\"", "\"name\":\"an na\""), "line 2: name"),
        (with(2, "ROLE_VIEWER", "ROLE_KING"), "line 2: unknown variant `ROLE_KING`"),
        (with(2, "\"revision\":3", "\"revision\":4"), "line 2: user/anna: revision must be 1 to 3"),
        (with(3, "sync/webroot", "sync/other"), "line 3: key: sync/other holds the record"),
        (with(3, "sync/webroot", "user/anna"), "line 3: user/anna: is on line 2 already"),
        (with(5, "\"revision\":2", "\"revision\":1"), "line 5: revision must be above 1"),
        (with(4, "\"entry\"", "\"entries\""), "line 4: unknown field `entries`"),
        (lines[..6].concat(), "no last line"),
        (lines[..5].concat() + &lines[6], "the checksum does not match"),
        (with(2, "ROLE_VIEWER", "ROLE_ADMIN"), "the checksum does not match"),
        (text.clone() + &lines[1], "line 8: follows the export's last line"),
        (text[..text.len() - 10].to_owned(), "was cut off"),
    ];
    for (text, why) in cases {
        // What a record means is only asked when the file is whole, or need not be.
        let meaning = why.starts_with("line 2: name") || why.starts_with("line 3: key");
        let refused = import(target.path(), Cursor::new(&text), meaning).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused:?} should say {why:?}");
        assert!(!refused.contains('\n'));
        let left = SledStore::open(target.path()).err().unwrap().to_string();
        assert!(left.contains("holds no store"), "{left}");
    }
    import_text(target.path(), &text).unwrap();
}

#[tokio::test]
async fn no_torn_export_is_taken_for_a_whole_one() {
    let source = data_dir().await;
    let text = exported(source.path(), true);
    for length in (0..text.len()).step_by(97).chain([text.len() - 1]) {
        let torn = read(Cursor::new(&text[..length]), false, MIGRATIONS);
        assert!(torn.is_err(), "{length} of {} bytes", text.len());
    }
    let torn = &text[..text.len() - 200];
    let taken = read(Cursor::new(torn), true, MIGRATIONS).unwrap();
    assert_eq!((taken.records.len(), taken.log.len()), (2, 0));
    assert_eq!(taken.compacted, Revision(3));
}

/// Makes the value of `key` something else than was written.
fn spoil(dir: &Path, key: &str) {
    let opened = Opened::open(dir).unwrap();
    let mut value = opened.values(key).next().unwrap().unwrap().1;
    *value.last_mut().unwrap() ^= 1;
    opened.put(key, &value);
}

#[tokio::test]
async fn damage_is_named_and_the_rest_is_saved() {
    let dir = data_dir().await;
    spoil(dir.path(), "user/anna");
    spoil(dir.path(), "log/0000000000000002");

    let store = SledStore::open(dir.path()).unwrap();
    let error = store.snapshot().await.unwrap_err().to_string();
    assert!(error.contains("damaged at user/anna: the checksum does not match"), "{error}");
    let command = format!("lockstep-controller store import --data-dir {}", dir.path().display());
    assert!(error.contains(&command), "{error}");
    assert!(store.changes(Revision(1)).await.is_err());
    assert_eq!(store.changes(Revision(2)).await.unwrap().len(), 1);
    drop(store);

    let damage: Vec<String> =
        check(dir.path()).unwrap().damage.iter().map(ToString::to_string).collect();
    assert_eq!(
        damage,
        [
            "log/0000000000000002: the checksum does not match",
            "user/anna: the checksum does not match",
        ]
    );

    let mut out = Vec::new();
    let done = export(dir.path(), &mut out, true, NOW).unwrap();
    assert_eq!((done.records, done.entries, done.damage.len()), (1, 2, 2));
    let target = tempfile::tempdir().unwrap();
    let refused = import(target.path(), Cursor::new(&out), false).unwrap_err().to_string();
    assert!(refused.contains("damaged store and lacks 2 values"), "{refused}");
    import(target.path(), Cursor::new(&out), true).unwrap();
    let saved: Vec<String> =
        contents(target.path()).await.0.records.keys().map(ToString::to_string).collect();
    assert_eq!(saved, ["sync/webroot"]);
    assert_eq!(check(target.path()).unwrap().damage, []);
}

#[tokio::test]
async fn a_lost_record_is_noticed_by_the_log() {
    let dir = data_dir().await;
    let opened = Opened::open(dir.path()).unwrap();
    opened.remove("user/anna");
    opened.put("stray", b"?");
    drop(opened);
    let damage: Vec<String> =
        check(dir.path()).unwrap().damage.iter().map(ToString::to_string).collect();
    assert_eq!(
        damage,
        [
            "user/anna: is missing; the log has it at revision 3",
            "stray: is not a key of this program",
        ]
    );
}

/// Every schema that was ever shipped. The files are never made again.
#[test]
fn fixtures_of_every_schema_load() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/schema");
    for schema in 1..=SCHEMA {
        let text = fs::read(dir.join(format!("v{schema}.ndjson"))).unwrap();
        let import = read(Cursor::new(text), false, MIGRATIONS).unwrap();
        assert_eq!(import.header.schema, schema);
        let mut kinds: Vec<String> = import
            .records
            .keys()
            .map(|key| key.to_string().split_inclusive('/').next().unwrap().to_owned())
            .collect();
        kinds.sort();
        kinds.dedup();
        let of_syncs = ["meta/", "node/", "request/", "sync/", "task/", "token/", "user/"];
        let of_mirrors = ["mirror-state/", "mirror/", "replica/", "run/", "secret/", "sync-state/"];
        let of_clusters = ["cluster-secret/", "cluster-state/", "cluster/", "failover/"];
        let mut expected = of_syncs.to_vec();
        expected.extend(of_mirrors.iter().filter(|_| schema > 2));
        expected.extend(of_clusters.iter().filter(|_| schema > 3));
        expected.sort_unstable();
        assert_eq!(kinds, expected);
        if schema == SCHEMA {
            assert!(
                import
                    .log
                    .iter()
                    .any(|entry| entry.actor
                        == Actor::Subject(Subject::User("anna".parse().unwrap())))
            );
            let folded = fold(Snapshot::default(), &import.log);
            assert_eq!(folded.records, import.records);
        }
    }
}
