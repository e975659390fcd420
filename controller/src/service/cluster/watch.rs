//! A cluster while it goes on: shown again whenever it changed. Looks a few times a second, since
//! what agents say of positions is in no log.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use lockstep_model::{ClusterName, Reject};
use lockstep_proto::status::from_reject;
use lockstep_proto::v1;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::Request;

use super::no_cluster;
use crate::service::{Answers, Api, open};

/// How often what is watched is looked at: nobody reads faster than that.
const LOOK: Duration = Duration::from_millis(250);

impl Api {
    pub(super) fn watch_cluster(
        &self,
        request: Request<v1::WatchClusterRequest>,
    ) -> Result<Answers<v1::WatchClusterResponse>, Reject> {
        let (_, v1::WatchClusterRequest { name }) = open(request)?;
        let name: ClusterName = name.parse()?;
        let first = self.cluster(&name).ok_or_else(|| no_cluster(&name))?;
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watch = Watch { api: self.clone(), name, ticks, last: without_ages(first.clone()) };
        let more = stream::unfold(Some(watch), |watch| async move {
            let mut watch = watch?;
            match watch.next().await {
                Ok(now) => Some((Ok(now), Some(watch))),
                Err(reject) => Some((Err(from_reject(&reject)), None)),
            }
        });
        let first = v1::WatchClusterResponse { cluster: Some(first) };
        let all = stream::iter([Ok(first)]).chain(more);
        // Ended by the controller's own end, too.
        Ok(all.take_until(self.0.shutdown.clone().cancelled_owned()).boxed())
    }
}

struct Watch {
    api: Api,
    name: ClusterName,
    ticks: Interval,
    last: v1::Cluster,
}

impl Watch {
    async fn next(&mut self) -> Result<v1::WatchClusterResponse, Reject> {
        loop {
            self.ticks.tick().await;
            let now = self.api.cluster(&self.name).ok_or_else(|| no_cluster(&self.name))?;
            let plain = without_ages(now.clone());
            if plain != self.last {
                self.last = plain;
                return Ok(v1::WatchClusterResponse { cluster: Some(now) });
            }
        }
    }
}

/// Those grow by themselves, and are no change.
fn without_ages(mut cluster: v1::Cluster) -> v1::Cluster {
    if let Some(lease) = &mut cluster.lease {
        lease.heard_age_ms = 0;
        lease.left_ms = lease.left_ms.map(|left| u64::from(left > 0));
    }
    for member in &mut cluster.members {
        member.age_ms = 0;
        let Some(report) = &mut member.report else { continue };
        report.upstream.iter_mut().for_each(|stream| stream.age_ms = 0);
        report.standbys.iter_mut().for_each(|row| row.reply_age_ms = 0);
    }
    cluster
}
