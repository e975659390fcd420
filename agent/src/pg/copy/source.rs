//! What a member says that is to be copied from, and of the copy under way. Only asks.

use std::path::PathBuf;

use lockstep_model::NodeName;
use lockstep_model::cluster::{ClusterPlace, MemberPeer};
use tokio_util::sync::CancellationToken;

use super::paths::Tablespace;
use super::{CopyError, Moved};
use crate::pg::upstream::{Identity, Upstream};

/// Of walsenders that send a copy to this node.
pub fn application(me: &NodeName) -> String {
    format!("lockstep copy {me}")
}

/// Whom to copy from, best first: those that are for it, the one that it is to follow, all others.
pub fn sources<'a>(place: &'a ClusterPlace, upstream: &NodeName) -> Vec<&'a MemberPeer> {
    let rank = |peer: &&MemberPeer| match () {
        () if peer.clone_from => 0,
        () if peer.peer.node == *upstream => 1,
        () => 2,
    };
    let mut sources: Vec<&MemberPeer> = place.peers.iter().collect();
    sources.sort_by_key(rank);
    sources
}

/// What is to come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    pub identity: Identity,
    pub major: u32,
    pub tablespaces: Vec<Tablespace>,
    /// This member's slot is there, and nobody uses it.
    pub slot: bool,
    /// Bytes that it has not applied of its own source's log; 0 of a primary. None: it is a standby that
    /// receives nothing.
    pub behind: Option<u64>,
    /// Of all databases; None: it may not be asked.
    pub total_bytes: Option<u64>,
}

/// `slot`: the name of this member's there.
pub async fn look(
    upstream: &Upstream<'_>,
    slot: &str,
    stop: &CancellationToken,
) -> Result<Source, CopyError> {
    let failed = CopyError::Failed;
    let identity = upstream.identify(stop).await.map_err(failed)?;
    let odd =
        |what: &str| CopyError::Failed(format!("{}: its {what} cannot be read", upstream.node()));
    let first = |rows: Vec<Vec<String>>| rows.into_iter().flatten().next();
    let version = upstream.query("show server_version_num", stop).await.map_err(failed)?;
    let version: u32 =
        first(version).and_then(|text| text.parse().ok()).ok_or_else(|| odd("version"))?;
    let sql = "select oid, pg_tablespace_location(oid) from pg_tablespace \
               where spcname not in ('pg_default', 'pg_global')";
    let rows = upstream.query(sql, stop).await.map_err(failed)?;
    let tablespaces: Option<Vec<_>> = rows
        .iter()
        .map(|row| match &row[..] {
            [oid, location] => {
                let location = PathBuf::from(location);
                let fits = location.is_absolute();
                fits.then_some(Tablespace { oid: oid.parse().ok()?, location })
            }
            _ => None,
        })
        .collect();
    let sql = format!(
        "select 1 from pg_replication_slots where slot_name = '{slot}' and not active and wal_status is distinct from 'lost'"
    );
    let slot = !upstream.query(&sql, stop).await.map_err(failed)?.is_empty();
    let sql = "select case when not pg_is_in_recovery() then 0 else \
               (select greatest(pg_wal_lsn_diff(latest_end_lsn, pg_last_wal_replay_lsn()), 0)::bigint \
               from pg_stat_wal_receiver where status = 'streaming') end";
    let behind = upstream.query(sql, stop).await.map_err(failed)?;
    // Rights on a database may have been taken from everybody.
    let size = upstream.query("select sum(pg_database_size(oid)) from pg_database", stop).await;
    Ok(Source {
        identity,
        major: version / 10_000,
        tablespaces: tablespaces.ok_or_else(|| odd("tablespaces"))?,
        slot,
        behind: first(behind).and_then(|text| text.parse().ok()),
        total_bytes: size.ok().and_then(first).and_then(|text| text.parse().ok()),
    })
}

/// Of the copy that this node takes now; None: it has not begun, or cannot be told.
pub async fn progress(upstream: &Upstream<'_>, stop: &CancellationToken) -> Option<Moved> {
    let application = application(upstream.instance.me());
    let sql = format!(
        "select p.backup_streamed, p.backup_total from pg_stat_progress_basebackup p \
         join pg_stat_activity a using (pid) where a.application_name = left('{application}', 63)"
    );
    let rows = upstream.query(&sql, stop).await.ok()?;
    let number = |at: usize| rows.first()?.get(at)?.parse::<u64>().ok();
    Some(Moved { done_bytes: number(0)?, total_bytes: number(1) })
}
