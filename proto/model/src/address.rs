//! Network addresses as people write them: `web1.example.org:7402`, `10.0.0.5`, `[fd00::5]:7402`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::id::quote;
use crate::reject::Invalid;

/// A host and a port. The host is a DNS name or an IP address and never anything else, so it can
/// stand in an argv slot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    host: String,
    pub port: u16,
}

/// RFC 1035: 253 visible characters.
const HOST_MAX: usize = 253;

impl HostPort {
    pub fn new(host: &str, port: u16) -> Result<Self, Invalid> {
        check_host(host)?;
        if port == 0 {
            return Err(Invalid::new("address", "port must be 1 to 65535"));
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// Without brackets, also for IPv6.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// As `FromStr`, with a port for texts that have none.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, Invalid> {
        let wrong = |why: &str| {
            Invalid::new("address", format!("{why}, as in host:7400 or [fd00::5]:7400; got {}", quote(text)))
        };
        let port_of = |digits: &str| -> Result<u16, Invalid> {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            plain
                .then(|| digits.parse().ok())
                .flatten()
                .filter(|port| *port != 0)
                .ok_or_else(|| wrong("port must be 1 to 65535"))
        };
        if let Some(rest) = text.strip_prefix('[') {
            let (host, after) = rest.split_once(']').ok_or_else(|| wrong("'[' without ']'"))?;
            host.parse::<Ipv6Addr>().map_err(|_| wrong("'[…]' must hold an IPv6 address"))?;
            let port = match after.strip_prefix(':') {
                Some(digits) => port_of(digits)?,
                None if after.is_empty() => default_port,
                None => return Err(wrong("text after ']' must be a port")),
            };
            return Self::new(host, port);
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Self::new(text, default_port);
        }
        match text.split_once(':') {
            Some((_, rest)) if rest.contains(':') => {
                Err(wrong("an IPv6 address with a port needs brackets"))
            }
            Some((host, digits)) => Self::new(host, port_of(digits)?),
            None => Self::new(text, default_port),
        }
    }
}

fn check_host(host: &str) -> Result<(), Invalid> {
    if host.parse::<Ipv6Addr>().is_ok() || host.parse::<Ipv4Addr>().is_ok() {
        return Ok(());
    }
    let label = |part: &str| {
        (1..=63).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    // All digits and dots is a mistyped IPv4 address, which resolvers read in surprising ways.
    let numeric = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if name.len() <= HOST_MAX && !numeric && name.split('.').all(label) {
        return Ok(());
    }
    Err(Invalid::new("address", format!("host must be a DNS name or an IP address, not {}", quote(host))))
}

impl FromStr for HostPort {
    type Err = Invalid;
    /// The port is required.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let parsed = Self::parse(text, 1)?;
        let canonical = parsed.to_string();
        // With the port left out the default above would show.
        if parsed.port == 1 && !text.ends_with(":1") && canonical != text {
            let problem = format!("port is missing, as in {}:7400; got {}", text, quote(text));
            return Err(Invalid::new("address", problem));
        }
        Ok(parsed)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
