//! `cluster check`: what somebody should mend before it is needed. Everything in it was reported; it
//! asks no instance itself.

use lockstep_model::cluster::report::Verdict;
use lockstep_proto::v1;
use serde::Serialize;

use super::get;
use crate::client::Client;
use crate::error::Failure;
use crate::render;

/// As `-o json` prints it.
#[derive(Serialize)]
struct Checked {
    cluster: String,
    findings: Vec<Finding>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
struct Finding {
    /// `ok`, `warn` or `fail`.
    verdict: String,
    /// Empty: of the whole cluster.
    node: String,
    check: String,
    text: String,
}

pub async fn run(client: &Client, name: &str) -> Result<(), Failure> {
    let findings = findings(&get(client, name).await?);
    let wrong = findings.iter().filter(|finding| is_wrong(finding)).count();
    let checked = Checked { cluster: name.to_owned(), findings };
    render::show(client.format, &checked, || table(&checked.findings))?;
    match wrong {
        0 => Ok(()),
        1 => Err(Failure::failed(format!("cluster {name}: one finding"))),
        many => Err(Failure::failed(format!("cluster {name}: {many} findings"))),
    }
}

fn is_wrong(finding: &Finding) -> bool {
    finding.verdict != Verdict::Ok.as_str()
}

fn table(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing was looked at yet".to_owned();
    }
    let row = |f: &Finding| {
        [f.verdict.clone(), render::or_dash(&f.node), f.check.clone(), f.text.clone()]
    };
    render::table(&["verdict", "node", "check", "what"], findings.iter().map(row))
}

/// The worst first.
fn findings(cluster: &v1::Cluster) -> Vec<Finding> {
    use Verdict::{Fail, Warn};
    let mut found: Vec<Finding> = Vec::new();
    let mut add = |node: &str, check: &str, verdict: Verdict, text: String| {
        let is_told = |other: &Finding| other.node == node && other.text == text;
        if !text.is_empty() && !found.iter().any(is_told) {
            let (node, check) = (node.to_owned(), check.to_owned());
            found.push(Finding { verdict: verdict.to_string(), node, check, text });
        }
    };
    add("", "cluster", Warn, cluster.reason.clone());
    cluster.warnings.iter().for_each(|warning| add("", "cluster", Warn, warning.clone()));
    for member in &cluster.members {
        let node = member.node.as_str();
        add(node, "member", Fail, member.reason.clone());
        let Some(report) = &member.report else {
            let text = "nothing was heard of it since the controller started";
            add(node, "member", Fail, text.to_owned());
            continue;
        };
        if !member.connected {
            add(node, "member", Fail, "its agent is away".to_owned());
        }
        add(node, "member", Fail, report.problem.clone());
        if !matches!(report.trouble.as_str(), "" | "none") {
            add(node, "postgres", Fail, report.trouble.clone());
        }
        report.warnings.iter().for_each(|warning| add(node, "member", Warn, warning.clone()));
        for row in &report.pending_restart {
            let change = format!("{} is {} and will be {}", row.name, row.now, row.then);
            let mend = format!("lockstepctl cluster restart {} {node} --pending", cluster.name);
            add(node, "settings", Warn, format!("{change} after a restart: {mend}"));
        }
        for one in &report.findings {
            // A verdict that this program does not know is no good one.
            let verdict = one.verdict.parse().unwrap_or(Warn);
            add(node, &one.check, verdict, one.text.clone());
        }
    }
    let rank = |finding: &Finding| match finding.verdict.parse() {
        Ok(Verdict::Fail) => 0,
        Ok(Verdict::Ok) => 2,
        _ => 1,
    };
    found.sort_by_key(rank);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_name_their_member_once() {
        let report = v1::MemberReport {
            state: "standby".to_owned(),
            trouble: "disk-full".to_owned(),
            problem: "no space".to_owned(),
            warnings: vec!["the slot of db3 holds back 5 GiB".to_owned()],
            pending_restart: vec![v1::PendingRestart {
                name: "max_connections".to_owned(),
                now: "100".to_owned(),
                then: "200".to_owned(),
            }],
            findings: vec![
                v1::Finding {
                    check: "rewind".to_owned(),
                    verdict: "ok".to_owned(),
                    text: "it has data checksums".to_owned(),
                },
                v1::Finding {
                    check: "archive".to_owned(),
                    verdict: "warn".to_owned(),
                    text: "nothing archives".to_owned(),
                },
            ],
            ..Default::default()
        };
        let member = v1::ClusterMember {
            node: "db2".to_owned(),
            connected: true,
            reason: "no space".to_owned(),
            report: Some(report),
            ..Default::default()
        };
        let mut cluster =
            v1::Cluster { name: "main".to_owned(), members: vec![member], ..Default::default() };
        let all = findings(&cluster);
        let text = table(&all);
        assert_eq!(all.len(), 6, "{text}");
        assert_eq!(all.iter().filter(|finding| is_wrong(finding)).count(), 5, "{text}");
        let verdicts: Vec<&str> = all.iter().map(|finding| finding.verdict.as_str()).collect();
        assert_eq!(verdicts, ["fail", "fail", "warn", "warn", "warn", "ok"]);
        for words in ["disk-full", "5 GiB", "is 100 and will be 200", "restart main db2 --pending"]
        {
            assert!(text.contains(words), "{words} is not in\n{text}");
        }
        cluster.members.clear();
        assert_eq!(findings(&cluster), []);
    }
}
