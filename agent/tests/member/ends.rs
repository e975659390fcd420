//! Ends what a test leaves: instances, and the guards that outlive everybody else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lockstep_agent::host::Host;
use lockstep_agent::pg::guard::GuardClient;
use lockstep_agent::pg::instance::{Instance, Layout, Programs};
use lockstep_model::NodeName;
use lockstep_model::cluster::{ClusterOptions, MemberOptions};

use crate::bed::{Bed, LIMIT, secrets};

/// Also of a test that failed: a guard lives until it is told to quit.
impl Drop for Bed {
    fn drop(&mut self) {
        let names: Vec<NodeName> = self.ports.keys().cloned().collect();
        let places = names.iter().map(|name| {
            let dir = self.dir.path().join(name.as_str());
            (name.clone(), self.options(name, &dir), dir)
        });
        let places: Vec<_> = places.filter(|(_, _, dir)| dir.exists()).collect();
        // The test's own runtime may be at its end.
        std::thread::scope(|scope| {
            let ended = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(async {
                    for (name, options, dir) in places {
                        end_guard(&dir).await;
                        instance(name, &options, &dir).await.fence(LIMIT).await;
                    }
                });
            });
            if ended.join().is_err() {
                eprintln!("something may be left of the test's processes");
            }
        });
    }
}

pub async fn end_guard(dir: &Path) {
    if let Some((guard, _)) = GuardClient::attach(&dir.join("agent/cluster/main")).await {
        guard.quit().await;
    }
}

pub async fn instance(name: NodeName, options: &ClusterOptions, dir: &Path) -> Instance {
    let cluster = "main".parse().unwrap();
    let layout = Layout::find(&cluster, options, &MemberOptions::default()).unwrap();
    let programs = Programs {
        agent: PathBuf::from(env!("CARGO_BIN_EXE_lockstep-agent")),
        host: Host::open(&dir.join("test-run")).await.unwrap(),
    };
    Instance::open(layout, name, programs, Arc::new(secrets())).unwrap()
}
