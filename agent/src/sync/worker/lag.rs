//! Tells a target how far it is behind, beside its deliveries: while it lags more than `max-lag`, and
//! once when it does not any more. A target that is not behind costs nothing.

use std::sync::Arc;
use std::time::Duration;

use lockstep_model::Millis;
use lockstep_model::task::Peer;
use tokio_util::sync::CancellationToken;

use crate::data::header::{Answer, Header, Mark, Op};
use crate::data::mark;
use crate::sync::context::Context;
use crate::sync::shared::Shared;

/// How often the lag is looked at: a third of `max-lag`, and at most this.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(10);

/// Until it is stopped.
pub(super) async fn tell(
    context: Arc<Context>,
    peer: Peer,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let mut options = context.options.subscribe();
    // Nobody knows what an agent before this one told.
    let mut told_behind = true;
    loop {
        let max_lag = options.borrow_and_update().max_lag;
        let pause = match max_lag {
            Some(max_lag) => (Duration::from(max_lag) / 3).min(LOOK_INTERVAL_MAX),
            None => Duration::MAX,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = options.changed() => if changed.is_err() { return } else { continue },
            () = tokio::time::sleep(pause) => {}
        }
        let now = (context.engine.now)();
        let (Some(max_lag), Some(lag)) = (max_lag, shared.told_lag(now)) else { continue };
        // What a relay lacks itself, it cannot know that others lack.
        let own = context.engine.targets.told_lag(&context.sync).unwrap_or(Millis(0));
        let lag = lag.max(own);
        let is_behind = lag > max_lag;
        if !is_behind && !told_behind {
            continue;
        }
        let acked = shared.place(context.place());
        let what = Mark { filled: false, changed: false, acked, at: now, lag: Some(lag) };
        let header = Header { sync: context.sync.clone(), op: Op::Mark(what) };
        let answer = tokio::select! {
            () = stop.cancelled() => return,
            answer = mark(&*context.engine.dial, &peer, &header) => answer,
        };
        if let Ok(Answer::Go | Answer::Unfilled) = answer {
            told_behind = is_behind;
        }
    }
}
