//! A member that is told to copy: an instance of the agent's, and the place that the controller would
//! give it.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lockstep_agent::host::Host;
use lockstep_agent::pg::copy::{CopyError, Moved, Order, Replace, clone, sources};
use lockstep_agent::pg::instance::{Instance, Layout, Programs, Secrets};
use lockstep_model::cluster::options::ReplicationTls;
use lockstep_model::cluster::{
    ClusterOptions, ClusterPlace, Goal, Lineage, MemberOptions, MemberPeer, SystemId, Term,
};
use lockstep_model::task::Peer;
use lockstep_model::{HostPort, KeyHash};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::server::{Server, bin, postgres, scratch};

const PASSWORD: &str = "se:cr\\et'";

pub struct Member {
    pub dir: TempDir,
    pub instance: Instance,
    pub place: ClusterPlace,
    pub own: PathBuf,
    pub stop: CancellationToken,
    pub progress: watch::Sender<Moved>,
}

/// Lets members of the cluster in.
pub fn open_to_members(server: &Server) {
    let hba = server.data.join("pg_hba.conf");
    let text = fs::read_to_string(&hba).unwrap();
    let lines = "host replication lockstep_replication all scram-sha-256\n\
                 host postgres lockstep_replication all scram-sha-256\n";
    fs::write(&hba, format!("{lines}{text}")).unwrap();
    server.sql(&format!(
        "select pg_reload_conf(); create role lockstep_replication login replication password '{}'",
        PASSWORD.replace('\'', "''")
    ));
    for function in [
        "pg_ls_dir(text, boolean, boolean)",
        "pg_stat_file(text, boolean)",
        "pg_read_binary_file(text)",
        "pg_read_binary_file(text, bigint, bigint, boolean)",
    ] {
        server.sql(&format!("grant execute on function {function} to lockstep_replication"));
    }
    server.sql("grant pg_read_all_stats to lockstep_replication");
}

pub fn peer(server: &Server) -> MemberPeer {
    MemberPeer {
        peer: Peer { node: "db1".parse().unwrap(), key_hash: KeyHash([1; 32]), addresses: vec![] },
        postgres: HostPort::parse(&format!("127.0.0.1:{}", server.port), 5432).unwrap(),
        certificate: String::new(),
        clone_from: false,
    }
}

impl Member {
    /// Its data directory is `<dir>/data`.
    pub async fn new(primary: &Server) -> Self {
        Self::with(primary, scratch(), |_| {}).await
    }

    pub async fn with(primary: &Server, dir: TempDir, set: impl FnOnce(&mut Layout)) -> Self {
        let (uid, gid) = postgres();
        let own = dir.path().join("own");
        fs::create_dir_all(&own).unwrap();
        let mut options = ClusterOptions::default();
        options.replication.tls = ReplicationTls::Off;
        let data = dir.path().join("data");
        options.instance.data_dir = Some(data.to_str().unwrap().parse().unwrap());
        let program = bin("postgres");
        options.instance.bin = Some(program.parent().unwrap().to_str().unwrap().parse().unwrap());
        let member = MemberOptions::default();
        let cluster = "main".parse().unwrap();
        let mut layout = Layout::find(&cluster, &options, &member).unwrap();
        layout.socket_dir = dir.path().to_owned();
        set(&mut layout);
        let host = Host::open(&dir.path().join("run")).await.unwrap();
        let agent = Path::new(env!("CARGO_BIN_EXE_lockstep-agent")).to_owned();
        let secrets = Secrets {
            superuser: "unused".to_owned().into(),
            replication: PASSWORD.to_owned().into(),
        };
        let programs = Programs { agent, host };
        let instance =
            Instance::open(layout, "db2".parse().unwrap(), programs, Arc::new(secrets)).unwrap();
        chown(dir.path(), Some(uid), Some(gid)).unwrap();
        let place = ClusterPlace {
            cluster,
            term: Term(1),
            goal: Goal::Standby { upstream: Some("db1".parse().unwrap()) },
            system_id: Some(SystemId(
                primary.control("Database system identifier").parse().unwrap(),
            )),
            holder: None,
            lineage: Lineage::default(),
            copy: 1,
            options,
            member,
            peers: vec![peer(primary)],
            promotable: vec![],
            sync: true,
            paused: false,
            serve: true,
        };
        let (stop, progress) = (CancellationToken::new(), watch::Sender::default());
        Self { dir, instance, place, own, stop, progress }
    }

    pub async fn clone(&self, replace: Replace) -> Result<(), CopyError> {
        let sources = sources(&self.place, &"db1".parse().unwrap());
        let order = Order { place: &self.place, sources: &sources, replace, own: &self.own };
        clone(&self.instance, order, &self.progress, &self.stop).await
    }

    pub fn data(&self) -> PathBuf {
        self.instance.layout().data.clone()
    }

    /// Started as a standby of the primary, outside of the agent.
    pub fn follow(&self, primary: &Server) -> Server {
        let mut server = Server::of(&self.data());
        server.set(&format!(
            "hot_standby = on\nport = 5432\nprimary_conninfo = 'host=127.0.0.1 port={} user=lockstep_replication \
             passfile={} application_name=db2'",
            primary.port,
            self.instance.passfile().display()
        ));
        server.start();
        server
    }
}
