//! What is asked of a running instance by SQL, and what it is told to do: status, probe, promotion,
//! checkpoint, quorum, slots, roles. Who asks for it has the right to.

use std::time::Duration;

use lockstep_model::cluster::{Quorum, REPLICATION_USER};
use postgres_protocol::password::scram_sha_256;
use tokio::time::{Instant, sleep, timeout};

use super::conf::{read_standby_names, standby_names};
use super::slots::{self, SlotWish};
use super::sql::{SqlTrouble, column, is_true, literal};
use super::status::{self, Status};
use super::{Instance, spent, timeline};

/// The startup process looks for the request now and then, and may miss one.
const PROMOTE_STEP: Duration = Duration::from_millis(10);
/// How often a setting is read back.
const READ_BACK_STEP: Duration = Duration::from_millis(5);
const SLOTS_TIMEOUT: Duration = Duration::from_secs(10);
const ROLES_TIMEOUT: Duration = Duration::from_secs(10);

impl Instance {
    /// All that a report needs, in one round trip over a session that is kept.
    pub async fn status(&self, limit: Duration) -> Result<Status, SqlTrouble> {
        let answer = self.sessions().ask(status::QUERY, limit).await?;
        let status::Answer { mut status, unreceived, reply_times } = status::read(&answer)?;
        if let Some(unreceived) = unreceived {
            let (pg_wal, lsn) = (self.layout().pg_wal(), status.lsn);
            let find =
                move || timeline::newest(&pg_wal, lsn, unreceived.timeline, unreceived.segment);
            let found = timeout(limit, tokio::task::spawn_blocking(find)).await;
            status.timeline = found.ok().and_then(Result::ok).ok_or(SqlTrouble::Hung)?;
        }
        if let Ok(mut replies) = self.0.replies.lock() {
            let ages = replies.ages(&reply_times, Instant::now());
            for (row, age) in status.standbys.iter_mut().zip(ages) {
                row.reply_age = age;
            }
        }
        Ok(status)
    }

    /// A new session, and on a primary something durably written without waiting for standbys: what
    /// `status` cannot tell of a postmaster that hangs and of storage that is full or read-only.
    pub async fn probe(&self, limit: Duration) -> Result<(), SqlTrouble> {
        // A message in the log needs no table, waits for no lock, and is flushed with its commit.
        const PROBE: &str = "SELECT CASE WHEN NOT pg_is_in_recovery() \
             THEN pg_logical_emit_message(true, 'lockstep', 'probe') END";
        let probed = async {
            let session = self.sessions().open(limit).await?;
            session.ask(PROBE).await.map(drop)
        };
        timeout(limit, probed).await.map_err(|_| SqlTrouble::Hung)?
    }

    /// Out of recovery, on the first timeline above `newest`, with `standby.signal` back in place. Gives the
    /// timeline.
    pub async fn promote(&self, newest: u32, limit: Duration) -> Result<u32, String> {
        const PROMOTE: &str = "SELECT pg_is_in_recovery() AS recovery, \
             CASE WHEN pg_is_in_recovery() THEN pg_promote(false) END";
        let said = |trouble: SqlTrouble| format!("it was not promoted: {trouble}");
        let before = self.status(limit).await.map_err(said)?;
        if !before.in_recovery {
            return Err("it is no standby: there is nothing to promote".to_owned());
        }
        let layout = self.layout();
        spent::take(&layout.pg_wal(), before.timeline, newest, &layout.owner)?;
        let promoted = async {
            loop {
                let answer = self.sessions().ask(PROMOTE, limit).await?;
                let row = answer.first().and_then(|rows| rows.first());
                if row.is_some_and(|row| !is_true(row, "recovery")) {
                    return self.status(limit).await;
                }
                sleep(PROMOTE_STEP).await;
            }
        };
        let ended = timeout(limit, promoted).await;
        // postgres removed it, or is about to; a failed promotion leaves it as it was.
        let signal = self.put_standby_signal();
        let after = ended
            .map_err(|_| format!("it was not promoted within {} ms", limit.as_millis()))?
            .map_err(said)?;
        signal?;
        match after.timeline == before.timeline.max(newest).saturating_add(1) {
            true => Ok(after.timeline),
            false => Err(format!(
                "it writes on timeline {}, which is not its own: fence it",
                after.timeline
            )),
        }
    }

    /// A checkpoint as fast as it can be.
    pub async fn checkpoint(&self, limit: Duration) -> Result<(), SqlTrouble> {
        let made = async {
            // In a session of its own: others are not to wait for it.
            self.sessions().open(limit).await?.ask("CHECKPOINT").await.map(drop)
        };
        timeout(limit, made).await.map_err(|_| SqlTrouble::Hung)?
    }

    /// Who acknowledges commits: written, read by postgres, and read back until every part of it that
    /// acknowledges works by it. The rest of the files stay as they are.
    pub async fn set_quorum(&self, quorum: &Quorum, limit: Duration) -> Result<(), String> {
        self.write_setting("synchronous_standby_names", &standby_names(quorum))?;
        self.signal_reload().await?;
        let in_force = async {
            while !self.is_in_force(quorum, limit).await? {
                sleep(READ_BACK_STEP).await;
            }
            Ok(())
        };
        let said = |why: SqlTrouble| format!("synchronous_standby_names: {why}");
        timeout(limit, in_force)
            .await
            .map_err(|_| "synchronous_standby_names is not in force yet".to_owned())?
            .map_err(said)
    }

    /// A session has it, walsenders work by it, and so does the checkpointer, who tells sessions whether
    /// to wait at all, but not while it syncs files.
    async fn is_in_force(&self, quorum: &Quorum, limit: Duration) -> Result<bool, SqlTrouble> {
        const QUERY: &str = "SELECT current_setting('synchronous_standby_names') AS names, \
             (SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'checkpointer') AS waits;\
             SELECT application_name, sync_state FROM pg_stat_replication \
             WHERE state = 'streaming'";
        let answer = self.sessions().ask(QUERY, limit).await?;
        let [main, rows] = answer.as_slice() else { return Ok(false) };
        let Some(main) = main.first() else { return Ok(false) };
        let names: String = column(main, "names").unwrap_or_default();
        let waits: String = column(main, "waits").unwrap_or_default();
        let senders_know = rows.iter().all(|row| {
            let name: String = column(row, "application_name").unwrap_or_default();
            let state: String = column(row, "sync_state").unwrap_or_default();
            let wanted = quorum.of.iter().any(|node| node.as_str() == name) && !quorum.is_off();
            wanted == (state != "async")
        });
        let reads_settings = ["CheckpointerMain", "CheckpointWriteDelay"].contains(&waits.as_str());
        Ok(read_standby_names(&names).as_ref() == Some(quorum) && senders_know && reads_settings)
    }

    /// Exactly these physical slots among those that are Lockstep's: made, moved on, dropped. One in use
    /// is neither moved nor dropped.
    pub async fn ensure_slots(&self, wishes: &[SlotWish]) -> Result<(), SqlTrouble> {
        let status = self.status(SLOTS_TIMEOUT).await?;
        for step in slots::steps(&status.slots, wishes) {
            self.sessions().ask(&step.sql(), SLOTS_TIMEOUT).await?;
        }
        Ok(())
    }

    /// The replication role and what it may call, on a primary, and a superuser for the account that
    /// owns the data, who has no password and is let in by peer; again is fine.
    pub async fn ensure_roles(&self) -> Result<(), SqlTrouble> {
        let owner = self.layout().owner.name.clone();
        let (owner, owner_name) = (quote_name(&owner), literal(&owner));
        // A verifier, so that no log of statements ever holds the password.
        let verifier = scram_sha_256(self.secrets().replication.as_bytes());
        let verifier = literal(&verifier);
        let role = REPLICATION_USER;
        let query = format!(
            "DO $$BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN \
             CREATE ROLE {role}; END IF; END$$;\
             ALTER ROLE {role} LOGIN REPLICATION PASSWORD {verifier};\
             GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean), \
             pg_catalog.pg_stat_file(text, boolean), pg_catalog.pg_read_binary_file(text), \
             pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO {role};\
             GRANT pg_read_all_stats TO {role};\
             DO $$BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {owner_name}) THEN \
             CREATE ROLE {owner} SUPERUSER CREATEDB CREATEROLE REPLICATION BYPASSRLS LOGIN; \
             END IF; END$$"
        );
        self.sessions().ask(&query, ROLES_TIMEOUT).await.map(drop)
    }
}

/// An identifier of SQL.
fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
