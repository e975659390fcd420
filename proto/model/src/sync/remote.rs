//! A target without an agent, reached by plain ssh or a plain rsync daemon. Its secrets are files
//! of the source's node that it only names.

use std::fmt;
use std::str::FromStr;

use crate::address::HostPort;
use crate::id::quote;
use crate::reject::Invalid;

/// `ssh://deploy@web9:22/srv/www?key=deploy`, `rsync://backup@10.0.0.9/www/html?password=web9`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Remote {
    pub scheme: Scheme,
    /// None: the agent's own user, or nobody.
    pub user: Option<String>,
    pub at: HostPort,
    /// ssh: an absolute path. rsync: a module's name, and a path in it.
    pub path: String,
    /// A file in the agent's secrets directory: ssh's private key, rsync's password.
    pub secret: Option<SecretName>,
}

impl Remote {
    /// As the upstream of a mirror, which is what errors say.
    pub fn upstream(text: &str) -> Result<Self, Invalid> {
        text.parse().map_err(|e: Invalid| Invalid::new("upstream", e.problem))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scheme {
    /// The host's key must stand in `known_hosts` in the agent's secrets directory.
    Ssh,
    Rsync,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Rsync => "rsync",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Ssh => 22,
            Self::Rsync => 873,
        }
    }

    fn secret(self) -> &'static str {
        match self {
            Self::Ssh => "key",
            Self::Rsync => "password",
        }
    }
}

/// Name of a file in the agent's secrets directory: 1 to 63 of a-z, 0-9, '-', '_'.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SecretName(String);

impl SecretName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match is_file_name(text) {
            true => Ok(Self(text.to_owned())),
            false => Err(Invalid::new("secret", file_name_problem(text))),
        }
    }
}

/// Whether a file of one of the agent's own directories may be called so by a definition.
pub(crate) fn is_file_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
}

pub(crate) fn file_name_problem(text: &str) -> String {
    format!(
        "must be 1 to 63 of a-z, 0-9, '-', '_', and start with a letter or digit; got {}",
        quote(text)
    )
}

const USER_MAX: usize = 64;
const PATH_MAX: usize = 4095;

impl FromStr for Remote {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = |why: &str| Invalid::new("target", format!("{why} (got {})", quote(text)));
        let shape =
            || wrong("must look like ssh://user@host:port/path or rsync://user@host/module/path");
        let (scheme, rest) = text.split_once("://").ok_or_else(shape)?;
        let scheme = match scheme {
            "ssh" => Scheme::Ssh,
            "rsync" => Scheme::Rsync,
            _ => return Err(shape()),
        };
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        let (authority, path) = rest.split_once('/').ok_or_else(shape)?;
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains(':')) {
            // Not quoted: it is a secret.
            let problem = format!(
                "a password does not stand in a URL: give it apart, or name a file of the node's \
                 secrets-dir by ?{}=NAME",
                scheme.secret()
            );
            return Err(Invalid::new("target", problem));
        }
        // Stands in an argument of ssh and rsync.
        let user_fits = |user: &str| {
            (1..=USER_MAX).contains(&user.len())
                && user.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                && !user.starts_with('-')
        };
        if user.is_some_and(|user| !user_fits(user)) {
            return Err(wrong(
                "the user must be 1 to 64 letters, digits, '-', '_' or '.', and not start with '-'",
            ));
        }
        let at = HostPort::parse(host, scheme.default_port())?;
        let trimmed = path.trim_end_matches('/');
        let parts_fit = trimmed.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if trimmed.len() > PATH_MAX || !parts_fit || trimmed.chars().any(char::is_control) {
            return Err(wrong(
                "the path must not be empty, nor hold '//', '.', '..' or control characters",
            ));
        }
        let path = match scheme {
            Scheme::Ssh => format!("/{trimmed}"),
            Scheme::Rsync => {
                let module = trimmed.split('/').next().unwrap_or_default();
                let module_fits = module.len() <= 64
                    && module.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
                if !module_fits || module.starts_with('-') {
                    return Err(wrong(
                        "the module must be at most 64 letters, digits, '-', '_' or '.'",
                    ));
                }
                trimmed.to_owned()
            }
        };
        let secret = match query {
            None => None,
            Some(query) => match query.split_once('=') {
                Some((key, name)) if key == scheme.secret() => Some(name.parse()?),
                _ => {
                    return Err(wrong(&format!(
                        "behind '?' only {}=NAME may stand",
                        scheme.secret()
                    )));
                }
            },
        };
        Ok(Self { scheme, user: user.map(str::to_owned), at, path, secret })
    }
}

impl fmt::Display for Remote {
    /// Read back as the same value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, user, at, path, secret } = self;
        write!(f, "{}://", scheme.as_str())?;
        if let Some(user) = user {
            write!(f, "{user}@")?;
        }
        write!(f, "{at}/{}", path.trim_start_matches('/'))?;
        match secret {
            Some(name) => write!(f, "?{}={}", scheme.secret(), name.as_str()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_written() {
        for (text, shown) in [
            ("ssh://web9/srv/www", "ssh://web9:22/srv/www"),
            (
                "ssh://deploy@[2001:db8::7]:2222/srv/my www/?key=deploy",
                "ssh://deploy@[2001:db8::7]:2222/srv/my www?key=deploy",
            ),
            (
                "rsync://b.k@10.0.0.9/www/html?password=web9",
                "rsync://b.k@10.0.0.9:873/www/html?password=web9",
            ),
        ] {
            let remote: Remote = text.parse().unwrap();
            assert_eq!(remote.to_string(), shown);
            assert_eq!(shown.parse::<Remote>().unwrap(), remote);
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_repeated() {
        for wrong in ["rsync://mirror:s3cret@h/m", "ssh://u:s3cret@h/p"] {
            let problem = wrong.parse::<Remote>().unwrap_err().problem;
            assert!(problem.contains("password") && !problem.contains("s3cret"), "{problem}");
        }
    }

    #[test]
    fn what_could_be_an_option_or_a_command_is_refused() {
        for wrong in [
            "",
            "ssh://",
            "ssh://h",
            "ssh://h/",
            "http://h/p",
            "ssh://-oProxyCommand=x/p",
            "ssh://-l@h/p",
            "ssh://a b@h/p",
            "ssh://h/../p",
            "ssh://h/p?key=../k",
            "ssh://h/p?password=x",
            "ssh://h/p?key=k&x=y",
            "ssh://u;x@h/p",
            "rsync://h/-e/p",
            "rsync://h/m$x/p",
            "rsync://h:0/m",
            "ssh://h/a\nb",
            "ssh://$(x)/p",
        ] {
            assert!(wrong.parse::<Remote>().is_err(), "{wrong}");
            assert_eq!(Remote::upstream(wrong).unwrap_err().field, "upstream", "{wrong}");
        }
    }
}
