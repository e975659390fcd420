//! What is not death: a postmaster that hangs, and one without a free connection.

use std::time::Duration;

use lockstep_agent::pg::instance::{Processes, SqlTrouble};
use rustix::process::{Pid, Signal, kill_process};

use crate::bed::{Bed, LIMIT};

#[tokio::test]
async fn a_postmaster_that_is_stopped_hangs() {
    let bed = Bed::primary("db1", &[]).await;
    bed.status().await;
    let pid = Pid::from_raw(bed.postmaster().await).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let short = Duration::from_millis(500);
    assert_eq!(bed.instance.probe(short).await, Err(SqlTrouble::Hung));
    // Sessions that are there work on, and so it is no proof of anything that one does.
    assert!(bed.instance.status(LIMIT).await.is_ok());
    assert!(matches!(bed.instance.look().await.processes, Processes::Running { .. }));
    kill_process(pid, Signal::CONT).unwrap();
    bed.instance.probe(LIMIT).await.unwrap();

    // Stopped for good, it is still fenced.
    kill_process(pid, Signal::STOP).unwrap();
    bed.fence().await;
}

#[tokio::test]
async fn without_a_free_connection_it_is_busy() {
    let bed = Bed::primary("db1", &[]).await;
    bed.status().await;
    let mut sessions = Vec::new();
    while let Ok(session) = bed.session().await {
        sessions.push(session);
        assert!(sessions.len() <= 20, "max_connections");
    }
    assert_eq!(bed.instance.probe(LIMIT).await, Err(SqlTrouble::Busy));
    assert!(bed.instance.status(LIMIT).await.is_ok(), "over the session that is kept");
    let other = bed.opened_again().await;
    assert_eq!(other.status(LIMIT).await, Err(SqlTrouble::Busy));
    drop(sessions);
    crate::bed::until("connections are free again", || async {
        bed.instance.probe(LIMIT).await.is_ok()
    })
    .await;
}
