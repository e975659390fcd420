//! Hooks as real programs: what they are given, how they end, and which are not run at all.

use std::os::unix::fs::{PermissionsExt, chown, symlink};

use super::*;

struct Place {
    dir: tempfile::TempDir,
    host: Host,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("hooks")).unwrap();
        let host = Host::open(&dir.path().join("run")).await.unwrap();
        Self { dir, host }
    }

    fn hooks(&self) -> PathBuf {
        self.dir.path().join("hooks")
    }

    fn write(&self, name: &str, script: &str) -> PathBuf {
        let path = self.hooks().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    async fn run_within(&self, name: &str, limit: Duration) -> Ran {
        let name = name.parse().unwrap();
        let environment = [("LOCKSTEP_SYNC", OsStr::new("webroot"))];
        let call = Call { name: &name, environment: &environment, limit };
        run(&self.host, &self.hooks(), &call, &CancellationToken::new()).await.unwrap()
    }

    async fn run(&self, name: &str) -> Ran {
        self.run_within(name, Duration::from_secs(60)).await
    }
}

#[tokio::test]
async fn a_hook_gets_its_variables_and_nothing_else() {
    let place = Place::new().await;
    place.write("show", "/usr/bin/env | /usr/bin/sort; echo \"$# $(cat)\" >&2");
    let ran = place.run("show").await;
    assert_eq!(ran.problem, None);
    let lines: Vec<&str> = ran.output.lines().filter(|line| !line.starts_with("_=")).collect();
    let expected = [
        "HOME=/nonexistent",
        "LC_ALL=C",
        "LOCKSTEP_SYNC=webroot",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PWD=/",
        "0 ",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_failure_is_told_with_the_end_of_the_output() {
    let place = Place::new().await;
    place.write("fail", "head -c 100000 /dev/zero | tr '\\0' x; echo why >&2; exit 3");
    let ran = place.run("fail").await;
    assert!(ran.problem.unwrap().contains("exit status: 3"));
    assert!(ran.output.ends_with("why\n") && ran.output.len() <= 2 * OUTPUT_MAX);
}

#[tokio::test]
async fn a_hook_that_takes_too_long_is_killed_with_its_children() {
    let place = Place::new().await;
    let pid = place.dir.path().join("pid");
    place.write("slow", &format!("sleep 600 & echo $! > {}; wait", pid.display()));
    let ran = place.run_within("slow", Duration::from_secs(1));
    let ran = tokio::time::timeout(Duration::from_secs(60), ran).await.unwrap();
    assert!(ran.problem.unwrap().contains("longer than 1 s"));
    let pid = fs::read_to_string(pid).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(" Z "), "its child lives: {stat}");
}

#[tokio::test]
async fn only_files_that_nobody_else_may_write_are_run() {
    let place = Place::new().await;
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    place.write("good", "true");
    assert_eq!(place.run("good").await.problem, None);
    let path = place.write("shared", "true");
    mode(&path, 0o775);
    let path = place.write("plain", "true");
    mode(&path, 0o644);
    let path = place.write("strangers", "true");
    chown(&path, Some(12345), None).unwrap();
    symlink("/bin/true", place.hooks().join("link")).unwrap();
    fs::create_dir(place.hooks().join("directory")).unwrap();
    for (name, why) in [
        ("shared", "writable by no one else"),
        ("plain", "not executable"),
        ("strangers", "must belong to root"),
        ("link", "not a regular file"),
        ("directory", "not a regular file"),
        ("absent", "there is none"),
    ] {
        let problem = place.run(name).await.problem.unwrap();
        assert!(problem.contains(why), "{name}: {problem}");
    }
    mode(&place.hooks(), 0o777);
    assert!(place.run("good").await.problem.unwrap().contains("its directory"));
}
