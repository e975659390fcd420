//! A place for an instance: directories of the postgres user's, a free port, passwords; gone with all
//! of its processes when it is dropped.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lockstep_agent::host::Host;
use lockstep_agent::pg::instance::{
    Conf, Configured, Context, FenceEnd, Instance, Layout, Processes, Programs, Role, Secrets,
    StartAs, Status, StopMode,
};
use lockstep_model::cluster::{
    ClusterOptions, ClusterPlace, Goal, Lineage, MemberOptions, MemberPeer, Quorum, Term,
};
use lockstep_model::id::KeyHash;
use lockstep_model::setting::Settings;
use lockstep_model::task::Peer;
use lockstep_model::{HostPort, NodeName};
use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::{Client, NoTls};

/// Far longer than anything takes.
pub const LIMIT: Duration = Duration::from_secs(30);

pub struct Bed {
    pub dir: tempfile::TempDir,
    pub instance: Instance,
    pub place: ClusterPlace,
}

impl Bed {
    pub async fn new(name: &str, settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").unwrap();
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), everybody).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let socket_dir = dir.path().join("s");
        std::fs::create_dir(&socket_dir).unwrap();
        let (port, data) = (port.to_string(), dir.path().join("data").display().to_string());
        let socket_dir = socket_dir.display().to_string();
        let mut all =
            vec![("port", port.as_str()), ("data-dir", &data), ("socket-dir", &socket_dir)];
        // Small, as the machine has many of them at once.
        all.extend([("parameter", "shared_buffers=16MB"), ("parameter", "max_connections=20")]);
        // Another version than the newest that is installed: `tests/postgres-versions`.
        let bin = std::env::var("LOCKSTEP_TEST_PG_BIN").ok();
        all.extend(bin.as_deref().map(|bin| ("postgres-bin", bin)));
        all.extend(settings);
        let options = ClusterOptions::from_values(all).unwrap();
        let place = ClusterPlace {
            cluster: "main".parse().unwrap(),
            term: Term(1),
            goal: Goal::Sealed { salvage: None },
            system_id: None,
            holder: None,
            lineage: Lineage::default(),
            copy: 0,
            options,
            member: MemberOptions::default(),
            peers: Vec::new(),
            promotable: Vec::new(),
            sync: false,
            paused: false,
            serve: true,
        };
        let instance = open(name, &place, dir.path()).await;
        let owner = &instance.layout().owner;
        std::os::unix::fs::chown(&instance.layout().socket_dir, Some(owner.uid), Some(owner.gid))
            .unwrap();
        Self { dir, instance, place }
    }

    /// Another agent's run would see this.
    pub async fn opened_again(&self) -> Instance {
        open(self.instance.me().as_str(), &self.place, self.dir.path()).await
    }

    /// Made by initdb, and running as a primary.
    pub async fn primary(name: &str, settings: &[(&str, &str)]) -> Self {
        let bed = Self::new(name, settings).await;
        bed.instance.initdb(&[], true).await.unwrap();
        bed.configure(Role::Primary(&Quorum::OFF)).await.unwrap();
        bed.start(StartAs::Primary).await;
        bed.instance.ensure_roles().await.unwrap();
        bed
    }

    pub async fn configure(&self, role: Role<'_>) -> Result<Configured, String> {
        let conf = self.conf(role);
        self.instance.configure(&conf).await
    }

    pub fn conf(&self, role: Role<'_>) -> Conf {
        let context = Context {
            me: self.instance.me(),
            host: "",
            layout: self.instance.layout(),
            restore_command: "/bin/false",
        };
        Conf::of(&self.place, role, &context)
    }

    pub async fn start(&self, how: StartAs) {
        self.instance.start(how, None).await.unwrap();
        self.instance.ready(LIMIT).await.unwrap();
    }

    pub async fn stop(&self) {
        self.instance.stop(StopMode::Fast, LIMIT).await.unwrap();
    }

    pub async fn status(&self) -> Status {
        self.instance.status(LIMIT).await.unwrap()
    }

    pub async fn fence(&self) {
        assert_eq!(self.instance.fence(LIMIT).await, FenceEnd::Fenced);
    }

    pub async fn postmaster(&self) -> i32 {
        match self.instance.processes().await {
            Processes::Running { pid, .. } => pid,
            other => panic!("{other:?}"),
        }
    }

    /// How another member sees it.
    pub fn as_peer(&self) -> MemberPeer {
        MemberPeer {
            peer: Peer {
                node: self.instance.me().clone(),
                key_hash: KeyHash([0; 32]),
                addresses: Vec::new(),
            },
            postgres: HostPort::new("localhost", self.instance.layout().port).unwrap(),
            certificate: self.instance.certificate().unwrap(),
            clone_from: false,
        }
    }

    /// A user's session.
    pub async fn session(&self) -> Result<Client, tokio_postgres::Error> {
        let layout = self.instance.layout();
        let mut config = tokio_postgres::Config::new();
        config.host_path(&layout.socket_dir).port(layout.port).user("lockstep");
        config.password(self.instance.secrets().superuser.as_bytes()).dbname("postgres");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// One value of one row.
    pub async fn ask(&self, query: &str) -> String {
        let rows = self.session().await.unwrap().simple_query(query).await.unwrap();
        let row = rows.into_iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        row.unwrap().get(0).unwrap_or_default().to_owned()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for _ in 0..1000 {
            let pids = self.instance.pids();
            if pids.is_empty() {
                break;
            }
            for pid in pids.into_iter().filter_map(Pid::from_raw) {
                let _ = kill_process(pid, Signal::CONT);
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::yield_now();
        }
        self.instance.forget();
    }
}

async fn open(name: &str, place: &ClusterPlace, dir: &Path) -> Instance {
    let me: NodeName = name.parse().unwrap();
    let layout = Layout::find(&place.cluster, &place.options, &place.member).unwrap();
    let host = Host::open(&dir.join(format!("run{}", std::process::id()))).await.unwrap();
    let agent = env!("CARGO_BIN_EXE_lockstep-agent").into();
    let secrets = Secrets {
        superuser: "it's: a \\ secret".to_owned().into(),
        replication: "another: \\ one".to_owned().into(),
    };
    Instance::open(layout, me, Programs { agent, host }, Arc::new(secrets)).unwrap()
}

/// Waits for a condition, at most as long as anything takes.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waited = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, waited).await.unwrap_or_else(|_| panic!("never: {what}"));
}
