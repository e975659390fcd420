//! The CA's files and what is issued from them, with time as an argument.

use std::os::unix::fs::PermissionsExt;

use lockstep_transport::identity::Identity;

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const LIFE: Millis = Millis::from_secs(30 * DAY);

fn fleet() -> FleetName {
    "prod".parse().unwrap()
}

fn node(name: &str) -> Subject {
    Subject::Node(name.parse().unwrap())
}

fn later(time: Millis) -> Timestamp {
    NOW + time
}

/// An identity of web1 as its agent would hold it.
fn identity(
    ca: &Ca,
    roots: &[CertificateDer<'static>],
    now: Timestamp,
) -> Result<Identity, String> {
    let key = PrivateKey::generate().unwrap();
    let issued = ca.issue(&node("web1"), key.signer(), LIFE, now).unwrap();
    Identity::new(key, issued.chain, roots.to_vec()).map_err(|e| e.to_string())
}

#[test]
fn a_leaf_says_who_and_for_how_long() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::create(dir.path(), &fleet(), NOW).unwrap();
    let web1 = identity(&ca, ca.roots(), NOW).unwrap();
    assert_eq!(web1.spiffe.to_string(), "spiffe://prod/node/web1");
    assert_eq!(web1.not_after, later(LIFE));
    assert_eq!(later(Millis(0)).since(web1.not_before), BACKDATE);
    assert!(web1.renew_at() > NOW && web1.renew_at() < web1.not_after);
}

#[test]
fn keys_are_for_their_owner_only_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let ca_dir = dir.path().join("ca");
    let made = Ca::create(&ca_dir, &fleet(), NOW).unwrap();
    let mut names: Vec<_> = fs::read_dir(&ca_dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["issuing.pem", "root-1.pem"]);
    for name in names {
        let mode = fs::metadata(ca_dir.join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert!(matches!(Ca::create(&ca_dir, &fleet(), NOW), Err(CaError::Refused(_))));
    let again = Ca::load(&ca_dir, &fleet(), NOW).unwrap();
    assert_eq!(again.root_sha256(), made.root_sha256());
    assert_eq!(again.issuing.certificates, made.issuing.certificates);
}

#[test]
fn the_issuing_key_is_renewed_before_a_leaf_could_outlive_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = Ca::create(dir.path(), &fleet(), NOW).unwrap();
    let at = first.renew_at();
    let before = Ca::load(dir.path(), &fleet(), Timestamp(at.0 - 1000)).unwrap();
    assert_eq!(before.issuing.certificates, first.issuing.certificates);
    let leaf = identity(&before, before.roots(), Timestamp(at.0 - 1000)).unwrap();
    assert_eq!(leaf.not_after, Timestamp(at.0 - 1000) + LIFE);
    let after = Ca::load(dir.path(), &fleet(), at).unwrap();
    assert_ne!(after.issuing.certificates, first.issuing.certificates);
    assert_eq!(after.roots(), first.roots());
    // What was issued before goes on: its chain holds the former issuing certificate.
    identity(&first, after.roots(), NOW).unwrap();
}

#[test]
fn a_rotation_keeps_everyone_believing() {
    let dir = tempfile::tempdir().unwrap();
    let old = Ca::create(dir.path(), &fleet(), NOW).unwrap();
    let info = Ca::rotate(dir.path(), NOW).unwrap();
    assert_eq!(info.number, 2);
    assert!(matches!(Ca::rotate(dir.path(), NOW), Err(CaError::Refused(_))), "one at a time");

    let both = Ca::load(dir.path(), &fleet(), NOW).unwrap();
    assert_eq!(both.root_numbers(), [2, 1]);
    assert_eq!(both.root_sha256(), info.sha256);
    identity(&old, both.roots(), NOW).expect("an old leaf under both roots");
    identity(&both, both.roots(), NOW).expect("a new leaf under both roots");
    identity(&both, old.roots(), NOW).expect("a new leaf, to one who knows the old root only");
    identity(&both, &both.roots()[..1], NOW).expect("a new leaf under the new root only");

    let early = Ca::retire(dir.path(), LIFE, false, later(Millis::from_secs(DAY)));
    assert!(early.is_err_and(|e| e.to_string().contains("--force")));
    let retired = Ca::retire(dir.path(), LIFE, false, later(LIFE)).unwrap();
    assert_eq!(retired.number, 1);
    let new = Ca::load(dir.path(), &fleet(), later(LIFE)).unwrap();
    assert_eq!(new.roots(), &both.roots()[..1]);
    identity(&both, new.roots(), NOW).expect("a leaf of the overlap");
    assert!(identity(&old, new.roots(), NOW).is_err(), "a leaf from before the rotation");
    assert!(matches!(Ca::retire(dir.path(), LIFE, true, NOW), Err(CaError::Refused(_))));
}

#[test]
fn a_missing_or_damaged_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    Ca::create(dir.path(), &fleet(), NOW).unwrap();
    fs::write(dir.path().join("root-1.pem"), "garbage").unwrap();
    let error = Ca::load(dir.path(), &fleet(), NOW).err().map(|e| e.to_string()).unwrap();
    assert!(error.contains("root-1.pem"), "{error}");
    fs::remove_file(dir.path().join("root-1.pem")).unwrap();
    let error = Ca::load(dir.path(), &fleet(), NOW).err().map(|e| e.to_string()).unwrap();
    assert!(error.contains("restore"), "{error}");
}
