//! What could break a promise later, looked at now and then beside everything else: by SQL, and whether
//! the other members are reached from here. It decides nothing.

use std::time::Duration;

use lockstep_model::cluster::ClusterPlace;
use lockstep_model::cluster::report::{Check, Finding, Verdict};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};

use crate::pg::instance::{Instance, Wanted};

/// It is made once for so many probes.
const PROBES: u32 = 6;
/// The first one keeps out of the way of what follows a start or a promotion.
const FIRST: Duration = Duration::from_secs(3);
/// Who wait for one; more are refused.
const ASKING_MAX: usize = 16;
/// To reach another member.
const REACH_MAX: Duration = Duration::from_secs(2);

#[derive(Default)]
pub struct Survey {
    running: Option<JoinHandle<Result<Vec<Finding>, String>>>,
    /// When the next one begins.
    due: Option<Instant>,
    found: Vec<Finding>,
    /// Who wants one that begins after they asked.
    asking: Vec<Answer>,
    /// Who waits for the one that runs.
    waiting: Vec<Answer>,
    /// What the last one came to, until that is told with its findings.
    ended: Option<(Result<(), String>, Vec<Answer>)>,
}

type Answer = oneshot::Sender<Result<(), String>>;

impl Drop for Survey {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

impl Survey {
    /// Begins one when it is time, and takes the answer of one that has ended.
    pub async fn turn(&mut self, instance: &Instance, place: &ClusterPlace) {
        if let Some(running) = self.running.take_if(|running| running.is_finished()) {
            // One that panicked tells nothing.
            let ended = running.await.unwrap_or_else(|error| Err(error.to_string()));
            let ended = ended.map(|found| self.found = found);
            self.ended = Some((ended, std::mem::take(&mut self.waiting)));
        }
        let (now, interval) = (Instant::now(), Duration::from(place.options.checks.verify));
        let due = *self.due.get_or_insert(now + FIRST);
        if self.running.is_none() && (now >= due || !self.asking.is_empty()) {
            self.waiting = std::mem::take(&mut self.asking);
            self.due = Some(now + interval * PROBES);
            self.running = Some(tokio::spawn(survey(instance.clone(), place.clone())));
        }
    }

    /// One more, at once. `answer`: when its findings are told.
    pub fn ask(&mut self, answer: Answer) {
        if self.asking.len() < ASKING_MAX {
            self.asking.push(answer);
        }
    }

    /// The findings are in a report that was published.
    pub fn is_told(&mut self) {
        let Some((ended, waiting)) = self.ended.take() else { return };
        for answer in waiting {
            // Whoever asked may have gone.
            let _ = answer.send(ended.clone());
        }
    }

    pub fn found(&self) -> &[Finding] {
        &self.found
    }
}

/// Err: how postgres did not answer.
async fn survey(instance: Instance, place: ClusterPlace) -> Result<Vec<Finding>, String> {
    let options = &place.options;
    let wanted = Wanted {
        hba: options.hba_mode,
        tls: options.replication.tls,
        rewind: options.rejoin.rewind,
    };
    let limit = Duration::from(options.checks.timeout);
    instance.probe(limit).await.map_err(|trouble| trouble.to_string())?;
    let found = instance.survey(wanted, limit).await;
    let mut found = found.map_err(|trouble| trouble.to_string())?;
    found.push(reach(&place).await);
    found.sort_by_key(|finding| finding.check);
    Ok(found)
}

async fn reach(place: &ClusterPlace) -> Finding {
    let mut tries = JoinSet::new();
    for peer in &place.peers {
        let (node, at) = (peer.peer.node.clone(), peer.postgres.clone());
        tries.spawn(async move {
            let connected = TcpStream::connect((at.host(), at.port));
            let is_open = timeout(REACH_MAX, connected).await.is_ok_and(|stream| stream.is_ok());
            (!is_open).then(|| format!("{node} at {at}"))
        });
    }
    let mut closed: Vec<String> = tries.join_all().await.into_iter().flatten().collect();
    closed.sort();
    let (verdict, text) = match closed.is_empty() {
        true => (Verdict::Ok, "every other member's postgres is reached".to_owned()),
        false => {
            let list = closed.join(", ");
            let text =
                format!("no connection to postgres of {list}: see whether it runs, and firewalls");
            (Verdict::Warn, text)
        }
    };
    Finding { check: Check::Reach, verdict, text }
}
