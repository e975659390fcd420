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
/// How long ssh may take to connect, in seconds.
const CONNECT_MAX: &str = "ConnectTimeout=10";
/// Without a password in it rsync would ask at a terminal.
pub const PASSWORD: &str = "RSYNC_PASSWORD";

/// The arguments of rsync that say where to and how, `--` and the source between them excepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Way {
    pub options: Vec<OsString>,
    pub destination: OsString,
}

/// `secrets` is the agent's own directory of named files, `known_hosts` among them. `rate` is in
/// bytes per second. Where it `may_make` the directory, a missing one is no failure.
pub fn way(remote: &Remote, secrets: &Path, rate: Option<u64>, may_make: bool) -> Way {
    let Remote { scheme, user, at, path, secret } = remote;
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
    let destination = match scheme {
        Scheme::Ssh => {
            // Through the protocol too: two streams mixed would tell wrong names. A daemon does so
            // by itself, and an old one does not know the option.
            options.push("--stderr=client".into());
            options.extend(["-e".into(), ssh(at.port, file.as_deref(), secrets)]);
            // rsync makes no directory of this name.
            let bound = if may_make { "" } else { "." };
            format!("{user}{host}:{path}/{bound}")
        }
        Scheme::Rsync => {
            if let Some(file) = file {
                let mut option = OsString::from("--password-file=");
                option.push(file);
                options.push(option);
            }
            options.push("--contimeout=10".into());
            format!("rsync://{user}{host}:{}/{path}/", at.port)
        }
    };
    Way { options, destination: destination.into() }
}

/// The text of `-e`. The host's key must be known, nothing is asked, no configuration of the
/// machine's own has a say, and no key but the one that is named is tried.
fn ssh(port: u16, key: Option<&Path>, secrets: &Path) -> OsString {
    let mut words: Vec<OsString> = ["ssh", "-F", "none", "-p"].map(Into::into).to_vec();
    words.push(port.to_string().into());
    for word in [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "GlobalKnownHostsFile=/dev/null",
        "IdentitiesOnly=yes",
        "ClearAllForwardings=yes",
        CONNECT_MAX,
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

    fn shown(url: &str) -> String {
        let way = way(&url.parse().unwrap(), Path::new("/etc/x"), Some(5000), false);
        let options: Vec<_> = way.options.iter().map(|o| o.to_str().unwrap()).collect();
        format!("{} -> {}", options.join(" "), way.destination.to_str().unwrap())
    }

    #[test]
    fn secrets_are_only_named_and_host_keys_are_checked() {
        expect_test::expect![[r#"
            --bwlimit=4 --stderr=client -e 'ssh' '-F' 'none' '-p' '22' '-o' 'BatchMode=yes' '-o' 'StrictHostKeyChecking=yes' '-o' 'GlobalKnownHostsFile=/dev/null' '-o' 'IdentitiesOnly=yes' '-o' 'ClearAllForwardings=yes' '-o' 'ConnectTimeout=10' '-o' 'ServerAliveInterval=15' '-o' 'ServerAliveCountMax=4' '-o' 'UserKnownHostsFile="/etc/x/known_hosts"' '-o' 'IdentityFile="/etc/x/deploy"' -> deploy@web9:/srv/my www/.
            --bwlimit=4 --stderr=client -e 'ssh' '-F' 'none' '-p' '2222' '-o' 'BatchMode=yes' '-o' 'StrictHostKeyChecking=yes' '-o' 'GlobalKnownHostsFile=/dev/null' '-o' 'IdentitiesOnly=yes' '-o' 'ClearAllForwardings=yes' '-o' 'ConnectTimeout=10' '-o' 'ServerAliveInterval=15' '-o' 'ServerAliveCountMax=4' '-o' 'UserKnownHostsFile="/etc/x/known_hosts"' '-o' 'IdentityFile=none' -> [fd00::9]:/srv/.
            --bwlimit=4 --password-file=/etc/x/web9 --contimeout=10 -> rsync://b@10.0.0.9:873/www/html/
            --bwlimit=4 --contimeout=10 -> rsync://web9:8730/www/
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
        let way = way(&remote, Path::new("/my %d"), Some(1), true);
        assert_eq!(way.options[0], "--bwlimit=1");
        let shell = way.options.last().unwrap().to_str().unwrap();
        assert!(shell.contains(r#"'UserKnownHostsFile="/my %%d/known_hosts"'"#), "{shell}");
        assert_eq!(way.destination, "h:/srv/");
    }
}
