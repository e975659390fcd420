//! Mirrors as people and agents see them: what is refused, how a run goes from one to the other, who
//! learns a password.

use std::fs;
use std::path::Path;

use lockstep_proto::v1;
use lockstep_proto::v1::agent_message::Kind as Says;
use lockstep_proto::v1::controller_message::Kind as Hears;
use lockstep_proto::v1::log_service_client::LogServiceClient;
use lockstep_proto::v1::mirror_service_client::MirrorServiceClient;
use lockstep_proto::v1::store_service_client::StoreServiceClient;
use tokio::time::timeout;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::agent::Agent;
use crate::fleet::{Fleet, PATIENCE, reason};

pub const PASSWORD: &str = "correct-horse-battery";

pub fn place(node: &str) -> v1::Place {
    v1::Place { node: node.to_owned(), path: "/srv".to_owned() }
}

pub fn rule(rule: &str) -> Option<v1::ScheduleText> {
    Some(v1::ScheduleText { rule: rule.to_owned(), ..Default::default() })
}

pub fn fedora() -> v1::CreateMirrorRequest {
    v1::CreateMirrorRequest {
        name: "fedora".to_owned(),
        upstream: "rsync://lockstep@up.example/fedora/linux".to_owned(),
        master: "master1".to_owned(),
        dest: "/data/ftp".to_owned(),
        replicas: vec![place("web1")],
        ..Default::default()
    }
}

pub async fn mirrors(fleet: &Fleet) -> MirrorServiceClient<Channel> {
    MirrorServiceClient::new(fleet.admin().await)
}

async fn get(fleet: &Fleet, name: &str) -> v1::Mirror {
    let request = v1::GetMirrorRequest { name: name.to_owned() };
    mirrors(fleet).await.get_mirror(request).await.unwrap().into_inner().mirror.unwrap()
}

/// A master and a replica, which have taken up their parts in fedora.
struct Pair {
    master: Agent,
    replica: Agent,
}

impl Pair {
    async fn of(fleet: &Fleet, create: v1::CreateMirrorRequest) -> Self {
        let (master1, web1) = (fleet.join("master1").await, fleet.join("web1").await);
        let mut master = Agent::connect(fleet, &master1, 1).await;
        let mut replica = Agent::connect(fleet, &web1, 1).await;
        mirrors(fleet).await.create_mirror(create).await.unwrap();
        for agent in [&mut master, &mut replica] {
            let offer = agent.offer().await;
            let spec = offer.spec.unwrap().kind;
            assert!(matches!(spec, Some(v1::task_spec::Kind::MirrorPlace(_))), "{spec:?}");
            agent.end(&offer.id, v1::OutcomeKind::Ok).await;
        }
        Self { master, replica }
    }
}

fn pull(offer: &v1::OfferTask) -> &v1::MirrorPull {
    match offer.spec.as_ref().unwrap().kind.as_ref() {
        Some(v1::task_spec::Kind::MirrorPull(pull)) => pull,
        other => panic!("a pull, not {other:?}"),
    }
}

/// Ends a pull that brought something.
async fn end_pull(agent: &mut Agent, id: &str, kind: v1::OutcomeKind, message: &str) {
    let pulled = v1::Pulled {
        exit_code: Some(0),
        changed: true,
        files: 3,
        entries: 4,
        ..Default::default()
    };
    let outcome =
        v1::TaskOutcome { kind: kind.into(), message: message.to_owned(), pulled: Some(pulled) };
    agent.say(Says::TaskEnd(v1::TaskEnd { id: id.to_owned(), outcome: Some(outcome) })).await;
    assert!(matches!(agent.hear().await, Some(Hears::OutcomeAck(ack)) if ack.id == id));
}

async fn say_progress(agent: &Agent, percent: u32) {
    let pull = v1::PullProgress {
        number: 1,
        phase: v1::PullPhase::Content.into(),
        percent: Some(percent),
        ..Default::default()
    };
    let report = v1::MirrorReport { pull: Some(pull), ..Default::default() };
    let update = v1::MirrorUpdate { mirror: "fedora".to_owned(), report: Some(report) };
    agent.say(Says::MirrorUpdate(update)).await;
}

async fn next<T>(answers: &mut Streaming<T>) -> Option<T> {
    timeout(PATIENCE, answers.message()).await.expect("an answer").unwrap()
}

/// Reads until an answer fits.
async fn next_where(
    answers: &mut Streaming<v1::WatchRunResponse>,
    fits: impl Fn(&v1::WatchRunResponse) -> bool,
) -> v1::WatchRunResponse {
    loop {
        let answer = next(answers).await.expect("an answer that fits");
        if fits(&answer) {
            return answer;
        }
        assert!(!answer.done, "{answer:?}");
    }
}

#[tokio::test]
async fn a_run_goes_from_the_upstream_to_every_replica_before_the_eyes_of_who_waits() {
    let fleet = Fleet::start().await;
    let create = v1::CreateMirrorRequest { schedule: rule("hour=4 minute=30"), ..fedora() };
    let mut pair = Pair::of(&fleet, create).await;

    let shown = get(&fleet, "fedora").await;
    assert_eq!(shown.tree, "/data/ftp/fedora");
    assert_eq!(shown.schedule_fields["minute"], "30");
    assert_eq!(shown.schedule_fields["second"], "0");
    assert_eq!(shown.schedule_fields.len(), 8);
    assert!(shown.next_run_at.is_some() && shown.enabled && shown.generation == 0);
    assert!(shown.on_master.as_ref().unwrap().applied && shown.on_replicas[0].applied);
    assert_eq!(shown.on_replicas[0].tree, "/srv/fedora");
    assert_eq!(shown.reason, "");

    let mut client = mirrors(&fleet).await;
    let sync = v1::SyncMirrorRequest { name: "fedora".to_owned(), ..Default::default() };
    let asked = client.sync_mirror(sync.clone()).await.unwrap().into_inner();
    assert_eq!(asked.run, "fedora/1");
    let watch = v1::WatchRunRequest { run: asked.run.clone(), follow: true };
    let mut watch = client.watch_run(watch).await.unwrap().into_inner();

    let offer = pair.master.offer().await;
    assert_eq!((pull(&offer).number, pull(&offer).tree.as_str()), (1, "/data/ftp/fedora"));
    say_progress(&pair.master, 41).await;
    let at = next_where(&mut watch, |now| {
        now.parts.first().is_some_and(|head| head.progress.is_some_and(|p| p.percent == Some(41)))
    });
    let at = at.await;
    assert_eq!(
        (at.parts[0].node.as_str(), at.parts[0].trigger.as_str()),
        ("master1", "user/admin")
    );
    assert_eq!(at.parts[0].task, offer.id);

    // A trigger during the run is one run more, however often it comes.
    for _ in 0..2 {
        assert_eq!(client.sync_mirror(sync.clone()).await.unwrap().into_inner().run, "fedora/2");
    }
    end_pull(&mut pair.master, &offer.id, v1::OutcomeKind::Ok, "").await;
    let second = pair.master.offer().await;
    assert_eq!(pull(&second).number, 2);

    let cascade = pair.replica.offer().await;
    assert_eq!((pull(&cascade).number, pull(&cascade).generation), (1, 1));
    let waiting = next_where(&mut watch, |now| !now.waiting.is_empty()).await;
    assert_eq!((waiting.waiting, waiting.done), (vec!["web1".to_owned()], false));
    end_pull(&mut pair.replica, &cascade.id, v1::OutcomeKind::Ok, "").await;
    let end = next_where(&mut watch, |now| now.done).await;
    assert!(end.ok && end.parts.len() == 2 && end.waiting.is_empty(), "{end:?}");
    assert_eq!(end.parts[0].pulled.as_ref().unwrap().files, 3);
    assert!(next(&mut watch).await.is_none(), "nothing more comes");

    // The second run fails for good, and says why wherever one looks.
    let outcome = v1::TaskOutcome {
        kind: v1::OutcomeKind::Failed.into(),
        message: "the upstream is empty".to_owned(),
        pulled: Some(v1::Pulled { permanent: true, ..Default::default() }),
    };
    pair.master
        .say(Says::TaskEnd(v1::TaskEnd { id: second.id.clone(), outcome: Some(outcome) }))
        .await;
    assert!(matches!(pair.master.hear().await, Some(Hears::OutcomeAck(_))));
    let watch = v1::WatchRunRequest { run: "fedora/2".to_owned(), follow: true };
    let mut watch = client.watch_run(watch).await.unwrap().into_inner();
    let end = next_where(&mut watch, |now| now.done).await;
    assert!(!end.ok && end.parts[0].message == "the upstream is empty", "{end:?}");
    let shown = get(&fleet, "fedora").await;
    assert_eq!(shown.generation, 1);
    assert!(shown.on_replicas[0].current && shown.on_master.as_ref().unwrap().current);
    assert_eq!(shown.on_master.unwrap().last_run.unwrap().number, 2);

    let list = v1::ListRunsRequest::default();
    let runs = client.list_runs(list).await.unwrap().into_inner().runs;
    let ids: Vec<_> = runs.iter().map(|run| (run.id.as_str(), run.node.as_str())).collect();
    assert_eq!(ids, [("fedora/2", "master1"), ("fedora/1", "master1"), ("fedora/1", "web1")]);
    let list = v1::ListRunsRequest { node: "web1".to_owned(), limit: 1, ..Default::default() };
    assert_eq!(client.list_runs(list).await.unwrap().into_inner().runs.len(), 1);
    let list = v1::ListRunsRequest { mirror: "debian".to_owned(), ..Default::default() };
    assert_eq!(reason(client.list_runs(list).await), "not_found");
    for unknown in ["fedora/3", "debian/1"] {
        let watch = v1::WatchRunRequest { run: unknown.to_owned(), follow: true };
        assert_eq!(reason(client.watch_run(watch).await), "not_found", "{unknown}");
    }
    let only = v1::SyncMirrorRequest { only: vec!["web1".to_owned()], ..sync };
    let only = client.sync_mirror(only).await.unwrap().into_inner();
    assert_eq!(only.run, "fedora/3");
    let alone = pair.replica.offer().await;
    end_pull(&mut pair.replica, &alone.id, v1::OutcomeKind::Ok, "").await;
    let watch = v1::WatchRunRequest { run: only.run, follow: true };
    let mut watch = client.watch_run(watch).await.unwrap().into_inner();
    let end = next_where(&mut watch, |now| now.done).await;
    assert!(end.ok && end.parts.len() == 1, "{end:?}");
}

#[tokio::test]
async fn what_a_run_prints_is_read_from_before_its_beginning_to_its_last_try() {
    let fleet = Fleet::start().await;
    let mut pair = Pair::of(&fleet, fedora()).await;
    let mut client = mirrors(&fleet).await;
    let sync = v1::SyncMirrorRequest { name: "fedora".to_owned(), ..Default::default() };
    client.sync_mirror(sync).await.unwrap();
    let tail = |node: &str, follow| v1::TailRunRequest {
        run: "fedora/1".into(),
        node: node.into(),
        follow,
    };
    assert_eq!(reason(client.tail_run(tail("web9", true)).await), "not_found");
    assert_eq!(reason(client.tail_run(tail("web1", false)).await), "not_found");
    // The agent has been told of it, and has not said that it took it.
    let mut lines = client.tail_run(tail("", true)).await.unwrap().into_inner();
    let mut of_replica = client.tail_run(tail("web1", true)).await.unwrap().into_inner();

    let offer = pair.master.offer().await;
    for (task, attempt) in [(offer, "first"), (v1::OfferTask::default(), "second")] {
        let task = if attempt == "first" { task } else { pair.master.offer().await };
        let running = v1::TaskUpdate { id: task.id.clone(), state: v1::TaskState::Running.into() };
        pair.master.say(Says::TaskUpdate(running)).await;
        let Some(Hears::TailOutput(asked)) = pair.master.hear().await else { panic!("a tail") };
        assert_eq!((asked.id.as_str(), asked.follow), (task.id.as_str(), true));
        let said = vec![attempt.to_owned()];
        pair.master.say(Says::TaskOutput(all(asked.tail, said))).await;
        assert_eq!(next(&mut lines).await.unwrap().lines, [attempt]);
        let kind = match attempt {
            "first" => v1::OutcomeKind::Interrupted,
            _ => v1::OutcomeKind::Ok,
        };
        end_pull(&mut pair.master, &task.id, kind, "").await;
    }
    assert!(next(&mut lines).await.is_none(), "the part has ended");
    let cascade = pair.replica.offer().await;
    end_pull(&mut pair.replica, &cascade.id, v1::OutcomeKind::Ok, "").await;
    // It ended so soon that it is read when it is over: what the node keeps of it.
    let Some(Hears::TailOutput(asked)) = pair.replica.hear().await else { panic!("a tail") };
    assert_eq!((asked.run.as_str(), asked.follow), ("fedora/1", false));
    pair.replica.say(Says::TaskOutput(all(asked.tail, vec!["all".to_owned()]))).await;
    assert_eq!(next(&mut of_replica).await.unwrap().lines, ["all"]);
    assert!(next(&mut of_replica).await.is_none());

    // So it is with an older run, for as long as the node has it.
    let mut lines = client.tail_run(tail("", false)).await.unwrap().into_inner();
    let Some(Hears::TailOutput(asked)) = pair.master.hear().await else { panic!("a tail") };
    assert_eq!((asked.run.as_str(), asked.id.as_str()), ("fedora/1", ""));
    let gone = v1::TaskOutput { missing: "it is gone".to_owned(), ..all(asked.tail, Vec::new()) };
    pair.master.say(Says::TaskOutput(gone)).await;
    let refused = lines.message().await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound, "{refused}");
    assert!(refused.message().contains("master1") && refused.message().contains("it is gone"));
}

/// All that there is to read.
fn all(tail: u64, lines: Vec<String>) -> v1::TaskOutput {
    v1::TaskOutput { tail, lines, end: true, ..v1::TaskOutput::default() }
}

/// Whether any file below has these bytes in it.
fn holds(dir: &Path, needle: &[u8]) -> Option<std::path::PathBuf> {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let found = match path.is_dir() {
            true => holds(&path, needle),
            false => {
                let bytes = fs::read(&path).unwrap();
                bytes.windows(needle.len()).any(|w| w == needle).then_some(path)
            }
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

#[tokio::test]
async fn a_password_reaches_the_agent_that_pulls_and_nothing_else() {
    let mut fleet = Fleet::start().await;
    let create = v1::CreateMirrorRequest { password: PASSWORD.to_owned(), ..fedora() };
    let mut pair = Pair::of(&fleet, create).await;
    let mut client = mirrors(&fleet).await;
    let shown = get(&fleet, "fedora").await;
    assert!(shown.has_password && !format!("{shown:?}").contains(PASSWORD));
    let sync = v1::SyncMirrorRequest { name: "fedora".to_owned(), ..Default::default() };
    client.sync_mirror(sync.clone()).await.unwrap();
    let offer = pair.master.offer().await;
    assert_eq!(offer.password, PASSWORD);
    assert!(!format!("{offer:?}").contains(PASSWORD));
    end_pull(&mut pair.master, &offer.id, v1::OutcomeKind::Ok, "").await;
    let cascade = pair.replica.offer().await;
    assert_eq!(cascade.password, "", "the replica pulls from the master");
    end_pull(&mut pair.replica, &cascade.id, v1::OutcomeKind::Ok, "").await;

    // The name is another one, the host is not, and neither is the password.
    let rename = v1::RenameMirrorRequest {
        name: "fedora".to_owned(),
        to: "fedora-linux".to_owned(),
        ..Default::default()
    };
    client.rename_mirror(rename).await.unwrap();
    for agent in [&mut pair.master, &mut pair.replica] {
        for _ in 0..2 {
            let offer = agent.offer().await;
            agent.end(&offer.id, v1::OutcomeKind::Ok).await;
        }
    }
    let sync = v1::SyncMirrorRequest { name: "fedora-linux".to_owned(), ..sync };
    client.sync_mirror(sync.clone()).await.unwrap();
    let offer = pair.master.offer().await;
    assert_eq!(offer.password, PASSWORD);
    end_pull(&mut pair.master, &offer.id, v1::OutcomeKind::Ok, "").await;

    // To another host it does not go.
    let elsewhere = v1::UpdateMirrorRequest {
        name: "fedora-linux".to_owned(),
        upstream: Some("rsync://lockstep@evil.example/fedora".to_owned()),
        ..Default::default()
    };
    assert_eq!(reason(client.update_mirror(elsewhere).await), "invalid");

    let log = LogServiceClient::new(fleet.admin().await)
        .list_entries(v1::ListEntriesRequest { limit: 1000, ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    assert!(format!("{log:?}").contains("secret/fedora") && !format!("{log:?}").contains(PASSWORD));
    let mut export = StoreServiceClient::new(fleet.admin().await)
        .export_store(v1::ExportStoreRequest { log: true })
        .await
        .unwrap()
        .into_inner();
    let mut exported = String::new();
    while let Some(piece) = next(&mut export).await {
        exported += &format!("{piece:?}");
        exported += &String::from_utf8_lossy(&piece.ndjson);
    }
    assert!(exported.contains("secret/fedora") && !exported.contains(PASSWORD));
    let (data, key) = (fleet.data_dir(), fleet.data_dir().join("secret.key"));
    fleet.stop().await.unwrap();
    assert_eq!(holds(&data, PASSWORD.as_bytes()), None);

    // Without its key file the controller starts, and says what does not work.
    let kept = fleet.dir.path().join("kept.key");
    fs::rename(&key, &kept).unwrap();
    fleet.restart().await;
    let shown = get(&fleet, "fedora-linux").await;
    assert!(shown.reason.contains("secret.key"), "{}", shown.reason);
    assert!(!key.exists());
    let mut client = mirrors(&fleet).await;
    let other = v1::CreateMirrorRequest {
        name: "debian".to_owned(),
        password: PASSWORD.to_owned(),
        ..fedora()
    };
    assert_eq!(reason(client.create_mirror(other).await), "no_key");
    fleet.stop().await.unwrap();
    fs::rename(&kept, &key).unwrap();
    fleet.restart().await;
    assert!(!get(&fleet, "fedora-linux").await.reason.contains("secret.key"));
}
