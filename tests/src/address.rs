//! Who has which address in a test world: a pure function of the host's number.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The number of a host in its world, from 1. It is the last byte of each of its addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostNo(pub u8);

/// The most hosts that one world takes.
pub const HOSTS_MAX: u8 = 250;

impl HostNo {
    /// In 10.77.0.0/24. All worlds share the ranges, since no two of them can meet.
    pub fn ipv4(self) -> IpAddr {
        Ipv4Addr::new(10, 77, 0, self.0).into()
    }

    /// In fd77::/64.
    pub fn ipv6(self) -> IpAddr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(self.0)).into()
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Where a host really is.
    pub fn of(host: HostNo) -> Self {
        Self([2, 0, 0, 0, 0, host.0])
    }

    /// Where frames of one direction are sent when they must not arrive untouched. No host listens
    /// there; the relay, if there is one, knows the direction by it.
    pub fn detour(from: HostNo, to: HostNo) -> Self {
        Self([2, 1, 0, 0, from.0, to.0])
    }

    /// The direction whose detour this is.
    pub fn direction(self) -> Option<(HostNo, HostNo)> {
        match self.0 {
            [2, 1, 0, 0, from, to] => Some((HostNo(from), HostNo(to))),
            _ => None,
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_the_last_byte() {
        assert_eq!(HostNo(9).ipv4().to_string(), "10.77.0.9");
        assert_eq!(HostNo(250).ipv6().to_string(), "fd77::fa");
        assert_eq!(Mac::of(HostNo(9)).to_string(), "02:00:00:00:00:09");
    }

    #[test]
    fn only_a_detour_has_a_direction() {
        let (a, b) = (HostNo(1), HostNo(250));
        assert_eq!(Mac::detour(a, b).direction(), Some((a, b)));
        assert_eq!(Mac::detour(a, b).to_string(), "02:01:00:00:01:fa");
        assert_eq!(Mac::of(a).direction(), None);
    }
}
