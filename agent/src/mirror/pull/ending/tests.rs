//! Ends of rsync as they were seen, and what each means to a mirror.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use lockstep_model::Millis;
use lockstep_model::mirror::options::Family;
use lockstep_model::mirror::rsync::{Delete, Hop};
use lockstep_model::sync::Remote;
use lockstep_model::sync::filter::Pattern;

use super::*;

struct Case {
    url: &'static str,
    password: bool,
    late: bool,
    step: Step,
}

const DAEMON: Case =
    Case { url: "rsync://b@up/fedora/linux", password: true, late: false, step: Step::Content };

impl Case {
    fn ended(&self, code: i32, stderr: &str) -> Ended {
        let remote: Remote = self.url.parse().unwrap();
        let hop = Hop {
            defaults: "-a".parse().unwrap(),
            options: "".parse().unwrap(),
            delete: Delete::After,
        };
        let late: Vec<Pattern> =
            self.late.then(|| "Packages*".parse().unwrap()).into_iter().collect();
        let (mirror, node) = ("fedora".parse().unwrap(), "master1".parse().unwrap());
        let secrets = Path::new("/etc/s");
        let source = match self.url.starts_with("ssh://agent") {
            true => {
                Source::Agent { mirror: &mirror, node: &node, agent: secrets, data_dir: secrets }
            }
            false => Source::Remote {
                remote: &remote,
                secrets,
                password: self.password.then_some(Path::new("/run/p")),
            },
        };
        let pull = Pull {
            source,
            hop: &hop,
            filters: &[],
            own: &[],
            late: &late,
            rate: None,
            io_timeout: Millis::from_secs(60),
            connect_timeout: Millis::from_secs(60),
            family: Family::Any,
            into: Path::new("/data/fedora"),
            links: &[],
            work: None,
            keeps: true,
        };
        let status =
            if code < 0 { ExitStatus::from_raw(-code) } else { ExitStatus::from_raw(code << 8) };
        ended(&pull, self.step, status, stderr, true)
    }

    fn shown(&self, code: i32, stderr: &str) -> String {
        let Ended { end, why, left, code } = self.ended(code, stderr);
        let left = if left > 0 { format!(" left {left}") } else { String::new() };
        let code = code.map_or("-".to_owned(), |code| code.to_string());
        format!("{code} {end:?}{left} {why}").trim_end().to_owned()
    }
}

const SSH: Case = Case { url: "ssh://m@up/srv/fedora?key=k", ..DAEMON };
const AGENT: Case = Case { url: "ssh://agent/x", ..DAEMON };

#[test]
fn every_end_has_its_meaning() {
    let open = Case { url: "rsync://up/fedora", password: false, ..DAEMON };
    let nobody = Case { url: "rsync://up/fedora", ..DAEMON };
    let removing = Case { step: Step::Removing { most: 5 }, ..DAEMON };
    let first = Case { late: true, ..DAEMON };
    let cut = "Deletions stopped due to --max-delete limit (8 skipped)\n";
    let blocked = "could not make way for new regular file: x\n";
    let partial = "rsync: [sender] send_files failed to open \"/secret\" (in fedora): Permission denied (13)\n";
    let end23 = "rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1)\n";
    let lines = [
        DAEMON.shown(0, ""),
        DAEMON.shown(0, "a warning of somebody"),
        DAEMON.shown(24, "file has vanished: \"/a\" (in fedora)\nrsync warning: some files vanished"),
        DAEMON.shown(24, &format!("file has vanished: \"/a\" (in fedora)\n{cut}")),
        DAEMON.shown(25, cut),
        removing.shown(25, cut),
        DAEMON.shown(23, &format!("{blocked}{cut}{end23}")),
        first.shown(23, &format!("{blocked}{end23}")),
        removing.shown(23, &format!("{blocked}{end23}")),
        first.shown(23, &format!("{partial}{blocked}{end23}")),
        DAEMON.shown(23, &format!("{partial}{cut}{end23}")),
        DAEMON.shown(23, &format!("{partial}{end23}")),
        DAEMON.shown(23, "rsync: [sender] change_dir \"/linux\" (in fedora) failed: No such file or directory (2)\n"),
        AGENT.shown(23, "rsync: [sender] change_dir \"/linux\" (in fedora) failed: No such file or directory (2)\n"),
        DAEMON.shown(1, "rsync: --x: unknown option"),
        DAEMON.shown(2, "protocol version mismatch -- is your shell clean?"),
        DAEMON.shown(3, ""),
        DAEMON.shown(4, "ERROR: The server is configured to refuse --checksum (-c)"),
        DAEMON.shown(10, "rsync: The server is configured to refuse --checksum (-c)"),
        DAEMON.shown(5, "@ERROR: max connections (4) reached -- try again later"),
        DAEMON.shown(5, "@ERROR: auth failed on module fedora"),
        nobody.shown(5, "@ERROR: auth failed on module fedora"),
        open.shown(5, "@ERROR: auth failed on module fedora"),
        DAEMON.shown(5, "@ERROR: Unknown module 'fedora'"),
        DAEMON.shown(5, "@ERROR: access denied to fedora from h (10.0.0.1)"),
        DAEMON.shown(5, "@ERROR: chdir failed"),
        DAEMON.shown(5, "rsync: did not see server greeting"),
        DAEMON.shown(10, "rsync: [Receiver] failed to connect to up (1.2.3.4): Connection refused (111)"),
        DAEMON.shown(11, "rsync: [receiver] write failed on \"/data/fedora/a\": No space left on device (28)"),
        DAEMON.shown(12, "rsync: connection unexpectedly closed (0 bytes received so far) [receiver]"),
        DAEMON.shown(14, ""),
        DAEMON.shown(20, ""),
        DAEMON.shown(22, "rsync: out of memory"),
        DAEMON.shown(30, "rsync error: timeout in data send/receive (code 30)"),
        DAEMON.shown(35, "rsync error: timeout waiting for daemon connection (code 35)"),
        DAEMON.shown(-9, ""),
        SSH.shown(255, "ssh: connect to host up port 22: Connection refused"),
        SSH.shown(255, "Host key verification failed."),
        SSH.shown(255, "m@up: Permission denied (publickey)."),
        SSH.shown(127, "bash: rsync: command not found"),
        AGENT.shown(5, "lockstep rsh: unreachable: master1: timed out\nrsync: did not see"),
        AGENT.shown(5, "lockstep rsh: refused: not a replica of fedora"),
        AGENT.shown(12, ""),
    ];
    expect_test::expect![[r#"
        0 Complete
        0 Complete
        24 Complete rsync exit code 24: file has vanished: "/a" (in fedora)
        24 Complete left 8 rsync exit code 24: file has vanished: "/a" (in fedora)
        25 Complete left 8
        25 Failed(Soon) rsync exit code 25: Deletions stopped due to --max-delete limit (8 skipped)
        23 Complete left 8
        23 Complete
        23 Failed(Never) x has something in it that is not to be removed, and something else should take its place: move it away, or let delete remove it
        23 Failed(Later) rsync exit code 23: rsync: [sender] send_files failed to open "/secret" (in fedora): Permission denied (13)
        23 Failed(Later) left 8 rsync exit code 23: rsync: [sender] send_files failed to open "/secret" (in fedora): Permission denied (13)
        23 Failed(Later) rsync exit code 23: rsync: [sender] send_files failed to open "/secret" (in fedora): Permission denied (13)
        23 Failed(Never) up:873 has no directory fedora/linux
        23 Failed(Later) rsync exit code 23: rsync: [sender] change_dir "/linux" (in fedora) failed: No such file or directory (2)
        1 Failed(Never) rsync exit code 1: rsync: --x: unknown option
        2 Failed(Later) rsync exit code 2: protocol version mismatch -- is your shell clean?
        3 Failed(Never) rsync exit code 3
        4 Failed(Never) rsync exit code 4: ERROR: The server is configured to refuse --checksum (-c)
        10 Failed(Never) rsync exit code 10: rsync: The server is configured to refuse --checksum (-c)
        5 Failed(Later) rsync exit code 5: @ERROR: max connections (4) reached -- try again later
        5 Failed(Never) the rsync daemon at up:873 does not take user b with the mirror's password: give the right one with --password-file
        5 Failed(Never) the rsync daemon at up:873 wants a user: rsync://USER@up:873/fedora
        5 Failed(Never) the rsync daemon at up:873 wants a user and a password for module fedora: rsync://USER@up:873/fedora?password=NAME
        5 Failed(Never) the rsync daemon at up:873 has no module fedora
        5 Failed(Never) the rsync daemon at up:873 does not let this node in
        5 Failed(Later) the rsync daemon at up:873 cannot enter the directory of module fedora: is it there, and may its uid?
        5 Failed(Later) rsync exit code 5
        10 Failed(Soon) rsync exit code 10: rsync: [Receiver] failed to connect to up (1.2.3.4): Connection refused (111)
        11 Failed(Never) rsync exit code 11: rsync: [receiver] write failed on "/data/fedora/a": No space left on device (28)
        12 Failed(Soon) rsync exit code 12: the connection broke
        14 Failed(Never) rsync exit code 14
        20 Failed(Soon) rsync exit code 20
        22 Failed(Later) rsync exit code 22: rsync: out of memory
        30 Failed(Soon) rsync exit code 30: nothing moved for too long
        35 Failed(Soon) rsync exit code 35: the daemon did not answer in time
        - Failed(Later) rsync was ended by signal 9
        255 Failed(Soon) rsync exit code 255: ssh: connect to host up port 22: Connection refused
        255 Failed(Never) ssh: the host key of up is not known: ssh-keyscan -p 22 up >> /etc/s/known_hosts; and compare the fingerprint that ssh-keygen -lf /etc/s/known_hosts shows with the machine's own
        255 Failed(Never) ssh: m@up does not take key k: its public half, ssh-keygen -yf /etc/s/k, belongs in ~/.ssh/authorized_keys there
        127 Failed(Never) rsync exit code 127: bash: rsync: command not found
        5 Failed(Soon) rsync exit code 5: lockstep rsh: unreachable: master1: timed out
        5 Failed(Later) rsync exit code 5: lockstep rsh: refused: not a replica of fedora
        12 Failed(Soon) rsync exit code 12: the connection broke
    "#]].assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
fn what_is_cut_off_may_hide_another_complaint() {
    let text = "could not make way for new regular file: x\n\
                Deletions stopped due to --max-delete limit (8 skipped)\n";
    assert_eq!(DAEMON.ended(23, text).end, End::Complete);
    let hop = Hop {
        defaults: "-a".parse().unwrap(),
        options: "".parse().unwrap(),
        delete: Delete::After,
    };
    let remote = DAEMON.url.parse().unwrap();
    let pull = Pull {
        source: Source::Remote { remote: &remote, secrets: Path::new("/"), password: None },
        hop: &hop,
        filters: &[],
        own: &[],
        late: &[],
        rate: None,
        io_timeout: Millis::from_secs(1),
        connect_timeout: Millis::from_secs(1),
        family: Family::Any,
        into: Path::new("/d"),
        links: &[],
        work: None,
        keeps: true,
    };
    let ended = ended(&pull, Step::Content, ExitStatus::from_raw(23 << 8), text, false);
    assert_eq!(ended.end, End::Failed(Retry::Later));
}

#[test]
fn what_a_later_step_sees_to_is_no_line_of_a_log() {
    let blocked = "could not make way for new regular file: x";
    let cut = "Deletions stopped due to --max-delete limit (8 skipped)";
    let end = "rsync error: the --max-delete limit stopped deletions (code 25) at main.c(1)";
    for line in [blocked, cut, end] {
        assert!(is_expected(Step::Content, line), "{line}");
        assert!(!is_expected(Step::Removing { most: 1 }, line), "{line}");
    }
    for line in ["", "@ERROR: chdir failed", "rsync error: some files (code 23) at main.c(1)"] {
        assert!(!is_expected(Step::Content, line), "{line}");
    }
}
