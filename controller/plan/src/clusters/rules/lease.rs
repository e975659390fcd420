//! The longest lease, recorded before any so long is granted; and pausing, which gives one without
//! end.

use lockstep_model::Millis;
use lockstep_model::cluster::{Stage, Term};

use crate::clusters::rule::{Found, Rule, Turn, Wait};
use crate::clusters::view::View;

pub(super) const PAUSE: &[Rule] = &[
    Rule {
        name: "pause",
        from: &["steady"],
        to: &[],
        what: "The cluster is paused: a lease without end is recorded, then the primary is told.",
        look: pause,
    },
    Rule {
        name: "paused",
        from: &[],
        to: &[],
        what: "While it is paused nothing is decided; all is still reported.",
        look: paused,
    },
];

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "resume",
        from: &["steady"],
        to: &[],
        what: "The primary has taken up that the pause is over, and holds a lease that ends: leases \
               end again.",
        look: resume,
    },
    Rule {
        name: "lease_length",
        from: &["creating", "steady", "preparing", "handing-over", "promoting"],
        to: &[],
        what: "The lease is to be longer than any granted in this term, by its setting or because the \
               primary's agent is about to be stopped: that is recorded first.",
        look: lease_length,
    },
    Rule {
        name: "lease_shortened",
        from: &["steady"],
        to: &[],
        what: "No lease lasts as long any more as the longest that was recorded: a shorter one is.",
        look: lease_shortened,
    },
];

fn pause(view: &View<'_>) -> Found {
    if !view.cluster.paused || view.state.longest_lease.is_none() {
        return Found::Nothing;
    }
    let mut state = view.state.clone();
    state.longest_lease = None;
    Turn::to(state).fire()
}

fn paused(view: &View<'_>) -> Found {
    let unfinished = match &view.state.stage {
        Stage::Steady => String::new(),
        stage => format!(" It was {} when it was paused, and stays so.", stage.as_str()),
    };
    match view.cluster.paused {
        true => Found::Stop(Wait::new(format!(
            "it is paused, nothing is decided: lockstepctl cluster resume {} ends that.{unfinished}",
            view.cluster.name
        ))),
        false => Found::Nothing,
    }
}

fn resume(view: &View<'_>) -> Found {
    if view.state.longest_lease.is_some() {
        return Found::Nothing;
    }
    let Some(holder) = view.holder() else { return Found::Nothing };
    let told = view.task(holder).filter(|_| view.told(holder).is_some_and(|place| !place.paused));
    let Some(ended) = told.and_then(|task| task.ended.as_ref().filter(|_| task.succeeded())) else {
        return Found::wait(format!("{holder} has to take up that the pause is over"));
    };
    let suspect = view.suspect();
    let leases = view.world.leases();
    let granted = leases.get(&view.cluster.name).filter(|granted| granted.holder == *holder);
    let bounded = granted.filter(|granted| granted.until.is_some());
    let recent = |heard| leases.now().since(heard) < suspect;
    let settled = ended.at + suspect;
    match bounded {
        Some(granted) if view.now > settled && recent(granted.heard) => {
            let mut state = view.state.clone();
            state.longest_lease = Some(view.cluster.options.lease.length);
            Turn::to(state).fire()
        }
        _ => {
            let again = Millis(suspect.0 / 2);
            let text = format!("{holder} has to get a lease that ends");
            Found::wait_until(text, (view.now + again).max(settled + Millis(1)))
        }
    }
}

fn lease_length(view: &View<'_>) -> Found {
    let length = wanted(view);
    let short = view.state.longest_lease.is_some_and(|longest| longest < length);
    if !short || view.state.term == Term(0) {
        return Found::Nothing;
    }
    let mut state = view.state.clone();
    state.longest_lease = Some(length);
    Turn::to(state).fire()
}

fn lease_shortened(view: &View<'_>) -> Found {
    let (leases, length) = (view.world.leases(), wanted(view));
    let is_over = |longest: &Millis| {
        *longest > length && leases.is_within(&view.cluster.name, *longest, length)
    };
    if view.state.longest_lease.as_ref().is_none_or(|longest| !is_over(longest)) {
        return Found::Nothing;
    }
    let mut state = view.state.clone();
    state.longest_lease = Some(length);
    Turn::to(state).fire()
}

/// How long a lease is to be now.
fn wanted(view: &View<'_>) -> Millis {
    let holder = view.state.holder.as_ref();
    let away = holder.and_then(|holder| view.world.leases().away(&view.cluster.name, holder));
    view.cluster.options.lease.length.max(away.unwrap_or_default())
}
