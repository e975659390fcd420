//! The clusters that this node is a member of: one member each, put in force, changed and ended.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use lockstep_model::cluster::{
    Act, ClusterAct, ClusterPlace, ClusterRelease, Grant, Renewal, Term,
};
use lockstep_model::node::NodeAddress;
use lockstep_model::task::{Outcome, OutcomeKind, TaskSpec};
use lockstep_model::{ClusterName, Millis, NodeName};
use lockstep_transport::durable;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::boottime::Boottime;
use super::fence::{self, Fence};
use super::guard::WatchdogSettings;
use super::lease::AskPromise;
use super::leave;
use super::member::{Member, Site};
use super::reports::{Board, Reports};
use super::salvage::Stock;
use super::secrets::{self, Passwords};
use crate::data::Dial;
use crate::host::Host;
use crate::runner::Output;

/// Renewals that wait for the link; a lost one is asked for again soon.
const RENEWALS_MAX: usize = 64;

/// What the engine needs to know of this agent.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Absolute. `<data_dir>/cluster/<name>` is the engine's.
    pub data_dir: PathBuf,
    /// The agent's own binary, which is also what starts and guards postgres.
    pub agent: PathBuf,
    pub hook_dir: PathBuf,
    /// The kernel's, for guards to feed.
    pub watchdog: Option<WatchdogSettings>,
    /// This node's name.
    pub name: NodeName,
    /// How others reach this node, best first; empty until it is known.
    pub addresses: watch::Receiver<Vec<NodeAddress>>,
}

/// Ways to other members' agents.
#[derive(Clone)]
pub struct Ways {
    pub dial: Arc<dyn Dial>,
    pub promises: Arc<dyn AskPromise>,
}

/// Clones are the same engine.
#[derive(Clone)]
pub struct ClusterEngine(Arc<Engine>);

struct Engine {
    settings: Settings,
    ways: Ways,
    host: Host,
    board: Board,
    stock: Stock,
    passwords: Passwords,
    renewals: mpsc::Sender<Renewal>,
    renewed: Mutex<Option<mpsc::Receiver<Renewal>>>,
    /// Held while one is opened or ended.
    opening: tokio::sync::Mutex<()>,
    members: Mutex<BTreeMap<ClusterName, Arc<Member>>>,
    /// The newest place of each, for what is done beside its member.
    places: Mutex<BTreeMap<ClusterName, ClusterPlace>>,
}

impl ClusterEngine {
    pub fn open(settings: Settings, ways: Ways, host: Host) -> Self {
        let (renewals, renewed) = mpsc::channel(RENEWALS_MAX);
        Self(Arc::new(Engine {
            settings,
            ways,
            host,
            board: Board::default(),
            stock: Stock::default(),
            passwords: Passwords::default(),
            renewals,
            renewed: Mutex::new(Some(renewed)),
            opening: tokio::sync::Mutex::default(),
            members: Mutex::default(),
            places: Mutex::default(),
        }))
    }

    /// Starts what the ledger says is in force; specs that are no cluster's are ignored.
    pub async fn start(&self, assignments: impl IntoIterator<Item = TaskSpec>) {
        for spec in assignments {
            let TaskSpec::ClusterPlace(place) = spec else { continue };
            let cluster = place.cluster.clone();
            match self.0.member(&cluster).await {
                Ok(member) => {
                    self.0.note(&place);
                    member.resume(*place);
                }
                Err(why) => tracing::error!(%cluster, why, "cannot take up an assignment"),
            }
        }
    }

    /// What every member is like, whenever it changes.
    pub fn reports(&self) -> watch::Receiver<Reports> {
        self.0.board.subscribe()
    }

    /// What offers bring goes in here, before their place is taken up.
    pub fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    /// What dead instances have to give.
    pub fn stock(&self) -> &Stock {
        &self.0.stock
    }

    /// What the link sends on, or drops while there is no stream. Given out once.
    pub fn renewals(&self) -> Option<mpsc::Receiver<Renewal>> {
        self.0.renewed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Until when the cluster's member here may write, by its lease; the beginning of time: not at all.
    pub fn writes_until(&self, cluster: &ClusterName) -> Boottime {
        self.0.known(cluster).map_or(Boottime(0), |member| member.writes_until())
    }

    /// When the cluster's member here was looked at last; None: nobody looks after it.
    pub fn looked_at(&self, cluster: &ClusterName) -> Option<Boottime> {
        self.0.known(cluster).map(|member| member.looked_at())
    }

    /// The controller answered a renewal.
    pub fn granted(&self, grant: Grant) {
        if let Some(member) = self.0.known(&grant.cluster) {
            member.granted(grant);
        }
    }

    /// Another member, which holds `term`, asks that this one takes part in no later term for so
    /// long. Durable when it returns; the error says why not.
    pub async fn promise(
        &self,
        caller: &NodeName,
        cluster: &ClusterName,
        term: Term,
        length: Millis,
    ) -> Result<Millis, String> {
        let member = self.0.known(cluster);
        let member = member.ok_or_else(|| format!("this node is no member of {cluster}"))?;
        member.promise(caller, term, length).await
    }

    /// Takes a goal up durably; what becomes of it is in reports.
    pub async fn place(&self, spec: ClusterPlace, stop: CancellationToken) -> Outcome {
        let placed = self.0.place(spec);
        tokio::select! {
            placed = placed => finish(placed),
            () = stop.cancelled() => Outcome::new(OutcomeKind::Cancelled, "it was stopped"),
        }
    }

    /// Have nothing to do with the cluster any more.
    pub async fn release(&self, spec: ClusterRelease, output: &Output) -> Outcome {
        finish(self.0.release(spec, output).await)
    }

    /// Something to be done once.
    pub async fn act(&self, spec: ClusterAct, stop: CancellationToken, output: Output) -> Outcome {
        let done = async {
            match &spec.act {
                Act::Fence { node, timeout } => {
                    let place = self.0.placed(&spec.cluster)?;
                    let fence = Fence {
                        host: &self.0.host,
                        hook_dir: &self.0.settings.hook_dir,
                        place: &place,
                        node,
                        limit: *timeout,
                    };
                    fence::run(&fence, &stop, &output).await
                }
                act => {
                    let member = self.0.known(&spec.cluster);
                    let member = member.ok_or("this node is no member of the cluster")?;
                    member.order(act.clone()).await
                }
            }
        };
        tokio::select! {
            done = done => finish(done),
            () = stop.cancelled() => Outcome::new(OutcomeKind::Cancelled, "it was stopped"),
        }
    }

    /// The agent is about to be stopped, and its link still works: primaries get leases under which they
    /// serve on for a while. Returns within about `limit`, whatever came of it.
    pub async fn leave(&self, limit: Duration) {
        let members: Vec<_> = self.0.members().values().cloned().collect();
        join_all(members.iter().map(|member| member.leave(limit))).await;
    }

    /// Leaves instances running, and their guards.
    pub async fn shut_down(&self) {
        let _opening = self.0.opening.lock().await;
        self.0.members().clear();
    }
}

fn finish(done: Result<(), String>) -> Outcome {
    match done {
        Ok(()) => Outcome::ok(),
        Err(why) => Outcome::new(OutcomeKind::Failed, why),
    }
}

impl Engine {
    fn members(&self) -> std::sync::MutexGuard<'_, BTreeMap<ClusterName, Arc<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, cluster: &ClusterName) -> Option<Arc<Member>> {
        self.members().get(cluster).cloned()
    }

    fn placed(&self, cluster: &ClusterName) -> Result<ClusterPlace, String> {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.get(cluster).cloned();
        place.ok_or_else(|| format!("this node is no member of {cluster}"))
    }

    fn note(&self, place: &ClusterPlace) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.insert(place.cluster.clone(), place.clone());
    }

    fn dir(&self, cluster: &ClusterName) -> PathBuf {
        self.settings.data_dir.join("cluster").join(cluster.as_str())
    }

    async fn member(&self, cluster: &ClusterName) -> Result<Arc<Member>, String> {
        let _opening = self.opening.lock().await;
        if let Some(member) = self.known(cluster) {
            return Ok(member);
        }
        let dir = self.dir(cluster);
        durable::make_secret_dir(&dir)
            .map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
        let site = Site {
            cluster: cluster.clone(),
            me: self.settings.name.clone(),
            dir,
            agent: self.settings.agent.clone(),
            watchdog: self.settings.watchdog.clone(),
            host: self.host.clone(),
            dial: self.ways.dial.clone(),
            peers: self.ways.promises.clone(),
            board: self.board.clone(),
            stock: self.stock.clone(),
            renewals: self.renewals.clone(),
            addresses: self.settings.addresses.clone(),
        };
        let member = Arc::new(Member::open(site).await?);
        self.members().insert(cluster.clone(), member.clone());
        Ok(member)
    }

    async fn place(&self, place: ClusterPlace) -> Result<(), String> {
        let member = self.member(&place.cluster).await?;
        let told = self.passwords.take(&place.cluster);
        if let Some(told) = told.filter(|told| !member.has_secrets(told)) {
            let dir = self.dir(&place.cluster);
            secrets::save(&dir, &told).map_err(|e| format!("{}: {e}", dir.display()))?;
            member.set_secrets(told);
        }
        member.place(place.clone()).await?;
        self.note(&place);
        Ok(())
    }

    async fn release(&self, spec: ClusterRelease, output: &Output) -> Result<(), String> {
        let ClusterRelease { cluster, delete } = spec;
        let _opening = self.opening.lock().await;
        let member = self.members().remove(&cluster);
        let dir = self.dir(&cluster);
        if let Some(member) = member {
            let instance = member.instance();
            // Nothing acts on the instance from here on.
            drop(member);
            leave::leave(instance.as_ref(), &dir, delete, output).await?;
        }
        self.passwords.take(&cluster);
        self.board.withdraw(&cluster);
        self.places.lock().unwrap_or_else(PoisonError::into_inner).remove(&cluster);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("cannot remove {}: {error}", dir.display()))
            }
            _ => Ok(()),
        }
    }
}
