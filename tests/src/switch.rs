//! The switch between the hosts of one world: a kernel bridge in a namespace of its own, and the
//! relay.
//!
//! Each direction between two hosts is one entry in the sender's neighbour table. It names the
//! receiver, or a detour: an address that nobody has. So a cut is silent in both address families
//! and on connections that exist, goes one way as well as both, and needs neither packet filter nor
//! netem in the kernel.

use std::fmt::Write;

use anyhow::Result;

use crate::address::{HostNo, Mac};
use crate::impair::Impair;
use crate::netns::NetNs;
use crate::relay::{self, Relay};

/// The interface of every host.
pub const NIC: &str = "eth0";
/// A queue of this long before the slow side of a limited line; more is lost.
const QUEUE_MS: u64 = 100;
const BURST_BYTES_MIN: u64 = 32 * 1024;

pub struct Switch {
    ns: NetNs,
    relay: Option<Relay>,
}

/// How the frames of one direction go.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Way {
    #[default]
    Straight,
    Nowhere,
    Relayed(Impair),
}

impl Switch {
    pub fn new() -> Result<Self> {
        let ns = NetNs::new()?;
        // No snooping: it would ask the hosts about multicast groups, and nobody else here does.
        ns.batch("ip", "link add bridge type bridge mcast_snooping 0\nlink set bridge up\n")?;
        Ok(Self { ns, relay: None })
    }

    /// Connects a new namespace as this host, with its addresses and its mark.
    pub fn plug(&self, host: HostNo, ns: &NetNs, mark: &str) -> Result<()> {
        let (port, mac, peer) = (port(host), Mac::of(host), ns.path());
        self.ns.batch(
            "ip",
            &format!(
                "link add {port} type veth peer name {NIC} address {mac} netns {peer}\n\
                 link set {port} master bridge up\n",
                peer = peer.display(),
            ),
        )?;
        // A detour is unknown to the bridge, and must not reach other hosts: they would have to
        // throw it away.
        self.ns.batch(
            "bridge",
            &format!("link set dev {port} flood off\nfdb add {mac} dev {port} master static\n"),
        )?;
        ns.batch(
            "ip",
            &format!(
                "link add {mark} type bridge\n\
                 link set lo up\n\
                 link set {NIC} addrgenmode none\n\
                 link set {NIC} up\n\
                 addr add {}/24 dev {NIC}\n\
                 addr add {}/64 dev {NIC} nodad\n",
                host.ipv4(),
                host.ipv6(),
            ),
        )
    }

    /// Takes the host's cable away for good.
    pub fn unplug(&self, host: HostNo) -> Result<()> {
        self.ns.batch("ip", &format!("link del {}\n", port(host)))
    }

    /// Pulls the cable, or puts it back.
    pub fn connect(&self, host: HostNo, connected: bool) -> Result<()> {
        let state = if connected { "up" } else { "down" };
        self.ns.batch("ip", &format!("link set {} {state}\n", port(host)))
    }

    /// Limits what the host sends and, separately, what it receives.
    pub fn limit(&self, host: HostNo, ns: &NetNs, bits_per_s: Option<u64>) -> Result<()> {
        ns.batch("tc", &limit_line(NIC, bits_per_s))?;
        self.ns.batch("tc", &limit_line(&port(host), bits_per_s))
    }

    /// Sends the frames of one direction this way from now on. `ns` is the sender's.
    pub fn direct(&mut self, from: HostNo, ns: &NetNs, to: HostNo, way: Way) -> Result<()> {
        let carried = match way {
            Way::Relayed(impair) => Some(impair),
            Way::Straight | Way::Nowhere => None,
        };
        if carried.is_some() && self.relay.is_none() {
            self.relay = Some(self.start_relay()?);
        }
        if let Some(relay) = &self.relay {
            relay.carry(from, to, carried);
        }
        let mac = if way == Way::Straight { Mac::of(to) } else { Mac::detour(from, to) };
        let mut lines = String::new();
        for ip in [to.ipv4(), to.ipv6()] {
            writeln!(lines, "neigh replace {ip} lladdr {mac} nud permanent dev {NIC}")?;
        }
        ns.batch("ip", &lines)
    }

    fn start_relay(&self) -> Result<Relay> {
        let relay = Relay::start(&self.ns)?;
        let port = relay::PORT;
        // What it sends comes from hosts that are on other ports: the bridge must not learn from
        // it.
        self.ns.batch("ip", &format!("link set {port} txqueuelen 10000 master bridge up\n"))?;
        self.ns.batch("bridge", &format!("link set dev {port} learning off\n"))?;
        Ok(relay)
    }
}

fn port(host: HostNo) -> String {
    format!("port{}", host.0)
}

fn limit_line(device: &str, bits_per_s: Option<u64>) -> String {
    match bits_per_s {
        // Deleting what is not there is an error; the kernel's default is none at all.
        None => format!("qdisc replace dev {device} root pfifo\n"),
        Some(rate) => {
            let burst = (rate / 8 / 100).max(BURST_BYTES_MIN);
            format!(
                "qdisc replace dev {device} root tbf rate {rate}bit burst {burst} latency {QUEUE_MS}ms\n"
            )
        }
    }
}
