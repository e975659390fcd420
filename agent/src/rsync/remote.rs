//! How rsync reaches a target without an agent: plain ssh or a plain rsync daemon. Pure. Secrets are
//! named by their files and never read here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use lockstep_model::sync::Remote;
use lockstep_model::sync::remote::Scheme;

use super::quoted;

/// How long ssh may take to connect, in seconds.
const CONNECT_MAX: &str = "ConnectTimeout=10";

/// The arguments of rsync that say where to and how, `--` and the source between them excepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Way {
    pub options: Vec<OsString>,
    pub destination: OsString,
}

/// `secrets` is the agent's own directory of named files, `known_hosts` among them.
/// `rate` is in bytes per second.
pub fn way(remote: &Remote, secrets: &Path, rate: Option<u64>) -> Way {
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
            options.extend(["-e".into(), ssh(at.port, file.as_deref(), secrets)]);
            format!("{user}{host}:{path}/")
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

/// The text of `-e`. The host's key must be known, nothing is asked, and no configuration of the
/// machine's own has a say.
fn ssh(port: u16, key: Option<&Path>, secrets: &Path) -> OsString {
    let option = |name: &str, file: PathBuf| {
        let mut word = OsString::from(name);
        word.push("=");
        word.push(file);
        word
    };
    let mut words: Vec<OsString> = ["ssh", "-F", "none", "-p"].map(Into::into).to_vec();
    words.push(port.to_string().into());
    for word in
        ["BatchMode=yes", "StrictHostKeyChecking=yes", CONNECT_MAX, "ClearAllForwardings=yes"]
    {
        words.extend(["-o".into(), word.into()]);
    }
    for word in ["ServerAliveInterval=15", "ServerAliveCountMax=4"] {
        words.extend(["-o".into(), word.into()]);
    }
    words.extend(["-o".into(), option("UserKnownHostsFile", secrets.join("known_hosts"))]);
    if let Some(key) = key {
        words.extend(["-o".into(), "IdentitiesOnly=yes".into()]);
        words.extend(["-i".into(), key.into()]);
    }
    quoted(&words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        let way = way(&url.parse().unwrap(), Path::new("/etc/x"), None);
        let options: Vec<_> = way.options.iter().map(|o| o.to_str().unwrap()).collect();
        format!("{} -> {}", options.join(" "), way.destination.to_str().unwrap())
    }

    #[test]
    fn secrets_are_only_named_and_host_keys_are_checked() {
        expect_test::expect![[r#"
            -e 'ssh' '-F' 'none' '-p' '22' '-o' 'BatchMode=yes' '-o' 'StrictHostKeyChecking=yes' '-o' 'ConnectTimeout=10' '-o' 'ClearAllForwardings=yes' '-o' 'ServerAliveInterval=15' '-o' 'ServerAliveCountMax=4' '-o' 'UserKnownHostsFile=/etc/x/known_hosts' '-o' 'IdentitiesOnly=yes' '-i' '/etc/x/deploy' -> deploy@web9:/srv/my www/
            -e 'ssh' '-F' 'none' '-p' '2222' '-o' 'BatchMode=yes' '-o' 'StrictHostKeyChecking=yes' '-o' 'ConnectTimeout=10' '-o' 'ClearAllForwardings=yes' '-o' 'ServerAliveInterval=15' '-o' 'ServerAliveCountMax=4' '-o' 'UserKnownHostsFile=/etc/x/known_hosts' -> [fd00::9]:/srv/
            --password-file=/etc/x/web9 --contimeout=10 -> rsync://b@10.0.0.9:873/www/html/
            --contimeout=10 -> rsync://web9:8730/www/
        "#]]
        .assert_eq(&format!(
            "{}\n{}\n{}\n{}\n",
            shown("ssh://deploy@web9/srv/my www?key=deploy"),
            shown("ssh://[fd00::9]:2222/srv"),
            shown("rsync://b@10.0.0.9/www/html?password=web9"),
            shown("rsync://web9:8730/www"),
        ));
    }
}
