//! What an instance's configuration is to be: a pure function of its place in the cluster and its role.
//! Writing files is `files`' part. No password is in it.

use std::collections::BTreeMap;
use std::fmt::Write;

use lockstep_model::cluster::options::{HbaMode, ReplicationTls};
use lockstep_model::cluster::parameter::Parameter;
use lockstep_model::cluster::{ClusterPlace, MemberPeer, Quorum, REPLICATION_USER, SUPERUSER};
use lockstep_model::{HostPort, NodeName};

use super::floors::FLOORS_FILE;
use super::layout::Layout;
use super::slots;

/// Least values of settings that people may raise.
const AT_LEAST: [(&str, u64); 2] = [("max_wal_senders", 10), ("max_replication_slots", 10)];
/// A name that no node has: waited for by a quorum without members, so that nothing is acknowledged.
const NOBODY: &str = "~";
/// The block of pg_hba.conf that is Lockstep's.
pub const HBA_BEGIN: &str = "# BEGIN lockstep: written by its agent, changes are lost";
pub const HBA_END: &str = "# END lockstep";

/// Of the block of an instance that lets nobody in.
const CLOSED: [&str; 2] = ["local all all reject", "host all all all reject"];

/// What an instance does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role<'a> {
    Primary(&'a Quorum),
    /// As a primary, and it lets nobody in but Lockstep's own roles.
    Closed(&'a Quorum),
    /// None: nobody to follow yet.
    Standby(Option<&'a MemberPeer>),
    /// Receives from nobody.
    Sealed,
}

/// What the place does not tell.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub me: &'a NodeName,
    /// Where others reach its postgres; empty: it listens on this machine alone.
    pub host: &'a str,
    pub layout: &'a Layout,
    /// As postgres runs it, with `%f` and `%p`; the same in every role, as it obeys the seal itself.
    pub restore_command: &'a str,
}

/// Contents of the files, but for secrets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conf {
    /// Lockstep's own settings; unquoted.
    pub own: BTreeMap<&'static str, String>,
    /// The cluster's, which postgres may refuse; unquoted.
    pub parameters: Vec<Parameter>,
    /// Lines of the block in pg_hba.conf; None: the file is left alone.
    pub hba: Option<Vec<String>>,
    /// Certificates of members, PEM, by the name of the file.
    pub certificates: BTreeMap<String, String>,
    /// It needs a key and a certificate of its own.
    pub tls: bool,
}

impl Conf {
    pub fn of(place: &ClusterPlace, role: Role<'_>, context: &Context<'_>) -> Self {
        let tls = place.options.replication.tls == ReplicationTls::Lockstep;
        let mut certificates = BTreeMap::new();
        if tls {
            for peer in place.peers.iter().filter(|peer| !peer.certificate.is_empty()) {
                certificates.insert(certificate_file(&peer.peer.node), peer.certificate.clone());
            }
        }
        Self {
            own: own(place, role, context),
            parameters: parameters(place),
            hba: (place.options.hba_mode == HbaMode::Managed).then(|| hba(place, role)),
            certificates,
            tls,
        }
    }

    /// Of Lockstep's file, included at the end of postgresql.conf.
    pub fn render_own(&self) -> String {
        let mut text = String::from("# Written by Lockstep's agent, changes are lost.\n");
        // First, so that what is Lockstep's stands above it.
        let _ = writeln!(text, "include_if_exists '{PARAMETERS_FILE}'");
        let _ = writeln!(text, "include_if_exists '{FLOORS_FILE}'");
        for (name, value) in &self.own {
            text += &line(name, value);
        }
        text
    }

    /// Of every setting in it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let parameters = self.parameters.iter().map(|parameter| parameter.name.as_str());
        self.own.keys().copied().chain(parameters)
    }

    /// Of the file with the cluster's settings.
    pub fn render_parameters(&self) -> String {
        let mut text = String::from("# The cluster's settings: lockstepctl cluster edit\n");
        for Parameter { name, value } in &self.parameters {
            text += &line(name, value);
        }
        text
    }
}

pub const OWN_FILE: &str = "lockstep.conf";
pub const PARAMETERS_FILE: &str = "lockstep.parameters.conf";

fn own(
    place: &ClusterPlace,
    role: Role<'_>,
    context: &Context<'_>,
) -> BTreeMap<&'static str, String> {
    let Context { me, host, layout, restore_command } = context;
    let private = layout.private.display();
    let options = &place.options;
    let mut own: BTreeMap<&'static str, String> = [
        ("port", layout.port.to_string()),
        ("unix_socket_directories", layout.socket_dir.display().to_string()),
        ("cluster_name", me.to_string()),
        ("hot_standby", "on".to_owned()),
        ("wal_log_hints", "on".to_owned()),
        ("restart_after_crash", "off".to_owned()),
        ("fsync", "on".to_owned()),
        ("full_page_writes", "on".to_owned()),
        ("synchronous_commit", "on".to_owned()),
        ("wal_retrieve_retry_interval", "100ms".to_owned()),
        ("wal_receiver_status_interval", "1s".to_owned()),
        ("wal_sender_timeout", "3s".to_owned()),
        // After half of it an idle primary is asked for a sign of life: so often it has to be heard.
        ("wal_receiver_timeout", format!("{}ms", 2 * options.lease.suspect.0)),
        ("recovery_target_timeline", "latest".to_owned()),
        ("restore_command", (*restore_command).to_owned()),
    ]
    .into();
    let listen = match host.is_empty() {
        true => "localhost".to_owned(),
        false => format!("localhost, {host}"),
    };
    own.insert("listen_addresses", listen);
    let delay = place.member.delay.map_or(0, |delay| delay.0);
    own.insert("recovery_min_apply_delay", format!("{delay}ms"));
    let upstream = match role {
        Role::Standby(upstream) => upstream,
        Role::Primary(_) | Role::Closed(_) | Role::Sealed => None,
    };
    let slot = match options.replication.slots {
        true => upstream.map(|_| slots::name(me)).unwrap_or_default(),
        false => String::new(),
    };
    own.insert("primary_slot_name", slot);
    let conninfo = upstream.map(|peer| conninfo(place, context, peer)).unwrap_or_default();
    own.insert("primary_conninfo", conninfo);
    let names = match role {
        Role::Primary(quorum) | Role::Closed(quorum) => standby_names(quorum),
        Role::Standby(_) | Role::Sealed => String::new(),
    };
    own.insert("synchronous_standby_names", names);
    if options.replication.tls == ReplicationTls::Lockstep {
        own.insert("ssl", "on".to_owned());
        own.insert("ssl_cert_file", format!("{private}/{CERTIFICATE_FILE}"));
        own.insert("ssl_key_file", format!("{private}/{KEY_FILE}"));
    }
    own
}

pub const CERTIFICATE_FILE: &str = "tls.crt";
pub const KEY_FILE: &str = "tls.key";
pub const PASS_FILE: &str = "passfile";

/// Of a member's certificate, in Lockstep's directory of the instance.
pub fn certificate_file(node: &NodeName) -> String {
    format!("member-{node}.crt")
}

/// Of somebody who receives from `peer`, without any password.
fn conninfo(place: &ClusterPlace, context: &Context<'_>, peer: &MemberPeer) -> String {
    let mut pairs = connection(place, context.layout, peer);
    pairs.push(("application_name", context.me.to_string()));
    let pairs: Vec<_> = pairs.iter().map(|(k, v)| format!("{k}={}", quote_value(v))).collect();
    pairs.join(" ")
}

/// How Lockstep's replication role reaches a member's postgres: for pg_basebackup and pg_rewind too.
pub fn connection(
    place: &ClusterPlace,
    layout: &Layout,
    peer: &MemberPeer,
) -> Vec<(&'static str, String)> {
    let HostPort { port, .. } = &peer.postgres;
    let private = layout.private.display();
    let mut pairs = vec![
        ("host", peer.postgres.host().to_owned()),
        ("port", port.to_string()),
        ("user", REPLICATION_USER.to_owned()),
        ("passfile", format!("{private}/{PASS_FILE}")),
        ("connect_timeout", "2".to_owned()),
        ("keepalives", "1".to_owned()),
        ("keepalives_idle", "1".to_owned()),
        ("keepalives_interval", "1".to_owned()),
        ("keepalives_count", "2".to_owned()),
        ("tcp_user_timeout", "2000".to_owned()),
    ];
    match place.options.replication.tls {
        ReplicationTls::Lockstep => {
            // Scram proves the other end by the password too, bound to its certificate.
            pairs.push(("channel_binding", "require".to_owned()));
            if peer.certificate.is_empty() {
                pairs.push(("sslmode", "require".to_owned()));
            } else {
                let file = certificate_file(&peer.peer.node);
                pairs.push(("sslmode", "verify-ca".to_owned()));
                pairs.push(("sslrootcert", format!("{private}/{file}")));
            }
        }
        ReplicationTls::Given => pairs.push(("sslmode", "require".to_owned())),
        ReplicationTls::Off => pairs.push(("sslmode", "disable".to_owned())),
    }
    pairs
}

/// The value of synchronous_standby_names.
pub fn standby_names(quorum: &Quorum) -> String {
    if quorum.is_off() {
        return String::new();
    }
    let names: Vec<_> = quorum.of.iter().map(|node| format!("\"{node}\"")).collect();
    match names.is_empty() {
        true => format!("ANY {} (\"{NOBODY}\")", quorum.k),
        false => format!("ANY {} ({})", quorum.k, names.join(", ")),
    }
}

/// Reads what `standby_names` wrote; None: somebody else did.
pub fn read_standby_names(text: &str) -> Option<Quorum> {
    let text = text.trim();
    if text.is_empty() {
        return Some(Quorum::OFF);
    }
    let (k, names) = text.strip_prefix("ANY ")?.strip_suffix(')')?.split_once(" (")?;
    let k = k.parse().ok().filter(|k| *k > 0)?;
    let names = names.split(", ").map(|name| name.strip_prefix('"')?.strip_suffix('"'));
    let names: Option<Vec<&str>> = names.collect();
    let of = match names?.as_slice() {
        [NOBODY] => return Some(Quorum { k, of: Default::default() }),
        names => names.iter().map(|name| name.parse().ok()).collect::<Option<_>>()?,
    };
    Some(Quorum { k, of })
}

fn parameters(place: &ClusterPlace) -> Vec<Parameter> {
    let mut parameters = place.options.parameters.clone();
    for (name, least) in AT_LEAST {
        for parameter in parameters.iter_mut().filter(|parameter| parameter.name == name) {
            // What is no number is for postgres to refuse.
            if parameter.value.parse::<u64>().is_ok_and(|value| value < least) {
                parameter.value = least.to_string();
            }
        }
    }
    parameters
}

fn hba(place: &ClusterPlace, role: Role<'_>) -> Vec<String> {
    let host = match place.options.replication.tls {
        ReplicationTls::Off => "host",
        ReplicationTls::Lockstep | ReplicationTls::Given => "hostssl",
    };
    let mut lines = vec![
        format!("local all {SUPERUSER} scram-sha-256"),
        format!("{host} replication {REPLICATION_USER} all scram-sha-256"),
        // pg_rewind reads files by SQL.
        format!("{host} postgres {REPLICATION_USER} all scram-sha-256"),
    ];
    match role {
        Role::Closed(_) => lines.extend(CLOSED.map(str::to_owned)),
        _ => lines.extend(place.options.hba.iter().map(ToString::to_string)),
    }
    lines
}

/// Whether a pg_hba.conf is one of `Role::Closed`.
pub fn is_closed(hba: &str) -> bool {
    let block = hba.split_once(HBA_BEGIN).and_then(|(_, rest)| rest.split_once(HBA_END));
    block.is_some_and(|(block, _)| CLOSED.iter().all(|line| block.lines().any(|l| l == *line)))
}

/// A line of postgresql.conf.
pub fn line(name: &str, value: &str) -> String {
    format!("{name} = {}\n", quote(value))
}

/// A string of postgresql.conf.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A value of a connection string.
pub fn quote_value(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
