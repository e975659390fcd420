//! What a hostile node, or a hostile process on a node, gets from a data port and from the agent's
//! local socket: nothing that its assignment does not give.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lockstep_agent::data::ask;
use lockstep_agent::data::header::{Answer, Header, Mark, Op};
use lockstep_model::identity::{Principal, Subject};
use lockstep_model::sync::{DeletePolicy, SyncReport};
use lockstep_model::task::{Outcome, SyncTarget};
use lockstep_model::{KeyHash, SyncName, Timestamp};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::fleet::{self, Fleet, PATIENCE, SYNC, children, courier, eventually};

fn node(name: &str) -> Principal {
    Principal { subject: Subject::Node(name.parse().unwrap()), key_hash: KeyHash([1; 32]) }
}

/// A connection to a head's data port, whose caller its TLS has found to be `caller`.
async fn connect(fleet: &Fleet, caller: Principal) -> UnixStream {
    *fleet.caller.lock().unwrap() = caller;
    UnixStream::connect(fleet.dir.path().join("peers/web1")).await.unwrap()
}

async fn assign_other(fleet: &Fleet) {
    let path = fleet.dir.path().join("other-www");
    let path = path.to_str().unwrap().parse().unwrap();
    let source = Some(fleet::peer("master2"));
    let spec = SyncTarget { source, ..SyncTarget::new("other".parse().unwrap(), path) };
    assert_eq!(fleet.heads["web1"].apply_target(spec).await, Outcome::ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_opens_the_sync_of_which_it_is_the_source_and_no_other() {
    let mut fleet = Fleet::new().await;
    fleet.add_head("web1").await;
    assign_other(&fleet).await;
    let mark = Mark { filled: true, changed: true, acked: 9, at: Timestamp(1), lag: None };
    let (push, pass) = (Op::Push { pass: false }, Op::Push { pass: true });
    let ops = [push, pass, Op::Mark(mark), Op::Verify, Op::Move, Op::Changes];
    let other_key = Principal { key_hash: KeyHash([2; 32]), ..node("master1") };
    let user = Principal { subject: Subject::User("master1".parse().unwrap()), ..node("master1") };
    let callers = [
        (node("master1"), "other"),
        (node("master2"), SYNC),
        (node("web1"), SYNC),
        (node("master1"), "no-such-sync"),
        (other_key, SYNC),
        (user, SYNC),
    ];
    for (caller, sync) in callers {
        for op in ops {
            let mut stream = connect(&fleet, caller.clone()).await;
            let header = Header { sync: sync.parse().unwrap(), op };
            let answer = ask(&mut stream, &header).await.unwrap();
            assert!(matches!(answer, Answer::Refused(_)), "{caller:?} {header:?}: {answer:?}");
            assert_eq!(stream.read_u8().await.ok(), None, "nothing follows");
        }
    }
    let reports = fleet.heads["web1"].reports().subscribe();
    for sync in [SYNC, "other"] {
        let report = reports.borrow().get(&sync.parse::<SyncName>().unwrap()).cloned();
        assert!(matches!(report, Some(SyncReport::Target(it)) if !it.filled), "{sync}");
    }
    assert!(children(&fleet.dir.path().join("web1"), "").is_empty());
    assert!(!fleet.www("web1").exists());
    for (caller, sync) in [(node("master1"), SYNC), (node("master2"), "other")] {
        let mut stream = connect(&fleet, caller).await;
        let header = Header { sync: sync.parse().unwrap(), op: push };
        assert_eq!(ask(&mut stream, &header).await, Ok(Answer::Unfilled));
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_goes_as_it_happens_no_name_is_given_up() {
    let mut fleet = Fleet::filled(&["web1"]).await;
    let header = Header { sync: SYNC.parse().unwrap(), op: Op::Move };
    for policy in DeletePolicy::ALL {
        fleet.options.delete = policy;
        fleet.assign("web1").await;
        let mut stream = connect(&fleet, node("master1")).await;
        let answer = ask(&mut stream, &header).await.unwrap();
        assert_eq!(answer == Answer::Go, policy.in_batches(), "{policy:?}: {answer:?}");
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loses_its_right_is_cut_off_in_the_middle() {
    let mut fleet = Fleet::filled(&["web1", "web2"]).await;
    let src = fleet.src("");
    let by_hand = ["-r", src.to_str().unwrap(), "web1::webroot/"];
    assert!(fleet.hostile_rsync(&by_hand).await.success());
    // At this rate it would take four minutes; what is on its way already arrives.
    fleet.rate.store(64, Ordering::Relaxed);
    fs::write(fleet.src("big"), vec![5; 16 << 20]).unwrap();
    let (web1, web2) = (fleet.dir.path().join("web1"), fleet.dir.path().join("web2"));
    let receivers = [&web1, &web2];
    for head in receivers {
        eventually("a transfer", || children(head, "--daemon").first().copied()).await;
    }
    // By the target: the source has another key from now on.
    let path = fleet.www("web2").to_str().unwrap().parse().unwrap();
    let rekeyed =
        lockstep_model::task::Peer { key_hash: KeyHash([7; 32]), ..fleet::peer("master1") };
    let spec = SyncTarget { source: Some(rekeyed), ..SyncTarget::new(SYNC.parse().unwrap(), path) };
    assert_eq!(fleet.heads["web2"].apply_target(spec).await, Outcome::ok());
    eventually("its end by the target", || children(&web2, "").is_empty().then_some(())).await;
    // By the source: web1 is no target any more.
    fleet.targets.retain(|head| head != "web1");
    fleet.apply().await;
    eventually("its end by the source", || children(&web1, "").is_empty().then_some(())).await;
    fleet.rate.store(0, Ordering::Relaxed);
    assert!(!fleet.hostile_rsync(&by_hand).await.success(), "rsh knows current targets only");
    for head in ["web1", "web2"] {
        assert!(!fleet.www(head).join("big").exists(), "{head}");
    }
    fleet.end().await;
}

/// The daemon protocol by hand, up to and with the arguments of the server; what it says to them,
/// and whether it hangs up.
async fn give_arguments(
    fleet: &Fleet,
    module: &str,
    args: &[&str],
    within: Duration,
) -> (String, bool) {
    let mut stream = connect(fleet, node("master1")).await;
    let header = Header { sync: SYNC.parse().unwrap(), op: Op::Push { pass: true } };
    assert_eq!(ask(&mut stream, &header).await, Ok(Answer::Go));
    let mut stream = BufReader::new(stream);
    let mut said = String::new();
    stream.read_line(&mut said).await.unwrap();
    assert!(said.starts_with("@RSYNCD: "), "{said}");
    stream.write_all(format!("@RSYNCD: 31.0\n{module}\n").as_bytes()).await.unwrap();
    said.clear();
    while !said.contains("@RSYNCD: OK") {
        if stream.read_line(&mut said).await.unwrap() == 0 {
            return (said, true);
        }
    }
    let args: String = args.iter().map(|arg| format!("{arg}\0")).collect();
    stream.write_all(format!("{args}\0").as_bytes()).await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(within, stream.read_to_end(&mut rest)).await;
    (said + &String::from_utf8_lossy(&rest), ended.is_ok())
}

/// A server that waits for so long has taken its arguments; one that refuses them takes half a second.
const TAKEN_AFTER: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_source_gets_no_option_that_it_should_not_have() {
    let mut fleet = Fleet::new().await;
    fleet.add_head("web1").await;
    let outside = fleet.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "hunter2").unwrap();
    let inside = fleet.www("web1");
    fs::create_dir(&inside).unwrap();
    fs::write(inside.join("secret"), "hunter2").unwrap();
    let hostile = [
        // Reading.
        ("files-from", "/secret"),
        ("read-batch", "/secret"),
        ("link-dest", "../outside"),
        // Writing elsewhere, or as somebody else.
        ("log-file", "/planted"),
        ("write-batch", "/planted"),
        ("temp-dir", "../outside"),
        ("backup-dir", "../outside"),
        ("write-devices", ""),
        ("keep-dirlinks", ""),
        ("fake-super", ""),
        ("usermap", "*:root"),
        ("copy-as", "root"),
        // Another program or another configuration.
        ("config", "/planted"),
        ("daemon", ""),
        // More than the sync was told to remove.
        ("remove-source-files", ""),
        ("delete-excluded", ""),
        ("ignore-errors", ""),
    ];
    let option = |name: &str, value: &str| match value {
        "" => format!("--{name}"),
        value => format!("--{name}={value}"),
    };
    let refused = async |args: &[&str], name: &str| {
        let (said, ended) = give_arguments(&fleet, SYNC, args, PATIENCE).await;
        assert!(ended && !said.contains("hunter2"), "{args:?} was taken: {said:?}");
        let told = || fleet.problem("web1").contains(&format!("--{name}")).then_some(());
        eventually(&format!("--{name} to be refused"), told).await;
    };
    for (name, value) in hostile {
        refused(&["--server", &option(name, value), "-re.LsfxCIu", ".", "."], name).await;
    }
    // Arguments may also come later, by the protocol's own way to hide them.
    let late = ["--server", "-s", "-re.LsfxCIu", ".", "", "rsync", "--inplace", ".", "."];
    refused(&late, "inplace").await;
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_dir(&inside).unwrap().count(), 1);

    // The control: what our own sender says is taken.
    let args = ["--server", "-re.LsfxCIu", ".", "webroot/"];
    assert!(!give_arguments(&fleet, SYNC, &args, TAKEN_AFTER).await.1);
    for module in ["other", "", "#list", "..", "webroot/../other"] {
        let args = ["--server", "-r", ".", "."];
        let (said, ended) = give_arguments(&fleet, module, &args, PATIENCE).await;
        assert!(ended && said.lines().all(|l| l.starts_with('@')), "{module:?}: {said:?}");
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_the_source_plants_leads_nowhere() {
    let fleet = Fleet::filled(&["web1"]).await;
    let outside = fleet.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let evil = fleet.dir.path().join("evil");
    fs::create_dir(&evil).unwrap();
    for (name, to) in [("abs", outside.as_path()), ("up", "../outside".as_ref())] {
        symlink(to, evil.join(name)).unwrap();
    }
    let (evil_src, to) = (format!("{}/", evil.display()), "web1::webroot/");
    assert!(fleet.hostile_rsync(&["-rl", &evil_src, to]).await.success());
    assert!(fs::symlink_metadata(fleet.www("web1").join("abs")).unwrap().is_symlink());
    for name in ["abs", "up"] {
        fs::remove_file(evil.join(name)).unwrap();
        fs::create_dir(evil.join(name)).unwrap();
        fs::write(evil.join(name).join("planted"), "p").unwrap();
        let file = format!("{evil_src}{name}/planted");
        let listed = format!("{evil_src}./{name}/planted");
        let below = format!("{to}{name}/");
        fleet.hostile_rsync(&["-l", &file, &below]).await;
        fleet.hostile_rsync(&["-lR", "--no-implied-dirs", &listed, to]).await;
        fleet.hostile_rsync(&["-rl", "--force", &evil_src, to]).await;
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_local_socket_is_the_agents_users_alone() {
    let fleet = Fleet::filled(&["web1"]).await;
    let master = fleet.dir.path().join("master1");
    let call = |uid: u32| {
        let mut command = Command::new(courier());
        command.args(["--data-dir".as_ref(), master.as_os_str()]);
        command.args(["rsh", "--sync", "no-such-sync", "web1"]).uid(uid).gid(uid);
        let out = command.output().unwrap();
        assert!(!out.status.success());
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    let ours = rustix::process::geteuid().as_raw();
    assert!(call(ours).contains("web1 is no target of no-such-sync"));
    // Even where an admin opened all doors.
    for (path, mode) in [
        (fleet.dir.path().to_owned(), 0o755),
        (master.clone(), 0o755),
        (master.join("rsh.sock"), 0o777),
    ] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    const NOBODY: u32 = 65534;
    let said = call(NOBODY);
    assert!(said.contains("unreachable") && !said.contains("no target"), "{said}");
    fleet.end().await;
}
