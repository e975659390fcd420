//! `cluster history`: failovers and switchovers, in a line each and one in full.

use lockstep_proto::convert::from_wire_time;
use lockstep_proto::v1;

use crate::client::Client;
use crate::error::Failure;
use crate::render;

/// Most reports that a controller keeps of one cluster.
const KEPT_MAX: u32 = 200;

pub async fn show(
    client: &Client,
    name: &str,
    number: Option<u64>,
    limit: u32,
) -> Result<(), Failure> {
    let limit = if number.is_some() { KEPT_MAX } else { limit };
    let request = v1::ListFailoversRequest { name: name.to_owned(), limit };
    let mut answer = client.clusters().list_failovers(request).await?.into_inner();
    if let Some(number) = number {
        let found = answer.failovers.iter().find(|report| report.number == number);
        let Some(report) = found else {
            let list = format!("lockstepctl cluster history {name} lists those that are kept");
            return Err(Failure::refused(format!("cluster {name} has no report {number}: {list}")));
        };
        return render::show(client.format, report, || details(report));
    }
    render::show(client.format, &answer.clone(), || {
        // Newest last, as a reader of logs expects; the wire has them newest first.
        answer.failovers.reverse();
        table(&answer.failovers)
    })
}

fn table(reports: &[v1::Failover]) -> String {
    let header = [
        "no", "began", "cause", "from", "to", "term", "timeline", "took", "proof", "salvaged",
        "lost", "end", "by", "note",
    ];
    let rows: Vec<Vec<String>> = reports.iter().map(row).collect();
    match rows.is_empty() {
        true => render::table(&header, rows),
        false => render::columns(&header, &rows),
    }
}

fn row(report: &v1::Failover) -> Vec<String> {
    vec![
        report.number.to_string(),
        render::time(report.began_at.as_ref()),
        report.cause.clone(),
        report.from.clone(),
        report.to.clone(),
        report.term.to_string(),
        report.timeline.to_string(),
        took(report),
        report.exclusion.clone(),
        salvaged(report),
        lost(report).to_owned(),
        report.end.clone(),
        report.by.clone(),
        report.note.clone(),
    ]
}

/// Until the new primary wrote.
fn took(report: &v1::Failover) -> String {
    since(report, report.writable_at.as_ref())
}

/// Exact, since here a tenth of a second counts.
fn since(report: &v1::Failover, at: Option<&pbjson_types::Timestamp>) -> String {
    let (Some(began), Some(at)) = (&report.began_at, at) else { return String::new() };
    from_wire_time(at).since(from_wire_time(began)).exact()
}

fn salvaged(report: &v1::Failover) -> String {
    match report.salvaged_bytes {
        0 => String::new(),
        bytes => render::bytes(bytes),
    }
}

fn lost(report: &v1::Failover) -> &'static str {
    match (report.lossless, report.end.as_str()) {
        (Some(true), _) => "nothing",
        (Some(false), _) => "possibly",
        (None, "done") => "not known",
        (None, _) => "",
    }
}

/// "2: crash, db1 to db2, done in 180ms, nothing lost"
pub fn line(report: &v1::Failover) -> String {
    let to = if report.to.is_empty() { "nobody yet" } else { &report.to };
    let mut text = format!("{}: {}, {} to {to}", report.number, report.cause, report.from);
    text.push_str(&format!(", {}", report.end));
    match took(report) {
        took if took.is_empty() => {}
        took => text.push_str(&format!(" in {took}")),
    }
    match lost(report) {
        "" => text,
        lost => format!("{text}, lost: {lost}"),
    }
}

pub fn details(report: &v1::Failover) -> String {
    let after = |at: &Option<pbjson_types::Timestamp>| match since(report, at.as_ref()) {
        text if text.is_empty() => text,
        text => format!("after {text}"),
    };
    let excluded = [report.exclusion.clone(), after(&report.excluded_at)];
    let excluded: Vec<String> = excluded.into_iter().filter(|part| !part.is_empty()).collect();
    let head = render::fields([
        ("number", report.number.to_string()),
        ("cause", report.cause.clone()),
        ("asked by", report.by.clone()),
        ("from", report.from.clone()),
        ("to", report.to.clone()),
        ("term", report.term.to_string()),
        ("timeline", report.timeline.to_string()),
        ("began", render::time(report.began_at.as_ref())),
        ("proof", excluded.join(", ")),
        ("chosen", after(&report.chosen_at)),
        ("writable", after(&report.writable_at)),
        ("old end", report.old_end.clone()),
        ("salvaged", salvaged(report)),
        ("lost", lost(report).to_owned()),
        ("end", report.end.clone()),
        ("note", report.note.clone()),
    ]);
    if report.positions.is_empty() {
        return head;
    }
    let mut positions: Vec<_> = report.positions.iter().collect();
    positions.sort();
    let rows = positions.into_iter().map(|(node, lsn)| [node.clone(), lsn.clone()]);
    format!("{head}\n\n{}", render::table(&["node", "log ended at"], rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Option<pbjson_types::Timestamp> {
        let nanos = i32::try_from(ms % 1000 * 1_000_000).unwrap();
        Some(pbjson_types::Timestamp { seconds: ms / 1000, nanos })
    }

    #[test]
    fn a_report_tells_what_it_took_and_cost() {
        let report = v1::Failover {
            number: 2,
            cause: "crash".to_owned(),
            from: "db1".to_owned(),
            to: "db2".to_owned(),
            began_at: at(10_000),
            excluded_at: at(10_020),
            exclusion: "released".to_owned(),
            writable_at: at(10_180),
            positions: [("db2".to_owned(), "0/5000060".to_owned())].into(),
            salvaged_bytes: 4096,
            lossless: Some(true),
            end: "done".to_owned(),
            ..Default::default()
        };
        assert_eq!(line(&report), "2: crash, db1 to db2, done in 180ms, lost: nothing");
        let text = details(&report);
        for words in ["released, after 20ms", "after 180ms", "4.00 KiB", "0/5000060"] {
            assert!(text.contains(words), "{words} is not in\n{text}");
        }
        let text = table(&[report]);
        assert!(text.contains("180ms") && !text.contains("NOTE"), "{text}");
    }
}
