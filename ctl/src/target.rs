//! Targets as people write them: a node or an address of one, with a directory or without, or a URL.
//! Whom they mean is decided from what the controller knows. Pure.

use std::net::IpAddr;
use std::str::FromStr;

use lockstep_model::path::DirPath;
use lockstep_model::sync::{Remote, Target, TargetAt};
use lockstep_model::{Invalid, NodeName};

use crate::args::sync::Transport;

/// `web1`, `web1:/srv/www`, `10.0.0.7`, `[2001:db8::7]:/srv/www`, `ssh://deploy@web9/srv/www`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanted {
    Place {
        user: Option<String>,
        /// A node's name or address, in lower case.
        host: String,
        path: Option<DirPath>,
    },
    Remote(Target),
}

/// Nodes and the hosts under which they are reached.
pub type Known = Vec<(NodeName, Vec<String>)>;

impl FromStr for Wanted {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.contains("://") {
            return text.parse().map(Self::Remote);
        }
        if text.parse::<IpAddr>().is_ok() {
            return Ok(Self::Place { user: None, host: text.to_ascii_lowercase(), path: None });
        }
        let (user, rest) = match text.split_once('@') {
            Some((user, rest)) if !user.contains(['/', ':']) => (Some(user.to_owned()), rest),
            _ => (None, text),
        };
        let bracketed = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (host, path) = match bracketed {
            Some((host, "")) => (host, None),
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => match rest.split_once(':') {
                Some((host, path)) => (host, Some(path)),
                None => (rest, None),
            },
        };
        let path = path.map(str::parse).transpose()?;
        let host = host.to_ascii_lowercase();
        if host.parse::<IpAddr>().is_err() {
            host.parse::<NodeName>()?;
        }
        Ok(Self::Place { user, host, path })
    }
}

impl Wanted {
    /// It may be an address instead of a node's name, so the nodes have to be known.
    pub fn may_be_address(&self) -> bool {
        matches!(self, Self::Place { host, .. } if host.contains(['.', ':']))
    }

    pub fn has_path(&self) -> bool {
        matches!(self, Self::Place { path: Some(_), .. } | Self::Remote(_))
    }

    /// `path` is for those without one.
    pub fn target(
        &self,
        path: &DirPath,
        transport: Transport,
        known: &Known,
    ) -> Result<Target, Invalid> {
        let (user, host, path) = match self {
            Self::Remote(target) => return Ok(target.clone()),
            Self::Place { user, host, path: own } => (user, host, own.as_ref().unwrap_or(path)),
        };
        let scheme = match (transport, user) {
            (Transport::Ssh, _) => "ssh",
            (Transport::Rsync, _) => "rsync",
            (Transport::Mtls, Some(user)) => {
                let problem = format!(
                    "a user is for targets without an agent: write ssh://{user}@{host}{path} or \
                     rsync://{user}@{host}/MODULE"
                );
                return Err(Invalid::new("target", problem));
            }
            (Transport::Mtls, None) => {
                let node = node(host, known)?;
                return Ok(Target { node, at: TargetAt::Node(path.clone()), bwlimit: None });
            }
        };
        let user = user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let shown = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let remote: Remote = format!("{scheme}://{user}{shown}{path}").parse()?;
        let node = host.replace(':', "-").parse()?;
        Ok(Target { node, at: TargetAt::Remote(remote), bwlimit: None })
    }

    /// The name of a target that is there.
    pub fn name(&self, there: &[NodeName], known: &Known) -> Result<NodeName, Invalid> {
        let host = match self {
            Self::Remote(target) => return Ok(target.node.clone()),
            Self::Place { host, .. } => host,
        };
        let named = there.iter().find(|name| name.as_str() == host);
        named.map_or_else(|| node(host, known), |name| Ok(name.clone()))
    }
}

fn node(host: &str, known: &Known) -> Result<NodeName, Invalid> {
    let name = host.parse::<NodeName>();
    if !host.contains(['.', ':']) {
        return name;
    }
    if let Some((name, _)) = known.iter().find(|(name, _)| name.as_str() == host) {
        return Ok(name.clone());
    }
    let reached = known.iter().filter(|(_, hosts)| hosts.iter().any(|h| h == host));
    let names: Vec<&NodeName> = reached.map(|(name, _)| name).collect();
    match names.as_slice() {
        [name] => Ok((*name).clone()),
        [] => {
            let problem = format!(
                "no node is called or reached as {host}: see lockstepctl node list; one without an \
                 agent is written ssh://{host}/PATH"
            );
            Err(Invalid::new("target", problem))
        }
        many => {
            let names: Vec<&str> = many.iter().map(|name| name.as_str()).collect();
            let problem =
                format!("{} are all reached as {host}: write a name", names.join(" and "));
            Err(Invalid::new("target", problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let node = |name: &str, hosts: &[&str]| {
            (name.parse().unwrap(), hosts.iter().map(|h| (*h).to_owned()).collect())
        };
        vec![
            node("web1", &["10.0.0.1", "2001:db8::1"]),
            node("web2", &["10.0.0.2", "web2.example.org"]),
            node("web-3.example.org", &["10.0.0.2"]),
        ]
    }

    fn read(text: &str, transport: Transport) -> Result<String, String> {
        let path = "/srv/www".parse().unwrap();
        let wanted: Wanted = text.parse().map_err(|e: Invalid| e.to_string())?;
        let target = wanted.target(&path, transport, &known()).map_err(|e| e.to_string())?;
        Ok(target.to_string())
    }

    #[test]
    fn a_target_is_a_node_or_an_address_or_a_url() {
        for (text, target) in [
            ("web9", "web9:/srv/www"),
            ("WEB-9", "web-9:/srv/www"),
            ("web9:/a b", "web9:/a b"),
            ("web9:/a@b/c", "web9:/a@b/c"),
            ("10.0.0.1", "web1:/srv/www"),
            ("2001:DB8::1", "web1:/srv/www"),
            ("[2001:db8::1]:/x/", "web1:/x"),
            ("web2.example.org:/x", "web2:/x"),
            ("web-3.example.org", "web-3.example.org:/srv/www"),
            ("ssh://deploy@web9/x?key=k", "web9=ssh://deploy@web9:22/x?key=k"),
            ("far=rsync://10.0.0.1/m", "far=rsync://10.0.0.1:873/m"),
        ] {
            assert_eq!(read(text, Transport::Mtls).as_deref(), Ok(target), "{text}");
        }
        let ssh = |text| read(text, Transport::Ssh);
        assert_eq!(ssh("u@10.0.0.9:/x").unwrap(), "10.0.0.9=ssh://u@10.0.0.9:22/x");
        assert_eq!(ssh("web9").unwrap(), "web9=ssh://web9:22/srv/www");
        assert_eq!(
            read("[2001:db8::9]:/m/x", Transport::Rsync).unwrap(),
            "2001-db8--9=rsync://[2001:db8::9]:873/m/x"
        );
    }

    #[test]
    fn what_fits_nobody_is_told() {
        for (text, says) in [
            ("", "must not be empty"),
            ("-oProxyCommand=x", "node name"),
            ("web 1", "node name"),
            ("web1:srv", "must be absolute"),
            ("web1:/a/../b", "'..'"),
            ("web1\n", "node name"),
            ("10.0.0.9", "no node is called or reached as 10.0.0.9"),
            ("10.0.0.2", "web2 and web-3.example.org are all reached"),
            ("u@web1:/x", "ssh://u@web1/x"),
            ("ssh://-l@h/p", "user"),
        ] {
            let problem = read(text, Transport::Mtls).unwrap_err();
            assert!(problem.contains(says), "{text}: {problem}");
        }
    }
}
