//! A PostgreSQL server of a test's own: on a socket and a port, ended by its own pid.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lockstep_agent::pg::wal::{Begin, SegmentSize};
use lockstep_model::cluster::{Lsn, SystemId};
use tempfile::TempDir;

/// Unless another version is to be tried: `tests/postgres-versions`.
const BIN: &str = "/usr/lib/postgresql/15/bin";
const BIN_VARIABLE: &str = "LOCKSTEP_TEST_PG_BIN";
const WAIT_MAX: Duration = Duration::from_secs(60);

pub fn bin(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(BIN_VARIABLE).unwrap_or_else(|| BIN.into())).join(name)
}

/// The user that servers run as.
pub fn postgres() -> (u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with("postgres:")).unwrap();
    let fields: Vec<&str> = line.split(':').collect();
    (fields[2].parse().unwrap(), fields[3].parse().unwrap())
}

/// For initdb: from PostgreSQL 18 on it makes checksums unless it is told not to.
pub fn without_checksums() -> &'static [&'static str] {
    match run(command("initdb").arg("--help")).contains("--no-data-checksums") {
        true => &["--no-data-checksums"],
        false => &[],
    }
}

/// As the user postgres, without a shell.
pub fn command(name: &str) -> Command {
    use std::os::unix::process::CommandExt;
    let (uid, gid) = postgres();
    let mut command = Command::new(bin(name));
    command.env_clear().env("LC_ALL", "C").env("PATH", bin("")).current_dir("/").uid(uid).gid(gid);
    command
}

pub fn run(command: &mut Command) -> String {
    let out = command.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{command:?}: {said}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A directory that the user postgres may go through.
pub fn scratch() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (uid, gid) = postgres();
    chown(dir.path(), Some(uid), Some(gid)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// A port that nobody has.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub struct Server {
    pub data: PathBuf,
    pub port: u16,
    sockets: PathBuf,
    postmaster: Option<Child>,
}

impl Server {
    /// Made and not started; `options` are initdb's.
    pub fn init(dir: &Path, options: &[&str]) -> Self {
        let data = dir.join("data");
        run(command("initdb")
            .args(["-A", "trust", "-N", "-U", "postgres", "-D"])
            .arg(&data)
            .args(options));
        let server = Self::of(&data);
        server
            .set("fsync = off\nautovacuum = off\nmax_wal_size = 10GB\nhot_standby_feedback = off");
        // What pg_hba.conf asks for; 13's own default is another one.
        server.set("password_encryption = 'scram-sha-256'");
        server
    }

    /// Of data that is there.
    pub fn of(data: &Path) -> Self {
        let sockets = data.parent().unwrap().to_owned();
        Self { data: data.to_owned(), port: free_port(), sockets, postmaster: None }
    }

    /// Lines at the end of postgresql.conf.
    pub fn set(&self, lines: &str) {
        let path = self.data.join("postgresql.conf");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}\n{lines}\n")).unwrap();
    }

    pub fn start(&mut self) {
        let log = fs::File::create(self.sockets.join(format!("log.{}", self.port))).unwrap();
        let child = command("postgres")
            .arg("-D")
            .arg(&self.data)
            .args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k"])
            .arg(&self.sockets)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.postmaster = Some(child);
        wait("the server takes sessions", || self.try_sql("select 1").is_some());
    }

    fn psql(&self) -> Command {
        let mut psql = command("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres", "-h"]);
        psql.arg(&self.sockets).args(["-p", &self.port.to_string()]);
        psql
    }

    pub fn try_sql(&self, sql: &str) -> Option<String> {
        let out = self.psql().args(["-c", sql]).output().unwrap();
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }

    pub fn sql(&self, sql: &str) -> String {
        run(self.psql().args(["-c", sql])).trim().to_owned()
    }

    /// Runs SQL again and again until it is dropped or the server is gone.
    pub fn load(&self, sql: &str) -> Load {
        let file = self.sockets.join(format!("load.{}.sql", self.port));
        fs::write(&file, format!("{sql}\n\\watch 0.001\n")).unwrap();
        let child =
            self.psql().arg("-f").arg(file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Load(child.unwrap())
    }

    /// Everything of the instance at once, as when the power goes.
    pub fn kill(&mut self) {
        let mut postmaster = self.postmaster.take().unwrap();
        let pid = postmaster.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let signal = |pid: &str, signal| {
            let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
            let _ = rustix::process::kill_process(pid, signal);
        };
        signal(&pid.to_string(), rustix::process::Signal::STOP);
        for child in children.split_ascii_whitespace() {
            signal(child, rustix::process::Signal::KILL);
        }
        postmaster.kill().unwrap();
        postmaster.wait().unwrap();
        for child in children.split_ascii_whitespace() {
            wait("a backend is gone", || !Path::new(&format!("/proc/{child}")).exists());
        }
        let _ = fs::remove_file(self.data.join("postmaster.pid"));
    }

    /// A clean stop.
    pub fn stop(&mut self) {
        if let Some(mut postmaster) = self.postmaster.take() {
            let pid = rustix::process::Pid::from_child(&postmaster);
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
            let ended = Instant::now() + WAIT_MAX;
            while postmaster.try_wait().unwrap().is_none() {
                assert!(Instant::now() < ended, "the server does not stop");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    pub fn control(&self, field: &str) -> String {
        let text = run(command("pg_controldata").arg(&self.data));
        let line = text.lines().find(|line| line.starts_with(&format!("{field}:")));
        line.unwrap_or_else(|| panic!("{field}")).split_once(':').unwrap().1.trim().to_owned()
    }

    pub fn begin(&self) -> Begin {
        Begin {
            system_id: SystemId(self.control("Database system identifier").parse().unwrap()),
            timeline: self.control("Latest checkpoint's TimeLineID").parse().unwrap(),
            redo: self.control("Latest checkpoint's REDO location").parse().unwrap(),
            needed: (
                self.control("Min recovery ending loc's timeline").parse().unwrap(),
                self.control("Minimum recovery ending location").parse().unwrap(),
            ),
            segment_size: SegmentSize::new(self.control("Bytes per WAL segment").parse().unwrap())
                .unwrap(),
            page_bytes: self.control("WAL block size").parse().unwrap(),
        }
    }

    pub fn pg_wal(&self) -> PathBuf {
        self.data.join("pg_wal")
    }

    pub fn lsn(&self) -> Lsn {
        self.sql("select pg_current_wal_flush_lsn()").parse().unwrap()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.sockets.join(format!("log.{}", self.port))).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.postmaster.is_some() {
            self.kill();
        }
    }
}

pub struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let ended = Instant::now() + WAIT_MAX;
    while !done() {
        assert!(Instant::now() < ended, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
