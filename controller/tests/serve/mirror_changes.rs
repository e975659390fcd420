//! Mirrors as people define and change them: what is taken, and what is refused by name.

use lockstep_proto::v1;
use tonic::Status;

use crate::fleet::{Fleet, reason, until};
use crate::mirrors::{PASSWORD, fedora, mirrors, place, rule};

fn setting(name: &str, value: &str) -> v1::Setting {
    v1::Setting { name: name.to_owned(), value: value.to_owned() }
}

#[tokio::test]
async fn what_is_wrong_with_a_mirror_is_named() {
    let fleet = Fleet::start().await;
    for node in ["master1", "web1"] {
        fleet.join(node).await;
    }
    let mut client = mirrors(&fleet).await;
    let ok = client.create_mirror(fedora()).await.unwrap().into_inner();
    assert!(ok.result.unwrap().changed);
    let debian = || v1::CreateMirrorRequest { name: "debian".to_owned(), ..fedora() };
    type Edit = fn(&mut v1::CreateMirrorRequest);
    let wrong: &[(&str, &str, Edit)] = &[
        ("invalid", "mirror name", |m| m.name = "../etc".into()),
        ("already_exists", "fedora", |m| {
            m.name = "fedora".into();
            m.dest = "/elsewhere".into();
        }),
        ("invalid", "upstream", |m| m.upstream = "http://up.example/x".into()),
        ("invalid", "password", |m| m.password = "a\nb".into()),
        ("invalid", "password", |m| m.password = "x".repeat(1025)),
        ("invalid", "password", |m| {
            m.upstream = String::new();
            m.password = "x".into();
        }),
        ("invalid", "rsync://debian@host/module", |m| {
            m.upstream = "rsync://up.example/x".into();
            m.password = "x".into();
        }),
        ("invalid", "master", |m| m.master = String::new()),
        ("not_found", "master9", |m| m.master = "master9".into()),
        ("invalid", "dest", |m| m.dest = "data".into()),
        ("invalid", "replicas[0]", |m| m.replicas[0].path = "/a/../b".into()),
        ("invalid", "replicas", |m| m.replicas = vec![place("master1")]),
        ("invalid", "colour", |m| m.settings.push(setting("colour", "red"))),
        ("invalid", "rsync-option", |m| m.settings.push(setting("rsync-option", "-e sh"))),
        ("invalid", "delete", |m| m.settings.push(setting("delete", "always"))),
        ("invalid", "owner", |m| m.owner = "a b".into()),
        ("not_found", "nobody9", |m| m.owner = "nobody9".into()),
        ("invalid", "minutes", |m| m.schedule = rule("minutes=5")),
        ("invalid", "minute", |m| m.schedule = rule("minute=75")),
        ("invalid", "never fire", |m| m.schedule = rule("month=2 day=30")),
        ("invalid", "timezone", |m| {
            m.schedule = Some(v1::ScheduleText {
                timezone: "Mars/Base".into(),
                ..rule("minute=5").unwrap()
            });
        }),
        ("invalid", "start_date", |m| {
            m.schedule =
                Some(v1::ScheduleText { start_date: "soon".into(), ..rule("minute=5").unwrap() });
        }),
        ("invalid", "schedule", |m| {
            m.upstream = String::new();
            m.schedule = rule("minute=5");
        }),
        ("overlap", "mirror fedora", |m| m.dest = "/data/ftp/fedora".into()),
    ];
    for (stable, named, edit) in wrong {
        let mut request = debian();
        edit(&mut request);
        let refused: Status = client.create_mirror(request).await.unwrap_err();
        let text = refused.message().to_owned();
        assert!(text.contains(named), "{named}: {text}");
        assert_eq!(reason::<()>(Err(refused)), *stable, "{text}");
    }
    let all = client.list_mirrors(v1::ListMirrorsRequest {}).await.unwrap().into_inner().mirrors;
    assert_eq!(all.len(), 1, "nothing of it was kept");
}

#[tokio::test]
async fn a_mirror_is_changed_in_every_part_and_goes() {
    let fleet = Fleet::start().await;
    for node in ["master1", "web1", "web2"] {
        fleet.join(node).await;
    }
    let mut client = mirrors(&fleet).await;
    let dry = |dry_run| Some(v1::Mutation { dry_run, ..Default::default() });
    let tried = v1::CreateMirrorRequest { mutation: dry(true), ..fedora() };
    let tried = client.create_mirror(tried).await.unwrap().into_inner();
    assert!(tried.result.unwrap().changed && tried.mirror.is_none(), "a dry run");
    let made = client.create_mirror(fedora()).await.unwrap().into_inner().mirror.unwrap();
    assert!(!client.create_mirror(fedora()).await.unwrap().into_inner().result.unwrap().changed);

    let change = v1::UpdateMirrorRequest {
        mutation: Some(v1::Mutation { if_revision: made.revision, ..Default::default() }),
        name: "fedora".to_owned(),
        settings: vec![setting("delete", "after"), setting("rsync-option", "--exclude=*.iso")],
        replicas: Some(v1::PlaceList { places: vec![place("web1"), place("web2")] }),
        password: Some(PASSWORD.to_owned()),
        ..Default::default()
    };
    let changed = client.update_mirror(change.clone()).await.unwrap().into_inner().mirror.unwrap();
    assert_eq!(changed.replicas.len(), 2);
    assert!(changed.has_password);
    assert_eq!(reason(client.update_mirror(change).await), "changed_meanwhile");
    let bare = v1::UpdateMirrorRequest {
        name: "fedora".to_owned(),
        password: Some(String::new()),
        ..Default::default()
    };
    let bare = client.update_mirror(bare).await.unwrap().into_inner().mirror.unwrap();
    assert!(!bare.has_password && bare.replicas.len() == 2);

    let on = |text: &str| v1::RescheduleMirrorRequest {
        name: "fedora".to_owned(),
        schedule: rule(text),
        ..Default::default()
    };
    let timed = client.reschedule_mirror(on("*/15 * * * *")).await.unwrap().into_inner();
    assert!(timed.mirror.unwrap().next_run_at.is_some());
    assert_eq!(reason(client.reschedule_mirror(on("* * *")).await), "invalid");
    let enable = |enabled| v1::SetMirrorEnabledRequest {
        name: "fedora".to_owned(),
        enabled,
        ..Default::default()
    };
    let off = client.set_mirror_enabled(enable(false)).await.unwrap().into_inner().mirror.unwrap();
    assert!(!off.enabled && off.next_run_at.is_none());
    assert!(off.reason.contains("lockstepctl mirror enable"), "{}", off.reason);
    let on_again = client.set_mirror_enabled(enable(true)).await.unwrap().into_inner();
    assert!(on_again.mirror.unwrap().next_run_at.is_some());
    let none = v1::RescheduleMirrorRequest { schedule: None, ..on("") };
    let none = client.reschedule_mirror(none).await.unwrap().into_inner().mirror.unwrap();
    assert!(none.schedule.is_none() && none.schedule_fields.is_empty());

    let ready = v1::ReadyMirrorRequest { name: "fedora".to_owned(), ..Default::default() };
    assert_eq!(reason(client.ready_mirror(ready.clone()).await), "has_upstream");
    let own = v1::UpdateMirrorRequest {
        name: "fedora".to_owned(),
        upstream: Some(String::new()),
        ..Default::default()
    };
    client.update_mirror(own).await.unwrap();
    assert_eq!(client.ready_mirror(ready).await.unwrap().into_inner().run, "fedora/1");

    let delete = v1::DeleteMirrorRequest { name: "fedora".to_owned(), ..Default::default() };
    assert!(
        client.delete_mirror(delete.clone()).await.unwrap().into_inner().result.unwrap().changed
    );
    until("it is gone", || async {
        let get = v1::GetMirrorRequest { name: "fedora".to_owned() };
        (reason(mirrors(&fleet).await.get_mirror(get).await) == "not_found").then_some(())
    })
    .await;
    assert!(!client.delete_mirror(delete).await.unwrap().into_inner().result.unwrap().changed);
    let settings = client.list_mirror_settings(v1::ListMirrorSettingsRequest {}).await.unwrap();
    assert!(settings.into_inner().settings.iter().any(|row| row.name == "delete"));
}
