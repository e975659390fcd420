//! Passwords at rest: sealed with a key file of this controller, each for the one purpose that it was
//! given for. Whoever has the store or an export has no password; it shows and logs none.

use std::io;
use std::path::{Path, PathBuf};

use lockstep_model::record::Secret;
use lockstep_model::sync::Remote;
use lockstep_model::{ClusterName, Code, Invalid, Reject};
use lockstep_transport::durable;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// In the data directory.
pub const KEY_FILE: &str = "secret.key";
const KEY_BYTES: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
    #[error("the kernel gives no randomness: {0}")]
    NoRandomness(getrandom::Error),
    #[error(
        "{path} must hold 64 hexadecimal digits: restore it from its copy, or move it away to start \
         without the passwords that it seals"
    )]
    Damaged { path: String },
}

/// What a password is for: it opens for nothing else.
#[derive(Clone, Copy)]
pub enum Purpose<'a> {
    /// A mirror's upstream. The mirror may be renamed; whom its password is for stays, or the password
    /// goes.
    Upstream(&'a Remote),
    /// Lockstep's superuser in a cluster's database.
    Superuser(&'a ClusterName),
    Replication(&'a ClusterName),
}

impl Purpose<'_> {
    fn aad(self) -> Vec<u8> {
        let (what, whose) = match self {
            Self::Upstream(to) => ("upstream", format!("{}://{}", to.scheme.as_str(), to.at)),
            Self::Superuser(cluster) => ("superuser", cluster.to_string()),
            Self::Replication(cluster) => ("replication", cluster.to_string()),
        };
        format!("lockstep {what} password\0{whose}").into_bytes()
    }
}

/// Seals and opens passwords, if the key file is there.
pub struct Vault {
    path: PathBuf,
    key: Option<LessSafeKey>,
}

impl Vault {
    /// Reads the key file. It is made when it is not there, unless there are passwords already that
    /// another one seals: then the vault is shut until that is back. Blocks.
    pub fn open(data_dir: &Path, has_secrets: bool) -> Result<Self, VaultError> {
        let path = data_dir.join(KEY_FILE);
        let shown = path.display().to_string();
        let io = |source| VaultError::Io { path: shown.clone(), source };
        let text = match durable::read_secret(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound && has_secrets => {
                return Ok(Self { path, key: None });
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let text = draw()?;
                durable::write_secret(&path, text.as_bytes()).map_err(io)?;
                text
            }
            Err(e) => return Err(io(e)),
        };
        let bytes = read_key(&text).ok_or(VaultError::Damaged { path: shown.clone() })?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, bytes.as_slice());
        let key = key.map_err(|_| VaultError::Damaged { path: shown })?;
        Ok(Self { path, key: Some(LessSafeKey::new(key)) })
    }

    /// False: the key file is gone, and no password can be had or kept.
    pub fn is_open(&self) -> bool {
        self.key.is_some()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the store keeps of a password.
    ///
    /// # Errors
    /// It has a length or characters that a file of one line cannot hold, or the key file is gone.
    pub fn seal(&self, password: &str, purpose: Purpose<'_>) -> Result<Vec<u8>, Reject> {
        check(password)?;
        let Some(key) = &self.key else {
            let message = format!(
                "no password can be kept: {} is gone; put its copy back and start the controller \
                 anew, or remove the passwords of all mirrors (lockstepctl mirror update NAME \
                 --no-password), release all clusters, and then start it anew",
                self.path.display()
            );
            return Err(Reject::new(Code::FailedPrecondition, "no_key", "controller", message));
        };
        let broken = |why: String| Reject::new(Code::Internal, "no_seal", "controller", why);
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce)
            .map_err(|e| broken(format!("the kernel gives no randomness: {e}")))?;
        let mut sealed = Zeroizing::new(password.as_bytes().to_vec());
        let aad = Aad::from(purpose.aad());
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        let tag = key
            .seal_in_place_separate_tag(nonce_used, aad, &mut sealed)
            .map_err(|_| broken("the password cannot be sealed".to_owned()))?;
        Ok([&nonce, sealed.as_slice(), tag.as_ref()].concat())
    }

    /// None: sealed with another key, or for another purpose.
    pub fn unseal(&self, sealed: &[u8], purpose: Purpose<'_>) -> Option<Zeroizing<String>> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut rest = Zeroizing::new(rest.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let key = self.key.as_ref()?;
        let opened = key.open_in_place(nonce, Aad::from(purpose.aad()), &mut rest).ok()?;
        String::from_utf8(opened.to_vec()).ok().map(Zeroizing::new)
    }
}

fn check(password: &str) -> Result<(), Invalid> {
    let problem = if !(1..=Secret::PASSWORD_MAX).contains(&password.len()) {
        format!("must have 1 to {} bytes, has {}", Secret::PASSWORD_MAX, password.len())
    } else if password.contains(['\0', '\n', '\r']) {
        "must be one line, without NUL".to_owned()
    } else {
        return Ok(());
    };
    Err(Invalid::new("password", problem))
}

fn draw() -> Result<Zeroizing<String>, VaultError> {
    let mut bytes = Zeroizing::new([0u8; KEY_BYTES]);
    getrandom::fill(bytes.as_mut_slice()).map_err(VaultError::NoRandomness)?;
    let mut text = Zeroizing::new(bytes.iter().map(|b| format!("{b:02x}")).collect::<String>());
    text.push('\n');
    Ok(text)
}

fn read_key(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let digits = text.trim_end().as_bytes();
    let mut bytes = Zeroizing::new([0u8; KEY_BYTES]);
    if digits.len() != 2 * KEY_BYTES {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn remote(text: &str) -> Remote {
        text.parse().unwrap()
    }

    #[test]
    fn a_password_opens_with_its_key_for_its_host_alone() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(dir.path(), false).unwrap();
        let mode = fs::metadata(vault.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let upstream = remote("rsync://b@up.example/fedora/linux");
        let sealed = vault.seal("hunter2 £", Purpose::Upstream(&upstream)).unwrap();
        assert_ne!(
            sealed,
            vault.seal("hunter2 £", Purpose::Upstream(&upstream)).unwrap(),
            "a nonce is used once"
        );
        assert!(!sealed.windows(7).any(|w| w == b"hunter2"));

        let again = Vault::open(dir.path(), true).unwrap();
        let open = |sealed: &[u8], url: &str| {
            again
                .unseal(sealed, Purpose::Upstream(&remote(url)))
                .map(|password| password.to_string())
        };
        assert_eq!(open(&sealed, "rsync://b@up.example/fedora/linux").unwrap(), "hunter2 £");
        assert_eq!(open(&sealed, "rsync://c@up.example/other").unwrap(), "hunter2 £");
        assert_eq!(open(&sealed, "rsync://b@evil.example/fedora/linux"), None);
        assert_eq!(open(&sealed, "rsync://b@up.example:874/fedora/linux"), None);
        for at in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[at] ^= 1;
            assert_eq!(open(&bent, "rsync://b@up.example/fedora/linux"), None, "byte {at}");
        }
        assert_eq!(open(&sealed[..11], "rsync://b@up.example/fedora/linux"), None);

        let cluster: ClusterName = "main".parse().unwrap();
        let sealed_for = Purpose::Superuser(&cluster);
        let superuser = vault.seal("hunter2", sealed_for).unwrap();
        assert_eq!(vault.unseal(&superuser, sealed_for).unwrap().as_str(), "hunter2");
        assert!(vault.unseal(&superuser, Purpose::Replication(&cluster)).is_none());

        let other = tempfile::tempdir().unwrap();
        let other = Vault::open(other.path(), false).unwrap();
        assert!(other.unseal(&sealed, Purpose::Upstream(&upstream)).is_none());
    }

    #[test]
    fn a_key_that_is_gone_is_never_made_anew_over_what_it_seals() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(dir.path(), true).unwrap();
        assert!(!vault.is_open() && !dir.path().join(KEY_FILE).exists());
        let refused = vault.seal("x", Purpose::Upstream(&remote("rsync://b@up/m"))).unwrap_err();
        assert_eq!(refused.reason, "no_key");
        fs::write(dir.path().join(KEY_FILE), "abc").unwrap();
        assert!(matches!(Vault::open(dir.path(), false), Err(VaultError::Damaged { .. })));
        assert_eq!(fs::read(dir.path().join(KEY_FILE)).unwrap(), b"abc");
    }

    #[test]
    fn passwords_fit_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(dir.path(), false).unwrap();
        let upstream = remote("rsync://b@up/m");
        let seal = |password: &str| vault.seal(password, Purpose::Upstream(&upstream));
        let most = "x".repeat(Secret::PASSWORD_MAX);
        assert!(seal(&most).unwrap().len() <= Secret::SEALED_MAX);
        for wrong in ["", &format!("{most}x"), "a\nb", "a\0b", "a\r"] {
            let refused = seal(wrong).unwrap_err().to_string();
            assert!(refused.starts_with("password: "), "{refused}");
        }
    }
}
