//! Machines without an agent: a real sshd and a real rsync daemon on loopback, each ended by its
//! process id with its guard.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lockstep_model::task::{Receiver, Route};

use crate::fleet::PATIENCE;

/// Ends with its guard.
struct Daemon(Child);

impl Daemon {
    fn start(command: &mut Command, port: u16) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let daemon = Self(quiet.spawn().unwrap());
        let until = Instant::now() + PATIENCE;
        // A greeting, since a socket may listen long before anybody answers.
        let greets = || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
            stream.read_exact(&mut [0]).ok()
        };
        while greets().is_none() {
            assert!(Instant::now() < until, "{command:?} never answered");
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn secret(dir: &Path, name: &str, text: &str) {
    let secrets = dir.join("secrets");
    fs::create_dir_all(&secrets).unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(secrets.join(name), text).unwrap();
    fs::set_permissions(secrets.join(name), fs::Permissions::from_mode(0o600)).unwrap();
}

pub fn receiver(name: &str, url: &str) -> Receiver {
    let route = Route::Remote(url.parse().unwrap());
    Receiver { node: name.parse().unwrap(), route, bwlimit: None }
}

pub struct Sshd {
    dir: PathBuf,
    pub port: u16,
    daemon: Option<Daemon>,
}

impl Sshd {
    /// Below `dir`, with key `deploy` and the host's key among the secrets there. Who logs in with
    /// the key runs `forced` in place of what he asked for.
    pub fn start(dir: &Path, forced: &str) -> Self {
        fs::create_dir_all("/run/sshd").unwrap();
        let mut sshd = Self { dir: dir.to_owned(), port: free_port(), daemon: None };
        let public = sshd.new_key("deploy");
        secret(dir, "deploy", &fs::read_to_string(dir.join("deploy")).unwrap());
        fs::write(dir.join("authorized"), format!("restrict,command=\"{forced}\" {public}"))
            .unwrap();
        sshd.change_host_key();
        let known = sshd.host_line();
        secret(dir, "known_hosts", &known);
        sshd
    }

    /// Returns the public half.
    fn new_key(&self, name: &str) -> String {
        let file = self.dir.join(name);
        let _ = fs::remove_file(&file);
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&file)
            .status();
        assert!(made.unwrap().success());
        fs::read_to_string(file.with_extension("pub")).unwrap()
    }

    pub fn change_host_key(&mut self) {
        self.daemon = None;
        self.new_key("host");
        let dir = self.dir.display();
        let config = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {dir}/host\nPidFile none\nStrictModes no\n\
             UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\nAuthorizedKeysFile {dir}/authorized\n",
            self.port
        );
        let file = self.dir.join("sshd.conf");
        fs::write(&file, config).unwrap();
        let mut command = Command::new("/usr/sbin/sshd");
        self.daemon = Some(Daemon::start(command.args(["-D", "-f"]).arg(&file), self.port));
    }

    /// As `ssh-keyscan` prints it.
    pub fn host_line(&self) -> String {
        let public = fs::read_to_string(self.dir.join("host.pub")).unwrap();
        format!("[127.0.0.1]:{} {public}", self.port)
    }

    pub fn url(&self, path: &str) -> String {
        format!("ssh://root@127.0.0.1:{}{path}?key=deploy", self.port)
    }
}

pub struct Rsyncd {
    pub port: u16,
    _daemon: Daemon,
}

impl Rsyncd {
    /// With module `www` of `path` for user `b` with password `right`, and `fixed` that is read only.
    pub fn start(dir: &Path, path: &Path) -> Self {
        let port = free_port();
        secret(dir, "daemons-own", "b:right\n");
        let (secrets, path) = (dir.join("secrets/daemons-own"), path.display());
        let config = format!(
            "port = {port}\naddress = 127.0.0.1\nuid = 0\ngid = 0\nuse chroot = yes\n\
             [www]\npath = {path}\nread only = no\nauth users = b\nsecrets file = {}\n\
             [fixed]\npath = {path}\nread only = yes\n",
            secrets.display()
        );
        let file = dir.join("rsyncd.conf");
        fs::write(&file, config).unwrap();
        let mut command = Command::new("rsync");
        let command =
            command.args(["--daemon", "--no-detach"]).arg(format!("--config={}", file.display()));
        Self { port, _daemon: Daemon::start(command, port) }
    }

    pub fn url(&self, module: &str, password: &str) -> String {
        format!("rsync://b@127.0.0.1:{}/{module}?password={password}", self.port)
    }
}
