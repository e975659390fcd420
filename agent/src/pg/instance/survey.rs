//! What could break a promise later, asked of a running instance in no hurry: by SQL, on a primary and
//! on a standby alike, each about itself. It changes nothing.

use std::time::Duration;

use lockstep_model::cluster::REPLICATION_USER;
use lockstep_model::cluster::options::{HbaMode, ReplicationTls};
use lockstep_model::cluster::report::{Check, Finding, Verdict};
use tokio::time::timeout;
use tokio_postgres::SimpleQueryRow;

use super::Instance;
use super::sql::{DATABASE, Session, SqlTrouble, column, is_true};

/// Most databases that are looked into.
const DATABASES_MAX: usize = 100;
/// Most of a kind that are named in a finding.
const NAMED_MAX: usize = 5;
/// Clocks that differ by less are alike, in milliseconds.
const CLOCKS_APART_MAX_MS: i64 = 2000;

/// What is wanted, as far as findings depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub hba: HbaMode,
    pub tls: ReplicationTls,
    pub rewind: bool,
}

type Rows = [SimpleQueryRow];

/// One statement for each of `judge`'s arguments. pg_file_settings calls what waits for a restart an
/// error too, which `pending_restart` is for.
fn queries() -> String {
    format!(
        "SELECT coalesce(quote_ident(r.rolname), 'every role') || ' in ' || \
         coalesce(quote_ident(d.datname), 'every database') AS who, split_part(c, '=', 2) AS value \
         FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole \
         LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) c \
         WHERE lower(c) LIKE 'synchronous_commit=%' AND lower(split_part(c, '=', 2)) \
         NOT IN ('on', 'true', 'yes', '1', 'remote_apply') ORDER BY 1 LIMIT 20;\
         SELECT current_setting('wal_log_hints') AS hints, current_setting('data_checksums') AS sums, \
         current_setting('full_page_writes') AS pages;\
         SELECT 'pg_hba.conf' AS file, line_number AS line, error FROM pg_hba_file_rules \
         WHERE error IS NOT NULL UNION ALL SELECT sourcefile, sourceline, error FROM pg_file_settings \
         WHERE error IS NOT NULL AND error <> 'setting could not be applied' LIMIT 20;\
         SELECT EXISTS (SELECT FROM pg_hba_file_rules WHERE error IS NULL AND type LIKE 'host%' \
         AND auth_method <> 'reject' AND 'replication' = ANY (database) \
         AND user_name && ARRAY['all', '{REPLICATION_USER}']) AS opens;\
         SELECT current_setting('archive_mode') AS mode, current_setting('archive_command') AS command, \
         coalesce(current_setting('archive_library', true), '') AS library, last_failed_wal AS wal, \
         coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) AS fails \
         FROM pg_stat_archiver;\
         SELECT r.application_name AS name FROM pg_stat_replication r JOIN pg_stat_ssl s USING (pid) \
         WHERE NOT s.ssl AND r.client_addr IS NOT NULL ORDER BY 1 LIMIT 100;\
         SELECT slot_name AS name FROM pg_replication_slots WHERE NOT active AND NOT temporary \
         AND slot_name NOT LIKE 'lockstep\\_%' ORDER BY 1 LIMIT 100;\
         SELECT (extract(epoch FROM last_msg_receipt_time - last_msg_send_time) * 1000)::bigint AS ms \
         FROM pg_stat_wal_receiver WHERE status = 'streaming';\
         SELECT datname AS name, current_setting('server_version_num')::int >= 150000 AS dated \
         FROM pg_database WHERE datallowconn ORDER BY 1 LIMIT {DATABASES_MAX}"
    )
}

/// Databases whose text was sorted by another version of the library than is here; from 15 on.
const DATED: &str = "SELECT quote_ident(datname) AS name FROM pg_database WHERE datcollversion IS NOT NULL \
     AND datcollversion IS DISTINCT FROM pg_database_collation_actual_version(oid) ORDER BY 1";
/// Of the database that is asked.
const IN_DATABASE: &str = "SELECT quote_ident(collname) AS name FROM pg_collation \
     WHERE collversion IS NOT NULL \
     AND collversion IS DISTINCT FROM pg_collation_actual_version(oid) ORDER BY 1 LIMIT 100;\
     SELECT extname AS name FROM pg_extension e \
     WHERE NOT EXISTS (SELECT FROM pg_available_extensions a WHERE a.name = e.extname) ORDER BY 1";

impl Instance {
    /// One finding of each check that can be made of it. `limit`: for each session.
    pub async fn survey(
        &self,
        wanted: Wanted,
        limit: Duration,
    ) -> Result<Vec<Finding>, SqlTrouble> {
        let asked = self.ask_in(DATABASE, &queries(), limit).await?;
        let [commits, rewind, errors, hba, archive, plain, slots, clock, databases] = &asked[..]
        else {
            return Err(SqlTrouble::Hung);
        };
        let mut found = vec![
            judge_commits(commits),
            judge_rewind(rewind, wanted.rewind),
            judge_configuration(errors, hba, wanted.hba),
            judge_archive(archive),
            judge_slots(slots),
        ];
        if wanted.tls != ReplicationTls::Off {
            found.push(judge_tls(plain));
        }
        found.extend(judge_clock(clock));
        let mut sorted_elsewhere = Vec::new();
        if databases.first().is_some_and(|row| is_true(row, "dated")) {
            let dated = self.ask_in(DATABASE, DATED, limit).await?;
            sorted_elsewhere.extend(dated.iter().flatten().map(|row| name(row, "name")));
        }
        let mut missing = Vec::new();
        for database in databases.iter().map(|row| name(row, "name")) {
            // One may be dropped meanwhile, or let nobody in.
            let Ok(asked) = self.ask_in(&database, IN_DATABASE, limit).await else { continue };
            let [collations, extensions] = &asked[..] else { continue };
            let of = |row| format!("{} of {database}", name(row, "name"));
            sorted_elsewhere.extend(collations.iter().map(of));
            missing.extend(extensions.iter().map(of));
        }
        found.push(judge_collations(&sorted_elsewhere));
        found.push(judge_extensions(&missing));
        Ok(found)
    }

    async fn ask_in(
        &self,
        database: &str,
        query: &str,
        limit: Duration,
    ) -> Result<Vec<Vec<SimpleQueryRow>>, SqlTrouble> {
        let asked = async {
            let session: Session = self.sessions().open_in(database, limit).await?;
            session.ask(query).await
        };
        timeout(limit, asked).await.map_err(|_| SqlTrouble::Hung)?
    }
}

fn name(row: &SimpleQueryRow, column: &str) -> String {
    super::sql::column(row, column).unwrap_or_default()
}

fn finding(check: Check, verdict: Verdict, text: impl Into<String>) -> Finding {
    Finding { check, verdict, text: text.into() }
}

/// The first few, and how many more there are.
fn listed(names: &[String]) -> String {
    let first = names.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn names(rows: &Rows, column: &str) -> Vec<String> {
    rows.iter().map(|row| name(row, column)).collect()
}

fn judge_commits(rows: &Rows) -> Finding {
    if rows.is_empty() {
        return finding(Check::Commits, Verdict::Ok, "no role or database sets synchronous_commit");
    }
    let set: Vec<String> =
        rows.iter().map(|row| format!("{} ({})", name(row, "who"), name(row, "value"))).collect();
    let text = format!(
        "commits of these are not promised to be kept, by their synchronous_commit: {}; ALTER ROLE or \
         ALTER DATABASE … RESET synchronous_commit",
        listed(&set)
    );
    finding(Check::Commits, Verdict::Warn, text)
}

fn judge_rewind(rows: &Rows, wanted: bool) -> Finding {
    let is_on = |column| rows.first().is_some_and(|row| is_true_word(row, column));
    let (verdict, text) = match () {
        () if !wanted => (Verdict::Ok, "pg_rewind is not to be used (rewind)"),
        () if !is_on("pages") => {
            (Verdict::Warn, "full_page_writes is off, so that it is copied anew and never rewound")
        }
        () if is_on("sums") => (Verdict::Ok, "it has data checksums"),
        () if is_on("hints") => (Verdict::Ok, "wal_log_hints is on"),
        () => (
            Verdict::Warn,
            "wal_log_hints is off and there are no checksums, so that it is copied anew and never \
             rewound: restart it, as wal_log_hints is on in its configuration",
        ),
    };
    finding(Check::Rewind, verdict, text)
}

fn is_true_word(row: &SimpleQueryRow, column: &str) -> bool {
    name(row, column) == "on"
}

fn judge_configuration(errors: &Rows, hba: &Rows, mode: HbaMode) -> Finding {
    if !errors.is_empty() {
        let wrong: Vec<String> = errors
            .iter()
            .map(|row| {
                format!("{} line {}: {}", name(row, "file"), name(row, "line"), name(row, "error"))
            })
            .collect();
        let text = format!("postgres would not start with {}; mend these lines", listed(&wrong));
        return finding(Check::Configuration, Verdict::Fail, text);
    }
    let opens = hba.first().is_some_and(|row| is_true(row, "opens"));
    match (opens, mode) {
        (true, _) => {
            finding(Check::Configuration, Verdict::Ok, "it can be read, and lets members in")
        }
        (false, HbaMode::Checked) => {
            let text = format!(
                "no line of pg_hba.conf lets {REPLICATION_USER} in for replication: add 'hostssl \
                 replication {REPLICATION_USER} ADDRESS scram-sha-256', or set hba-mode managed"
            );
            finding(Check::Configuration, Verdict::Fail, text)
        }
        (false, HbaMode::Managed) => {
            let text = "pg_hba.conf does not let members in yet: lockstepctl cluster reload";
            finding(Check::Configuration, Verdict::Warn, text)
        }
    }
}

fn judge_archive(rows: &Rows) -> Finding {
    let Some(row) = rows.first() else {
        return finding(Check::Archive, Verdict::Ok, "nothing is known of archiving");
    };
    let nothing = name(row, "command").is_empty() && name(row, "library").is_empty();
    let (verdict, text) = match name(row, "mode").as_str() {
        "off" => (Verdict::Ok, "archive_mode is off".to_owned()),
        mode if nothing => (
            Verdict::Warn,
            format!(
                "archive_mode is {mode} and nothing archives, so that the log is kept for ever: set \
                 archive_command, or archive_mode off"
            ),
        ),
        _ if is_true(row, "fails") => (
            Verdict::Warn,
            format!(
                "archiving of {} failed and was not made up for: see postgres' log; the log is kept until \
                 it works",
                name(row, "wal")
            ),
        ),
        mode => (Verdict::Ok, format!("archive_mode is {mode}, and nothing failed lately")),
    };
    finding(Check::Archive, verdict, text)
}

fn judge_tls(plain: &Rows) -> Finding {
    if plain.is_empty() {
        return finding(Check::ReplicationTls, Verdict::Ok, "it sends to nobody without TLS");
    }
    let text = format!(
        "it sends to {} without TLS: give them sslmode, or hostssl lines in pg_hba.conf only",
        listed(&names(plain, "name"))
    );
    finding(Check::ReplicationTls, Verdict::Warn, text)
}

fn judge_slots(unused: &Rows) -> Finding {
    if unused.is_empty() {
        return finding(Check::Slots, Verdict::Ok, "no slot of somebody else's is unused");
    }
    let text = format!(
        "these slots are somebody else's and unused, and hold the log back: {}; pg_drop_replication_slot \
         drops one",
        listed(&names(unused, "name"))
    );
    finding(Check::Slots, Verdict::Warn, text)
}

/// By the last message of the upstream's, the way of which counts as difference too.
fn judge_clock(rows: &Rows) -> Option<Finding> {
    let apart: i64 = column(rows.first()?, "ms")?;
    Some(match apart.abs() {
        ms if ms <= CLOCKS_APART_MAX_MS => {
            finding(Check::Clock, Verdict::Ok, format!("{ms} ms from its upstream's"))
        }
        ms => {
            let text = format!("{ms} ms from its upstream's: have both set by NTP");
            finding(Check::Clock, Verdict::Warn, text)
        }
    })
}

fn judge_collations(sorted_elsewhere: &[String]) -> Finding {
    if sorted_elsewhere.is_empty() {
        let text = "text sorts here as where indexes were made";
        return finding(Check::Collations, Verdict::Ok, text);
    }
    let text = format!(
        "this machine's glibc or ICU sorts text otherwise than the one that indexes were made with: {}; \
         install the same version as on the other members, or REINDEX and ALTER … REFRESH COLLATION \
         VERSION",
        listed(sorted_elsewhere)
    );
    finding(Check::Collations, Verdict::Fail, text)
}

fn judge_extensions(missing: &[String]) -> Finding {
    if missing.is_empty() {
        return finding(
            Check::Extensions,
            Verdict::Ok,
            "all that databases use are installed here",
        );
    }
    let text = format!(
        "not installed on this machine: {}; install their packages before it becomes primary",
        listed(missing)
    );
    finding(Check::Extensions, Verdict::Fail, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_are_named() {
        let names: Vec<String> = (1..8).map(|i| format!("s{i}")).collect();
        assert_eq!(listed(&names), "s1, s2, s3, s4, s5 and 2 more");
        assert_eq!(listed(&names[..1]), "s1");
    }
}
