//! `lockstepctl schedule …`, and how a schedule is shown to people wherever there is one.

use lockstep_model::schedule::{Moment, Policy, Schedule, ScheduleText};
use lockstep_proto::v1;

use crate::args::ScheduleCommand;
use crate::args::schedule::{Preview, ScheduleArgs};
use crate::client::Client;
use crate::error::Failure;
use crate::render;

pub async fn run(client: &Client, command: ScheduleCommand) -> Result<(), Failure> {
    let ScheduleCommand::Preview(Preview { rule, terms, count }) = command;
    let answer = preview(client, terms.text(&rule), count).await?;
    render::show(client.format, &answer, || shown(&answer, count))
}

/// For people, before something with a schedule is kept: when --schedule-preview asks for it.
pub async fn preview_first(client: &Client, args: &ScheduleArgs) -> Result<(), Failure> {
    let (Some(text), Some(count)) = (args.text(), args.schedule_preview) else { return Ok(()) };
    let answer = preview(client, text, count).await?;
    render::note(&format!("{}\n", shown(&answer, count)));
    Ok(())
}

pub async fn preview(
    client: &Client,
    text: ScheduleText,
    count: u32,
) -> Result<v1::PreviewScheduleResponse, Failure> {
    let request = v1::PreviewScheduleRequest { schedule: Some(text.into()), count, after: None };
    Ok(client.schedules().preview_schedule(request).await?.into_inner())
}

fn shown(answer: &v1::PreviewScheduleResponse, count: u32) -> String {
    let understood = render::fields(understood(answer));
    let zone = answer.schedule.as_ref().map_or("", |schedule| &schedule.timezone);
    let rows = answer.instants.iter().map(|instant| {
        let at = instant.at.as_ref();
        [instant.clock.clone(), render::time(at), render::ahead(at)]
    });
    let table = render::table(&[&format!("in {zone}"), "in UTC", "from now"], rows);
    let fires_on = answer.instants.len() == usize::try_from(count).unwrap_or(usize::MAX);
    let end = match (fires_on, answer.instants.is_empty()) {
        (true, _) => "",
        (false, true) => "\nIt is exhausted: it fires never again.",
        (false, false) => "\nAfter these it fires never again.",
    };
    format!("{understood}\n\n{table}{end}")
}

/// What each part of a schedule was taken for.
fn understood(answer: &v1::PreviewScheduleResponse) -> Vec<(&'static str, String)> {
    let schedule = answer.schedule.clone().unwrap_or_default();
    let bound = |instant: &Option<v1::ShownInstant>| {
        instant.as_ref().map_or_else(String::new, |instant| {
            let v1::ShownInstant { at, clock, timezone } = instant;
            format!("{} ({clock}, {timezone})", render::time(at.as_ref()))
        })
    };
    let days = if answer.either_day { " (day or day_of_week suffices)" } else { "" };
    vec![
        ("rule", schedule.rule),
        ("fields", format!("{}{days}", answer.fields)),
        ("timezone", schedule.timezone),
        ("start", bound(&answer.start)),
        ("end", bound(&answer.end)),
        ("policy", policy(schedule.policy)),
    ]
}

/// A schedule in one line: `minute=*/30 in Europe/Berlin from 2027-01-01T00:00:00Z, missed=once …`.
pub fn line(schedule: &v1::Schedule) -> String {
    let Ok(Schedule { rule, zone, start, end, policy: _ }) = Schedule::try_from(schedule.clone())
    else {
        // Of a newer controller.
        return schedule.rule.clone();
    };
    let bound = |word, moment: Option<Moment>| {
        moment.map_or_else(String::new, |moment| format!(" {word} {}", moment.at))
    };
    let (start, end) = (bound("from", start), bound("until", end));
    format!("{rule} in {zone}{start}{end}, {}", policy(schedule.policy))
}

fn policy(policy: Option<v1::SchedulePolicy>) -> String {
    let policy = policy.map(Policy::try_from).transpose();
    let Ok(Policy { missed, grace, overlap, splay }) = policy.map(Option::unwrap_or_default) else {
        return "unknown to this version".to_owned();
    };
    let (grace, splay) = (grace.exact(), splay.exact());
    format!("missed={missed} grace={grace} overlap={overlap} splay={splay}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instant(seconds: i64, clock: &str) -> v1::ShownInstant {
        v1::ShownInstant {
            at: Some(pbjson_types::Timestamp { seconds, nanos: 0 }),
            clock: clock.to_owned(),
            timezone: "America/Vancouver".to_owned(),
        }
    }

    #[test]
    fn a_schedule_is_shown_with_what_it_was_taken_for() {
        let schedule = v1::Schedule {
            rule: "0 0 13 * 5".to_owned(),
            timezone: "Europe/Berlin".to_owned(),
            ..Default::default()
        };
        let answer = v1::PreviewScheduleResponse {
            schedule: Some(schedule.clone()),
            fields: "year=* day=13".to_owned(),
            either_day: true,
            start: Some(instant(1_399_510_800, "2014-05-07 18:00:00 PDT")),
            end: None,
            instants: vec![instant(1_399_586_400, "2014-05-09 00:00:00 CEST")],
        };
        let text = shown(&answer, 2);
        for words in [
            "rule:     0 0 13 * 5",
            "fields:   year=* day=13 (day or day_of_week suffices)",
            "timezone: Europe/Berlin",
            "start:    2014-05-08T01:00:00Z (2014-05-07 18:00:00 PDT, America/Vancouver)",
            "policy:   missed=once grace=1m overlap=queue splay=0s",
            "2014-05-09 00:00:00 CEST  2014-05-08T22:00:00Z  passed",
            "After these it fires never again.",
        ] {
            assert!(text.contains(words), "{words} is not in\n{text}");
        }
        assert!(!shown(&answer, 1).contains("never again") && !text.contains("end:"));
        assert_eq!(
            line(&schedule),
            "0 0 13 * 5 in Europe/Berlin, missed=once grace=1m overlap=queue splay=0s"
        );
    }
}
