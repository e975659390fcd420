//! The program as a person meets it: command lines, exit codes, signals. No controller is there.

#![allow(clippy::unwrap_used)] // nothing but tests

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use lockstep_model::identity::Subject;
use lockstep_transport::identity::disk;
use lockstep_transport::test_ca::{Dates, TestCa};
use lockstep_transport::token::JoinToken;

const PATIENCE: Duration = Duration::from_secs(60);

#[allow(clippy::disallowed_methods)] // the program under test
fn agent(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep-agent"));
    command.args(args).env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Exit code and standard error.
fn refused(output: Output) -> (i32, String) {
    assert!(output.stdout.is_empty(), "an error is no data");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn joined(dir: &Path) {
    let node = Subject::Node("web1".parse().unwrap());
    let identity = TestCa::new("prod").identity(node, Dates::GOOD);
    disk::save(&dir.join("identity"), &identity).unwrap();
    let config = "controllers = [\"127.0.0.1:1\"]\nlisten = \"127.0.0.1:0\"\nhealth-listen = \"127.0.0.1:0\"\n";
    std::fs::write(dir.join("agent.toml"), config).unwrap();
}

#[allow(clippy::disallowed_methods)] // a bound on a child of this test
fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < PATIENCE, "{what} in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_running(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_none()
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    let bad = dir.path().join("bad.toml");
    std::fs::write(&bad, "listen = \"x\"\nhealth-lisen = \"127.0.0.1:1\"\n").unwrap();
    let bad = bad.to_str().unwrap();
    let join = ["join", "--controller", "127.0.0.1:1", "--data-dir", data];
    let with = |more: &[&'static str]| [&join[..], more].concat();
    for (args, code, words) in [
        (vec!["run", "--data-dir", data], 2, vec!["run lockstep-agent join first"]),
        (
            vec!["run", "--config", bad],
            2,
            vec!["listen", "did you mean health-listen", "controllers"],
        ),
        (vec!["run", "--config", "/nowhere"], 2, vec!["/nowhere", "cannot be read"]),
        (vec!["status", "--data-dir", data], 1, vec!["has not joined"]),
        (with(&[]), 2, vec!["--token"]),
        (with(&["--token", "rubbish"]), 2, vec!["token: must start with ls1."]),
        (with(&["--token-file", "/nowhere"]), 1, vec!["/nowhere"]),
        (vec!["join", "--controller", "a b", "--token", "x"], 2, vec!["address"]),
        (vec![], 2, vec!["Usage"]),
    ] {
        let (got, text) = refused(agent(&args).output().unwrap());
        assert_eq!(got, code, "{args:?}: {text}");
        for word in words {
            assert!(text.contains(word), "{args:?}: {word:?} in {text}");
        }
    }
    assert!(!Path::new(data).join("agent.toml").exists(), "nothing half-made");
}

#[test]
fn a_token_on_standard_input_is_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let token = JoinToken::mint("t1".parse().unwrap(), [7; 32]).unwrap();
    let text = token.reveal();
    let secret = text.rsplit('.').nth(1).unwrap();
    let data = dir.path().to_str().unwrap();
    for tail in ["\n", "rest\n"] {
        let mut child =
            agent(&["join", "--controller", "127.0.0.1:1", "--token", "-", "--data-dir", data])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
        child.stdin.take().unwrap().write_all(format!("{}{tail}", *text).as_bytes()).unwrap();
        let (code, said) = refused(child.wait_with_output().unwrap());
        assert_ne!(code, 0);
        assert!(said.contains("127.0.0.1:1") || said.contains("token"), "{said}");
        assert!(!said.contains(secret), "the secret is on the terminal");
    }
}

#[test]
fn it_runs_until_it_is_told_to_end() {
    let dir = tempfile::tempdir().unwrap();
    joined(dir.path());
    let data = dir.path().to_str().unwrap();
    let check = agent(&["run", "--data-dir", data, "--check-config"]).output().unwrap();
    assert!(check.status.success());
    let shown = String::from_utf8(check.stdout).unwrap();
    assert!(shown.contains("controllers = [\"127.0.0.1:1\"]"), "{shown}");

    let mut child = agent(&["run", "--data-dir", data]).stderr(Stdio::null()).spawn().unwrap();
    // The ledger is opened after the lock was taken.
    wait_until("it starts", || dir.path().join("ledger").is_dir());
    let (code, said) = refused(agent(&["run", "--data-dir", data]).output().unwrap());
    assert_eq!(code, 1);
    assert!(said.contains("another agent uses it"), "{said}");
    let status = agent(&["status", "--data-dir", data]).output().unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains("spiffe://prod/node/web1"), "{status}");
    assert!(status.contains("127.0.0.1:1"), "{status}");

    let pid = rustix::process::Pid::from_child(&child);
    // Until it listens to signals SIGTERM would end it like any process.
    wait_until("it catches SIGTERM", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << 14) != 0
    });
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    wait_until("it ends", || !is_running(&mut child));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
