//! A mirror's tree as a module of the rsync daemon on a node, for those who pull from there and are
//! no replicas. Nothing of it can be another line of the daemon's configuration.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::run::HopKind;
use crate::address::HOST_MAX;
use crate::id::quote;
use crate::reject::Invalid;
use crate::setting::text::yes_no;
use crate::words::words;

/// `fedora at=replica allow=10.0.0.0/8,*.example.org connections=20 list=no`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RsyncdModule {
    pub name: ModuleName,
    pub at: ModulePlace,
    /// Empty: everybody.
    pub allow: Vec<HostPattern>,
    /// At once; None: as many as come.
    pub connections: Option<u32>,
    /// Who asks for the daemon's modules is told of it.
    pub list: bool,
}

/// 1 to 64 letters, digits, '-', '_' or '.', beginning with a letter or digit; not "global".
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ModuleName(String);

/// An address, a network as `10.0.0.0/8`, or a host's name in which `*` and `?` may stand.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HostPattern(String);

words!(ModulePlace, "at", {
    /// The master and every replica.
    All = "all",
    Master = "master",
    Replica = "replica",
});

impl RsyncdModule {
    pub const ALLOW_MAX: usize = 64;
    pub const CONNECTIONS_MAX: u32 = 10_000;

    pub fn new(name: ModuleName) -> Self {
        Self { name, at: ModulePlace::All, allow: Vec::new(), connections: None, list: true }
    }

    /// Whether a node has it that gets its tree so.
    pub fn is_at(&self, hop: HopKind) -> bool {
        match self.at {
            ModulePlace::All => true,
            ModulePlace::Master => hop == HopKind::Upstream,
            ModulePlace::Replica => hop == HopKind::Replica,
        }
    }
}

impl FromStr for RsyncdModule {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = |problem: String| Invalid::new("module", problem);
        let mut words = text.split_ascii_whitespace();
        let mut module = Self::new(words.next().unwrap_or_default().parse()?);
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match key {
                "at" => module.at = value.parse()?,
                "allow" => {
                    let hosts = value.split(',').map(str::parse);
                    module.allow = hosts.collect::<Result<_, _>>()?;
                }
                "connections" => {
                    let number =
                        value.parse().ok().filter(|n| (1..=Self::CONNECTIONS_MAX).contains(n));
                    let most = Self::CONNECTIONS_MAX;
                    let why = || wrong(format!("connections= must be a number from 1 to {most}"));
                    module.connections = Some(number.ok_or_else(why)?);
                }
                "list" => module.list = yes_no(value)?,
                _ => {
                    let word = quote(word);
                    return Err(wrong(format!(
                        "knows at=, allow=, connections= and list=, not {word}"
                    )));
                }
            }
        }
        match module.allow.len() {
            0..=Self::ALLOW_MAX => Ok(module),
            _ => Err(wrong(format!("allow= may name {} hosts at most", Self::ALLOW_MAX))),
        }
    }
}

impl fmt::Display for RsyncdModule {
    /// Read back as the same value; what is default is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, at, allow, connections, list } = self;
        write!(f, "{name}")?;
        if *at != ModulePlace::All {
            write!(f, " at={at}")?;
        }
        for (n, host) in allow.iter().enumerate() {
            write!(f, "{}{host}", if n == 0 { " allow=" } else { "," })?;
        }
        if let Some(most) = connections {
            write!(f, " connections={most}")?;
        }
        f.write_str(if *list { "" } else { " list=no" })
    }
}

impl FromStr for ModuleName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let fits = (1..=64).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            && !text.eq_ignore_ascii_case("global");
        match fits {
            true => Ok(Self(text.to_owned())),
            false => Err(Invalid::new(
                "module",
                format!(
                    "must be 1 to 64 letters, digits, '-', '_' or '.', begin with a letter or digit, \
                     and not be global; got {}",
                    quote(text)
                ),
            )),
        }
    }
}

impl FromStr for HostPattern {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let fits = match text.split_once('/') {
            Some((ip, bits)) => match (ip.parse::<IpAddr>(), bits.parse::<u8>()) {
                (Ok(IpAddr::V4(_)), Ok(bits)) => bits <= 32,
                (Ok(IpAddr::V6(_)), Ok(bits)) => bits <= 128,
                _ => false,
            },
            None => text.parse::<IpAddr>().is_ok() || is_name(text),
        };
        match fits {
            true => Ok(Self(text.to_owned())),
            false => Err(Invalid::new(
                "module.allow",
                format!(
                    "must be an address, a network such as 10.0.0.0/8, or a host's name, not {}",
                    quote(text)
                ),
            )),
        }
    }
}

fn is_name(text: &str) -> bool {
    (1..=HOST_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.*?".contains(&b))
        && !text.starts_with('-')
}

impl fmt::Display for ModuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_read_as_written() {
        for text in [
            "fedora",
            "Fedora-2.x at=replica allow=10.0.0.0/8,2001:db8::/32,*.example.org connections=20 list=no",
            "f at=master allow=192.0.2.7",
        ] {
            assert_eq!(text.parse::<RsyncdModule>().unwrap().to_string(), text);
        }
        let master: RsyncdModule = "f at=master".parse().unwrap();
        assert!(master.is_at(HopKind::Upstream) && !master.is_at(HopKind::Replica));
    }

    #[test]
    fn nothing_can_be_another_line_of_the_configuration() {
        for wrong in [
            "",
            "global",
            "a]",
            "-x",
            "a/b",
            "a%b",
            "a at=nowhere",
            "a allow=",
            "a allow=10.0.0.0/33",
            "a allow=x/8",
            "a allow=a;b",
            "a allow=@group",
            "a allow=h,,h",
            "a connections=0",
            "a connections=many",
            "a list=maybe",
            "a uid=0",
        ] {
            assert!(wrong.parse::<RsyncdModule>().is_err(), "{wrong}");
        }
        let many = format!("a allow={}", vec!["h"; 65].join(","));
        assert!(many.parse::<RsyncdModule>().is_err());
    }
}
