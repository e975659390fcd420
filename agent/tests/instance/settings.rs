//! Settings that postgres takes, takes later, or refuses.

use lockstep_agent::pg::instance::{Role, StartAs};
use lockstep_model::cluster::Quorum;

use crate::bed::{Bed, LIMIT};

const OFF: Role<'static> = Role::Primary(&Quorum::OFF);

fn set(bed: &mut Bed, name: &str, value: &str) {
    let parameters = &mut bed.place.options.parameters;
    parameters.retain(|parameter| parameter.name != name);
    parameters.push(format!("{name}={value}").parse().unwrap());
}

#[tokio::test]
async fn a_wrong_setting_is_refused_and_the_former_ones_stay() {
    let mut bed = Bed::primary("db1", &[]).await;
    set(&mut bed, "work_mem", "5MB");
    let done = bed.configure(OFF).await.unwrap();
    assert_eq!((done.changed, done.restart, done.refused), (true, false, None));
    assert_eq!(bed.ask("SHOW work_mem").await, "5MB");
    assert!(!bed.configure(OFF).await.unwrap().changed, "it is as it is");

    set(&mut bed, "work_mem", "plenty");
    let done = bed.configure(OFF).await.unwrap();
    let why = done.refused.unwrap();
    assert!(why.contains("work_mem") && !done.changed, "{why}");
    assert_eq!(bed.ask("SHOW work_mem").await, "5MB");
    bed.stop().await;
    bed.start(StartAs::Primary).await;
    assert_eq!(bed.ask("SHOW work_mem").await, "5MB");
}

#[tokio::test]
async fn what_waits_for_a_restart_is_told_and_what_prevents_one_is_taken_back() {
    let mut bed = Bed::primary("db1", &[]).await;
    set(&mut bed, "max_connections", "25");
    assert!(bed.configure(OFF).await.unwrap().restart);
    let waits = bed.status().await.pending_restart;
    assert_eq!(waits.len(), 1);
    assert_eq!((&*waits[0].name, &*waits[0].now, &*waits[0].then), ("max_connections", "20", "25"));
    bed.stop().await;
    bed.start(StartAs::Primary).await;
    assert_eq!(bed.status().await.pending_restart, []);

    // postgres takes it for fine until it looks for the file.
    set(&mut bed, "shared_preload_libraries", "no_such_library");
    assert_eq!(bed.configure(OFF).await.unwrap().refused, None);
    bed.stop().await;
    let started = bed.instance.start(StartAs::Primary, None).await;
    let why = match started {
        Ok(()) => bed.instance.ready(LIMIT).await.unwrap_err(),
        Err(why) => why,
    };
    assert!(why.contains("no_such_library"), "{why}");
    assert!(why.contains("former settings are back"), "{why}");
    assert!(bed.instance.look().await.standby_signal);
    bed.start(StartAs::Primary).await;
    assert_eq!(bed.ask("SHOW max_connections").await, "25");
    let refused = bed.configure(OFF).await.unwrap().refused;
    assert!(refused.unwrap().contains("did not start"));
}

#[tokio::test]
async fn what_others_wrote_above_lockstep_does_not_count() {
    let bed = Bed::primary("db1", &[]).await;
    let client = bed.session().await.unwrap();
    client.simple_query("ALTER SYSTEM SET synchronous_standby_names = 'x'").await.unwrap();
    client.simple_query("ALTER SYSTEM SET log_lock_waits = on").await.unwrap();
    assert!(bed.configure(OFF).await.unwrap().changed);
    assert_eq!(bed.ask("SHOW synchronous_standby_names").await, "");
    assert_eq!(bed.ask("SHOW log_lock_waits").await, "on");
}
