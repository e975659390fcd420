//! A world of hosts on one switch, and how the lines between them go. The state here is what should
//! be so; a host that is powered on again gets it all back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};
use rustix::process::geteuid;

use crate::address::{HOSTS_MAX, HostNo};
use crate::host::Host;
use crate::impair::Impair;
use crate::netns::NetNs;
use crate::remains::Remains;
use crate::scratch::Scratch;
use crate::switch::{Switch, Way};

const NAME_BYTES_MAX: usize = 40;
/// How much of each log is shown after a failure.
const TAIL_BYTES: usize = 4096;

/// A handle to a world; the world ends with the last handle to it or to one of its hosts.
#[derive(Clone)]
pub struct Net(Arc<World>);

impl Net {
    /// A new world without hosts. Needs root and iproute2.
    pub fn new() -> Result<Self> {
        ensure!(geteuid().is_root(), "test hosts need root: run as root, or sudo -E tests/run");
        let scratch = Scratch::new()?;
        let state = State { switch: Switch::new()?, seats: Vec::new(), ways: BTreeMap::new() };
        Ok(Self(Arc::new(World { state: Mutex::new(state), scratch })))
    }

    /// A new host, powered on, with an empty directory. The name is `[a-z0-9-]`, and new in this
    /// world.
    pub fn host(&self, name: &str) -> Result<Host> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(
            !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(plain),
            "host name {name:?}: use up to {NAME_BYTES_MAX} of a-z, 0-9 and -"
        );
        let mut state = self.0.lock();
        ensure!(state.seats.iter().all(|seat| seat.name != name), "host {name} exists already");
        ensure!(state.seats.len() < usize::from(HOSTS_MAX), "a world takes {HOSTS_MAX} hosts");
        let dir = self.0.scratch.dir().join(name);
        fs::create_dir_all(logs(&dir))?;
        let no = HostNo(u8::try_from(state.seats.len() + 1)?);
        state.seats.push(Seat {
            name: name.to_owned(),
            dir: dir.clone(),
            ns: None,
            connected: true,
            bits_per_s: None,
        });
        state.power_on(no, &self.0.scratch.id.mark())?;
        Ok(Host::new(self.0.clone(), no, name.to_owned(), dir))
    }

    /// Silence in both directions: frames vanish, connections hang, and nobody is told.
    pub fn cut(&self, a: &Host, b: &Host) -> Result<()> {
        self.both_ways(a, b, Way::Nowhere)
    }

    /// `to` hears no more of `from`, but `from` of `to`.
    pub fn cut_one_way(&self, from: &Host, to: &Host) -> Result<()> {
        self.one_way(from, to, Way::Nowhere)
    }

    /// A bad line in both directions, so that delays count twice in a round trip.
    pub fn impair(&self, a: &Host, b: &Host, impair: Impair) -> Result<()> {
        self.both_ways(a, b, Way::Relayed(impair))
    }

    pub fn impair_one_way(&self, from: &Host, to: &Host, impair: Impair) -> Result<()> {
        self.one_way(from, to, Way::Relayed(impair))
    }

    /// A good line again: ends cuts and impairments between the two.
    pub fn heal(&self, a: &Host, b: &Host) -> Result<()> {
        self.both_ways(a, b, Way::Straight)
    }

    /// The directory of the world; each host's is below it.
    pub fn dir(&self) -> &Path {
        self.0.scratch.dir()
    }

    fn both_ways(&self, a: &Host, b: &Host, way: Way) -> Result<()> {
        self.one_way(a, b, way)?;
        self.one_way(b, a, way)
    }

    fn one_way(&self, from: &Host, to: &Host, way: Way) -> Result<()> {
        let (from, to) = (from.no_in(&self.0)?, to.no_in(&self.0)?);
        self.0.lock().direct(from, to, way)
    }
}

pub(crate) struct World {
    state: Mutex<State>,
    // Last: the directory goes after the processes that write into it.
    scratch: Scratch,
}

impl World {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn power_on(&self, host: HostNo) -> Result<()> {
        self.lock().power_on(host, &self.scratch.id.mark())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let state = self.lock();
        // A test that failed by an error does not panic, but nextest hides what passing ones print.
        if thread::panicking() || std::env::var_os("NEXTEST").is_some() {
            state.seats.iter().for_each(Seat::print_logs);
        }
        if let Err(e) = state.end() {
            eprintln!("the end of the world failed: {e:#}");
        }
    }
}

pub(crate) struct State {
    switch: Switch,
    seats: Vec<Seat>,
    /// Both directions of every pair that was ever touched.
    ways: BTreeMap<(HostNo, HostNo), Way>,
}

/// A host's place in its world, taken or not.
struct Seat {
    name: String,
    dir: PathBuf,
    /// None while powered off.
    ns: Option<Arc<NetNs>>,
    connected: bool,
    bits_per_s: Option<u64>,
}

impl State {
    /// The namespace of a host that is on.
    pub(crate) fn ns(&self, host: HostNo) -> Result<Arc<NetNs>> {
        let seat = self.seat(host)?;
        seat.ns.clone().with_context(|| format!("host {} is off: power_on() first", seat.name))
    }

    pub(crate) fn power_on(&mut self, host: HostNo, mark: &str) -> Result<()> {
        let seat = self.seat(host)?;
        ensure!(seat.ns.is_none(), "host {} is on already", seat.name);
        let ns = Arc::new(NetNs::new()?);
        self.switch.plug(host, &ns, mark)?;
        if seat.bits_per_s.is_some() {
            self.switch.limit(host, &ns, seat.bits_per_s)?;
        }
        if !seat.connected {
            self.switch.connect(host, false)?;
        }
        for (&(_, to), &way) in self.ways.iter().filter(|((from, _), _)| *from == host) {
            self.switch.direct(host, &ns, to, way)?;
        }
        self.seat_mut(host)?.ns = Some(ns);
        Ok(())
    }

    /// The cable first, so that no peer hears the processes die.
    pub(crate) fn power_off(&mut self, host: HostNo) -> Result<()> {
        let ns = self.ns(host)?;
        self.switch.connect(host, false)?;
        let remains = Remains::of(&ns.pids()?);
        ns.kill_all()?;
        remains.clear();
        self.switch.unplug(host)?;
        self.seat_mut(host)?.ns = None;
        Ok(())
    }

    pub(crate) fn connect(&mut self, host: HostNo, connected: bool) -> Result<()> {
        self.seat_mut(host)?.connected = connected;
        if self.seat(host)?.ns.is_some() {
            self.switch.connect(host, connected)?;
        }
        Ok(())
    }

    pub(crate) fn limit(&mut self, host: HostNo, bits_per_s: Option<u64>) -> Result<()> {
        self.seat_mut(host)?.bits_per_s = bits_per_s;
        match self.seat(host)?.ns.clone() {
            Some(ns) => self.switch.limit(host, &ns, bits_per_s),
            None => Ok(()),
        }
    }

    fn direct(&mut self, from: HostNo, to: HostNo, way: Way) -> Result<()> {
        ensure!(from != to, "a host has no line to itself");
        // The other direction gets a fixed entry too: to look up an address takes both.
        if !self.ways.contains_key(&(to, from)) {
            self.steer(to, from, Way::Straight)?;
        }
        self.steer(from, to, way)
    }

    fn steer(&mut self, from: HostNo, to: HostNo, way: Way) -> Result<()> {
        self.ways.insert((from, to), way);
        match self.seat(from)?.ns.clone() {
            Some(ns) => self.switch.direct(from, &ns, to, way),
            None => Ok(()),
        }
    }

    /// Every process first; the cables go with the switch. A namespace may live on in the kernel for
    /// its last connections, but without a cable it is nothing.
    fn end(&self) -> Result<()> {
        let mut on = self.seats.iter().filter_map(|seat| seat.ns.as_ref());
        on.try_for_each(|ns| {
            let remains = Remains::of(&ns.pids()?);
            ns.kill_all()?;
            remains.clear();
            Ok(())
        })
    }

    fn seat(&self, host: HostNo) -> Result<&Seat> {
        self.seats.get(usize::from(host.0) - 1).context("no such host")
    }

    fn seat_mut(&mut self, host: HostNo) -> Result<&mut Seat> {
        self.seats.get_mut(usize::from(host.0) - 1).context("no such host")
    }
}

impl Seat {
    fn print_logs(&self) {
        let entries = fs::read_dir(logs(&self.dir)).into_iter().flatten().flatten();
        let paths: BTreeSet<_> = entries.map(|entry| entry.path()).collect();
        for path in paths {
            let text = fs::read(&path).unwrap_or_default();
            if !text.is_empty() {
                let tail = text.get(text.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default();
                eprintln!("--- {}\n{}", path.display(), String::from_utf8_lossy(tail));
            }
        }
    }
}

/// Where the output of a host's processes is.
pub(crate) fn logs(host_dir: &Path) -> PathBuf {
    host_dir.join("log")
}
