//! A host behind plain ssh: a real sshd that lets one key in, and the files of secrets that go with it.
//! It knows nothing of who logs in.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::host::Host;
use crate::proc::{Proc, cmd};
use crate::wait::until;

const LISTENS_WITHIN: Duration = Duration::from_secs(30);

/// A file that only its owner reads.
pub fn secret(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
}

/// Makes a key and returns its public part.
pub fn new_key(host: &Host, file: &Path) -> Result<String> {
    let file = file.to_string_lossy();
    host.run(cmd("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &file]))?.ok()?;
    Ok(fs::read_to_string(format!("{file}.pub"))?)
}

/// `authorized` is a line of authorized_keys. The host's own key is in `hostkey.pub` of its directory.
pub fn start(host: &Host, authorized: &str) -> Result<Proc> {
    let dir = host.dir().display();
    fs::create_dir_all("/run/sshd")?;
    new_key(host, &host.path("hostkey"))?;
    fs::write(host.path("authorized"), authorized)?;
    let config = format!(
        "Port 22\nListenAddress {}\nHostKey {dir}/hostkey\nPidFile none\nStrictModes no\nUsePAM no\n\
         PermitRootLogin prohibit-password\nPasswordAuthentication no\n\
         AuthorizedKeysFile {dir}/authorized\n",
        host.ip()
    );
    fs::write(host.path("sshd.conf"), config)?;
    let proc =
        host.spawn(cmd("/usr/sbin/sshd").args(["-D", "-e", "-f"]).arg(host.path("sshd.conf")))?;
    // Its log tells.
    until(LISTENS_WITHIN, "sshd listens", || proc.stderr().contains("Server listening"));
    Ok(proc)
}
