//! The two ways by which plain rsync and plain lsyncd reach a host: ssh with keys and a known host key,
//! and rsync's own daemon without any protection. Each host serves its directory `www`.

use std::fmt::Write;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use lockstep_tests::{Host, Proc, cmd, until};

const SSH_PORT: u16 = 22;
const RSYNCD_PORT: u16 = 873;
const READY_WITHIN: Duration = Duration::from_secs(20);
/// Where sshd must be started by its whole path, and what it drops its privileges into: Debian's
/// service makes that directory.
const SSHD: &str = "/usr/sbin/sshd";
const SSHD_EMPTY_DIR: &str = "/run/sshd";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Over {
    Ssh,
    Rsyncd,
}

/// Servers on targets, and how a source calls them.
pub struct Reach {
    over: Over,
    /// Keys and who is known.
    dir: PathBuf,
    servers: Vec<Proc>,
}

impl Reach {
    pub fn new(over: Over, source: &Host) -> Result<Self> {
        let dir = source.path("reach");
        let reach = Self { over, dir, servers: Vec::new() };
        if over == Over::Ssh {
            fs::create_dir_all(&reach.dir)?;
            fs::create_dir_all(SSHD_EMPTY_DIR)?;
            for name in ["key", "host_key"] {
                let mut make = cmd("ssh-keygen");
                make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(reach.file(name));
                source.run(&mut make)?.ok()?;
            }
            let host_key = fs::read_to_string(reach.file("host_key.pub"))?;
            fs::write(reach.file("known_hosts"), format!("10.77.0.* {host_key}"))?;
        }
        Ok(reach)
    }

    /// Starts the server of a host.
    pub fn serve(&mut self, host: &Host) -> Result<()> {
        let config = host.path("server.conf");
        let (text, mut server, port) = match self.over {
            Over::Ssh => (self.sshd_config(), cmd(SSHD), SSH_PORT),
            Over::Rsyncd => (rsyncd_config(host), cmd("rsync"), RSYNCD_PORT),
        };
        fs::write(&config, text)?;
        match self.over {
            Over::Ssh => server.arg("-D").arg("-e").arg("-f").arg(&config),
            Over::Rsyncd => server
                .args(["--daemon", "--no-detach"])
                .arg(format!("--config={}", config.display())),
        };
        self.servers.push(host.spawn(&mut server)?);
        let what = format!("{} serves port {port}", host.name());
        until(READY_WITHIN, &what, || {
            host.enter(|| TcpStream::connect(host.at(port)).map(drop).map_err(|e| e.to_string()))
                .map_err(|e| e.to_string())
                .flatten()
        });
        Ok(())
    }

    /// Everything in `from` to the host's directory, with what Lockstep carries over.
    pub fn rsync(&self, from: &Path, to: &Host) -> Command {
        let mut rsync = cmd("rsync");
        rsync.args(["-rlptgoD", "--numeric-ids"]);
        match self.over {
            Over::Ssh => {
                let mut shell = "ssh".to_owned();
                for (name, value) in self.ssh_options() {
                    let _ = write!(shell, " -o {name}={value}");
                }
                rsync.arg("-e").arg(shell).arg(from.join(""));
                rsync.arg(format!("{}:{}/", to.ip(), to.path("www").display()))
            }
            Over::Rsyncd => rsync.arg(from.join("")).arg(format!("rsync://{}/www/", to.ip())),
        };
        rsync
    }

    /// A configuration with a sync for each target.
    pub fn lsyncd_config(&self, source: &Host, targets: &[Host]) -> String {
        let mut text = "settings { nodaemon = true, insist = true }\n".to_owned();
        let from = source.path("www");
        for target in targets {
            let (ip, path) = (target.ip(), target.path("www"));
            let to = match self.over {
                Over::Ssh => {
                    let mut ssh = String::new();
                    for (name, value) in self.ssh_options() {
                        let _ = write!(ssh, "{name} = \"{value}\", ");
                    }
                    format!(
                        "default.rsyncssh, host = \"{ip}\", targetdir = \"{}\", ssh = {{ options = {{ {ssh}}} }}",
                        path.display()
                    )
                }
                Over::Rsyncd => format!("default.rsync, target = \"rsync://{ip}/www/\""),
            };
            let _ = writeln!(
                text,
                "sync {{ {to}, source = \"{}\", delay = 1, rsync = {{ archive = true }} }}",
                from.display()
            );
        }
        text
    }

    fn ssh_options(&self) -> [(&'static str, String); 4] {
        [
            ("IdentityFile", self.file("key").display().to_string()),
            ("UserKnownHostsFile", self.file("known_hosts").display().to_string()),
            ("StrictHostKeyChecking", "yes".to_owned()),
            ("BatchMode", "yes".to_owned()),
        ]
    }

    fn sshd_config(&self) -> String {
        format!(
            "Port {SSH_PORT}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             UsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n",
            self.file("host_key").display(),
            self.file("key.pub").display()
        )
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

fn rsyncd_config(host: &Host) -> String {
    format!(
        "port = {RSYNCD_PORT}\nlog file = /dev/null\nuse chroot = no\nuid = 0\ngid = 0\n\
         [www]\npath = {}\nread only = no\n",
        host.path("www").display()
    )
}
