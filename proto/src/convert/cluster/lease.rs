//! Leases of primaries.

use lockstep_model::cluster::{Answer, Grant, Renewal, Term};
use lockstep_model::{Invalid, Millis};

use crate::convert::{one_line, parse, required};
use crate::v1::{self, lease_grant};

/// Longest reason of a refusal, in bytes.
const WHY_MAX: usize = 512;

impl TryFrom<v1::LeaseRenewal> for Renewal {
    type Error = Invalid;
    fn try_from(renewal: v1::LeaseRenewal) -> Result<Self, Invalid> {
        let v1::LeaseRenewal { cluster, term, sent_ms, away_ms } = renewal;
        let away = (away_ms > 0).then_some(Millis(away_ms));
        Ok(Self { cluster: parse("cluster", &cluster)?, term: Term(term), sent_ms, away })
    }
}

impl From<Renewal> for v1::LeaseRenewal {
    fn from(renewal: Renewal) -> Self {
        let Renewal { cluster, term, sent_ms, away } = renewal;
        let away_ms = away.map_or(0, |away| away.0);
        Self { cluster: cluster.to_string(), term: term.0, sent_ms, away_ms }
    }
}

impl TryFrom<v1::LeaseGrant> for Grant {
    type Error = Invalid;
    fn try_from(grant: v1::LeaseGrant) -> Result<Self, Invalid> {
        use lease_grant::Answer as Wire;
        let v1::LeaseGrant { cluster, term, sent_ms, answer } = grant;
        let answer = match required("answer", answer)? {
            Wire::LengthMs(length) => Answer::For(Millis(length)),
            Wire::WithoutEnd(_) => Answer::WithoutEnd,
            Wire::Refused(why) => Answer::Refused(one_line(&why, WHY_MAX)),
        };
        Ok(Self { cluster: parse("cluster", &cluster)?, term: Term(term), sent_ms, answer })
    }
}

impl From<Grant> for v1::LeaseGrant {
    fn from(grant: Grant) -> Self {
        use lease_grant::Answer as Wire;
        let Grant { cluster, term, sent_ms, answer } = grant;
        let answer = match answer {
            Answer::For(length) => Wire::LengthMs(length.0),
            Answer::WithoutEnd => Wire::WithoutEnd(true),
            Answer::Refused(why) => Wire::Refused(why),
        };
        Self { cluster: cluster.to_string(), term: term.0, sent_ms, answer: Some(answer) }
    }
}
