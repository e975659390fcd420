//! Makes `live` honest: it is said only while the program's main loop beats.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::{HealthBoard, LIVE, Verdict};

/// Held by the main loop.
#[derive(Debug)]
pub struct Pulse(watch::Sender<()>);

impl Pulse {
    /// To be called each time around, also when there is nothing to do.
    pub fn beat(&self) {
        self.0.send_replace(());
    }
}

impl HealthBoard {
    /// A pulse for the main loop, and the work of judging it, to be spawned: `live` is withdrawn
    /// after `silence_max` without a beat or when the pulse is dropped, and comes back with the
    /// next beat.
    pub fn pulse(&self, silence_max: Duration) -> (Pulse, impl Future<Output = ()> + Send + use<>) {
        let (sender, mut beats) = watch::channel(());
        let board = self.clone();
        let judge = async move {
            loop {
                match timeout(silence_max, beats.changed()).await {
                    Ok(Ok(())) => board.set(LIVE, Verdict::Serving, "running"),
                    Ok(Err(_)) => {
                        board.set(LIVE, Verdict::NotServing, "the main loop has ended");
                        return;
                    }
                    Err(_) => {
                        let reason = format!("the main loop was silent for {silence_max:?}");
                        board.set(LIVE, Verdict::NotServing, &reason);
                    }
                }
            }
        };
        (Pulse(sender), judge)
    }
}
