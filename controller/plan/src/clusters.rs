//! PostgreSQL clusters: an ordered table of rules changes what is decided of each, and what every
//! member is to be follows from that by a pure function. A decision and the tasks that follow from it
//! are one transaction.

mod acts;
mod agenda;
mod choice;
pub(crate) mod doubt;
mod draw;
mod exclusion;
mod goal;
mod history;
mod places;
mod promotable;
mod reign;
mod remains;
mod rule;
mod rules;
mod switch;
mod sync_set;
mod view;

use lockstep_model::cluster::{ClusterState, Failover};
use lockstep_model::reason::Reason;
use lockstep_model::record::{Key, TXN_WRITES_MAX, Write};
use lockstep_model::{ClusterName, Timestamp};

pub(crate) use self::agenda::Agenda;
pub(crate) use self::draw::{Asked, elect};
use self::rule::{Found, Turn};
use self::view::View;
use crate::World;
use crate::draft::Draft;

pub(crate) fn plan(draft: &mut Draft<'_>) {
    let world = draft.world;
    for name in world.due_clusters(draft.now) {
        if draft.is_cut() {
            break;
        }
        let (until, is_quiet) = draft.apart(true, |draft| look(draft, name));
        if is_quiet {
            draft.rest_cluster(name.clone(), until);
        }
    }
    if let Some(at) = world.next_cluster_after(draft.now) {
        draft.wake(at);
    }
}

/// Clusters whose primaries are only to be watched are looked at together.
fn watch(draft: &mut Draft<'_>, at: Timestamp) {
    const GRAIN: u64 = 100;
    draft.wake(Timestamp(at.0.div_ceil(GRAIN).saturating_mul(GRAIN)));
}

/// Why this cluster is as it is, and what it waits for.
pub fn reasons(world: &World, name: &ClusterName, now: Timestamp) -> Vec<Reason> {
    let mut draft = Draft::new(world, now, TXN_WRITES_MAX);
    look(&mut draft, name);
    draft.finish().reasons
}

/// The table of rules, as the manual shows it: its diagram and its rows.
pub fn manual() -> String {
    rules::manual()
}

fn look(draft: &mut Draft<'_>, name: &ClusterName) {
    let world = draft.world;
    let Some(cluster) = world.clusters().get(name).map(|cluster| &cluster.value) else {
        return remains::clear(draft, name);
    };
    if let Some(leaving) = cluster.leaving {
        return remains::leave(draft, cluster, leaving);
    }
    let Some(state) = world.cluster_state(name) else {
        let text = "it has no record of its state: restore the store from a backup".to_owned();
        return draft.wait(format!("cluster/{name}"), "no_state", text, None);
    };
    let view = View { world, cluster, state, now: draft.now };
    match first(draft, &view) {
        Next::Decide(rule, turn) => places::write(draft, &view, rule, *turn),
        Next::Bring => places::bring(draft, &view),
        Next::Nothing => return,
    }
    remains::release_others(draft, &view);
    acts::keep(draft, name);
    forget_history(draft, name, state);
}

enum Next {
    Decide(&'static str, Box<Turn>),
    /// What was decided is brought to all members.
    Bring,
    Nothing,
}

/// The first rule that fires; those before it say what they wait for.
fn first(draft: &mut Draft<'_>, view: &View<'_>) -> Next {
    let stage = view.state.stage.as_str();
    let rules = rules::TABLE.iter().copied().flatten();
    for rule in rules.filter(|rule| rule.from.is_empty() || rule.from.contains(&stage)) {
        match (rule.look)(view) {
            Found::Nothing => {}
            Found::Watch(at) => watch(draft, at),
            Found::Wait(wait) => draft.wait(view.subject(), rule.name, wait.text, wait.until),
            Found::Stop(wait) => {
                draft.wait(view.subject(), rule.name, wait.text, wait.until);
                return Next::Bring;
            }
            Found::Freeze(wait) => {
                draft.wait(view.subject(), rule.name, wait.text, wait.until);
                return Next::Nothing;
            }
            Found::Fire(turn) => return Next::Decide(rule.name, turn),
        }
    }
    Next::Bring
}

/// Keeps the newest numbers.
fn forget_history(draft: &mut Draft<'_>, name: &ClusterName, state: &ClusterState) {
    let world = draft.world;
    for report in world.failovers_of(name).map(|report| &report.value) {
        if report.number.saturating_add(Failover::KEPT_MAX) > state.number {
            return;
        }
        let key = Key::Failover(name.clone(), report.number);
        if !draft.writes(&key) && !draft.write("prune_history", [Write::Delete(key)]) {
            return;
        }
    }
}
