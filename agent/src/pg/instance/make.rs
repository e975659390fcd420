//! How an instance comes under Lockstep: made by initdb, or taken over as it runs.

use std::fs;
use std::time::Duration;

use lockstep_model::cluster::SUPERUSER;
use lockstep_model::cluster::options::Manager;
use lockstep_model::cluster::parameter::InitdbOption;
use postgres_protocol::password::scram_sha_256;
use tokio::time::timeout;

use super::data::UNFINISHED_FILE;
use super::found::Processes;
use super::sql::literal;
use super::{Data, Instance, files, processes};

const INITDB_TIMEOUT: Duration = Duration::from_secs(300);
const ADOPT_TIMEOUT: Duration = Duration::from_secs(30);
const PASSWORD_FILE: &str = "initdb-password";
/// Where nobody said otherwise: every text can be kept, and sorts the same on every machine.
const ENCODING: &str = "--encoding=UTF8";
const LOCALE: &str = "--locale=C.UTF-8";

impl Instance {
    /// Makes the database: checksums as asked, `lockstep` its superuser. The data directory must be
    /// missing or empty; what an earlier try left is removed.
    pub async fn initdb(&self, options: &[InitdbOption], checksums: bool) -> Result<(), String> {
        let layout = self.layout();
        match (self.data().await, self.processes().await) {
            (Data::Missing, Processes::None) => {}
            (Data::Missing, _) => return Err("processes work in its data directory".to_owned()),
            _ => return Err(format!("{} is not empty", layout.data.display())),
        }
        let unfinished = layout.private.join(UNFINISHED_FILE);
        let password = layout.private.join(PASSWORD_FILE);
        self.clear_unfinished()?;
        files::write(&unfinished, "", 0o600, &layout.owner)?;
        for dir in [Some(&layout.data), layout.wal.as_ref()].into_iter().flatten() {
            let made = files::make_dir(dir, &layout.owner);
            made.map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        }
        files::write(&password, &self.secrets().superuser, 0o600, &layout.owner)?;
        let args = self.initdb_args(options, checksums);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let made = timeout(INITDB_TIMEOUT, self.run("initdb", &args, "")).await;
        let removed = files::remove_durably(&password).map_err(|e| e.to_string());
        made.map_err(|_| "initdb does not come to its end: look at the disk".to_owned())??;
        removed?;
        // From here on it is a database; it must not open writable by hand.
        self.put_standby_signal()?;
        files::remove_durably(&unfinished).map(drop).map_err(|e| e.to_string())
    }

    fn initdb_args(&self, options: &[InitdbOption], checksums: bool) -> Vec<String> {
        let layout = self.layout();
        let mut args: Vec<String> = Vec::new();
        let mut pair = |name: &str, value: String| args.extend([name.to_owned(), value]);
        pair("-D", layout.data.display().to_string());
        pair("-U", SUPERUSER.to_owned());
        // People of the machine come in as they do with Debian's clusters.
        pair("--auth-local", "peer".to_owned());
        pair("--auth-host", "scram-sha-256".to_owned());
        pair("--pwfile", layout.private.join(PASSWORD_FILE).display().to_string());
        if let Some(wal) = &layout.wal {
            pair("--waldir", wal.display().to_string());
        }
        let given = |prefix: &str| options.iter().any(|o| o.as_str().starts_with(prefix));
        if !given("--encoding") {
            args.push(ENCODING.to_owned());
        }
        if !["--locale", "--lc-", "--icu-", "--builtin-"].into_iter().any(given) {
            args.push(LOCALE.to_owned());
        }
        // From PostgreSQL 18 on they are made unless refused.
        let major = super::layout::program_major(&layout.bin);
        match checksums {
            true => args.push("--data-checksums".to_owned()),
            false if major.is_none_or(|major| major >= 18) => {
                args.push("--no-data-checksums".to_owned());
            }
            false => {}
        }
        args.extend(options.iter().map(|option| option.as_str().to_owned()));
        args
    }

    /// What is in the data directory then was made by an initdb of ours, and nobody has used it.
    fn clear_unfinished(&self) -> Result<(), String> {
        let layout = self.layout();
        if !layout.private.join(UNFINISHED_FILE).exists() {
            return Ok(());
        }
        for dir in [Some(&layout.data), layout.wal.as_ref()].into_iter().flatten() {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.file_name() == "lost+found" {
                    continue;
                }
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let path = entry.path();
                let gone = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                gone.map_err(|error| format!("cannot remove {}: {error}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Takes a running primary over: makes the role `lockstep` as the data's owner, who is let in by
    /// `peer`, and has its processes in its cgroup. The instance is not restarted.
    pub async fn adopt(&self) -> Result<(), String> {
        let Processes::Running { pid, .. } = self.processes().await else {
            return Err("nothing runs there: start it, so that it can be taken over".to_owned());
        };
        self.check_manager().await?;
        let layout = self.layout();
        let verifier = literal(&scram_sha_256(self.secrets().superuser.as_bytes()));
        let sql = format!(
            "SET synchronous_commit = local; SET log_statement = none; \
             DO $$BEGIN IF pg_is_in_recovery() THEN RAISE 'it is a standby'; END IF; \
             IF current_setting('wal_level') = 'minimal' THEN \
             RAISE 'its wal_level is minimal: set it to replica, and restart it'; END IF; \
             IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{SUPERUSER}') THEN \
             CREATE ROLE {SUPERUSER}; END IF; END$$; \
             ALTER ROLE {SUPERUSER} SUPERUSER LOGIN PASSWORD {verifier};\n"
        );
        let (dir, port) = (layout.socket_dir.display().to_string(), layout.port.to_string());
        let owner = layout.owner.name.as_str();
        let args = ["-X", "-q", "-w", "-h", &dir, "-p", &port, "-U", owner, "-d", "postgres"];
        let args = [&args[..], &["-v", "ON_ERROR_STOP=1", "-f", "-"]].concat();
        let done = timeout(ADOPT_TIMEOUT, self.run("psql", &args, &sql)).await;
        done.map_err(|_| "psql does not come to its end".to_owned())?.map_err(|why| {
            format!("{why}; {owner} must be a superuser who is let in by peer: see pg_hba.conf")
        })?;
        self.take_processes(pid)
    }

    /// Into the cgroup, until none is outside: each new one has its parent's.
    fn take_processes(&self, postmaster: i32) -> Result<(), String> {
        let Some(cgroup) = self.cgroup() else { return Ok(()) };
        if let Manager::Systemd(unit) = &self.layout().manager {
            return match cgroup.processes().contains(&postmaster) {
                true => Ok(()),
                false => Err(format!(
                    "postgres runs, and was not started by {unit}: stop it, and systemctl start {unit}",
                    unit = unit.as_str()
                )),
            };
        }
        let take = |pid: i32| {
            cgroup.take(pid).map_err(|error| format!("cannot move process {pid}: {error}"))
        };
        take(postmaster)?;
        for pid in processes::all(&self.real_data(), None) {
            // One that has ended meanwhile needs no move.
            if let Err(why) = take(pid)
                && processes::exists(pid)
            {
                return Err(why);
            }
        }
        Ok(())
    }
}
