//! Texts that go into PostgreSQL's own files: a setting of postgresql.conf, a line of pg_hba.conf, an
//! option of initdb. Each is checked so that it can be nothing else there.

use std::fmt;
use std::str::FromStr;

use crate::id::quote;
use crate::reject::Invalid;

const VALUE_MAX: usize = 1024;

/// `max_connections=200`: a setting of postgresql.conf, its value unquoted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Parameter {
    pub name: String,
    pub value: String,
}

/// What Lockstep sets itself, and why nobody else may.
const OWN: &[(&str, &str)] = &[
    ("primary_conninfo", "it follows from who is primary"),
    ("primary_slot_name", "it follows from the member's name"),
    ("synchronous_standby_names", "set the cluster's sync"),
    (
        "synchronous_commit",
        "set it per role, database or transaction; check lists those that are below on",
    ),
    ("restore_command", "it is the agent's"),
    ("recovery_target_timeline", "standbys follow the newest"),
    ("recovery_min_apply_delay", "set the member's delay"),
    ("restart_after_crash", "who may start again is decided by the agent"),
    ("hot_standby", "standbys are asked by SQL"),
    ("port", "set the cluster's port"),
    ("listen_addresses", "set the member's host"),
    ("unix_socket_directories", "set the cluster's socket-dir"),
    ("data_directory", "set the cluster's data-dir"),
    ("config_file", "it is in the data directory"),
    ("hba_file", "it is in the data directory"),
    ("external_pid_file", "the agent holds the process itself"),
    ("fsync", "a copy that is not on disk is none"),
    ("full_page_writes", "pg_rewind needs it"),
    ("wal_level", "replica is the least, and logical is set by logical-decoding"),
    ("ssl", "set replication-tls"),
    ("ssl_cert_file", "set replication-tls"),
    ("ssl_key_file", "set replication-tls"),
    ("cluster_name", "it is the member's name"),
    ("wal_retrieve_retry_interval", "a long one makes promotions slow"),
];

impl FromStr for Parameter {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = |problem: String| Invalid::new("parameter", problem);
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| wrong(format!("must look like NAME=VALUE, not {}", quote(text))))?;
        let name = name.trim().to_ascii_lowercase();
        let plain = !name.is_empty()
            && name.len() <= 128
            && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
        if !plain {
            return Err(wrong(format!("{} is no name of a setting", quote(&name))));
        }
        if let Some((_, why)) = OWN.iter().find(|(own, _)| *own == name) {
            return Err(wrong(format!("{name} is Lockstep's: {why}")));
        }
        Ok(Self { name, value: one_line("parameter", value.trim())? })
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

/// One line of pg_hba.conf: `hostssl app app 10.0.0.0/8 scram-sha-256`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HbaEntry(String);

impl HbaEntry {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HbaEntry {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        const KINDS: [&str; 6] =
            ["local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"];
        let line = one_line("hba", text.trim())?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let least = if words.first() == Some(&"local") { 4 } else { 5 };
        if !words.first().is_some_and(|kind| KINDS.contains(kind)) || words.len() < least {
            let problem = format!(
                "must look like 'hostssl DATABASE USER ADDRESS METHOD', not {}",
                quote(text)
            );
            return Err(Invalid::new("hba", problem));
        }
        Ok(Self(line))
    }
}

impl fmt::Display for HbaEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `--encoding=UTF8`: one of initdb's options that neither name files nor roles.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct InitdbOption(String);

impl InitdbOption {
    const ALLOWED: [&str; 14] = [
        "--encoding",
        "--locale",
        "--lc-collate",
        "--lc-ctype",
        "--lc-messages",
        "--lc-monetary",
        "--lc-numeric",
        "--lc-time",
        "--locale-provider",
        "--icu-locale",
        "--icu-rules",
        "--builtin-locale",
        "--wal-segsize",
        "--text-search-config",
    ];

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InitdbOption {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let text = one_line("initdb-option", text.trim())?;
        let name = text.split_once('=').map(|(name, _)| name);
        if !name.is_some_and(|name| Self::ALLOWED.contains(&name)) {
            let names = Self::ALLOWED.join(", ");
            let problem = format!("must be one of {names} with =VALUE, not {}", quote(&text));
            return Err(Invalid::new("initdb-option", problem));
        }
        Ok(Self(text))
    }
}

impl fmt::Display for InitdbOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn one_line(field: &str, text: &str) -> Result<String, Invalid> {
    if text.len() > VALUE_MAX {
        return Err(Invalid::new(field, format!("must have at most {VALUE_MAX} bytes")));
    }
    match text.chars().any(char::is_control) {
        true => Err(Invalid::new(field, "must be one line without control characters")),
        false => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_one_line_and_not_our_own() {
        let parameter: Parameter = "Max_Connections = 200".parse().unwrap();
        assert_eq!(parameter.to_string(), "max_connections=200");
        for wrong in
            ["x", "=1", "a b=1", "work_mem=1\nfsync=off", "primary_conninfo=x", "FSYNC=off"]
        {
            assert!(wrong.parse::<Parameter>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn lines_of_pg_hba_have_their_fields() {
        for fine in ["local all all peer", "hostssl app app 10.0.0.0/8 scram-sha-256"] {
            assert_eq!(fine.parse::<HbaEntry>().unwrap().to_string(), fine);
        }
        for wrong in ["", "host all all", "include /etc/x", "local all all peer\nhost a b c trust"]
        {
            assert!(wrong.parse::<HbaEntry>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn options_of_initdb_name_no_files() {
        assert!("--encoding=UTF8".parse::<InitdbOption>().is_ok());
        for wrong in ["--pgdata=/etc", "-D", "--pwfile=/etc/shadow", "--encoding", "--set=a=b"] {
            assert!(wrong.parse::<InitdbOption>().is_err(), "{wrong}");
        }
    }
}
