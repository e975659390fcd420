//! The rules, in their order: the first one that fires decides.

mod adoption;
mod creation;
mod electing;
mod election;
mod lease;
mod promoting;
mod record;
mod switchover;
mod sync_set;
mod withdrawal;

use super::rule::Rule;

/// Danger first, then what people want, then upkeep.
pub(super) const TABLE: &[&[Rule]] = &[
    adoption::RULES,
    lease::PAUSE,
    creation::RULES,
    promoting::RULES,
    electing::RULES,
    switchover::UNDER_WAY,
    election::RULES,
    withdrawal::RULES,
    switchover::WANTED,
    lease::RULES,
    record::RULES,
    sync_set::RULES,
];

/// Every stage, in the order of the diagram.
const STAGES: [&str; 6] =
    ["creating", "steady", "preparing", "handing-over", "electing", "promoting"];

/// Stages and the rules between them as a mermaid diagram, then the table of all rules.
pub(super) fn manual() -> String {
    let mut out = String::from("```mermaid\nstateDiagram-v2\n");
    for stage in STAGES {
        let id = stage.replace('-', "_");
        if id != stage {
            out.push_str(&format!("    state \"{stage}\" as {id}\n"));
        }
    }
    out.push_str("    [*] --> creating\n");
    let rules = || TABLE.iter().copied().flatten();
    for from in STAGES {
        for to in STAGES {
            let between = rules().filter(|rule| rule.from.contains(&from) && rule.to.contains(&to));
            let names: Vec<&str> = between.map(|rule| rule.name).collect();
            if !names.is_empty() {
                let (from, to) = (from.replace('-', "_"), to.replace('-', "_"));
                out.push_str(&format!("    {from} --> {to}: {}\n", names.join(", ")));
            }
        }
    }
    out.push_str(
        "```\n\n| rule | stages | leads to | what it looks for and does |\n|---|---|---|---|\n",
    );
    for rule in rules() {
        let from = if rule.from.is_empty() { "any".to_owned() } else { rule.from.join(", ") };
        let to = if rule.to.is_empty() { "–".to_owned() } else { rule.to.join(", ") };
        out.push_str(&format!("| `{}` | {from} | {to} | {} |\n", rule.name, rule.what));
    }
    out
}
