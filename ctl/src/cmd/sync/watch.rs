//! `sync watch`: how the targets stand, drawn anew each second on a terminal; elsewhere a line for
//! each change.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use console::Term;
use lockstep_model::{Millis, Timestamp};
use lockstep_proto::v1;
use lockstep_transport::clock;

use super::{get, show, targets};
use crate::args::Format;
use crate::client::Client;
use crate::error::Failure;
use crate::render;

const INTERVAL: Duration = Duration::from_secs(1);

pub async fn run(client: &Client, name: &str) -> Result<(), Failure> {
    let mut sync = get(client, name).await?;
    let mut view = match (client.format, std::io::stdout().is_terminal()) {
        (Format::Table, true) => View::Screen { lines: 0, rates: Rates::default() },
        (Format::Table, false) => View::Lines { said: HashMap::new() },
        (format, _) => View::Messages { format, said: None },
    };
    loop {
        view.show(&sync, clock::now())?;
        tokio::time::sleep(INTERVAL).await;
        sync = match get(client, name).await {
            Ok(sync) => sync,
            Err(failure) if failure.is_refused() => {
                render::note(&format!("sync {name} was deleted"));
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
    }
}

enum View {
    /// As many lines as were drawn last.
    Screen {
        lines: usize,
        rates: Rates,
    },
    /// What was last said of each target.
    Lines {
        said: HashMap<String, String>,
    },
    Messages {
        format: Format,
        said: Option<Box<v1::Sync>>,
    },
}

impl View {
    fn show(&mut self, sync: &v1::Sync, now: Timestamp) -> Result<(), Failure> {
        match self {
            Self::Screen { lines, rates } => {
                let text = screen(sync, &rates.of(sync, now), now);
                *lines = draw(&text, *lines)?;
            }
            Self::Lines { said } => {
                for (target, line) in changes(sync, said) {
                    render::line(&format!("{now} {target} {line}"))?;
                    said.insert(target, line);
                }
                said.retain(|name, _| sync.targets.iter().any(|t| targets::node(t) == name));
            }
            Self::Messages { format, said } => {
                if said.as_deref() != Some(sync) {
                    render::show_next(*format, sync, String::new)?;
                    *said = Some(Box::new(sync.clone()));
                }
            }
        }
        Ok(())
    }
}

/// What was sent between two looks, in bytes per second.
#[derive(Default)]
struct Rates {
    before: HashMap<String, u64>,
    at: Timestamp,
}

impl Rates {
    fn of(&mut self, sync: &v1::Sync, now: Timestamp) -> HashMap<String, u64> {
        let sent: HashMap<String, u64> = sync
            .targets
            .iter()
            .filter_map(|t| Some((targets::node(t).to_owned(), t.delivery.as_ref()?.sent_bytes)))
            .collect();
        let Millis(ms) = now.since(self.at);
        let rate = |(name, bytes): (&String, &u64)| {
            let more = bytes.saturating_sub(*self.before.get(name)?);
            Some((name.clone(), more.saturating_mul(1000) / ms.max(1)))
        };
        let rates = sent.iter().filter_map(rate).collect();
        (self.before, self.at) = (sent, now);
        rates
    }
}

fn screen(sync: &v1::Sync, rates: &HashMap<String, u64>, now: Timestamp) -> String {
    let mut total = 0;
    for rate in rates.values() {
        total += rate;
    }
    let mut text = format!("{}  {now}  {}/s in all\n", sync.name, render::bytes(total));
    for warning in sync.source_report.iter().flat_map(|report| &report.warnings) {
        let _ = writeln!(text, "warning: {warning}");
    }
    let rate = |target: &v1::SyncTargetStatus| {
        let rate = rates.get(targets::node(target)).copied().unwrap_or(0);
        if rate == 0 { String::new() } else { format!("{}/s", render::bytes(rate)) }
    };
    text + "\n" + &show::targets_with(sync, "rate", &rate)
}

/// Over what was drawn before; no line may wrap and nothing may scroll, else that cannot be found.
fn draw(text: &str, before: usize) -> Result<usize, Failure> {
    let term = Term::stdout();
    let (height, width) = term.size();
    let room = usize::from(height).saturating_sub(1).max(1);
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| console::truncate_str(line, usize::from(width), "…").into_owned())
        .collect();
    if lines.len() > room {
        let more = lines.len() - (room - 1);
        lines.truncate(room - 1);
        lines.push(format!("… and {more} more"));
    }
    let mut out = std::io::stdout().lock();
    if before > 0 {
        // Up, and clear to the end of the screen.
        write!(out, "\x1b[{before}A\x1b[J")?;
    }
    for line in &lines {
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    Ok(lines.len())
}

/// Of each target that changed: how it stands. Figures that always move do not count.
fn changes(sync: &v1::Sync, said: &HashMap<String, String>) -> Vec<(String, String)> {
    let lines = sync.targets.iter().map(|target| {
        let delivery = target.delivery.clone().unwrap_or_default();
        let state = match &target.delivery {
            Some(delivery) => render::word(delivery.state().as_str_name(), "DELIVERY_STATE_"),
            None => "unknown".to_owned(),
        };
        let mut line = state;
        match delivery.waiting_paths {
            _ if target.delivery.is_none() => {}
            Some(0) => {}
            Some(paths) => {
                let _ = write!(line, " paths={paths}");
            }
            None => line.push_str(" paths=all"),
        }
        let source = sync.source.as_ref().map_or("", |source| &source.node);
        if !target.parent.is_empty() && target.parent != source {
            let _ = write!(line, " from={}", target.parent);
        }
        if !target.applied {
            line.push_str(" not-applied");
        }
        if delivery.drift > 0 {
            let _ = write!(line, " drift={}", delivery.drift);
        }
        if !target.reason.is_empty() {
            let _ = write!(line, " {}", target.reason);
        }
        (targets::node(target).to_owned(), line)
    });
    lines.filter(|(target, line)| said.get(target) != Some(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sync(paths: Option<u64>, sent_bytes: u64, lag_ms: u64) -> v1::Sync {
        let mut delivery = v1::Delivery {
            target: "web1".to_owned(),
            waiting_paths: paths,
            sent_bytes,
            lag_ms,
            ..Default::default()
        };
        delivery.set_state(v1::DeliveryState::Dirty);
        let place = v1::Target { node: "web1".to_owned(), at: "/x".to_owned(), bwlimit: 0 };
        let target = v1::SyncTargetStatus {
            target: Some(place),
            applied: true,
            delivery: Some(delivery),
            ..Default::default()
        };
        v1::Sync { targets: vec![target], ..Default::default() }
    }

    #[test]
    fn a_line_tells_what_changed_and_not_that_time_passed() {
        let mut said = HashMap::new();
        assert_eq!(changes(&sync(Some(2), 0, 0), &said)[0].1, "dirty paths=2");
        said.insert("web1".to_owned(), "dirty paths=2".to_owned());
        assert_eq!(changes(&sync(Some(2), 9, 7000), &said), []);
        assert_eq!(changes(&sync(None, 9, 7000), &said)[0].1, "dirty paths=all");
    }

    #[test]
    fn a_rate_is_what_was_sent_since_the_last_look() {
        let mut rates = Rates::default();
        assert!(rates.of(&sync(None, 5000, 0), Timestamp(1000)).is_empty());
        assert_eq!(rates.of(&sync(None, 6000, 0), Timestamp(1500))["web1"], 2000);
        assert_eq!(rates.of(&sync(None, 100, 0), Timestamp(2500))["web1"], 0);
    }
}
