//! ScheduleService: schedules that are looked at before they are used.

use lockstep_model::schedule::{Moment, ScheduleText};
use lockstep_model::{Invalid, Reject, Timestamp};
use lockstep_plan::schedule::{PREVIEW_MAX, Timetable, Zone, understand};
use lockstep_proto::convert::{from_wire_time, required, to_wire_time};
use lockstep_proto::v1;
use lockstep_proto::v1::schedule_service_server::ScheduleService;
use lockstep_transport::clock;
use tonic::Request;

use super::{Answer, Api, answer};

/// Shown when no number is given.
const PREVIEW_DEFAULT: usize = 5;

#[tonic::async_trait]
impl ScheduleService for Api {
    async fn preview_schedule(
        &self,
        request: Request<v1::PreviewScheduleRequest>,
    ) -> Answer<v1::PreviewScheduleResponse> {
        answer(preview(request.into_inner(), clock::now()))
    }
}

fn preview(
    request: v1::PreviewScheduleRequest,
    now: Timestamp,
) -> Result<v1::PreviewScheduleResponse, Reject> {
    let v1::PreviewScheduleRequest { schedule, count, after } = request;
    let text: ScheduleText = required("schedule", schedule)?.try_into()?;
    let count = match usize::try_from(count).unwrap_or(usize::MAX) {
        0 => PREVIEW_DEFAULT,
        count if count > PREVIEW_MAX => {
            let problem = format!("is {count}, at most {PREVIEW_MAX} are shown");
            return Err(Invalid::new("count", problem).into());
        }
        count => count,
    };
    let after = after.as_ref().map_or(now, from_wire_time);
    let schedule = understand(&text, now)?;
    let timetable = Timetable::new(&schedule)?;
    let first = timetable.next_after(after);
    let instants = first.map_or_else(Vec::new, |first| timetable.preview(first, count));
    let bound = |moment: &Option<Moment>| -> Result<_, Invalid> {
        let Some(Moment { at, zone }) = moment else { return Ok(None) };
        Ok(Some(shown(&Zone::find(zone)?, *at)))
    };
    let fields = schedule.rule.expanded().map(|(name, value)| format!("{name}={value}"));
    Ok(v1::PreviewScheduleResponse {
        fields: fields.join(" "),
        either_day: schedule.rule.is_either_day(),
        start: bound(&schedule.start)?,
        end: bound(&schedule.end)?,
        instants: instants.into_iter().map(|at| shown(timetable.zone(), at)).collect(),
        schedule: Some(schedule.clone().into()),
    })
}

fn shown(zone: &Zone, at: Timestamp) -> v1::ShownInstant {
    v1::ShownInstant {
        at: Some(to_wire_time(at)),
        clock: zone.show_clock(at).unwrap_or_default(),
        timezone: zone.name().to_string(),
    }
}
