//! `lockstepctl log`, `watch` and `explain`.

use lockstep_proto::v1;

use crate::args::{Explain, Log, Watch};
use crate::client::Client;
use crate::error::Failure;
use crate::render;

pub async fn list(client: &Client, log: Log) -> Result<(), Failure> {
    let request = v1::ListEntriesRequest {
        scope: log.scope.unwrap_or_default(),
        limit: log.limit,
        before: log.before.unwrap_or(0),
    };
    let mut answer = client.log().list_entries(request).await?.into_inner();
    // Newest last, as a reader of logs expects; the wire has them newest first.
    answer.entries.reverse();
    render::show(client.format, &answer, || {
        let lines: Vec<String> = answer.entries.iter().map(entry).collect();
        lines.join("\n")
    })
}

pub async fn watch(client: &Client, watch: Watch) -> Result<(), Failure> {
    let request =
        v1::WatchLogRequest { after: watch.after, scope: watch.scope.unwrap_or_default() };
    let mut entries = client.log().watch_log(request).await?.into_inner();
    while let Some(message) = entries.message().await? {
        let shown = message.entry.unwrap_or_default();
        render::show_next(client.format, &shown, || entry(&shown))?;
    }
    Err(Failure::failed("the controller ended the stream"))
}

pub async fn explain(client: &Client, explain: Explain) -> Result<(), Failure> {
    let request = v1::ExplainRequest { subject: explain.subject.clone().unwrap_or_default() };
    let answer = client.log().explain(request).await?.into_inner();
    render::show(client.format, &answer, || {
        if answer.reasons.is_empty() {
            return "nothing waits".to_owned();
        }
        render::table(
            &["subject", "rule", "again", "why"],
            answer.reasons.iter().map(|r| {
                let again = match &r.until {
                    Some(until) => render::ahead(Some(until)),
                    None => "on change".to_owned(),
                };
                [r.subject.clone(), r.rule.clone(), again, r.text.clone()]
            }),
        )
    })
}

fn entry(entry: &v1::LogEntry) -> String {
    let mut text = format!(
        "{}  {}  {}  {}",
        entry.revision,
        render::time(entry.at.as_ref()),
        entry.actor,
        entry.cause
    );
    for write in &entry.writes {
        let sign = if write.deleted { '-' } else { '+' };
        text.push_str(&format!("\n    {sign} {}  {}", write.key, write.summary));
    }
    text.trim_end().to_owned()
}
