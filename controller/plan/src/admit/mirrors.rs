//! Mirrors as a whole: made, changed, renamed, removed. The rule that matters: no two write one
//! directory, whatever they are.

use lockstep_model::mirror::{Allow, HopKind, Mirror, MirrorState, REPLICAS_MAX, Trigger};
use lockstep_model::node::NodeAdmin;
use lockstep_model::path::PATH_MAX;
use lockstep_model::record::{Actor, Key, Record, Secret, TXN_WRITES_MAX, Write};
use lockstep_model::request::{MirrorChange, NewMirror, SelectedChange};
use lockstep_model::schedule::Schedule;
use lockstep_model::setting::Settings;
use lockstep_model::sync::remote::Scheme;
use lockstep_model::sync::{Place, Remote};
use lockstep_model::{Invalid, MirrorName, Reject, Timestamp};

use super::mirror_owner::{check_owner, check_placement};
use super::mirror_runs::{asked_by, run_id, state_of, want};
use super::syncs::check_node;
use super::{Admitted, MIRRORS_MAX, check_room, precondition};
use crate::World;
use crate::members::Owner;

pub(super) fn create(world: &World, new: &NewMirror, now: Timestamp) -> Result<Admitted, Reject> {
    let NewMirror { name, password, .. } = new;
    let mut mirror = Mirror {
        name: name.clone(),
        upstream: new.upstream.clone(),
        has_password: password.is_some(),
        master: new.master.clone(),
        dest: new.dest.clone(),
        dir: name.clone(),
        replicas: sorted(&new.replicas)?,
        selected: new.selected.clone(),
        options: new.options.clone(),
        schedule: new.schedule.clone(),
        enabled: new.enabled,
        owner: new.owner.clone(),
        push_tokens: Vec::new(),
        created_at: now,
        deleting: false,
        was: None,
    };
    if let Some(there) = world.mirrors().get(name).map(|mirror| &mirror.value) {
        let Mirror { created_at, dir, was, push_tokens, .. } = there.clone();
        mirror = Mirror { created_at, dir, was, push_tokens, ..mirror };
        // Nobody can tell whether a sealed password is another one.
        if mirror == *there && password.is_none() {
            return Ok(Admitted::already(format!("mirror {name} is just so already")));
        }
        let message = format!(
            "mirror {name} exists: see lockstepctl mirror show {name}, change it with lockstepctl \
             mirror update {name}, or choose another name"
        );
        return Err(Reject::exists(format!("mirror/{name}"), message));
    }
    check_room("mirrors", world.mirrors().len(), MIRRORS_MAX)?;
    check_free(world, name)?;
    check(world, &mirror, None)?;
    let from = mirror.upstream.as_ref().map_or("its owner".to_owned(), ToString::to_string);
    let detail = format!("mirror {name} created: {from} to {}:{}", mirror.master, mirror.tree());
    let mut writes = vec![
        Write::Put(Record::Mirror(mirror)),
        Write::Put(Record::MirrorState(MirrorState::new(name.clone(), now))),
    ];
    writes.extend(password.as_ref().map(|sealed| put_secret(name, sealed)));
    Ok(Admitted { writes, detail, ..Admitted::default() })
}

fn put_secret(name: &MirrorName, sealed: &[u8]) -> Write {
    Write::Put(Record::Secret(Secret { mirror: name.clone(), sealed: sealed.to_vec() }))
}

/// Rows of an earlier mirror of that name are about to go.
fn check_free(world: &World, name: &MirrorName) -> Result<(), Reject> {
    let has_rows = world.mirror_states().contains_key(name)
        || world.replicas_of(name).next().is_some()
        || world.runs_of(name).next().is_some();
    if !has_rows {
        return Ok(());
    }
    let message =
        format!("an earlier mirror {name} is just being forgotten: try again in a moment");
    Err(precondition("being_deleted", format!("mirror/{name}"), message))
}

/// By node, each node once.
fn sorted(replicas: &[Place]) -> Result<Vec<Place>, Reject> {
    let mut sorted = replicas.to_vec();
    sorted.sort_by(|a, b| a.node.cmp(&b.node));
    sorted.dedup();
    if sorted.len() > REPLICAS_MAX {
        let problem = format!("are {}, at most {REPLICAS_MAX} are allowed", sorted.len());
        return Err(Invalid::new("replicas", problem).into());
    }
    match sorted.windows(2).find(|pair| matches!(pair, [a, b] if a.node == b.node)) {
        Some([a, b]) => {
            let problem = format!("{a} and {b}: a node has one directory per mirror");
            Err(Invalid::new("replicas", problem).into())
        }
        _ => Ok(sorted),
    }
}

/// What holds for every definition, a new one or a changed one.
fn check(world: &World, mirror: &Mirror, before: Option<&Mirror>) -> Result<(), Reject> {
    mirror.options.check()?;
    check_publication(mirror)?;
    check_module(world, mirror)?;
    check_upstream(mirror)?;
    if let Some(schedule) = &mirror.schedule {
        schedule.check()?;
        crate::schedule::Timetable::new(schedule)?;
    }
    if let Some(owner) = &mirror.owner
        && before.is_none_or(|before| before.owner.as_ref() != Some(owner))
        && !world.users().contains_key(owner)
    {
        let message =
            format!("owner: user {owner} is not known: lockstepctl user add {owner} --role owner");
        return Err(Reject::not_found(format!("user/{owner}"), message));
    }
    if before.is_none_or(|before| before.master != mirror.master) {
        check_node(world, "master", &mirror.master)?;
    }
    check_length("dest", &mirror.dest.join(&mirror.dir))?;
    for place in &mirror.replicas {
        if place.node == mirror.master {
            let problem = format!("{place}: {} is the master", place.node);
            return Err(Invalid::new("replicas", problem).into());
        }
        if before.is_none_or(|before| before.replica(&place.node).is_none()) {
            check_node(world, "replicas", &place.node)?;
        }
        check_length("replicas", &place.path.join(&mirror.dir))?;
    }
    let master = Place { node: mirror.master.clone(), path: mirror.dest.clone() };
    for place in mirror.replicas.iter().chain([&master]) {
        check_overlap(world, mirror, place)?;
    }
    let Some(selected) = &mirror.selected else { return Ok(()) };
    check_length("selector", &selected.path.join(&mirror.dir))?;
    let nodes = world.nodes().values().map(|node| &node.value);
    for node in nodes.filter(|node| mirror.selects(node)) {
        let place = Place { node: node.name.clone(), path: selected.path.clone() };
        check_overlap(world, mirror, &place)?;
    }
    Ok(())
}

/// A daemon takes two modules of one name for one.
fn check_module(world: &World, mirror: &Mirror) -> Result<(), Invalid> {
    let module = |of: &Mirror| of.options.module.as_ref().map(|module| module.name.clone());
    let Some(name) = module(mirror) else { return Ok(()) };
    let mut others = world.mirrors().values().map(|other| &other.value);
    let other =
        others.find(|other| other.name != mirror.name && module(other) == Some(name.clone()));
    match other {
        Some(other) => {
            let problem =
                format!("{name} is the module of mirror {}: choose another name", other.name);
            Err(Invalid::new("rsyncd-module", problem))
        }
        None => Ok(()),
    }
}

/// The master's tree is built by its own pulls only.
fn check_publication(mirror: &Mirror) -> Result<(), Invalid> {
    if mirror.upstream.is_some() {
        mirror.options.check_publication(HopKind::Upstream)?;
    }
    let replica = mirror.options.check_publication(HopKind::Replica);
    replica.map_err(|e| Invalid::new(format!("replica-{}", e.field.replace(' ', "-")), e.problem))
}

fn check_length(field: &str, tree: &lockstep_model::path::DirPath) -> Result<(), Reject> {
    if tree.as_str().len() <= PATH_MAX {
        return Ok(());
    }
    let problem = format!("the tree's path would be longer than {PATH_MAX} bytes");
    Err(Invalid::new(field, problem).into())
}

fn check_upstream(mirror: &Mirror) -> Result<(), Reject> {
    let name = &mirror.name;
    let wrong = |field: &str, problem: &str| Err(Reject::from(Invalid::new(field, problem)));
    match &mirror.upstream {
        None if mirror.schedule.is_some() => wrong(
            "schedule",
            "there is no upstream to pull from: its owner says when it is ready (lockstepctl mirror \
             ready); give an upstream, or no schedule",
        ),
        None if !mirror.options.further.is_empty() => {
            wrong("further-upstream", "is for a mirror that has an upstream: give --upstream too")
        }
        None if mirror.has_password => {
            wrong("password", "is for an upstream, and there is none: give both or neither")
        }
        Some(Remote { scheme: Scheme::Ssh, .. }) if mirror.has_password => wrong(
            "password",
            "ssh takes a key and no password: add ?key=NAME to the upstream, a file of the secrets \
             directory on the master",
        ),
        Some(Remote { secret: Some(_), .. }) if mirror.has_password => wrong(
            "password",
            "the upstream names a password file of the master already: give one of the two",
        ),
        Some(Remote { scheme: Scheme::Rsync, user: None, .. }) if mirror.has_password => {
            let problem = format!(
                "rsync asks for a password only of a user: name it in the upstream, \
                 rsync://{name}@host/module"
            );
            wrong("upstream", &problem)
        }
        _ => Ok(()),
    }
}

fn check_overlap(world: &World, mirror: &Mirror, dest: &Place) -> Result<(), Reject> {
    let here = Place { node: dest.node.clone(), path: dest.path.join(&mirror.dir) };
    let me = Owner::Mirror(mirror.name.clone());
    let Some((other, path, _)) = world.uses().clash(&me, &here, true) else { return Ok(()) };
    let message = format!(
        "{here} overlaps {}:{path}, which {other} writes: two may not write one directory; choose \
         another",
        here.node
    );
    Err(precondition("overlap", other.subject(), message))
}

pub(super) fn update(
    world: &World,
    who: &Actor,
    name: &MirrorName,
    change: &MirrorChange,
    now: Timestamp,
) -> Result<Admitted, Reject> {
    let before = find(world, name)?;
    check_owner(world, who, before)?;
    check_placement(world, who, name, change)?;
    let mut mirror = before.clone();
    let MirrorChange { values, upstream, password, master, dest, replicas, selected, owner } =
        change;
    mirror.options.set(values.iter().map(|v| (v.name.as_str(), v.text.as_str())))?;
    if let Some(upstream) = upstream {
        mirror.upstream.clone_from(upstream);
    }
    let mut secret = None;
    match password {
        Some(Some(sealed)) => {
            mirror.has_password = true;
            secret = Some(put_secret(name, sealed));
        }
        Some(None) => mirror.has_password = false,
        None if mirror.upstream.is_none() => mirror.has_password = false,
        None => check_same_place(before, &mirror)?,
    }
    if before.has_password && !mirror.has_password {
        secret = Some(Write::Delete(Key::Secret(name.clone())));
    }
    if let Some(replicas) = replicas {
        mirror.replicas = sorted(replicas)?;
    }
    if let Some(master) = master {
        mirror.master.clone_from(master);
        // A replica that becomes the master is none any more.
        if replicas.is_none() {
            mirror.replicas.retain(|place| place.node != *master);
        }
    }
    if let Some(dest) = dest {
        mirror.dest.clone_from(dest);
    }
    match selected {
        None => {}
        Some(SelectedChange::To(selected)) => mirror.selected = Some(selected.clone()),
        Some(SelectedChange::Nobody) => mirror.selected = None,
    }
    if let Some(owner) = owner {
        mirror.owner.clone_from(owner);
    }
    if mirror == *before && secret.is_none() {
        return Ok(Admitted::already(format!("mirror {name} is just so already")));
    }
    check(world, &mirror, Some(before))?;
    let mut admitted = Admitted { detail: format!("mirror {name} changed"), ..Admitted::default() };
    if mirror.master != before.master && mirror.upstream.is_some() && mirror.enabled {
        let mut state = state_of(world, name, now);
        let trigger = Trigger::Asked(asked_by(who));
        let run = want(&mut state.wanted, &mut state.number, trigger, Allow::default(), None, now);
        admitted.detail = format!("mirror {name} changed; run {name}/{run} fills its new master");
        admitted.runs.push(run_id(name, run));
        admitted.writes.push(Write::Put(Record::MirrorState(state)));
    }
    admitted.writes.push(Write::Put(Record::Mirror(mirror)));
    admitted.writes.extend(secret);
    Ok(admitted)
}

/// A password goes to nobody that it was not given for.
fn check_same_place(before: &Mirror, mirror: &Mirror) -> Result<(), Reject> {
    let place = |of: &Mirror| of.upstream.as_ref().map(|u| (u.scheme, u.at.clone()));
    if !mirror.has_password || place(before) == place(mirror) {
        return Ok(());
    }
    let problem = "the upstream is another host: give the password for it, or none";
    Err(Invalid::new("password", problem).into())
}

/// Names the mirror anew. Its tree stays where it is unless `move_files`.
pub(super) fn rename(
    world: &World,
    name: &MirrorName,
    to: &MirrorName,
    move_files: bool,
    now: Timestamp,
) -> Result<Admitted, Reject> {
    let before = find(world, name)?;
    if name == to {
        return Ok(Admitted::already(format!("mirror {name} is called so already")));
    }
    if world.mirrors().contains_key(to) {
        let message = format!("mirror {to} exists: choose another name");
        return Err(Reject::exists(format!("mirror/{to}"), message));
    }
    check_free(world, to)?;
    let mut state = state_of(world, name, now);
    let busy = world.replicas_of(name).find_map(|row| Some((&row.value.node, row.value.current?)));
    if let Some((node, number)) = state.current.map(|n| (&before.master, n)).or(busy) {
        let message = format!(
            "run {name}/{number} is under way on {node}: wait for its end, or cancel it (lockstepctl \
             mirror runs {name} shows its task)"
        );
        return Err(precondition("running", format!("mirror/{name}"), message));
    }
    let knows = |was: &&MirrorName| {
        let there = |node| world.nodes().get(node).map(|node| node.value.admin);
        let mut nodes = world.mirror_slots(was).map(|(node, _)| node);
        nodes.any(|node| there(node).is_some_and(|admin| admin != NodeAdmin::Expelled))
    };
    let last = before.was.as_ref().filter(knows);
    if let Some(was) = last {
        let message = format!(
            "some nodes know it still as {was}: wait until they have taken up its name (lockstepctl \
             explain mirror/{was})"
        );
        return Err(precondition("renaming", format!("mirror/{name}"), message));
    }
    let mut mirror = Mirror { name: to.clone(), was: Some(name.clone()), ..before.clone() };
    if move_files {
        mirror.dir.clone_from(to);
    }
    // Its own trees are in nobody's way.
    check_moved(world, &mirror, before)?;
    state.mirror.clone_from(to);
    let mut writes = vec![
        Write::Delete(Key::Mirror(name.clone())),
        Write::Delete(Key::MirrorState(name.clone())),
        Write::Put(Record::Mirror(mirror)),
        Write::Put(Record::MirrorState(state)),
    ];
    if let Some(secret) = world.secrets().get(name) {
        writes.push(Write::Delete(Key::Secret(name.clone())));
        writes.push(put_secret(to, &secret.value.sealed));
    }
    // The request's own record comes on top. A replica more finds out with one pass that it has all.
    let room = TXN_WRITES_MAX - writes.len() - 1;
    for row in world.replicas_of(name).take(room) {
        let mut row = row.value.clone();
        row.mirror.clone_from(to);
        writes.push(Write::Put(Record::Replica(row)));
    }
    let files = if move_files { "its files are moved" } else { "its files stay where they are" };
    let detail =
        format!("mirror {name} is called {to} now; {files}, and its list of runs begins anew");
    Ok(Admitted { writes, detail, ..Admitted::default() })
}

fn check_moved(world: &World, mirror: &Mirror, before: &Mirror) -> Result<(), Reject> {
    let me = Owner::Mirror(before.name.clone());
    let master = Place { node: mirror.master.clone(), path: mirror.dest.clone() };
    for dest in mirror.replicas.iter().chain([&master]) {
        let here = Place { node: dest.node.clone(), path: dest.path.join(&mirror.dir) };
        if let Some((other, path, _)) = world.uses().clash(&me, &here, true) {
            let message = format!(
                "{here} overlaps {}:{path}, which {other} writes: choose another name, or leave the \
                 files where they are",
                here.node
            );
            return Err(precondition("overlap", other.subject(), message));
        }
    }
    Ok(())
}

pub(super) fn reschedule(
    world: &World,
    who: &Actor,
    name: &MirrorName,
    schedule: Option<&Schedule>,
) -> Result<Admitted, Reject> {
    let before = find(world, name)?;
    check_owner(world, who, before)?;
    if before.schedule.as_ref() == schedule {
        return Ok(Admitted::already(format!("mirror {name} has just this schedule already")));
    }
    let mirror = Mirror { schedule: schedule.cloned(), ..before.clone() };
    check(world, &mirror, Some(before))?;
    let detail = match schedule {
        Some(schedule) => format!("mirror {name} runs by {}, in {}", schedule.rule, schedule.zone),
        None => format!("mirror {name} has no schedule any more"),
    };
    Ok(Admitted::put(Record::Mirror(mirror), detail))
}

pub(super) fn set_enabled(
    world: &World,
    who: &Actor,
    name: Option<&MirrorName>,
    enabled: bool,
) -> Result<Admitted, Reject> {
    let state = if enabled { "enabled" } else { "disabled" };
    let switched = |mirror: &Mirror| Record::Mirror(Mirror { enabled, ..mirror.clone() });
    let Some(name) = name else {
        let all = world.mirrors().values().map(|mirror| &mirror.value);
        let own = all.filter(|mirror| check_owner(world, who, mirror).is_ok());
        let other = own.filter(|mirror| mirror.enabled != enabled && !mirror.deleting);
        let writes: Vec<Write> = other.map(switched).map(Write::Put).collect();
        let detail = match writes.len() {
            0 => format!("all mirrors are {state} already"),
            1 => format!("1 mirror is {state} now"),
            many => format!("{many} mirrors are {state} now"),
        };
        return Ok(Admitted { writes, detail, ..Admitted::default() });
    };
    let before = find(world, name)?;
    check_owner(world, who, before)?;
    if before.enabled == enabled {
        return Ok(Admitted::already(format!("mirror {name} is {state} already")));
    }
    Ok(Admitted::put(switched(before), format!("mirror {name} is {state} now")))
}

/// The planner then has every node let go of it; with its files, the record goes when all have.
pub(super) fn delete(
    world: &World,
    who: &Actor,
    name: &MirrorName,
    delete_files: bool,
) -> Result<Admitted, Reject> {
    let Some(mirror) = world.mirrors().get(name).map(|mirror| &mirror.value) else {
        return Ok(Admitted::already(format!("mirror {name} does not exist")));
    };
    check_owner(world, who, mirror)?;
    if mirror.deleting {
        return Ok(Admitted::already(format!(
            "mirror {name} is being deleted with its files already"
        )));
    }
    if delete_files {
        let mirror = Mirror { deleting: true, ..mirror.clone() };
        let detail = format!("mirror {name} is being deleted with its files on all nodes");
        return Ok(Admitted::put(Record::Mirror(mirror), detail));
    }
    let mut writes = vec![Write::Delete(Key::Mirror(name.clone()))];
    if world.mirror_states().contains_key(name) {
        writes.push(Write::Delete(Key::MirrorState(name.clone())));
    }
    if world.secrets().contains_key(name) {
        writes.push(Write::Delete(Key::Secret(name.clone())));
    }
    let detail = format!("mirror {name} deleted; files stay");
    Ok(Admitted { writes, detail, ..Admitted::default() })
}

/// The mirror, unless it is on its way out.
pub(super) fn find<'a>(world: &'a World, name: &MirrorName) -> Result<&'a Mirror, Reject> {
    let Some(mirror) = world.mirrors().get(name).map(|mirror| &mirror.value) else {
        let message = format!("mirror {name} does not exist: see lockstepctl mirror list");
        return Err(Reject::not_found(format!("mirror/{name}"), message));
    };
    if mirror.deleting {
        let message = format!(
            "mirror {name} is being deleted with its files: see lockstepctl explain mirror/{name}"
        );
        return Err(precondition("being_deleted", format!("mirror/{name}"), message));
    }
    Ok(mirror)
}
