//! Schedules and how far they were followed, as parts of records.

use lockstep_model::schedule::{Missed, Moment, Overlap, PassedOver, Policy, Progress, Schedule};
use lockstep_model::{Invalid, Millis, Timestamp};

use super::field::{check_count, parse, unknown};
use crate::store_v1 as wire;

impl From<&Schedule> for wire::Schedule {
    fn from(schedule: &Schedule) -> Self {
        let Schedule { rule, zone, start, end, policy } = schedule;
        let Policy { missed, grace, overlap, splay } = policy;
        let missed = match missed {
            Missed::Skip => wire::MissedRuns::Skip,
            Missed::Once => wire::MissedRuns::Once,
            Missed::All => wire::MissedRuns::All,
        };
        let overlap = match overlap {
            Overlap::Skip => wire::OverlapRule::Skip,
            Overlap::Queue => wire::OverlapRule::Queue,
        };
        Self {
            rule: rule.to_string(),
            timezone: zone.to_string(),
            start: start.as_ref().map(Into::into),
            end: end.as_ref().map(Into::into),
            missed: missed.into(),
            grace_ms: grace.0,
            overlap: overlap.into(),
            splay_ms: splay.0,
        }
    }
}

impl TryFrom<wire::Schedule> for Schedule {
    type Error = Invalid;
    fn try_from(schedule: wire::Schedule) -> Result<Self, Invalid> {
        let wire::Schedule { rule, timezone, start, end, missed, grace_ms, overlap, splay_ms } =
            schedule;
        let missed = match wire::MissedRuns::try_from(missed) {
            Ok(wire::MissedRuns::Skip) => Missed::Skip,
            Ok(wire::MissedRuns::Once) => Missed::Once,
            Ok(wire::MissedRuns::All) => Missed::All,
            Ok(wire::MissedRuns::Unspecified) | Err(_) => return Err(unknown("missed")),
        };
        let overlap = match wire::OverlapRule::try_from(overlap) {
            Ok(wire::OverlapRule::Skip) => Overlap::Skip,
            Ok(wire::OverlapRule::Queue) => Overlap::Queue,
            Ok(wire::OverlapRule::Unspecified) | Err(_) => return Err(unknown("overlap")),
        };
        let (grace, splay) = (Millis(grace_ms), Millis(splay_ms));
        let schedule = Self {
            rule: parse("rule", &rule)?,
            zone: parse("timezone", &timezone)?,
            start: start.map(TryInto::try_into).transpose()?,
            end: end.map(TryInto::try_into).transpose()?,
            policy: Policy { missed, grace, overlap, splay },
        };
        schedule.check()?;
        Ok(schedule)
    }
}

impl From<&Moment> for wire::Moment {
    fn from(moment: &Moment) -> Self {
        let Moment { at, zone } = moment;
        Self { at_ms: at.0, timezone: zone.to_string() }
    }
}

impl TryFrom<wire::Moment> for Moment {
    type Error = Invalid;
    fn try_from(moment: wire::Moment) -> Result<Self, Invalid> {
        let wire::Moment { at_ms, timezone } = moment;
        Ok(Self { at: Timestamp(at_ms), zone: parse("timezone", &timezone)? })
    }
}

impl From<&Progress> for wire::ScheduleProgress {
    fn from(progress: &Progress) -> Self {
        let Progress { mark, considered, owed, next, passed_over } = progress;
        let PassedOver { missed, overlapped, merged } = *passed_over;
        Self {
            considered_ms: considered.0,
            owed_ms: owed.iter().map(|at| at.0).collect(),
            mark: *mark,
            next_ms: next.map_or(0, |at| at.0),
            missed,
            overlapped,
            merged,
        }
    }
}

impl TryFrom<wire::ScheduleProgress> for Progress {
    type Error = Invalid;
    fn try_from(progress: wire::ScheduleProgress) -> Result<Self, Invalid> {
        let wire::ScheduleProgress {
            considered_ms,
            owed_ms,
            mark,
            next_ms,
            missed,
            overlapped,
            merged,
        } = progress;
        check_count("owed", owed_ms.len(), Self::OWED_MAX)?;
        let ascending = owed_ms.is_sorted_by(|a, b| a < b);
        if !ascending || owed_ms.last().is_some_and(|last| *last > considered_ms) {
            return Err(Invalid::new("owed", "must ascend to what was considered last"));
        }
        let next = (next_ms != 0).then_some(Timestamp(next_ms));
        if next.is_some_and(|next| next.0 <= considered_ms) {
            return Err(Invalid::new("next", "must be later than what was considered last"));
        }
        Ok(Self {
            mark,
            considered: Timestamp(considered_ms),
            owed: owed_ms.into_iter().map(Timestamp).collect(),
            next,
            passed_over: PassedOver { missed, overlapped, merged },
        })
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
        fn schedules_come_back(
            schedule in schedule::schedule(),
            progress in schedule::progress(),
        ) {
            let bytes = wire::Schedule::from(&schedule).encode_to_vec();
            let read = wire::Schedule::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(Schedule::try_from(read).unwrap(), schedule);

            let bytes = wire::ScheduleProgress::from(&progress).encode_to_vec();
            let read = wire::ScheduleProgress::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(Progress::try_from(read).unwrap(), progress);
        }
    }

    #[test]
    fn what_was_never_written_is_refused() {
        let good = || wire::Schedule {
            rule: "@daily".into(),
            timezone: "UTC".into(),
            missed: wire::MissedRuns::Once.into(),
            overlap: wire::OverlapRule::Skip.into(),
            ..Default::default()
        };
        assert!(Schedule::try_from(good()).is_ok());
        type Edit = fn(&mut wire::Schedule);
        let cases: [(Edit, &str); 5] = [
            (|s| s.missed = 0, "missed"),
            (|s| s.overlap = 7, "overlap"),
            (|s| s.timezone.clear(), "timezone"),
            (|s| s.rule = "61 * * * *".into(), "rule.minute"),
            (|s| s.splay_ms = u64::MAX, "splay"),
        ];
        for (edit, field) in cases {
            let mut schedule = good();
            edit(&mut schedule);
            let error = Schedule::try_from(schedule).unwrap_err();
            assert!(error.field.starts_with(field), "{error} should name {field}");
        }
        for owed_ms in [vec![2, 1], vec![1, 1], vec![9], (0..101).collect()] {
            let progress =
                wire::ScheduleProgress { considered_ms: 5, owed_ms, ..Default::default() };
            assert_eq!(Progress::try_from(progress).unwrap_err().field, "owed");
        }
        let progress =
            wire::ScheduleProgress { considered_ms: 5, next_ms: 5, ..Default::default() };
        assert_eq!(Progress::try_from(progress).unwrap_err().field, "next");
    }
}
