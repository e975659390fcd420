//! Waits until targets have everything that was in the source when it was asked, and says whom it
//! waits for. It orders no delivery and survives no restart.

use lockstep_model::NodeName;
use lockstep_model::task::{Outcome, OutcomeKind};
use tokio::sync::mpsc;

use super::Orders;
use super::canary::Now;
use crate::data::below::Standing;

/// Names of targets in one line.
const NAMES_MAX: usize = 5;

/// Until `at_least` targets, or all, have everything up to now. To be dropped when cancelled.
pub async fn wait(
    orders: &Orders,
    at_least: Option<u32>,
    progress: &mpsc::Sender<String>,
) -> Result<Now, Outcome> {
    let stopped = || Outcome::new(OutcomeKind::Interrupted, "the sync was stopped");
    let failed = |why: String| Outcome::new(OutcomeKind::Failed, why);
    let _ = progress.try_send("waiting for lsyncd to tell everything up to now".to_owned());
    let now = orders.now(None).await.map_err(failed)?;
    if let Some(doubt) = &now.doubt {
        let _ = progress.try_send(doubt.clone());
    }
    let mut standing = orders.standing();
    let mut said = String::new();
    loop {
        let missing = {
            let standing = standing.borrow_and_update();
            missing(&standing, at_least, now.seq).map_err(failed)?
        };
        let Some(line) = missing else { return Ok(now) };
        if line != said {
            let _ = progress.try_send(line.clone());
            said = line;
        }
        standing.changed().await.map_err(|_| stopped())?;
    }
}

/// None when enough targets have everything up to `seq`; else whom is waited for.
fn missing(standing: &Standing, at_least: Option<u32>, seq: u64) -> Result<Option<String>, String> {
    let wanted = match at_least {
        None => standing.len(),
        Some(wanted) => wanted as usize,
    };
    if wanted > standing.len() {
        return Err(format!("{wanted} targets are asked for and {} are there", standing.len()));
    }
    let lack = |upto: &&NodeName| standing[*upto].is_none_or(|upto| upto < seq);
    let lacking: Vec<&NodeName> = standing.keys().filter(lack).collect();
    let have = standing.len() - lacking.len();
    if have >= wanted {
        return Ok(None);
    }
    let names: Vec<&str> = lacking.iter().take(NAMES_MAX).map(|node| node.as_str()).collect();
    let more = match lacking.len() - names.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Ok(Some(format!("{have} of {wanted} have everything; not yet: {}{more}", names.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_or_some_are_waited_for() {
        let standing: Standing = [("a", Some(7)), ("b", Some(6)), ("c", None), ("d", Some(8))]
            .map(|(node, upto)| (node.parse().unwrap(), upto))
            .into();
        let text = |line: &str| Ok(Some(line.to_owned()));
        assert_eq!(missing(&standing, None, 7), text("2 of 4 have everything; not yet: b, c"),);
        assert_eq!(missing(&standing, Some(2), 7), Ok(None));
        assert_eq!(missing(&standing, Some(3), 7), text("2 of 3 have everything; not yet: b, c"));
        assert!(missing(&standing, Some(5), 7).is_err());
        assert_eq!(missing(&Standing::new(), None, 7), Ok(None));
    }
}
