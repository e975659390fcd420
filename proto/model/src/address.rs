//! Where a process listens or is reached: a host and a port. Text in, text out; nothing here
//! resolves a name.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::id::quote;
use crate::reject::Invalid;

/// Longest host name, in bytes (RFC 1035).
pub const HOST_MAX: usize = 253;
/// Longest label between two dots of a host name, in bytes.
const LABEL_MAX: usize = 63;

/// `web1.example.org:7400`, `10.0.0.7:7400`, `[2001:db8::7]:7400`.
/// The host is a DNS name or an IP address and never anything else, so it can stand in an argv slot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    host: String,
    pub port: u16,
}

impl HostPort {
    /// A host without brackets, and a port from 1 to 65535.
    pub fn new(host: &str, port: u16) -> Result<Self, Invalid> {
        let wrong = |why: &str| Invalid::new("address", format!("{why} (got {})", quote(host)));
        check_host(host).map_err(wrong)?;
        if port == 0 {
            return Err(wrong(PORT_RANGE));
        }
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }

    /// `host:port`, or a host alone, which gets the default port; an IPv6 address with a port
    /// stands in brackets.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, Invalid> {
        Self::read(text, Some(default_port))
    }

    fn read(text: &str, default_port: Option<u16>) -> Result<Self, Invalid> {
        let wrong = |why: &str| Invalid::new("address", format!("{why} (got {})", quote(text)));
        let (host, port) = split(text).ok_or_else(|| {
            wrong("must look like host:port, or [2001:db8::7]:port for an IPv6 address")
        })?;
        let port = match port {
            Some(digits) => parse_port(digits).ok_or_else(|| wrong(PORT_RANGE))?,
            None => default_port.ok_or_else(|| wrong("must name a port, as in host:7400"))?,
        };
        Self::new(host, port)
    }

    /// Without brackets, also for IPv6.
    pub fn host(&self) -> &str {
        &self.host
    }
}

const PORT_RANGE: &str = "the port must be a number from 1 to 65535";

/// The host without brackets and the text of the port, if any; None when the punctuation is off.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        return match after {
            "" => Some((host, None)),
            _ => Some((host, Some(after.strip_prefix(':')?))),
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Some((text, None));
    }
    match text.split_once(':') {
        None => Some((text, None)),
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
    }
}

fn parse_port(digits: &str) -> Option<u16> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten().filter(|port| *port != 0)
}

fn check_host(host: &str) -> Result<(), &'static str> {
    if host.parse::<Ipv6Addr>().is_ok() || host.parse::<Ipv4Addr>().is_ok() {
        return Ok(());
    }
    if host.is_empty() {
        return Err("the host must not be empty");
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() > HOST_MAX {
        return Err("the host must have at most 253 characters");
    }
    let label_fits = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !name.split('.').all(label_fits) {
        return Err("the host must be a DNS name or an IP address");
    }
    // 10.0.0.256 and 1.2.3 are typing errors, not names: no top-level domain is a number.
    if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        return Err("the host looks like an IPv4 address, and is not one");
    }
    Ok(())
}

impl FromStr for HostPort {
    type Err = Invalid;
    /// The port is required.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::read(text, None)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, default_port, shown) in [
            ("web1:7400", None, "web1:7400"),
            ("Web1.Example.ORG:1", None, "web1.example.org:1"),
            ("web1", Some(7400), "web1:7400"),
            ("web1:1", Some(7400), "web1:1"),
            ("10.0.0.7:65535", None, "10.0.0.7:65535"),
            ("[2001:db8::7]:7400", None, "[2001:db8::7]:7400"),
            ("[::1]", Some(7400), "[::1]:7400"),
            ("::1", Some(7400), "[::1]:7400"),
            ("_sip.x-1.y:5", None, "_sip.x-1.y:5"),
            ("web1.example.org.:5", None, "web1.example.org.:5"),
        ] {
            let address = HostPort::read(text, default_port).unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse::<HostPort>().unwrap(), address, "{shown} reads back");
        }
    }

    #[test]
    fn refuses_by_name() {
        let long = format!("{}:1", "a.".repeat(126) + "aa");
        for (text, why) in [
            ("", "must name a port"),
            ("web1", "must name a port"),
            ("::1", "must name a port"),
            ("web1:", "the port must be"),
            ("web1:0", "the port must be"),
            ("web1:65536", "the port must be"),
            ("web1:+1", "the port must be"),
            (":7400", "the host must not be empty"),
            ("a:b:c", "must look like"),
            ("[::1:7400", "must look like"),
            ("[::1]7400", "must look like"),
            ("[web1]:7400", "must look like"),
            ("fe80::1%eth0", "must look like"),
            ("we b:1", "must be a DNS name"),
            ("web\n1:1", "must be a DNS name"),
            ("web\u{202e}1:1", "must be a DNS name"),
            ("-web:1", "must be a DNS name"),
            ("web..x:1", "must be a DNS name"),
            ("https://web1:7400", "must look like"),
            (".:1", "must be a DNS name"),
            ("10.0.0.256:1", "looks like an IPv4"),
            ("1.2.3:1", "looks like an IPv4"),
            (&long, "at most 253"),
        ] {
            let error = HostPort::read(text, None).unwrap_err();
            assert_eq!(error.field, "address");
            assert!(error.problem.contains(why), "{text:?}: {error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}
