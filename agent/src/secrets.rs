//! Keys and passwords for targets without an agent: named files of one directory that only their
//! owner reads. Whether they may be used is looked at before each use; what is in them is read by
//! ssh and rsync alone.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use lockstep_model::sync::Remote;
use lockstep_model::sync::remote::Scheme;

use crate::rsync::remote::KNOWN_HOSTS;

/// Where they are, unless told otherwise.
pub const DIR: &str = "/etc/lockstep/secrets";

/// Why this target cannot be reached, and the way out; one line for people.
pub fn check(dir: &Path, remote: &Remote) -> Result<(), String> {
    let what = match remote.scheme {
        Scheme::Ssh => "the private key",
        Scheme::Rsync => "the password",
    };
    if remote.scheme == Scheme::Rsync && remote.secret.is_none() {
        return Ok(());
    }
    private(dir, "the directory of secrets", "700")?;
    if let Some(name) = &remote.secret {
        private(&dir.join(name.as_str()), what, "600")?;
    }
    if remote.scheme == Scheme::Ssh {
        let file = dir.join(KNOWN_HOSTS);
        fs::metadata(&file).map_err(|error| {
            let (host, port) = (remote.at.host(), remote.at.port);
            let shown = file.display();
            format!(
                "the host keys, {shown}: {error}: ssh-keyscan -p {port} {host} >> {shown}; and \
                 compare the fingerprint that ssh-keygen -lf {shown} shows with the machine's own"
            )
        })?;
    }
    Ok(())
}

fn private(path: &Path, what: &str, mode: &str) -> Result<(), String> {
    let shown = path.display();
    let found = fs::metadata(path).map_err(|error| format!("{what}, {shown}: {error}"))?;
    let own = [0, rustix::process::geteuid().as_raw()].contains(&found.uid());
    match own && found.mode() & 0o077 == 0 {
        true => Ok(()),
        false if own => Err(format!("{what} can be read by others: chmod {mode} {shown}")),
        false => {
            Err(format!("{what}, {shown}, belongs to somebody else: chown it to the agent's user"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_others_can_read_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = dir.path().join("s");
        let chmod = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let ssh: Remote = "ssh://h:2222/srv?key=deploy".parse().unwrap();
        let says = |part: &str| {
            let why = check(&secrets, &ssh).unwrap_err();
            assert!(why.contains(part), "{part} in {why}");
        };
        says("No such file");
        fs::create_dir(&secrets).unwrap();
        chmod(&secrets, 0o755);
        says("chmod 700");
        chmod(&secrets, 0o700);
        says("deploy: No such file");
        let key = secrets.join("deploy");
        fs::write(&key, "x").unwrap();
        chmod(&key, 0o640);
        says("chmod 600");
        chmod(&key, 0o600);
        says("ssh-keyscan -p 2222 h");
        fs::write(secrets.join(KNOWN_HOSTS), "").unwrap();
        assert_eq!(check(&secrets, &ssh), Ok(()));
        let open = "rsync://h/m".parse().unwrap();
        assert_eq!(check(Path::new("/none"), &open), Ok(()), "nothing secret is needed");
    }
}
