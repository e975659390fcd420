//! What the controller says of itself to load balancers and service managers.

use std::time::Duration;

use lockstep_transport::health::{HealthBoard, LIVE, READY, Verdict};
use tokio::time::{sleep, timeout};

use crate::driver::DriverHandle;

/// How often the loop is asked whether it turns.
const CHECK: Duration = Duration::from_secs(5);
/// A loop that takes longer is stuck, on a disk most likely.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Sets the answers until dropped.
pub async fn watch(board: HealthBoard, driver: DriverHandle) {
    loop {
        match timeout(ANSWER_MAX, driver.turn()).await {
            Ok(Ok(())) => {
                board.set(LIVE, Verdict::Serving, "running");
                // It serves what there is; that people see it here too is all that can be done.
                let behind = driver.read(|world| world.store_behind().map(|b| b.to_string()));
                let ready = behind.map_or("serving".to_owned(), |why| {
                    format!("serving, and the store is an old copy, see lockstepctl status: {why}")
                });
                board.set(READY, Verdict::Serving, &ready);
            }
            Ok(Err(reject)) => board.set(READY, Verdict::NotServing, &reject.message),
            Err(_) => {
                let why = "the main loop does not turn: is the disk of the store stuck?";
                board.set(LIVE, Verdict::NotServing, why);
                board.set(READY, Verdict::NotServing, why);
            }
        }
        sleep(CHECK).await;
    }
}
