//! Hears from a target in a tree how far those are that it feeds in turn. It only takes it down.

use std::sync::Arc;
use std::time::Duration;

use lockstep_model::task::Peer;
use tokio_util::sync::CancellationToken;

use crate::data::below;
use crate::sync::context::Context;
use crate::sync::shared::Shared;

/// How soon a target is asked again that does not tell, or that broke off.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Until it is stopped.
pub(super) async fn hear(
    context: Arc<Context>,
    peer: Peer,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let mut options = context.options.subscribe();
    loop {
        let is_tree = options.borrow_and_update().is_tree;
        let mut is_new = true;
        let take = |standing| {
            // One that has just begun may have forgotten how far it is.
            if std::mem::take(&mut is_new) {
                shared.forget_told();
            }
            shared.set_below(standing);
            context.changed.notify_one();
        };
        let dial = &*context.engine.dial;
        tokio::select! {
            () = stop.cancelled() => return,
            changed = options.changed() => if changed.is_err() { return },
            heard = below::hear(dial, &peer, &context.sync, take), if is_tree => {
                if let Err(why) = heard {
                    tracing::debug!(sync = %context.sync, target = %peer.node, why, "nobody tells how far those behind it are");
                }
            }
        }
        shared.set_below(below::Standing::new());
        context.changed.notify_one();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY_INTERVAL) => {}
        }
    }
}
