//! How rsync reaches a target without an agent: plain ssh or a plain rsync daemon. Pure. Secrets are
//! named by their files and never read here.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use lockstep_model::sync::Remote;
use lockstep_model::sync::remote::Scheme;

use super::quoted;

/// The file of host keys among the secrets.
pub const KNOWN_HOSTS: &str = "known_hosts";
/// Without a password in it rsync would ask at a terminal.
pub const PASSWORD: &str = "RSYNC_PASSWORD";

/// The arguments of rsync that say where the far end is and how it is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Way {
    pub options: Vec<OsString>,
    /// Source or destination; it stands behind `--`.
    pub end: OsString,
}

/// On what terms it is reached.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The agent's own directory of named files, `known_hosts` among them.
    pub secrets: &'a Path,
    /// A file with the daemon's password, if it is not among the secrets.
    pub password: Option<&'a Path>,
    /// Bytes per second.
    pub rate: Option<u64>,
    pub connect_s: u64,
}

/// Where it `may_make` the directory, a missing one is no failure.
pub fn way(remote: &Remote, terms: &Terms<'_>, may_make: bool) -> Way {
    let Remote { scheme, user, at, path, secret } = remote;
    let Terms { secrets, password, rate, connect_s } = *terms;
    let user = user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
    let host = match at.host().contains(':') {
        true => format!("[{}]", at.host()),
        false => at.host().to_owned(),
    };
    let file = secret.as_ref().map(|name| secrets.join(name.as_str()));
    let mut options: Vec<OsString> = Vec::new();
    if let Some(rate) = rate {
        // rsync counts in KiB, and 0 is no limit.
        options.push(format!("--bwlimit={}", (rate >> 10).max(1)).into());
    }
    let end = match scheme {
        Scheme::Ssh => {
            // Through the protocol too: two streams mixed would tell wrong names. A daemon does so
            // by itself, and an old one does not know the option.
            options.push("--stderr=client".into());
            options.extend(["-e".into(), ssh(at.port, file.as_deref(), terms)]);
            // rsync makes no directory of this name.
            let bound = if may_make { "" } else { "." };
            format!("{user}{host}:{path}/{bound}")
        }
        Scheme::Rsync => {
            if let Some(file) = password.or(file.as_deref()) {
                let mut option = OsString::from("--password-file=");
                option.push(file);
                options.push(option);
            }
            options.push(format!("--contimeout={connect_s}").into());
            // Its small first words would each wait for the other side's delayed acknowledgement.
            options.push("--sockopts=TCP_NODELAY".into());
            format!("rsync://{user}{host}:{}/{path}/", at.port)
        }
    };
    Way { options, end: end.into() }
}

/// The text of `-e`. The host's key must be known, nothing is asked, no configuration of the
/// machine's own has a say, and no key but the one that is named is tried.
fn ssh(port: u16, key: Option<&Path>, terms: &Terms<'_>) -> OsString {
    let Terms { secrets, connect_s, .. } = *terms;
    let connect = format!("ConnectTimeout={connect_s}");
    let mut words: Vec<OsString> = ["ssh", "-F", "none", "-p"].map(Into::into).to_vec();
    words.push(port.to_string().into());
    for word in [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "GlobalKnownHostsFile=/dev/null",
        "IdentitiesOnly=yes",
        "ClearAllForwardings=yes",
        &connect,
        "ServerAliveInterval=15",
        "ServerAliveCountMax=4",
    ] {
        words.extend(["-o".into(), word.into()]);
    }
    words.extend(["-o".into(), option("UserKnownHostsFile", &secrets.join(KNOWN_HOSTS))]);
    let key = key.map_or_else(|| "IdentityFile=none".into(), |key| option("IdentityFile", key));
    words.extend(["-o".into(), key]);
    quoted(&words)
}

/// ssh splits a value at blanks outside of double quotes, and `%` begins a token of its own.
fn option(name: &str, file: &Path) -> OsString {
    let mut word = format!("{name}=\"").into_bytes();
    for byte in file.as_os_str().as_bytes() {
        word.extend(if *byte == b'%' { &b"%%"[..] } else { std::slice::from_ref(byte) });
    }
    word.push(b'"');
    OsString::from_vec(word)
}

/// How rsync's messages call the top of the target, in front of `/` and a name; empty where they
/// begin with the name.
pub fn top(remote: &Remote) -> String {
    match remote.scheme {
        Scheme::Ssh => remote.path.clone(),
        Scheme::Rsync => {
            remote.path.split_once('/').map(|(_, path)| format!("/{path}")).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(secrets: &str, rate: u64) -> Terms<'_> {
        Terms { secrets: Path::new(secrets), password: None, rate: Some(rate), connect_s: 10 }
    }

    fn shown(url: &str) -> String {
        let way = way(&url.parse().unwrap(), &terms("/etc/x", 5000), false);
        let options: Vec<_> = way.options.iter().map(|o| o.to_str().unwrap()).collect();
        format!("{} -> {}", options.join(" "), way.end.to_str().unwrap())
    }

    #[test]
    fn secrets_are_only_named_and_host_keys_are_checked() {
        expect_test::expect![[r#"
            --bwlimit=4 --stderr=client -e 'ssh' '-F' 'none' '-p' '22' '-o' 'BatchMode=yes' '-o' 'StrictHostKeyChecking=yes' '-o' 'GlobalKnownHostsFile=/dev/null' '-o' 'IdentitiesOnly=yes' '-o' 'ClearAllForwardings=yes' '-o' 'ConnectTimeout=10' '-o' 'ServerAliveInterval=15' '-o' 'ServerAliveCountMax=4' '-o' 'UserKnownHostsFile="/etc/x/known_hosts"' '-o' 'IdentityFile="/etc/x/deploy"' -> deploy@web9:/srv/my www/.
            --bwlimit=4 --stderr=client -e 'ssh' '-F' 'none' '-p' '2222' '-o' 'BatchMode=yes' '-o' 'StrictHostKeyChecking=yes' '-o' 'GlobalKnownHostsFile=/dev/null' '-o' 'IdentitiesOnly=yes' '-o' 'ClearAllForwardings=yes' '-o' 'ConnectTimeout=10' '-o' 'ServerAliveInterval=15' '-o' 'ServerAliveCountMax=4' '-o' 'UserKnownHostsFile="/etc/x/known_hosts"' '-o' 'IdentityFile=none' -> [fd00::9]:/srv/.
            --bwlimit=4 --password-file=/etc/x/web9 --contimeout=10 --sockopts=TCP_NODELAY -> rsync://b@10.0.0.9:873/www/html/
            --bwlimit=4 --contimeout=10 --sockopts=TCP_NODELAY -> rsync://web9:8730/www/
        "#]].assert_eq(&format!(
            "{}\n{}\n{}\n{}\n",
            shown("ssh://deploy@web9/srv/my www?key=deploy"),
            shown("ssh://[fd00::9]:2222/srv"),
            shown("rsync://b@10.0.0.9/www/html?password=web9"),
            shown("rsync://web9:8730/www"),
        ));
    }

    #[test]
    fn a_rate_is_never_none_by_rounding_and_odd_paths_stay_one_word() {
        let remote = "ssh://h/srv?key=k".parse().unwrap();
        let way = way(&remote, &terms("/my %d", 1), true);
        assert_eq!(way.options[0], "--bwlimit=1");
        let shell = way.options.last().unwrap().to_str().unwrap();
        assert!(shell.contains(r#"'UserKnownHostsFile="/my %%d/known_hosts"'"#), "{shell}");
        assert_eq!(way.end, "h:/srv/");
    }
}
