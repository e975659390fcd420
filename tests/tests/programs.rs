//! The programs of the tests as people start them: they tell their usage, and what they do not
//! understand without a trace of their inside.

use anyhow::{Result, ensure};
use lockstep_tests::{Output, cmd};

const PROGRAMS: [(&str, &str); 4] = [
    ("tests/bench", env!("CARGO_BIN_EXE_bench")),
    ("tests/chaos", env!("CARGO_BIN_EXE_chaos")),
    ("tests/churn", env!("CARGO_BIN_EXE_churn")),
    ("tests/sim", env!("CARGO_BIN_EXE_sim")),
];

#[allow(clippy::disallowed_methods)] // it waits for nobody
fn run(program: &str, args: &[&str]) -> Result<Output> {
    let done = cmd(program).args(args).env("RUST_BACKTRACE", "1").output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (stdout, stderr) = (text(done.stdout), text(done.stderr));
    Ok(Output { command: format!("{program} {args:?}"), status: done.status, stdout, stderr })
}

#[test]
fn they_tell_their_usage() -> Result<()> {
    for (name, program) in PROGRAMS {
        for args in [&["--help"][..], &["-h"], &["failover", "--help"]] {
            let usage = run(program, args)?.ok()?;
            ensure!(usage.starts_with(&format!("usage: {name} ")), "{usage}");
        }
    }
    Ok(())
}

#[test]
fn what_is_not_understood_is_named_in_a_line() -> Result<()> {
    for (name, program) in PROGRAMS {
        for args in [&["--nonsense"][..], &["failover", "--nonsense"], &["--minutes"]] {
            let refused = run(program, args)?.refused()?;
            let is_short = refused.lines().count() <= 4 && !refused.contains("backtrace");
            ensure!(is_short, "{name} {args:?}: {refused}");
        }
    }
    Ok(())
}
