//! Ends of members' places in an election.

use lockstep_model::identity::Subject;

use super::leases::{cluster, fail_over};
use super::*;

async fn end(driver: &DriverHandle, name: &str) {
    let live = driver.read(|world| {
        let live = world.live_tasks_of(&node(name)).last().map(|task| task.value.id);
        live.unwrap()
    });
    let request = Request::EndTask { node: node(name), id: live, outcome: Outcome::ok() };
    let ask = Ask::new(Actor::Subject(Subject::Node(node(name))), "test", request);
    driver.tell(ask).await.unwrap();
}

#[tokio::test]
async fn that_a_place_was_taken_up_waits_for_an_election_and_not_for_ever() {
    let Bench { driver, looping, .. } = bench(99).await;
    cluster(&driver).await;
    let began = uptime();
    end(&driver, "db2").await;
    driver.ask(fail_over()).await.unwrap();
    end(&driver, "db2").await;
    assert!(uptime().since(began) >= Millis(400), "it was stored at once");
    // None is lost when the loop ends.
    let last = end(&driver, "db1");
    let (last, ()) =
        tokio::join!(tokio::time::timeout(Duration::from_secs(20), last), driver.stop());
    last.unwrap();
    looping.await.unwrap().unwrap();
}
