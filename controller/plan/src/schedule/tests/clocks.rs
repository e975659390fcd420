//! Where clocks are set: each time has its instants by the rules of docs/schedules.md.

use super::*;

#[test]
fn a_time_that_a_clock_leaves_out_fires_once_behind_the_gap() {
    let new_york = |rule, count| fires(rule, "America/New_York", "2026-03-08T05:30:00Z", count);
    assert_eq!(
        new_york("hour=2 minute=30", 2),
        ["2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"]
    );
    assert_eq!(
        new_york("hour=2,3 minute=0,15,30", 4),
        [
            "2026-03-08T03:00:00-04:00",
            "2026-03-08T03:15:00-04:00",
            "2026-03-08T03:30:00-04:00",
            "2026-03-09T02:00:00-04:00"
        ]
    );
    assert_eq!(new_york("0 2 * * *", 1), ["2026-03-08T03:00:00-04:00"]);
    // An interval that goes on by itself needs nothing.
    assert_eq!(
        new_york("minute=15/30", 4),
        [
            "2026-03-08T00:45:00-05:00",
            "2026-03-08T01:15:00-05:00",
            "2026-03-08T01:45:00-05:00",
            "2026-03-08T03:15:00-04:00"
        ]
    );
    assert_eq!(
        new_york("hour=*/2", 3),
        ["2026-03-08T03:00:00-04:00", "2026-03-08T04:00:00-04:00", "2026-03-08T06:00:00-04:00"]
    );
}

#[test]
fn a_named_time_that_comes_twice_fires_the_first_time() {
    let new_york = |rule, from, count| fires(rule, "America/New_York", from, count);
    assert_eq!(
        new_york("hour=1 minute=30", "2026-11-01T04:00:00Z", 2),
        ["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"]
    );
    // Also for one who looks only during the second time.
    assert_eq!(
        new_york("hour=1 minute=30", "2026-11-01T06:10:00Z", 1),
        ["2026-11-02T01:30:00-05:00"]
    );
    assert_eq!(
        new_york("hour=1,2 minute=0", "2026-11-01T05:30:00Z", 2),
        ["2026-11-01T02:00:00-05:00", "2026-11-02T01:00:00-05:00"]
    );
    assert_eq!(
        new_york("minute=*/30", "2026-11-01T05:00:00Z", 5),
        [
            "2026-11-01T01:00:00-04:00",
            "2026-11-01T01:30:00-04:00",
            "2026-11-01T01:00:00-05:00",
            "2026-11-01T01:30:00-05:00",
            "2026-11-01T02:00:00-05:00"
        ]
    );
    // The last times of all are in the repeated hour.
    let last = "year=2026 month=11 day=1 hour=1 minute=*/40";
    assert_eq!(
        new_york(last, "2026-11-01T05:30:00Z", 9),
        ["2026-11-01T01:40:00-04:00", "2026-11-01T01:00:00-05:00", "2026-11-01T01:40:00-05:00"]
    );
}

#[test]
fn midnight_is_left_out_in_sao_paulo() {
    let sao_paulo = |rule, count| fires(rule, "America/Sao_Paulo", "2018-11-03T12:00:00Z", count);
    assert_eq!(sao_paulo("hour=0", 2), ["2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00"]);
    assert_eq!(sao_paulo("day=4", 1), ["2018-11-04T01:00:00-02:00"]);
    assert_eq!(
        sao_paulo("day=4 hour=0,1 minute=0,30", 2),
        ["2018-11-04T01:00:00-02:00", "2018-11-04T01:30:00-02:00"]
    );
}

#[test]
fn lord_howe_sets_its_clocks_by_half_an_hour() {
    let spring = |rule, count| fires(rule, "Australia/Lord_Howe", "2026-10-03T14:50:00Z", count);
    assert_eq!(
        spring("hour=2 minute=15", 2),
        ["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"]
    );
    assert_eq!(
        spring("minute=*/30", 3),
        ["2026-10-04T01:30:00+10:30", "2026-10-04T02:30:00+11:00", "2026-10-04T03:00:00+11:00"]
    );
    assert_eq!(spring("minute=0", 2), ["2026-10-04T03:00:00+11:00", "2026-10-04T04:00:00+11:00"]);
    let autumn = |rule, count| fires(rule, "Australia/Lord_Howe", "2026-04-04T14:20:00Z", count);
    assert_eq!(
        autumn("hour=1 minute=45", 2),
        ["2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"]
    );
    assert_eq!(
        autumn("minute=45", 3),
        ["2026-04-05T01:45:00+11:00", "2026-04-05T01:45:00+10:30", "2026-04-05T02:45:00+10:30"]
    );
}

#[test]
fn apia_had_no_30_december_2011() {
    let apia = |rule, count| fires(rule, "Pacific/Apia", "2011-12-29T20:00:00Z", count);
    assert_eq!(
        apia("hour=4", 3),
        ["2011-12-31T00:00:00+14:00", "2011-12-31T04:00:00+14:00", "2012-01-01T04:00:00+14:00"]
    );
    assert_eq!(apia("year=2011 month=12 day=30 hour=4", 3), ["2011-12-31T00:00:00+14:00"]);
    assert_eq!(apia("hour=*", 5)[3..], ["2011-12-29T13:00:00-10:00", "2011-12-29T14:00:00-10:00"]);
    assert_eq!(
        fires("hour=*", "Pacific/Apia", "2011-12-30T09:00:00Z", 2),
        ["2011-12-29T23:00:00-10:00", "2011-12-31T00:00:00+14:00"]
    );
    // All of the interval's hours are left out: it fires for them once.
    assert_eq!(apia("year=2011 month=12 day=30 hour=*", 3), ["2011-12-31T00:00:00+14:00"]);
}

#[test]
fn helsinki_and_berlin() {
    assert_eq!(
        fires("hour=3 minute=30", "Europe/Helsinki", "2026-03-28T12:00:00Z", 2),
        ["2026-03-29T04:00:00+03:00", "2026-03-30T03:30:00+03:00"]
    );
    assert_eq!(
        fires("hour=3 minute=30", "Europe/Helsinki", "2026-10-24T12:00:00Z", 2),
        ["2026-10-25T03:30:00+03:00", "2026-10-26T03:30:00+02:00"]
    );
    assert_eq!(
        fires("hour=*/2", "Europe/Berlin", "2026-10-24T22:00:00Z", 4),
        [
            "2026-10-25T00:00:00+02:00",
            "2026-10-25T02:00:00+02:00",
            "2026-10-25T02:00:00+01:00",
            "2026-10-25T04:00:00+01:00"
        ]
    );
}

#[test]
fn the_ends_of_time() {
    assert_eq!(fires("year=1970", "UTC", "1970-01-01T00:00:00Z", 2), ["1970-01-01T00:00:00+00:00"]);
    // It is still 1969 there.
    assert_eq!(
        fires("minute=0", "America/New_York", "1970-01-01T00:00:00Z", 1),
        ["1970-01-01T00:00:00-05:00"]
    );
    let schedule = schedule("second=*", "UTC");
    let timetable = Timetable::new(&schedule).unwrap();
    let last = Timestamp(253_402_300_799_000);
    assert_eq!(timetable.next_from(last), Some(last));
    for beyond in [last.0 + 1, last.0 + 1000, u64::MAX - 1, u64::MAX] {
        assert_eq!(timetable.next_from(Timestamp(beyond)), None);
        assert_eq!(timetable.next_after(Timestamp(beyond)), None);
    }
    for zone in ["Asia/Tokyo", "America/New_York"] {
        assert_eq!(fires("year=9999 month=12 day=31", zone, "2026-01-01T00:00:00Z", 2).len(), 1);
    }
}

#[test]
fn bounds_are_part_of_the_schedule() {
    let mut schedule = schedule("minute=*/30", "UTC");
    let moment = |text| Some(Moment { at: at(text), zone: "UTC".parse().unwrap() });
    let preview = |schedule: &Schedule| {
        let timetable = Timetable::new(schedule).unwrap();
        let shown = timetable.preview(at("2026-03-01T00:00:00Z"), 9);
        shown.into_iter().map(|at| at.to_string()).collect::<Vec<_>>()
    };
    schedule.start = moment("2026-03-01T12:30:00Z");
    schedule.end = moment("2026-03-01T13:00:00Z");
    assert_eq!(preview(&schedule), ["2026-03-01T12:30:00Z", "2026-03-01T13:00:00Z"]);
    schedule.start = moment("2026-03-01T12:30:00.001Z");
    schedule.end = moment("2026-03-01T12:59:59.999Z");
    assert!(preview(&schedule).is_empty());
}

#[test]
fn zones_are_found_in_any_case_and_unknown_ones_refused() {
    let found = |name: &str| Zone::find(&name.parse().unwrap()).map(|zone| zone.name().to_string());
    for (name, is) in [
        ("utc", "UTC"),
        ("europe/berlin", "Europe/Berlin"),
        ("+0530", "+05:30"),
        ("-08", "-08:00"),
        ("+00:00", "UTC"),
        ("Z", "UTC"),
    ] {
        assert_eq!(found(name).unwrap(), is);
    }
    for name in ["Europe/Nowhere", "Etc/Unknown", "PDT", "+19:00", "+5", "+05:60", "-"] {
        let error = found(name).unwrap_err().to_string();
        assert!(error.starts_with(&format!("timezone: {name:?} is no known time zone")), "{error}");
    }
}
