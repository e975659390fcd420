//! Another member's postgres as PostgreSQL's own programs reach it: by a connection string without a
//! password, and asked by psql. It changes nothing there.

use std::time::Duration;

use lockstep_model::NodeName;
use lockstep_model::cluster::{ClusterPlace, Lineage, MemberPeer, SystemId};
use tokio_util::sync::CancellationToken;

use super::instance::{Conf, Context, Instance, Role, connection, quote_value};
use super::tool;
use super::wal::parse_lineage;

/// For one question; connecting takes at most two seconds of it.
const QUERY_LIMIT: Duration = Duration::from_secs(10);
const FIELD: char = '\u{1f}';
const ROW: char = '\u{1e}';
/// Which database; a replication connection has none.
const REPLICATION: (&str, &str) = ("replication", "true");
const DATABASE: (&str, &str) = ("dbname", "postgres");

/// A member that this one copies, rewinds or compares itself with.
#[derive(Clone, Copy)]
pub struct Upstream<'a> {
    pub instance: &'a Instance,
    pub place: &'a ClusterPlace,
    pub peer: &'a MemberPeer,
}

/// Who it is, and where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    pub system_id: SystemId,
    /// Of a primary its own; of a standby what it has replayed.
    pub lineage: Lineage,
}

impl Upstream<'_> {
    pub fn node(&self) -> &NodeName {
        &self.peer.peer.node
    }

    /// Writes what connecting needs: the passfile, and the other's certificate.
    pub fn prepare(&self) -> Result<(), String> {
        let (me, layout) = (self.instance.me(), self.instance.layout());
        let context = Context { me, host: "", layout, restore_command: "" };
        self.instance.write_secrets(&Conf::of(self.place, Role::Sealed, &context)).map(drop)
    }

    /// For `--dbname` and `--source-server`; `application` is what it shows there.
    pub fn conninfo(&self, application: &str) -> String {
        self.pairs(&[("application_name", application)])
    }

    /// As `conninfo`, to a database.
    pub fn conninfo_of_database(&self, application: &str) -> String {
        self.pairs(&[("application_name", application), DATABASE])
    }

    fn pairs(&self, more: &[(&str, &str)]) -> String {
        let own = connection(self.place, self.instance.layout(), self.peer);
        let own = own.iter().map(|(key, value)| (*key, value.as_str()));
        let pairs = own.chain(more.iter().copied());
        pairs
            .map(|(key, value)| format!("{key}={}", quote_value(value)))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Rows of fields, of a statement in the database `postgres`.
    pub async fn query(
        &self,
        sql: &str,
        stop: &CancellationToken,
    ) -> Result<Vec<Vec<String>>, String> {
        self.ask(DATABASE, sql, stop).await
    }

    pub async fn identify(&self, stop: &CancellationToken) -> Result<Identity, String> {
        let rows = self.ask(REPLICATION, "IDENTIFY_SYSTEM", stop).await?;
        let odd = || format!("{} does not tell who it is", self.node());
        let first = rows.first().and_then(|row| Some((row.first()?, row.get(1)?)));
        let (system_id, timeline) = first.ok_or_else(odd)?;
        let system_id = SystemId(system_id.parse().map_err(|_| odd())?);
        let timeline: u32 = timeline.parse().map_err(|_| odd())?;
        let history = match timeline {
            1 => String::new(),
            _ => {
                let rows =
                    self.ask(REPLICATION, &format!("TIMELINE_HISTORY {timeline}"), stop).await?;
                rows.first().and_then(|row| row.get(1)).ok_or_else(odd)?.clone()
            }
        };
        let lineage = parse_lineage(timeline, &history)
            .map_err(|why| format!("history {timeline} of {}: {why}", self.node()))?;
        Ok(Identity { system_id, lineage })
    }

    async fn ask(
        &self,
        kind: (&str, &str),
        sql: &str,
        stop: &CancellationToken,
    ) -> Result<Vec<Vec<String>>, String> {
        let conninfo = self.pairs(&[("application_name", "lockstep"), kind]);
        let (field, row) = (FIELD.to_string(), ROW.to_string());
        let args = [
            "-XAtqw",
            "-v",
            "ON_ERROR_STOP=1",
            "-F",
            &field,
            "-R",
            &row,
            "-c",
            sql,
            "-d",
            &conninfo,
        ];
        let said = tool::succeed(self.instance, "psql", &args, Some(QUERY_LIMIT), stop).await;
        let output = said.map_err(|why| format!("{} cannot be asked: {why}", self.node()))?;
        Ok(read_rows(&output))
    }
}

/// psql ends the last row with a newline, whatever separates rows.
fn read_rows(output: &str) -> Vec<Vec<String>> {
    let Some(rows) = output.strip_suffix('\n') else { return Vec::new() };
    rows.split(ROW).map(|row| row.split(FIELD).map(str::to_owned).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_may_hold_lines() {
        assert!(read_rows("").is_empty());
        assert_eq!(read_rows("a\u{1f}b\nc\n\u{1e}d\u{1f}\n"), [["a", "b\nc\n"], ["d", ""]]);
    }
}
