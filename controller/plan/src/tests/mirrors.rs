//! Stories of mirrors: what nodes are given, what runs are recorded, and why something waits.

mod life;
mod nodes;
mod refusals;
mod runs;

use lockstep_model::NodeName;
use lockstep_model::mirror::{Allow, Pulled, Trigger};
use lockstep_model::request::{NewMirror, Request};
use lockstep_model::task::{Outcome, OutcomeKind, TaskSpec};

use super::dsl::{Lab, agent};

const NODES: [&str; 4] = ["m", "r1", "r2", "r3"];

/// Pulled from an upstream to `m:/data` and from there to `/data` of each replica.
pub fn new_mirror(name: &str, replicas: &[&str], settings: &[(&str, &str)]) -> NewMirror {
    use lockstep_model::setting::Settings;
    NewMirror {
        name: name.parse().unwrap(),
        upstream: Some(format!("rsync://up.example.org/{name}").parse().unwrap()),
        password: None,
        master: "m".parse().unwrap(),
        dest: "/data".parse().unwrap(),
        replicas: replicas.iter().map(|node| format!("{node}:/data").parse().unwrap()).collect(),
        selected: None,
        options: lockstep_model::mirror::MirrorOptions::from_values(settings.iter().copied())
            .unwrap(),
        schedule: None,
        enabled: true,
        owner: None,
    }
}

pub fn sync(mirror: &str, only: &[&str]) -> Request {
    Request::SyncMirror {
        mirror: mirror.parse().unwrap(),
        only: only.iter().map(|node| node.parse().unwrap()).collect(),
        from: None,
        allow: Allow::default(),
        trigger: Trigger::Asked("user/anna".to_owned()),
    }
}

pub fn changed() -> Pulled {
    Pulled { changed: true, entries: 10, ..Pulled::default() }
}

impl Lab {
    /// Nodes that joined, with a mirror whose places are in force.
    fn with_mirror(new: NewMirror) -> Self {
        let mut lab = Self::with_nodes(&NODES);
        lab.ask(Request::CreateMirror(new));
        lab.take_places();
        lab
    }

    /// Agents take up what they are assigned, and pull nothing.
    pub fn take_places(&mut self) {
        let next = |lab: &Self| {
            let mut tasks = lab.world.tasks().map(|task| &task.value);
            tasks.find(|task| task.is_live() && !task.spec.is_run()).map(|t| (t.node.clone(), t.id))
        };
        while let Some((node, id)) = next(self) {
            let (who, outcome) = (agent(node.as_str()), Outcome::ok());
            self.ask_as(&who, Request::EndTask { node, id, outcome }).unwrap();
            self.settle();
        }
    }

    /// The node ends its pull of a mirror; None when it has none.
    pub fn end_pull(
        &mut self,
        node: &str,
        kind: OutcomeKind,
        message: &str,
        pulled: Pulled,
    ) -> Option<()> {
        let name: NodeName = node.parse().unwrap();
        let task = self.world.live_tasks_of(&name).find(|task| task.value.spec.is_run())?;
        let id = task.value.id;
        let outcome = Outcome { pulled: Some(pulled), ..Outcome::new(kind, message) };
        self.ask_as(&agent(node), Request::EndTask { node: name, id, outcome }).unwrap();
        self.settle();
        Some(())
    }

    fn ok(&mut self, node: &str) {
        self.end_pull(node, OutcomeKind::Ok, "", changed()).expect("a pull");
    }

    fn unchanged(&mut self, node: &str) {
        let pulled = Pulled { changed: false, ..changed() };
        self.end_pull(node, OutcomeKind::Ok, "", pulled).expect("a pull");
    }

    fn fail(&mut self, node: &str, message: &str, permanent: bool) {
        let pulled = Pulled { permanent, ..Pulled::default() };
        self.end_pull(node, OutcomeKind::Failed, message, pulled).expect("a pull");
    }

    /// Live runs, rows of runs, and what is waited for.
    fn show_mirror(&self, name: &str) -> String {
        let name = name.parse().unwrap();
        let world = &self.world;
        let mut out = Vec::new();
        for task in world.tasks().map(|task| &task.value).filter(|task| task.is_live()) {
            let what = match &task.spec {
                TaskSpec::MirrorPull(p) => {
                    let from = match &p.from {
                        lockstep_model::task::PullFrom::Agent(peer) => peer.node.to_string(),
                        lockstep_model::task::PullFrom::Remote(remote) => remote.at.to_string(),
                        lockstep_model::task::PullFrom::Here => "here".to_owned(),
                    };
                    format!(
                        "pull {} of {} from {from}, {}, try {}",
                        p.number, p.generation, p.stage, task.attempt
                    )
                }
                TaskSpec::MirrorPlace(p) => {
                    let from =
                        p.moved_from.as_ref().map_or(String::new(), |from| format!(" from {from}"));
                    let readers: Vec<_> = p.readers.iter().map(|peer| peer.node.as_str()).collect();
                    let serve = if p.serve { "" } else { ", not serving" };
                    format!("place {}{from} for [{}]{serve}", p.tree, readers.join(" "))
                }
                TaskSpec::MirrorRelease(r) => {
                    format!("release {}, delete {:?}", r.mirror, r.delete)
                }
                other => other.kind().to_owned(),
            };
            let cancelled = if task.cancel_requested { ", to be cancelled" } else { "" };
            out.push(format!("{}: {what}{cancelled}", task.node));
        }
        for (id, rows) in world.runs_of(&name) {
            for row in rows.values().map(|row| &row.value) {
                let end = row
                    .end
                    .as_ref()
                    .map_or("goes on".to_owned(), |end| format!("{} {}", end.kind, end.message));
                out.push(format!(
                    "{id} {} by {}, generation {}, {} tries: {}",
                    row.node,
                    row.trigger,
                    row.generation,
                    row.attempts,
                    end.trim_end()
                ));
            }
        }
        if let Some(state) = world.mirror_states().get(&name).map(|state| &state.value) {
            let replicas: Vec<_> = world
                .replicas_of(&name)
                .map(|row| format!("{} {}", row.value.node, row.value.generation))
                .collect();
            let wanted =
                state.wanted.as_ref().map_or(String::new(), |w| format!(", wants {}", w.number));
            out.push(format!(
                "generation {}, distributed {}{wanted}; {}",
                state.generation,
                state.distributed,
                replicas.join(", ")
            ));
        }
        for reason in crate::mirrors::reasons(world, &name, self.now) {
            out.push(format!("? {} {}: {}", reason.subject, reason.rule, reason.text));
        }
        out.iter().map(|line| format!("{line}\n")).collect()
    }
}

fn delete(mirror: &str, delete_files: bool) -> Request {
    Request::DeleteMirror { mirror: mirror.parse().unwrap(), delete_files }
}

fn rename(mirror: &str, to: &str, move_files: bool) -> Request {
    Request::RenameMirror { mirror: mirror.parse().unwrap(), to: to.parse().unwrap(), move_files }
}
