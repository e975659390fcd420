//! What a story is about, drawn from its number: members, settings, and a list of faults and requests
//! with their times.

use std::collections::BTreeMap;
use std::fmt;

use lockstep_model::NodeName;
use lockstep_model::cluster::ClusterOptions;
use lockstep_model::setting::Settings as _;

use super::queue::At;
use crate::chance::Chance;

/// The cluster is made and settled before the first fault.
const CALM_MS: At = 10_000;
/// After the last fault everything has to be well again within so long.
pub const SETTLE_MS: At = 120_000;
const FAULTS_MAX: usize = 7;
/// So long after a controller's start on an old copy the network is well: it waits for one lease.
const HEARD_MS: At = 8000;

/// Whom a fault is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whom {
    Primary,
    Member(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Crash(Whom),
    Hang(Whom),
    KillAgent(Whom),
    FreezeAgent(Whom),
    KillBoth(Whom),
    PowerOff(Whom),
    /// From everybody.
    Cut(Whom),
    /// From the controller alone.
    CutFromController(Whom),
    /// One direction of the way to the controller; true: what the node says is lost.
    CutOneWay(Whom, bool),
    CutPair(usize, usize),
    /// The primary and a standby here, the controller and the rest there.
    Split(usize),
    /// The primary and the controller here, the rest there.
    SplitWithController,
    Flap(Whom),
    BreakStreams,
    /// Every message takes so much longer.
    SlowNet(u64),
    /// The whole room.
    Blackout,
    StopController,
    SlowStore,
    /// A copy of the store is made, and put in its place at the end. That comes with so many requests
    /// before any agent is back.
    OldCopy(u64),
    WallClock(i64),
    Switchover(Option<usize>),
    Failover(Option<usize>),
    AllowLoss(usize),
    Fence(Whom),
    StopMember(Whom),
    Maintain(Whom),
    Disable(Whom),
    Pause,
    Reclone(usize),
    Edit(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kind: Kind,
    pub at: At,
    pub for_ms: At,
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub members: usize,
    /// Longest time that log is on its way.
    pub lag_ms: u64,
    /// Longest time from a kill to the last process gone; less than what is kept for it.
    pub kill_ms: u64,
    pub settings: &'static [&'static str],
    pub faults: Vec<Fault>,
}

const SETTINGS: &[&[&str]] = &[
    &[],
    &["sync=1"],
    &["sync=1"],
    &["sync=1", "on-sync-shortage=degrade"],
    &["sync=2"],
    &["sync=off"],
    &["sync=off"],
    &["sync=off", "on-crash=failover"],
    &["sync=off", "lease=2s", "fence-time=500ms", "suspect-after=500ms"],
    &["failover=manual"],
];

const EDITS: &[&str] = &[
    "sync=off",
    "sync=1",
    "sync=2",
    "lease=3s",
    "lease=10s",
    "on-sync-shortage=degrade",
    "on-sync-shortage=wait",
    "on-crash=failover",
];

impl Scenario {
    pub fn draw(chance: &mut Chance) -> Self {
        let members = 2 + chance.below(10).div_ceil(4).min(2);
        // Nobody can have two of a single standby.
        let fits = |settings: &&&[&str]| members > 2 || !settings.contains(&"sync=2");
        let settings: Vec<_> = SETTINGS.iter().filter(fits).copied().collect();
        let settings = chance.pick(&settings).copied().unwrap_or(&[]);
        let theme = *chance.pick(THEMES).unwrap_or(&Theme::Any);
        let settings = match theme {
            Theme::Unprotected => chance.pick(ASYNCHRONOUS).copied().unwrap_or(settings),
            _ => settings,
        };
        let lag_ms = *chance.pick(&[3, 3, 30, 150]).unwrap_or(&3);
        let mut scenario = Self { members, lag_ms, kill_ms: 30, settings, faults: Vec::new() };
        if chance.below(3) == 0 {
            scenario.kill_ms = scenario.options().lease.fence.0 * 9 / 10;
        }
        let mut at = CALM_MS + chance.below(500) as At;
        for (kind, for_ms) in theme.begin(chance, members) {
            scenario.faults.push(Fault { kind, at, for_ms });
            let longest = *chance.pick(&[40, 900, 5000]).unwrap_or(&900);
            at += chance.below(longest) as At;
        }
        let spread = 4000 + chance.below(3) * 8000;
        for _ in 0..chance.below(FAULTS_MAX) {
            at += chance.below(spread) as At;
            let kind = match theme {
                Theme::Controller => controllers(chance),
                Theme::Processes => processes(chance, members),
                _ => any(chance, members),
            };
            let longest = *chance.pick(&[300, 2500, 9000, 25_000]).unwrap_or(&300);
            let for_ms = 20 + chance.below(longest) as At;
            scenario.faults.push(Fault { kind, at, for_ms });
        }
        scenario
    }

    /// As any, and at some moment the store is as it was at another, with what was decided meanwhile
    /// lost.
    pub fn old_copy(chance: &mut Chance) -> Self {
        let mut scenario = Self::draw(chance);
        let mut some = |least: At, most: At| least + chance.below((most - least) as usize) as At;
        let (at, for_ms) = (CALM_MS + some(0, 3000), some(200, 20_000));
        let written = some(0, 2) * some(1, 80);
        let lost = match some(0, 4) {
            0 => Some(Kind::Switchover(None)),
            1 => Some(Kind::Crash(Whom::Primary)),
            2 => EDITS.get(some(0, EDITS.len() as At) as usize).map(|edit| Kind::Edit(edit)),
            _ => None,
        };
        let lost = lost.map(|kind| Fault { kind, at: at + some(1, for_ms), for_ms: 1 });
        scenario.faults.extend(lost);
        // What cannot be noticed: that nobody who knows gets through for one lease after the start.
        let hides = |fault: &Fault| {
            let cuts = matches!(
                fault.kind,
                Kind::Cut(_)
                    | Kind::CutFromController(_)
                    | Kind::CutOneWay(..)
                    | Kind::Split(_)
                    | Kind::SplitWithController
                    | Kind::Flap(_)
                    | Kind::FreezeAgent(_)
                    | Kind::KillAgent(_)
            );
            cuts && fault.at < at + for_ms + HEARD_MS && fault.at + fault.for_ms > at + for_ms
        };
        scenario.faults.retain(|fault| !hides(fault));
        scenario.faults.push(Fault { kind: Kind::OldCopy(written), at, for_ms });
        scenario
    }

    pub fn names(&self) -> BTreeMap<usize, NodeName> {
        let name = |n: usize| format!("db{}", n + 1).parse().ok().map(|name| (n, name));
        (0..self.members).filter_map(name).collect()
    }

    pub fn options(&self) -> ClusterOptions {
        let mut options = ClusterOptions::default();
        let values = self.settings.iter().filter_map(|text| text.split_once('='));
        // A story with a setting that is refused is one without it.
        let _ = options.set(values);
        options
    }

    pub fn faults_end(&self) -> At {
        self.faults.iter().map(|fault| fault.at + fault.for_ms).max().unwrap_or(CALM_MS) + 100
    }
}

/// Which faults come together: alone they seldom meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Theme {
    Any,
    /// Nothing but the controller fails.
    Controller,
    /// Nothing but processes fail: no commit may be lost, in any mode.
    Processes,
    /// A primary lives on promises, and those who gave them fail.
    Promises,
    /// A primary is cut off from all, and its agent or its machine is not well.
    Isolated,
    /// Standbys come and go, then the primary goes.
    SyncSet,
    Blackout,
    /// The controller dies while a failover begins.
    Midway,
    /// A process dies where commits wait for nobody.
    Unprotected,
}

const THEMES: &[Theme] = &[
    Theme::Any,
    Theme::Any,
    Theme::Any,
    Theme::Controller,
    Theme::Processes,
    Theme::Promises,
    Theme::Promises,
    Theme::Isolated,
    Theme::Isolated,
    Theme::SyncSet,
    Theme::Blackout,
    Theme::Midway,
    Theme::Unprotected,
];

const ASYNCHRONOUS: &[&[&str]] = &[&["sync=off"], &["sync=off", "on-crash=failover"]];

impl Theme {
    fn begin(self, chance: &mut Chance, members: usize) -> Vec<(Kind, At)> {
        let other = Whom::Member(1 + chance.below(members - 1));
        let mut some = |least: usize, most: usize| (least + chance.below(most - least)) as At;
        let primary = Whom::Primary;
        match self {
            Self::Any | Self::Controller | Self::Processes => Vec::new(),
            Self::Promises => {
                let away = (Kind::CutFromController(primary), some(8000, 25_000));
                let second = match some(0, 4) {
                    0 => (Kind::PowerOff(other), some(20, 1000)),
                    1 => (Kind::KillAgent(other), some(20, 1000)),
                    2 => (Kind::KillBoth(other), some(20, 3000)),
                    _ => (Kind::Cut(primary), some(3000, 12_000)),
                };
                let third = (Kind::Cut(primary), some(3000, 12_000));
                vec![away, second, third]
            }
            Self::Isolated => {
                let cut = (Kind::Cut(primary), some(7000, 20_000));
                let ill = match some(0, 4) {
                    0 => (Kind::FreezeAgent(primary), some(7000, 20_000)),
                    1 => (Kind::KillAgent(primary), some(7000, 20_000)),
                    2 => (Kind::SlowNet(1200), some(2000, 6000)),
                    _ => (Kind::Hang(primary), some(3000, 9000)),
                };
                if some(0, 2) == 0 { vec![cut, ill] } else { vec![ill, cut] }
            }
            Self::SyncSet => {
                let (first, then) = (some(1000, 9000), some(5000, 15_000));
                let away = Kind::Cut(other);
                let last =
                    if some(0, 2) == 0 { Kind::PowerOff(primary) } else { Kind::Cut(primary) };
                let edit = *EDITS.get(some(0, EDITS.len()) as usize).unwrap_or(&"sync=1");
                vec![(away, first), (Kind::Edit(edit), 1), (last, then)]
            }
            Self::Blackout => vec![(Kind::Blackout, some(20, 3000))],
            Self::Midway => {
                let last = if some(0, 2) == 0 { Kind::Crash(primary) } else { Kind::Cut(primary) };
                vec![(last, some(20, 9000)), (Kind::StopController, some(100, 3000))]
            }
            Self::Unprotected => vec![(Kind::Crash(primary), 1)],
        }
    }
}

fn whom(chance: &mut Chance, members: usize) -> Whom {
    match chance.below(3) {
        0 => Whom::Member(chance.below(members)),
        _ => Whom::Primary,
    }
}

fn controllers(chance: &mut Chance) -> Kind {
    match chance.below(5) {
        0 | 1 => Kind::StopController,
        2 => Kind::SlowStore,
        3 => Kind::BreakStreams,
        _ => Kind::WallClock(if chance.below(2) == 0 { 3_600_000 } else { -3_600_000 }),
    }
}

fn processes(chance: &mut Chance, members: usize) -> Kind {
    let whom = whom(chance, members);
    match chance.below(4) {
        0 | 1 => Kind::Crash(whom),
        2 => controllers(chance),
        _ => Kind::Switchover(None),
    }
}

fn any(chance: &mut Chance, members: usize) -> Kind {
    let member = chance.below(members);
    let other = chance.below(members);
    let whom = whom(chance, members);
    let named = (chance.below(2) == 0).then_some(member);
    match chance.below(40) {
        0..=3 => Kind::Crash(whom),
        4 => Kind::Hang(whom),
        5 => Kind::KillAgent(whom),
        6 => Kind::FreezeAgent(whom),
        7 | 8 => Kind::KillBoth(whom),
        9..=12 => Kind::PowerOff(whom),
        13..=15 => Kind::Cut(whom),
        16 | 17 => Kind::CutFromController(whom),
        18 => Kind::CutOneWay(whom, chance.below(2) == 0),
        19 | 20 => Kind::CutPair(member, other),
        21 => Kind::Split(member),
        22 => Kind::SplitWithController,
        23 => Kind::Flap(whom),
        24 => Kind::BreakStreams,
        25 => Kind::SlowNet(if chance.below(2) == 0 { 250 } else { 1200 }),
        26 | 27 => Kind::StopController,
        28 => Kind::SlowStore,
        29 => Kind::Blackout,
        30 => controllers(chance),
        31..=33 => Kind::Switchover(named),
        34 => Kind::Failover(named),
        35 => match chance.below(4) {
            0 => Kind::AllowLoss(member),
            1 => Kind::Pause,
            2 => Kind::Disable(whom),
            _ => Kind::Maintain(whom),
        },
        36 => Kind::Fence(whom),
        37 => Kind::StopMember(whom),
        38 => Kind::Reclone(member),
        _ => Kind::Edit(chance.pick(EDITS).copied().unwrap_or("sync=1")),
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = if self.settings.is_empty() { "defaults" } else { &self.settings.join(" ") };
        write!(f, "{} members, {settings}, {} faults", self.members, self.faults.len())
    }
}
