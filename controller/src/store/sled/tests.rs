//! What sled does beyond the conformance suite: opening, refusing, damage, full disks.

use std::fs;

use lockstep_model::record::Write::Put;

use lockstep_model::{Invalid, Revision};

use super::opened::SCHEMA_KEY;
use super::*;
use crate::offline;
use crate::store::conformance::{commit, copy, large, log, user};
use crate::store::migrate::Raw;

fn refusal(dir: &Path) -> String {
    let error = SledStore::open(dir).err().expect("must be refused").to_string();
    assert!(error.contains(&dir.display().to_string()), "{error} should name {}", dir.display());
    error
}

#[tokio::test]
async fn says_why_it_cannot_open() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    assert!(refusal(&at.join("gone")).contains("lockstep-controller init"));
    assert!(refusal(at).contains("lockstep-controller init"));

    let store = SledStore::create(at).unwrap();
    let pid = std::process::id();
    assert!(refusal(at).contains(&format!("in use by process {pid}: stop it first")));
    commit(&store, vec![Put(user("anna", 1))]).await;
    drop(store);
    let exists = SledStore::create(at).err().unwrap().to_string();
    assert!(exists.contains("holds a store already"), "{exists}");

    let opened = Opened::open(at).unwrap();
    opened.put(SCHEMA_KEY, (SCHEMA + 1).to_string().as_bytes());
    drop(opened);
    let newer = SledStore::open(at).err().unwrap().to_string();
    let text = format!("has schema {} and this program knows up to {SCHEMA}", SCHEMA + 1);
    assert!(newer.contains(&text), "{newer}");
    let opened = Opened::open(at).unwrap();
    opened.put(SCHEMA_KEY, b"two");
    drop(opened);
    assert!(refusal(at).contains("damaged at meta/schema: is not a number"));
}

#[test]
fn refuses_what_is_not_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let other = sled::open(dir.path().join(STORE_DIR)).unwrap();
    other.insert("somebody", "else's").unwrap();
    drop(other);
    assert!(refusal(dir.path()).contains("not a store of this program: it says no schema"));
    let error = SledStore::create(dir.path()).err().unwrap().to_string();
    assert!(error.contains("sled database with other keys"), "{error}");

    let conf = dir.path().join(STORE_DIR).join("conf");
    let mut bytes = fs::read(&conf).unwrap();
    let at = bytes.windows(4).position(|window| window == b"0.34").unwrap();
    bytes[at..at + 4].copy_from_slice(b"9.99");
    fs::write(&conf, bytes).unwrap();
    assert!(refusal(dir.path()).contains("created using pagecache version 9.99"));
}

#[test]
fn a_create_that_was_cut_off_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    drop(SledStore::create(dir.path()).unwrap());
    drop(SledStore::create(dir.path()).unwrap());
    drop(SledStore::open(dir.path()).unwrap());
}

#[tokio::test]
async fn long_values_stay_out_of_files_that_sled_never_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::create(dir.path()).unwrap();
    for n in 0..40 {
        let name = format!("s{}", n % 20);
        commit(&store, vec![Put(large(&name, n, 250_000))]).await;
    }
    let blobs = dir.path().join(STORE_DIR).join("blobs");
    assert_eq!(fs::read_dir(blobs).unwrap().count(), 0);
}

/// Where sled's own checksums show damage it drops what follows, and opens as if nothing was.
#[tokio::test]
async fn a_damaged_file_is_refused_or_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::create(dir.path()).unwrap();
    for n in 0..60 {
        let writes = vec![Put(user(&format!("u{}", n % 9), n)), Put(large("big", n, 5_000))];
        commit(&store, writes).await;
    }
    let history = log(&store, Revision::ZERO).await;
    let snapshot = store.snapshot().await.unwrap();
    drop(store);
    let whole = fs::read(dir.path().join(STORE_DIR).join("db")).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();

    let (mut refused, mut unhurt) = (0, 0);
    for n in 0..60 {
        let hurt = tempfile::tempdir().unwrap();
        copy(dir.path(), hurt.path());
        let mut bytes = whole.clone();
        bytes[used * n / 60] ^= 0x55;
        fs::write(hurt.path().join(STORE_DIR).join("db"), bytes).unwrap();
        match SledStore::open(hurt.path()) {
            Ok(store) => {
                unhurt += 1;
                let found = store.snapshot().await.unwrap();
                assert_eq!(found, snapshot, "with byte {} changed", used * n / 60);
                assert_eq!(log(&store, Revision::ZERO).await, history);
            }
            Err(error) => {
                refused += 1;
                let text = error.to_string();
                assert!(text.contains("damaged at") && text.contains("store import"), "{text}");
                let damage = offline::check(hurt.path()).map_or(1, |checked| checked.damage.len());
                assert!(damage > 0);
                let again = SledStore::create(hurt.path()).map(drop);
                let refused = matches!(
                    again,
                    Err(StoreError::Exists { .. }
                        | StoreError::Damaged { .. }
                        | StoreError::Foreign { .. })
                );
                assert!(refused, "with byte {} changed: {again:?}", used * n / 60);
            }
        }
    }
    println!("{refused} refused, {unhurt} unhurt");
    assert!(refused > 10);
}

fn rename_anna(raw: &mut Raw) -> Result<(), Invalid> {
    let (revision, mut record) =
        raw.remove("user/anna").ok_or_else(|| Invalid::new("user/anna", "is missing"))?;
    if let Some(lockstep_proto::store_v1::record::Kind::User(user)) = &mut record.kind {
        user.name = "hanna".into();
    }
    raw.insert("user/hanna".into(), (revision, record));
    Ok(())
}

const NEXT: u32 = SCHEMA + 1;
const STEPS: [Migration; 1] = [Migration { to: NEXT, name: "rename-anna", run: rename_anna }];

#[tokio::test]
async fn an_older_schema_is_exported_and_migrated() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::create(dir.path()).unwrap();
    commit(&store, vec![Put(user("anna", 1)), Put(large("big", 1, 50_000))]).await;
    let before = store.snapshot().await.unwrap();
    drop(store);

    let store = SledStore::open_as(dir.path(), NEXT, &STEPS).unwrap();
    let after = store.snapshot().await.unwrap();
    let keys: Vec<String> = after.records.keys().map(ToString::to_string).collect();
    assert_eq!(keys, ["user/hanna", "sync/big"]);
    assert_eq!(after.revision, Revision(1));
    let gone = store.changes(Revision::ZERO).await.unwrap_err();
    assert!(matches!(gone, ChangesError::Compacted { oldest: Revision(1) }));
    commit(&store, vec![Put(user("ben", 2))]).await;
    assert_eq!(log(&store, Revision(1)).await.len(), 1);
    drop(store);

    SledStore::open_as(dir.path(), NEXT, &STEPS).unwrap();
    assert!(matches!(
        SledStore::open(dir.path()),
        Err(StoreError::Newer { found: NEXT, known: SCHEMA })
    ));
    let file = format!("exports/schema-{SCHEMA}-revision-1.ndjson");
    let export = fs::read(dir.path().join(file)).unwrap();
    let back = tempfile::tempdir().unwrap();
    offline::import(back.path(), export.as_slice(), false).unwrap();
    assert_eq!(SledStore::open(back.path()).unwrap().snapshot().await.unwrap(), before);
}

#[tokio::test]
async fn a_migration_that_fails_changes_nothing() {
    fn refuse(_: &mut Raw) -> Result<(), Invalid> {
        Err(Invalid::new("user/anna", "has no soul"))
    }
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::create(dir.path()).unwrap();
    commit(&store, vec![Put(user("anna", 1))]).await;
    let before = store.snapshot().await.unwrap();
    drop(store);
    let steps = [Migration { to: NEXT, name: "judge", run: refuse }];
    let error = SledStore::open_as(dir.path(), NEXT, &steps).err().unwrap().to_string();
    assert!(error.contains("migration judge: user/anna: has no soul"), "{error}");
    assert_eq!(SledStore::open(dir.path()).unwrap().snapshot().await.unwrap(), before);
}
