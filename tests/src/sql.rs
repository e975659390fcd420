//! SQL as a program of the tests' own asks it, from a host: one connection per question, every answer
//! within a bound.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::timeout;
use tokio_postgres::config::Host as Address;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::host::Host;

/// For a connection and its answer together.
const WITHIN: Duration = Duration::from_secs(10);

/// What a statement answers, every value as text; NULL is empty.
pub fn ask(from: &Host, target: &str, statement: &str) -> Result<Vec<Vec<String>>> {
    let asked = async || -> Result<Vec<Vec<String>>> {
        let client = connect(target).await?;
        let messages = client.simple_query(statement).await.map_err(plain)?;
        Ok(messages.iter().filter_map(row).collect())
    };
    from.block_on(async { timeout(WITHIN, asked()).await.context("no answer in time")? })?
        .with_context(|| format!("{} asked {target}: {statement}", from.name()))
}

/// The one value of the one row.
pub fn value(from: &Host, target: &str, statement: &str) -> Result<String> {
    let rows = ask(from, target, statement)?;
    let first = rows.first().and_then(|row| row.first());
    first.cloned().with_context(|| format!("{statement} answered nothing"))
}

/// Its connection ends with the client. Without TLS, as on a host's own network.
pub async fn connect(target: &str) -> Result<Client> {
    connect_to(&target.parse()?).await
}

/// As [`connect`], each host of a connection string for itself.
pub(crate) fn hosts(target: &str) -> Result<Vec<Config>> {
    let all: Config = target.parse()?;
    // One port stands for all hosts.
    let hosts = all.get_hosts().iter().zip(all.get_ports().iter().cycle()).map(|(host, port)| {
        let Address::Tcp(host) = host else { bail!("{host:?} is no host") };
        let mut one = Config::new();
        one.host(host).port(*port).target_session_attrs(all.get_target_session_attrs());
        one.user(all.get_user().unwrap_or_default());
        one.password(all.get_password().unwrap_or_default());
        one.dbname(all.get_dbname().unwrap_or_default());
        Ok(one)
    });
    hosts.collect()
}

pub(crate) async fn connect_to(config: &Config) -> Result<Client> {
    let (client, connection) = config.connect(NoTls).await.map_err(plain)?;
    // Its end is told by the client's next question.
    tokio::spawn(connection);
    Ok(client)
}

/// With the server's own words, which the error alone leaves out.
pub(crate) fn plain(error: tokio_postgres::Error) -> anyhow::Error {
    match error.as_db_error() {
        Some(db) => anyhow::anyhow!("{}: {}", db.code().code(), db.message()),
        None => anyhow::Error::new(error),
    }
}

fn row(message: &SimpleQueryMessage) -> Option<Vec<String>> {
    let SimpleQueryMessage::Row(row) = message else { return None };
    Some((0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect())
}
