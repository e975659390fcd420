//! Where an instance's programs, files and sockets are, and whose they are: from the settings and from
//! what the node has. It changes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use lockstep_model::ClusterName;
use lockstep_model::cluster::options::Manager;
use lockstep_model::cluster::{ClusterOptions, MemberOptions};

use super::owner::Owner;
use super::unit::debian_cluster;

/// Where data directories are, unless told otherwise.
const DATA_HOME: &str = "/var/lib/postgresql/lockstep";
/// Debian and its like keep each major version's programs in `<here>/<version>/bin`.
const BIN_HOME: &str = "/usr/lib/postgresql";
/// PGDG's packages for Red Hat and its like: `/usr/pgsql-15/bin`.
const BIN_PREFIX: &str = "/usr/pgsql-";
/// Debian keeps the configuration of `15/main` here, below `15/main`.
const DEBIAN_CONFIG: &str = "/etc/postgresql";
/// And its data here.
const DEBIAN_DATA: &str = "/var/lib/postgresql";
const MAJOR_LEAST: u32 = 13;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Directory of `postgres`, `initdb`, `pg_rewind`.
    pub bin: PathBuf,
    pub data: PathBuf,
    /// Where pg_wal is made; None: in the data directory.
    pub wal: Option<PathBuf>,
    /// Directory of postgresql.conf and pg_hba.conf; mostly the data directory.
    pub config: PathBuf,
    /// Lockstep's own files for it: passfile, keys, log; beside the data directory, the owner's.
    pub private: PathBuf,
    pub port: u16,
    pub socket_dir: PathBuf,
    /// Whose processes and files they are.
    pub owner: Owner,
    pub manager: Manager,
    /// The name of its cgroup; one word, and no other instance's of this machine.
    pub cgroup: String,
}

impl Layout {
    /// Err: what is missing on this node, and the way out.
    pub fn find(
        cluster: &ClusterName,
        options: &ClusterOptions,
        member: &MemberOptions,
    ) -> Result<Self, String> {
        let instance = &options.instance;
        let manager = member.manager.clone().unwrap_or_else(|| instance.manager.clone());
        let given = member.data_dir.as_ref().or(instance.data_dir.as_ref());
        let data = match (given, &manager) {
            (Some(dir), _) => PathBuf::from(dir.as_str()),
            (None, Manager::PgCtlCluster(name)) => Path::new(DEBIAN_DATA).join(name.as_str()),
            (None, _) => Path::new(DATA_HOME).join(cluster.as_str()),
        };
        let debian = match &manager {
            Manager::Agent => None,
            Manager::PgCtlCluster(name) => Some(name.as_str().to_owned()),
            Manager::Systemd(unit) => debian_cluster(unit.as_str()),
        };
        // Its tools start nothing else than what is configured there.
        let debian = debian.map(|name| Path::new(DEBIAN_CONFIG).join(name));
        let has_file = |dir: &Path| dir.join("postgresql.conf").is_file();
        let debian = debian.filter(|dir| has_file(dir) || !has_file(&data));
        let wal = member.wal_dir.as_ref().or(instance.wal_dir.as_ref());
        let bin = match member.bin.as_ref().or(instance.bin.as_ref()) {
            Some(dir) => PathBuf::from(dir.as_str()),
            None => find_bin(read_major(&data))?,
        };
        for program in ["postgres", "initdb", "pg_controldata"] {
            if !bin.join(program).is_file() {
                let shown = bin.display();
                return Err(format!(
                    "there is no {program} in {shown}: install PostgreSQL's server, or set postgres-bin"
                ));
            }
        }
        let config = debian.or_else(|| started_with(&data)).unwrap_or_else(|| data.clone());
        let mut private = data.clone().into_os_string();
        private.push(".lockstep");
        let mark = crc32fast::hash(data.as_os_str().as_encoded_bytes());
        Ok(Self {
            owner: Owner::of(&data)?,
            cgroup: format!("{cluster}.{mark:08x}"),
            bin,
            wal: wal.map(|dir| PathBuf::from(dir.as_str())),
            config,
            private: private.into(),
            port: member.port.unwrap_or(instance.port),
            socket_dir: PathBuf::from(instance.socket_dir.as_str()),
            manager,
            data,
        })
    }

    pub fn pg_wal(&self) -> PathBuf {
        self.data.join("pg_wal")
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

/// Where the postgresql.conf is that it was started with last, when it is not in the data directory. None:
/// it is there, or nobody knows.
fn started_with(data: &Path) -> Option<PathBuf> {
    if data.join("postgresql.conf").exists() {
        return None;
    }
    let line = fs::read_to_string(data.join("postmaster.opts")).ok()?;
    let mut words = line.split('"').filter_map(|word| word.strip_prefix("config_file="));
    let file = PathBuf::from(words.next()?);
    let dir = file.parent().filter(|dir| dir.is_absolute());
    dir.filter(|_| file.is_file()).map(Path::to_owned)
}

/// Of PG_VERSION; None: there is none, or nothing that can be read.
pub fn read_major(data: &Path) -> Option<u32> {
    fs::read_to_string(data.join("PG_VERSION")).ok()?.trim().parse().ok()
}

/// Of the programs, by the version that their directory's name or the server's own files tell; None: they
/// do not.
pub fn program_major(bin: &Path) -> Option<u32> {
    let parts = bin.iter().filter_map(|part| part.to_str());
    let number = |part: &str| part.strip_prefix("pgsql-").unwrap_or(part).parse::<u32>().ok();
    parts.filter_map(number).next_back().filter(|major| (MAJOR_LEAST..100).contains(major))
}

/// Of the major version that the data has, else the newest.
fn find_bin(major: Option<u32>) -> Result<PathBuf, String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(BIN_HOME).into_iter().flatten().flatten() {
        let version = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        found.extend(version.map(|version| (version, entry.path().join("bin"))));
    }
    for entry in fs::read_dir("/usr").into_iter().flatten().flatten() {
        let path = entry.path();
        let version = path.to_str().and_then(|path| path.strip_prefix(BIN_PREFIX));
        let version = version.and_then(|version| version.parse::<u32>().ok());
        found.extend(version.map(|version| (version, path.join("bin"))));
    }
    found.retain(|(version, dir)| {
        *version >= MAJOR_LEAST
            && major.is_none_or(|major| major == *version)
            && dir.join("postgres").is_file()
    });
    let newest = found.into_iter().max_by_key(|(version, _)| *version);
    newest.map(|(_, dir)| dir).ok_or_else(|| {
        let which = major.map(|major| format!(" {major}")).unwrap_or_default();
        format!(
            "PostgreSQL{which} is in none of its usual places: install its server, or set postgres-bin"
        )
    })
}
