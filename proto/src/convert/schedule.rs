//! Schedules: what a person gives, and what is kept.

use lockstep_model::schedule::{Missed, Moment, Overlap, Policy, Schedule, ScheduleText, ZoneName};
use lockstep_model::{Invalid, Millis};

use super::{from_wire_time, required, to_wire_time};
use crate::v1;

impl TryFrom<v1::ScheduleText> for ScheduleText {
    type Error = Invalid;
    fn try_from(text: v1::ScheduleText) -> Result<Self, Invalid> {
        let v1::ScheduleText { rule, timezone, start_date, end_date, policy } = text;
        let policy = policy.map(TryInto::try_into).transpose()?.unwrap_or_default();
        Ok(Self { rule, zone: timezone, start_date, end_date, policy })
    }
}

impl From<ScheduleText> for v1::ScheduleText {
    fn from(text: ScheduleText) -> Self {
        let ScheduleText { rule, zone, start_date, end_date, policy } = text;
        Self { rule, timezone: zone, start_date, end_date, policy: Some(policy.into()) }
    }
}

impl TryFrom<v1::Schedule> for Schedule {
    type Error = Invalid;
    fn try_from(schedule: v1::Schedule) -> Result<Self, Invalid> {
        let v1::Schedule { rule, timezone, start, end, policy } = schedule;
        let schedule = Self {
            rule: rule.parse()?,
            zone: zone(&timezone)?,
            start: start.map(TryInto::try_into).transpose()?,
            end: end.map(TryInto::try_into).transpose()?,
            policy: policy.map(TryInto::try_into).transpose()?.unwrap_or_default(),
        };
        schedule.check()?;
        Ok(schedule)
    }
}

impl From<Schedule> for v1::Schedule {
    fn from(schedule: Schedule) -> Self {
        let Schedule { rule, zone, start, end, policy } = schedule;
        Self {
            rule: rule.to_string(),
            timezone: zone.to_string(),
            start: start.map(Into::into),
            end: end.map(Into::into),
            policy: Some(policy.into()),
        }
    }
}

/// Empty: UTC.
fn zone(name: &str) -> Result<ZoneName, Invalid> {
    if name.is_empty() { Ok(ZoneName::utc()) } else { name.parse() }
}

impl TryFrom<v1::Moment> for Moment {
    type Error = Invalid;
    fn try_from(moment: v1::Moment) -> Result<Self, Invalid> {
        let v1::Moment { at, timezone } = moment;
        Ok(Self { at: from_wire_time(&required("at", at)?), zone: zone(&timezone)? })
    }
}

impl From<Moment> for v1::Moment {
    fn from(moment: Moment) -> Self {
        let Moment { at, zone } = moment;
        Self { at: Some(to_wire_time(at)), timezone: zone.to_string() }
    }
}

impl TryFrom<v1::SchedulePolicy> for Policy {
    type Error = Invalid;
    fn try_from(policy: v1::SchedulePolicy) -> Result<Self, Invalid> {
        let v1::SchedulePolicy { missed, grace_ms, overlap, splay_ms } = policy;
        let unknown = |field| Invalid::new(field, "is unknown to this version");
        let default = Self::default();
        let missed = match v1::MissedRuns::try_from(missed).map_err(|_| unknown("missed"))? {
            v1::MissedRuns::Unspecified => default.missed,
            v1::MissedRuns::Skip => Missed::Skip,
            v1::MissedRuns::Once => Missed::Once,
            v1::MissedRuns::All => Missed::All,
        };
        let overlap = match v1::OverlapRule::try_from(overlap).map_err(|_| unknown("overlap"))? {
            v1::OverlapRule::Unspecified => default.overlap,
            v1::OverlapRule::Skip => Overlap::Skip,
            v1::OverlapRule::Queue => Overlap::Queue,
        };
        let grace = grace_ms.map_or(default.grace, Millis);
        let policy = Self { missed, grace, overlap, splay: Millis(splay_ms) };
        policy.check()?;
        Ok(policy)
    }
}

impl From<Policy> for v1::SchedulePolicy {
    fn from(policy: Policy) -> Self {
        let Policy { missed, grace, overlap, splay } = policy;
        let missed = match missed {
            Missed::Skip => v1::MissedRuns::Skip,
            Missed::Once => v1::MissedRuns::Once,
            Missed::All => v1::MissedRuns::All,
        };
        let overlap = match overlap {
            Overlap::Skip => v1::OverlapRule::Skip,
            Overlap::Queue => v1::OverlapRule::Queue,
        };
        Self {
            missed: missed.into(),
            grace_ms: Some(grace.0),
            overlap: overlap.into(),
            splay_ms: splay.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::arbitrary::schedule;

    proptest! {
        #[test]
        fn schedules_survive_the_wire(schedule in schedule::schedule(), text in schedule::text()) {
            let bytes = v1::Schedule::from(schedule.clone()).encode_to_vec();
            let read = v1::Schedule::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(Schedule::try_from(read).unwrap(), schedule);

            let bytes = v1::ScheduleText::from(text.clone()).encode_to_vec();
            let read = v1::ScheduleText::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(ScheduleText::try_from(read).unwrap(), text);
        }
    }

    #[test]
    fn what_is_left_out_has_a_meaning_and_what_does_not_fit_a_name() {
        let good = || v1::Schedule { rule: "hour=4".into(), ..Default::default() };
        let read = Schedule::try_from(good()).unwrap();
        assert_eq!((read.zone, read.policy), (ZoneName::utc(), Policy::default()));

        let refused = |edit: fn(&mut v1::Schedule)| {
            let mut schedule = good();
            edit(&mut schedule);
            Schedule::try_from(schedule).unwrap_err().to_string()
        };
        let policy = v1::SchedulePolicy::default;
        assert!(refused(|s| s.rule = "hour=24".into()).starts_with("hour: "));
        assert!(refused(|s| s.timezone = "a b".into()).starts_with("timezone: "));
        assert_eq!(refused(|s| s.start = Some(v1::Moment::default())), "at: is missing");
        for (wrong, field) in [
            (v1::SchedulePolicy { missed: 9, ..policy() }, "missed: "),
            (v1::SchedulePolicy { overlap: 9, ..policy() }, "overlap: "),
            (v1::SchedulePolicy { grace_ms: Some(u64::MAX), ..policy() }, "grace: "),
            (v1::SchedulePolicy { splay_ms: u64::MAX, ..policy() }, "splay: "),
        ] {
            let error = Policy::try_from(wrong).unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
    }
}
