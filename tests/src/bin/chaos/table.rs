//! What a fault led to, and the table of many.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub struct Round {
    pub fault: String,
    /// What exactly, where the fault leaves that to chance.
    pub detail: String,
    pub mode: String,
    /// Rows that nobody but a lost asynchronous primary had may be lost with it.
    pub may_lose: bool,
    pub seed: u64,
    pub number: usize,
    /// Acknowledged rows that are gone.
    pub lost: usize,
    /// For how long two members acknowledged.
    pub overlap_ms: Option<u64>,
    /// Updates of the common counter that are lost, and reads of it that are stale.
    pub miscounts: Vec<String>,
    /// The longest time without an acknowledgement that a client outside saw.
    pub outage_ms: u64,
    pub lasted_ms: u64,
    /// From the end of the fault until all is as it was.
    pub recovered_ms: u64,
    /// Why it did not get well by itself; empty: it did.
    pub trouble: String,
}

impl Round {
    pub fn keeps_promises(&self) -> bool {
        let is_whole = self.lost == 0 || self.may_lose;
        is_whole
            && self.overlap_ms.is_none()
            && self.miscounts.is_empty()
            && self.trouble.is_empty()
    }

    pub fn line(&self) -> String {
        let Self { fault, detail, lost, outage_ms, lasted_ms, recovered_ms, trouble, .. } = self;
        let detail =
            if detail.is_empty() { String::new() } else { format!(" ({})", detail.trim()) };
        let two = self.overlap_ms.map(|ms| format!(", TWO WRITERS for {ms} ms"));
        let wrong = self
            .miscounts
            .first()
            .map(|first| format!(", WRONG COUNT: {first} ({} in all)", self.miscounts.len()));
        let why = if trouble.is_empty() { String::new() } else { format!(", NOT WELL: {trouble}") };
        format!(
            "{fault}{detail}: {lost} lost, outage {outage_ms} ms, fault {lasted_ms} ms, well again after \
             {recovered_ms} ms{}{}{why}",
            two.unwrap_or_default(),
            wrong.unwrap_or_default()
        )
    }
}

/// A line per fault and mode, as the manual has it.
pub fn show(rounds: &[Round]) -> String {
    let mut groups: BTreeMap<(&str, &str), Vec<&Round>> = BTreeMap::new();
    for round in rounds {
        groups.entry((&round.fault, &round.mode)).or_default().push(round);
    }
    let mut text = String::from(
        "| fault | mode | n | acknowledged rows lost | two writers | lost updates, stale reads | outage, median (longest) | well \
         again, median (longest) | a person needed |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for ((fault, mode), of) in groups {
        let two = of.iter().filter(|round| round.overlap_ms.is_some()).count();
        let wrong: usize = of.iter().map(|round| round.miscounts.len()).sum();
        let hands = of.iter().filter(|round| !round.trouble.is_empty()).count();
        let lost: usize = of.iter().map(|round| round.lost).sum();
        let outage = spread(of.iter().map(|round| round.outage_ms));
        let well = spread(of.iter().map(|round| round.recovered_ms));
        let n = of.len();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {fault} | {mode} | {n} | {lost} | {two} | {wrong} | {outage} | {well} | {hands} |"
        );
    }
    text
}

fn spread(of: impl Iterator<Item = u64>) -> String {
    let mut all: Vec<u64> = of.collect();
    all.sort_unstable();
    let seconds = |ms: Option<&u64>| format!("{:.2}", ms.copied().unwrap_or(0) as f64 / 1000.0);
    format!("{} ({}) s", seconds(all.get(all.len() / 2)), seconds(all.last()))
}
