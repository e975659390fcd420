//! A project's upstream: a host with a real rsync daemon, whose one tree is there for everybody and
//! for who has the password. It knows nothing of mirrors.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::host::Host;
use crate::net::Net;
use crate::proc::{Proc, cmd};
use crate::wait::until;

const LISTENS_WITHIN: Duration = Duration::from_secs(60);

pub struct Upstream {
    pub host: Host,
    daemon: Proc,
}

impl Upstream {
    pub const USER: &'static str = "mirror";
    pub const PASSWORD: &'static str = "open-sesame-4711";

    /// With an empty tree.
    pub fn start(net: &Net) -> Result<Self> {
        let host = net.host("upstream")?;
        fs::create_dir_all(host.path("pub"))?;
        let secrets = host.path("secrets");
        fs::write(&secrets, format!("{}:{}\n", Self::USER, Self::PASSWORD))?;
        fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600))?;
        let daemon = run(&host)?;
        Ok(Self { host, daemon })
    }

    /// Ends the daemon, its transfers included.
    pub fn stop(&mut self) -> Result<()> {
        self.daemon.kill()?;
        self.host.kill_all()
    }

    pub fn start_again(&mut self) -> Result<()> {
        self.daemon = run(&self.host)?;
        Ok(())
    }

    /// The tree.
    pub fn tree(&self) -> PathBuf {
        self.host.path("pub")
    }

    pub fn write(&self, below: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.tree().join(below);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        Ok(fs::write(path, content)?)
    }

    pub fn remove(&self, below: &str) -> Result<()> {
        let path = self.tree().join(below);
        match path.is_dir() {
            true => Ok(fs::remove_dir_all(path)?),
            false => Ok(fs::remove_file(path)?),
        }
    }

    /// For everybody.
    pub fn url(&self) -> String {
        format!("rsync://{}/pub", self.host.ip())
    }

    /// For who has the password.
    pub fn private_url(&self) -> String {
        format!("rsync://{}@{}/private", Self::USER, self.host.ip())
    }

    /// Connections that got as far as a module.
    pub fn pulls(&self) -> usize {
        let log = fs::read_to_string(self.host.path("rsyncd.log")).unwrap_or_default();
        log.matches(" rsync on ").count()
    }
}

fn run(host: &Host) -> Result<Proc> {
    let dir = host.dir().display();
    let config = format!(
        "use chroot = no\nuid = 0\ngid = 0\naddress = {}\nlog file = {dir}/rsyncd.log\n\
         [pub]\npath = {dir}/pub\n[fedora]\npath = {dir}/pub\n\
         [private]\npath = {dir}/pub\nauth users = {}\nsecrets file = {dir}/secrets\n",
        host.ip(),
        Upstream::USER
    );
    fs::write(host.path("rsyncd.conf"), config)?;
    let mut option = OsString::from("--config=");
    option.push(host.path("rsyncd.conf"));
    let daemon = host.spawn(cmd("rsync").args(["--daemon", "--no-detach"]).arg(option))?;
    let at = host.at(873);
    until(LISTENS_WITHIN, "the upstream listens", || {
        host.enter(|| std::net::TcpStream::connect(at).is_ok()).unwrap_or(false)
    });
    Ok(daemon)
}

/// Files with a content of their own, to copy for a while.
pub fn fill(dir: &Path, files: usize, bytes: usize) -> Result<()> {
    fs::create_dir_all(dir)?;
    for n in 0..files {
        let mut content = format!("{n}\n").into_bytes();
        content.resize(bytes.max(content.len()), b'x');
        fs::write(dir.join(format!("file-{n:05}")), content)?;
    }
    Ok(())
}
