//! What keeps rsync from a target without an agent, and what a person does about it. Pure: it reads
//! the texts of ssh and of rsync's daemon, since their exit codes tell too little.

use std::path::Path;

use lockstep_model::sync::Remote;
use lockstep_model::sync::remote::Scheme;

use super::exit::{Exit, fit};
use super::remote::KNOWN_HOSTS;

/// None when the exit code and the first line of the text say it well enough.
pub fn trouble(remote: &Remote, secrets: &Path, stderr: &str) -> Option<(Exit, String)> {
    // rsync's own lines hold names of files, which may read like anything.
    let (names, plain): (Vec<&str>, Vec<&str>) =
        stderr.lines().partition(|line| line.starts_with("rsync: "));
    let has = |text: &str| plain.iter().any(|line| line.contains(text));
    let is_gone = |line: &&str| {
        line.contains("mkdir \"") && line.ends_with("/.\" failed: No such file or directory (2)")
    };
    let (exit, why) = match remote.scheme {
        // It was there when it was filled.
        Scheme::Ssh if names.iter().any(is_gone) => {
            (Exit::Unfilled, format!("{} is gone: it is filled anew", remote.path))
        }
        Scheme::Ssh => (Exit::Config, ssh(remote, secrets, &has)?),
        Scheme::Rsync => (Exit::Config, daemon(remote, secrets, &has)?),
    };
    Some((exit, fit(&why)))
}

fn ssh(remote: &Remote, secrets: &Path, has: &impl Fn(&str) -> bool) -> Option<String> {
    let (host, port) = (remote.at.host(), remote.at.port);
    let known = secrets.join(KNOWN_HOSTS);
    let known = known.display();
    let scan = format!("ssh-keyscan -p {port} {host} >> {known}");
    if has("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        let name = if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") };
        return Some(format!(
            "ssh: {host} shows another host key than known_hosts has. If its owner changed it: \
             ssh-keygen -R '{name}' -f {known}; {scan}; and compare the fingerprint"
        ));
    }
    if has("Host key verification failed") || has("requested strict checking") {
        return Some(format!(
            "ssh: the host key of {host} is not known: {scan}; and compare the fingerprint that \
             ssh-keygen -lf {known} shows with the machine's own"
        ));
    }
    if has("Permission denied (") || has("Too many authentication failures") {
        let at = format!("{}{host}", prefix(remote));
        return Some(match &remote.secret {
            None => format!("ssh: {at} wants a key: name one with ?key=NAME"),
            Some(key) => format!(
                "ssh: {at} does not take key {0}: its public half, ssh-keygen -yf {1}, belongs in \
                 ~/.ssh/authorized_keys there",
                key.as_str(),
                secrets.join(key.as_str()).display()
            ),
        });
    }
    None
}

fn daemon(remote: &Remote, secrets: &Path, has: &impl Fn(&str) -> bool) -> Option<String> {
    let module = remote.path.split('/').next().unwrap_or_default();
    let daemon = format!("the rsync daemon at {}", remote.at);
    if has("@ERROR: auth failed") {
        return Some(match (&remote.user, &remote.secret) {
            (Some(user), Some(name)) => format!(
                "{daemon} does not take user {user} with the password in {}: module {module} has \
                 its own in \"auth users\" and \"secrets file\"",
                secrets.join(name.as_str()).display()
            ),
            _ => format!(
                "{daemon} wants a user and a password for module {module}: \
                 rsync://USER@{}/{}?password=NAME",
                remote.at, remote.path
            ),
        });
    }
    if has("@ERROR: Unknown module") {
        return Some(format!("{daemon} has no module {module}"));
    }
    if has("ERROR: module is read only") {
        return Some(format!("{daemon}: module {module} is read only; it needs: read only = no"));
    }
    if has("@ERROR: chdir failed") || has("@ERROR: chroot failed") {
        return Some(format!(
            "{daemon} cannot enter the directory of module {module}: is it there, and may its uid?"
        ));
    }
    None
}

fn prefix(remote: &Remote) -> String {
    remote.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_has_to_change_is_said_and_what_passes_is_not() {
        let ssh = "ssh://deploy@web9:2222/srv/www?key=deploy";
        let daemon = "rsync://b@web9/www/html?password=web9";
        let told = |url: &str, stderr: &str| {
            let told = trouble(&url.parse().unwrap(), Path::new("/etc/s"), stderr);
            told.map_or("-".to_owned(), |(exit, why)| format!("{exit:?} {why}"))
        };
        let lines = [
            told(
                ssh,
                "No ED25519 host key is known for [web9]:2222 and you have requested strict checking.\nHost key verification failed.\n",
            ),
            told(
                ssh,
                "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.\n",
            ),
            told(
                ssh,
                "deploy@web9: Permission denied (publickey).\nrsync: connection unexpectedly closed",
            ),
            told(
                ssh,
                "rsync: [Receiver] mkdir \"/srv/www/.\" failed: No such file or directory (2)\n",
            ),
            told(
                ssh,
                "rsync: [receiver] mkstemp \"/srv/www/.a.JdvqZn\" failed: Permission denied (13)\n",
            ),
            told(ssh, "ssh: connect to host web9 port 2222: Connection refused\n"),
            told(daemon, "@ERROR: auth failed on module www\n"),
            told("rsync://web9/www", "@ERROR: auth failed on module www\n"),
            told(daemon, "@ERROR: Unknown module 'www'\n"),
            told(
                daemon,
                "ERROR: module is read only\nrsync error: syntax or usage error (code 1)\n",
            ),
            told(daemon, "@ERROR: chdir failed\n"),
            told(daemon, "@ERROR: max connections (4) reached -- try again later\n"),
        ];
        expect_test::expect![[r#"
            Config ssh: the host key of web9 is not known: ssh-keyscan -p 2222 web9 >> /etc/s/known_hosts; and compare the fingerprint that ssh-keygen -lf /etc/s/known_hosts shows with the machine's own
            Config ssh: web9 shows another host key than known_hosts has. If its owner changed it: ssh-keygen -R '[web9]:2222' -f /etc/s/known_hosts; ssh-keyscan -p 2222 web9 >> /etc/s/known_hosts; and compare the fingerprint
            Config ssh: deploy@web9 does not take key deploy: its public half, ssh-keygen -yf /etc/s/deploy, belongs in ~/.ssh/authorized_keys there
            Unfilled /srv/www is gone: it is filled anew
            -
            -
            Config the rsync daemon at web9:873 does not take user b with the password in /etc/s/web9: module www has its own in "auth users" and "secrets file"
            Config the rsync daemon at web9:873 wants a user and a password for module www: rsync://USER@web9:873/www?password=NAME
            Config the rsync daemon at web9:873 has no module www
            Config the rsync daemon at web9:873: module www is read only; it needs: read only = no
            Config the rsync daemon at web9:873 cannot enter the directory of module www: is it there, and may its uid?
            -
        "#]].assert_eq(&(lines.join("\n") + "\n"));
    }
}
