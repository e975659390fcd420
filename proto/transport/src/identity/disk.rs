//! An identity in a directory: `key.pem` (0600), `chain.pem`, `roots.pem`. A crash between any two
//! steps leaves an identity that loads. All calls block on the disk.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::{Identity, IdentityError};
use crate::certificate::{from_pem, to_pem};
use crate::durable;
use crate::keys::PrivateKey;

const KEY: &str = "key.pem";
const CHAIN: &str = "chain.pem";
const ROOTS: &str = "roots.pem";

/// Whether an identity was saved here; false where there is at most a key that still waits for its
/// certificate.
pub fn exists(dir: &Path) -> bool {
    dir.join(CHAIN).exists()
}

pub fn load(dir: &Path) -> Result<Identity, IdentityError> {
    let key = load_key(dir)?.ok_or_else(|| missing(dir, KEY))?;
    let chain = read(dir, CHAIN)?.ok_or_else(|| missing(dir, CHAIN))?;
    let roots = read(dir, ROOTS)?.ok_or_else(|| missing(dir, ROOTS))?;
    let of = |name: &str, e: IdentityError| wrong(dir, name, &e.to_string());
    let chain = from_pem(&chain).map_err(|e| of(CHAIN, e.into()))?;
    let roots = from_pem(&roots).map_err(|e| of(ROOTS, e.into()))?;
    Identity::new(key, chain, roots).map_err(|e| of(CHAIN, e))
}

/// The key that waits here, or a new one, already safe on disk. So whoever joins again after a lost
/// answer comes with the same key.
pub fn load_or_make_key(dir: &Path) -> Result<PrivateKey, IdentityError> {
    if let Some(key) = load_key(dir)? {
        return Ok(key);
    }
    durable::make_secret_dir(dir).map_err(|e| io_error(dir, "", e))?;
    let key = PrivateKey::generate()?;
    write(dir, KEY, &key.to_pem())?;
    Ok(key)
}

/// Saves an identity over the former one of the same key. Roots that the old chain may need stay
/// until the new chain is on disk.
pub fn save(dir: &Path, identity: &Identity) -> Result<(), IdentityError> {
    durable::make_secret_dir(dir).map_err(|e| io_error(dir, "", e))?;
    let former = read(dir, ROOTS)?.and_then(|text| from_pem(&text).ok()).unwrap_or_default();
    let leaving: Vec<CertificateDer<'_>> =
        former.into_iter().filter(|root| !identity.roots.contains(root)).collect();
    let roots = to_pem(&identity.roots);
    write(dir, KEY, &identity.key.to_pem())?;
    write(dir, ROOTS, &(roots.clone() + &to_pem(&leaving)))?;
    write(dir, CHAIN, &to_pem(&identity.chain))?;
    if !leaving.is_empty() {
        write(dir, ROOTS, &roots)?;
    }
    Ok(())
}

fn load_key(dir: &Path) -> Result<Option<PrivateKey>, IdentityError> {
    let Some(pem) = read(dir, KEY)? else { return Ok(None) };
    let mode = fs::metadata(dir.join(KEY)).map_err(|e| io_error(dir, KEY, e))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        let why = format!("others may read this private key (mode {mode:o}); run chmod 600 on it");
        return Err(wrong(dir, KEY, &why));
    }
    PrivateKey::from_pem(&pem).map(Some).map_err(|e| wrong(dir, KEY, &e.to_string()))
}

/// The file's text, or None where there is no such file.
fn read(dir: &Path, name: &str) -> Result<Option<Zeroizing<String>>, IdentityError> {
    match durable::read_secret(&dir.join(name)) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_error(dir, name, e)),
    }
}

fn write(dir: &Path, name: &str, text: &str) -> Result<(), IdentityError> {
    durable::write_secret(&dir.join(name), text.as_bytes()).map_err(|e| io_error(dir, name, e))
}

fn wrong(dir: &Path, name: &str, why: &str) -> IdentityError {
    IdentityError::File { file: dir.join(name).display().to_string(), why: why.to_owned() }
}

fn missing(dir: &Path, name: &str) -> IdentityError {
    wrong(dir, name, "there is no such file; this machine has not joined, or it was moved away")
}

fn io_error(dir: &Path, name: &str, source: io::Error) -> IdentityError {
    IdentityError::Io { file: dir.join(name).display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use lockstep_model::identity::Subject;

    use super::*;
    use crate::test_ca::{Dates, TestCa};

    fn subject() -> Subject {
        Subject::Node("web1".parse().unwrap())
    }

    fn refusal(dir: &Path) -> String {
        load(dir).err().map(|e| e.to_string()).unwrap()
    }

    #[test]
    fn a_saved_identity_loads() {
        let ca = TestCa::new("prod");
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("identity");
        assert!(!exists(&dir));
        let key = load_or_make_key(&dir).unwrap();
        assert!(!exists(&dir), "a key alone is no identity");
        assert_eq!(
            load_or_make_key(&dir).unwrap().hash(),
            key.hash(),
            "the key that waits is kept"
        );
        let identity = ca.renewed(key, subject(), Dates::GOOD, vec![ca.root()]);
        save(&dir, &identity).unwrap();
        assert!(exists(&dir));
        let loaded = load(&dir).unwrap();
        assert_eq!(loaded.spiffe, identity.spiffe);
        assert_eq!(loaded.key_hash, identity.key_hash);
        assert_eq!(loaded.not_after, identity.not_after);
        assert_eq!(loaded.roots(), identity.roots());
        assert_eq!(loaded.chain(), identity.chain());
        for (path, mode) in [(dir.clone(), 0o700), (dir.join(KEY), 0o600)] {
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, mode, "{}", path.display());
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 3, "nothing is left over");
    }

    #[test]
    fn every_step_of_a_rotation_loads() {
        let (old, new) = (TestCa::new("prod"), TestCa::new("prod"));
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let key = load_or_make_key(dir).unwrap();
        let pem = key.to_pem();
        let again = || PrivateKey::from_pem(&pem).ok().unwrap();
        save(dir, &old.renewed(key, subject(), Dates::GOOD, vec![old.root()])).unwrap();
        let after = new.renewed(again(), subject(), Dates::GOOD, vec![new.root()]);

        // The states that a crash within the save can leave, one after the other.
        write(dir, ROOTS, &to_pem(&[new.root(), old.root()])).unwrap();
        load(dir).unwrap();
        write(dir, CHAIN, &to_pem(after.chain())).unwrap();
        load(dir).unwrap();
        fs::write(dir.join("chain.pem~"), "half").unwrap();

        save(dir, &after).unwrap();
        assert_eq!(load(dir).unwrap().roots(), [new.root()]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let ca = TestCa::new("prod");
        let fresh = || {
            let dir = tempfile::tempdir().unwrap();
            save(dir.path(), &ca.identity(subject(), Dates::GOOD)).unwrap();
            dir
        };
        let others_key = PrivateKey::generate().unwrap().to_pem();
        for (file, text, want) in [
            (KEY, None, "key.pem: there is no such file; this machine has not joined"),
            (CHAIN, None, "chain.pem: there is no such file"),
            (ROOTS, None, "roots.pem: there is no such file"),
            (KEY, Some("x"), "key.pem: private key cannot be read"),
            (
                KEY,
                Some(others_key.as_str()),
                "chain.pem: certificate chain: is for another private key",
            ),
            (CHAIN, Some(""), "chain.pem: certificate: must be PEM"),
            (ROOTS, Some("-----BEGIN CERTIFICATE-----\n"), "roots.pem: certificate: must be PEM"),
            (ROOTS, Some(&*"x".repeat(70_000)), "roots.pem: is far too long"),
        ] {
            let dir = fresh();
            match text {
                Some(text) => write(dir.path(), file, text).unwrap(),
                None => fs::remove_file(dir.path().join(file)).unwrap(),
            }
            let error = refusal(dir.path());
            assert!(error.contains(want), "{error}");
        }
        let dir = fresh();
        let open = fs::Permissions::from_mode(0o640);
        fs::set_permissions(dir.path().join(KEY), open).unwrap();
        assert!(
            refusal(dir.path()).contains("(mode 640); run chmod 600"),
            "{}",
            refusal(dir.path())
        );
    }
}
