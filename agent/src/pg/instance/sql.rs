//! Sessions with the instance, over its Unix socket, and what can be wrong with one: each told apart
//! from death. One session is kept; every question has an end.

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lockstep_model::cluster::SUPERUSER;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow};

use super::secrets::Secrets;

/// Lockstep's sessions write without waiting for standbys, understand what they are told, and wait for
/// no lock for long.
const OPTIONS: &str = "-c synchronous_commit=local -c lc_messages=C -c lock_timeout=2s \
     -c default_transaction_read_only=off -c statement_timeout=0 -c client_min_messages=error \
     -c DateStyle=ISO -c search_path=pg_catalog";
pub const DATABASE: &str = "postgres";
const APPLICATION: &str = "lockstep-agent";
/// Longest words of postgres that are passed on, in characters.
const MESSAGE_MAX: usize = 500;

/// Why SQL did not answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SqlTrouble {
    /// Nobody listens, or the session ended.
    Down,
    /// Somebody listens, or a session is there, and nothing answers in time.
    Hung,
    /// 53300: every connection is taken. It works.
    Busy,
    /// 57P03: it recovers, starts or stops.
    Starting,
    /// 53100: a file system is full.
    DiskFull,
    ReadOnlyFs,
    /// Something else: the code (empty without one) and the words.
    Refused {
        code: String,
        message: String,
    },
}

impl fmt::Display for SqlTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => f.write_str("postgres does not listen on its socket"),
            Self::Hung => f.write_str("postgres does not answer in time"),
            Self::Busy => f.write_str("every connection is taken: raise max_connections"),
            Self::Starting => f.write_str("postgres takes no sessions yet"),
            Self::DiskFull => f.write_str("the disk is full: make room"),
            Self::ReadOnlyFs => f.write_str("the file system is read-only: look at its disk"),
            Self::Refused { code, message } if code.is_empty() => f.write_str(message),
            Self::Refused { code, message } => write!(f, "{message} ({code})"),
        }
    }
}

impl From<tokio_postgres::Error> for SqlTrouble {
    fn from(error: tokio_postgres::Error) -> Self {
        use std::error::Error;
        if let Some(told) = error.as_db_error() {
            return Self::told(told.code(), told.message());
        }
        let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
        match cause.map(std::io::Error::kind) {
            // The queue of the socket is full: nobody takes sessions from it.
            Some(ErrorKind::WouldBlock | ErrorKind::TimedOut) => Self::Hung,
            Some(_) => Self::Down,
            None if error.is_closed() => Self::Down,
            None => Self::Refused { code: String::new(), message: shorten(&error.to_string()) },
        }
    }
}

impl SqlTrouble {
    fn told(code: &SqlState, message: &str) -> Self {
        match code {
            c if *c == SqlState::TOO_MANY_CONNECTIONS => Self::Busy,
            c if *c == SqlState::CANNOT_CONNECT_NOW => Self::Starting,
            c if *c == SqlState::DISK_FULL => Self::DiskFull,
            c if [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN].contains(c) => Self::Down,
            _ if message.contains("Read-only file system") => Self::ReadOnlyFs,
            _ if message.contains("No space left on device") => Self::DiskFull,
            c => Self::Refused { code: c.code().to_owned(), message: shorten(message) },
        }
    }
}

fn shorten(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(MESSAGE_MAX).collect()
}

/// A session; dropping it ends it.
pub struct Session {
    client: Client,
    connection: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Session {
    /// Rows of each statement, in order.
    pub async fn ask(&self, query: &str) -> Result<Vec<Vec<SimpleQueryRow>>, SqlTrouble> {
        let mut results = vec![Vec::new()];
        for message in self.client.simple_query(query).await? {
            match message {
                SimpleQueryMessage::Row(row) => {
                    if let Some(rows) = results.last_mut() {
                        rows.push(row);
                    }
                }
                SimpleQueryMessage::CommandComplete(_) => results.push(Vec::new()),
                _ => {}
            }
        }
        results.pop();
        Ok(results)
    }
}

/// The way to an instance's SQL, and the session that is kept.
pub struct Sessions {
    socket_dir: PathBuf,
    port: u16,
    secrets: Arc<Secrets>,
    kept: Mutex<Option<Session>>,
}

impl Sessions {
    pub fn new(socket_dir: PathBuf, port: u16, secrets: Arc<Secrets>) -> Self {
        Self { socket_dir, port, secrets, kept: Mutex::new(None) }
    }

    /// A new session.
    pub async fn open(&self, limit: Duration) -> Result<Session, SqlTrouble> {
        self.open_in(DATABASE, limit).await
    }

    pub async fn open_in(&self, database: &str, limit: Duration) -> Result<Session, SqlTrouble> {
        let mut config = Config::new();
        config
            .host_path(&self.socket_dir)
            .port(self.port)
            .user(SUPERUSER)
            .password(self.secrets.superuser.as_bytes())
            .dbname(database)
            .application_name(APPLICATION)
            .options(OPTIONS)
            .connect_timeout(limit);
        let (client, connection) =
            timeout(limit, config.connect(NoTls)).await.map_err(|_| SqlTrouble::Hung)??;
        // Its end is what the client's next question meets.
        let connection = tokio::spawn(async move { drop(connection.await) });
        Ok(Session { client, connection })
    }

    /// Asks over the kept session; over a new one when that has ended. After an answer that did not
    /// come in time the session is given up.
    pub async fn ask(
        &self,
        query: &str,
        limit: Duration,
    ) -> Result<Vec<Vec<SimpleQueryRow>>, SqlTrouble> {
        let asked = async {
            let mut kept = self.kept.lock().await;
            if let Some(session) = kept.take() {
                match session.ask(query).await {
                    Err(SqlTrouble::Down) => {}
                    answer => {
                        *kept = Some(session);
                        return answer;
                    }
                }
            }
            let session = self.open(limit).await?;
            let answer = session.ask(query).await;
            if !matches!(answer, Err(SqlTrouble::Down)) {
                *kept = Some(session);
            }
            answer
        };
        // Cancelled in the middle, the session was taken out and is gone.
        timeout(limit, asked).await.map_err(|_| SqlTrouble::Hung)?
    }

    /// Ends the kept session: a fast stop need not end it, and a slot of max_connections is free.
    pub async fn close(&self) {
        self.kept.lock().await.take();
    }
}

/// One column of a row, by its name; None: it is null, or of no such kind.
pub fn column<T: std::str::FromStr>(row: &SimpleQueryRow, name: &str) -> Option<T> {
    row.try_get(name).ok().flatten()?.parse().ok()
}

/// Of a boolean, which postgres writes as `t` and `f`.
pub fn is_true(row: &SimpleQueryRow, name: &str) -> bool {
    row.try_get(name).ok().flatten() == Some("t")
}

/// A literal of SQL, with the quotes. Standard strings know no escape but the doubled quote.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postgres_says_is_told_apart() {
        let told = |code: SqlState, message: &str| SqlTrouble::told(&code, message);
        assert_eq!(told(SqlState::TOO_MANY_CONNECTIONS, "x"), SqlTrouble::Busy);
        assert_eq!(told(SqlState::CANNOT_CONNECT_NOW, "x"), SqlTrouble::Starting);
        assert_eq!(told(SqlState::DISK_FULL, "x"), SqlTrouble::DiskFull);
        assert_eq!(told(SqlState::ADMIN_SHUTDOWN, "x"), SqlTrouble::Down);
        let words = "could not extend file \"base/1\": Read-only file system";
        assert_eq!(told(SqlState::INSUFFICIENT_PRIVILEGE, words), SqlTrouble::ReadOnlyFs);
        assert!(matches!(told(SqlState::INVALID_PASSWORD, "no"), SqlTrouble::Refused { .. }));
        assert_eq!(literal("it's"), "'it''s'");
    }
}
