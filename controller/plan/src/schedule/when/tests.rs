//! What is understood and how it is shown back; what is refused, and with which readings.

use lockstep_model::Timestamp;

use super::*;

/// Wed 2014-08-13 10:20:37 UTC.
const NOW: Timestamp = Timestamp(1_407_925_237_000);

fn zone(name: &str) -> Zone {
    Zone::find(&name.parse().unwrap()).unwrap()
}

fn understood(text: &str, home: &str) -> String {
    let home = zone(home);
    match read("start_date", text, &home, NOW) {
        Ok(moment) => zone(moment.zone.as_str()).show(moment.at),
        Err(error) => panic!("{error}"),
    }
}

fn refused(text: &str, home: &str) -> String {
    let home = zone(home);
    match read("start_date", text, &home, NOW) {
        Ok(moment) => panic!("{text} was understood as {}", home.show(moment.at)),
        Err(error) => error.to_string(),
    }
}

#[test]
fn dates_as_people_and_programs_write_them() {
    for (text, shown) in [
        ("Wed May  7 18:00:00 PDT 2014", "2014-05-08T01:00:00Z (2014-05-07 18:00:00 -07:00)"),
        ("2014-05-7 18:00", "2014-05-07T18:00:00Z"),
        ("2014-03-10 09:30", "2014-03-10T09:30:00Z"),
        ("2014-05-07T18:00:00Z", "2014-05-07T18:00:00Z"),
        ("2014-05-07t18:00:00.000z", "2014-05-07T18:00:00Z"),
        ("2014-05-07T18:00:00+02:00", "2014-05-07T16:00:00Z (2014-05-07 18:00:00 +02:00)"),
        ("2014-05-07T18:00+0530", "2014-05-07T12:30:00Z (2014-05-07 18:00:00 +05:30)"),
        ("20140507T180000Z", "2014-05-07T18:00:00Z"),
        ("20140507T1800-07", "2014-05-08T01:00:00Z (2014-05-07 18:00:00 -07:00)"),
        ("2014-05-07 18:00:00,25", "2014-05-07T18:00:00Z"),
        ("2014/05/07", "2014-05-07T00:00:00Z"),
        ("2014-05-07", "2014-05-07T00:00:00Z"),
        ("Wed, 07 May 2014 18:00:00 -0700", "2014-05-08T01:00:00Z (2014-05-07 18:00:00 -07:00)"),
        (
            "Wed, 7 May 2014 18:00:00 -0700 (PDT)",
            "2014-05-08T01:00:00Z (2014-05-07 18:00:00 -07:00)",
        ),
        ("Wed, 07 May 2014 18:00:00 GMT", "2014-05-07T18:00:00Z"),
        ("Wed 07 May 2014 06:00:00 PM CEST", "2014-05-07T16:00:00Z (2014-05-07 18:00:00 +02:00)"),
        ("Wednesday, May 7, 2014 at 6:00 pm", "2014-05-07T18:00:00Z"),
        ("May 7,2014 6pm", "2014-05-07T18:00:00Z"),
        ("12am 7-May-2014", "2014-05-07T00:00:00Z"),
        ("12pm 7 may 2014", "2014-05-07T12:00:00Z"),
        ("15th August 2014", "2014-08-15T00:00:00Z"),
        ("the 1st of Sept. 2014", "2014-09-01T00:00:00Z"),
        ("13/07/2014", "2014-07-13T00:00:00Z"),
        ("07/13/2014 08:15", "2014-07-13T08:15:00Z"),
        ("05/05/2014", "2014-05-05T00:00:00Z"),
        ("18:00", "2014-08-13T18:00:00Z"),
        ("tomorrow at 5pm", "2014-08-14T17:00:00Z"),
        ("today noon", "2014-08-13T12:00:00Z"),
        ("@1399485600", "2014-05-07T18:00:00Z"),
        ("9999-12-31 23:59:59", "9999-12-31T23:59:59Z"),
        (
            "2014-05-07 18:00 Europe/Berlin",
            "2014-05-07T16:00:00Z (2014-05-07 18:00:00 CEST, Europe/Berlin)",
        ),
        (
            "2014-05-07T18:00:00-07:00[America/Los_Angeles]",
            "2014-05-08T01:00:00Z (2014-05-07 18:00:00 PDT, America/Los_Angeles)",
        ),
        // Today where it is said.
        ("01:00 Asia/Tokyo", "2014-08-12T16:00:00Z (2014-08-13 01:00:00 JST, Asia/Tokyo)"),
        ("Jan 7 18:00:00 EST 2014", "2014-01-07T23:00:00Z (2014-01-07 18:00:00 -05:00)"),
    ] {
        assert_eq!(understood(text, "UTC"), shown, "{text}");
    }
}

#[test]
fn the_manual_shows_what_is_understood() {
    let manual = include_str!("../../../../../docs/schedules.md");
    let (_, dates) = manual.split_once("Read are, among others,").unwrap();
    let lines = dates.trim_start_matches('\n').lines().take_while(|line| line.starts_with("    "));
    let examples: Vec<&str> =
        lines.flat_map(|line| line.split("   ")).map(str::trim).filter(|e| !e.is_empty()).collect();
    assert!(examples.len() > 8, "{examples:?}");
    for example in examples {
        understood(example, "UTC");
    }
    let (_, rules) = manual.split_once("## The rule: eight fields").unwrap();
    let rules = rules.trim_start().lines().take_while(|line| !line.is_empty());
    for rule in rules {
        rule.parse::<lockstep_model::schedule::Rule>().unwrap();
    }
}

#[test]
fn home_is_where_a_date_without_a_zone_belongs() {
    assert_eq!(
        understood("2014-05-7 18:00", "america/los_angeles"),
        "2014-05-08T01:00:00Z (2014-05-07 18:00:00 PDT, America/Los_Angeles)"
    );
    // What has many readings elsewhere has one at home.
    assert_eq!(
        understood("Fri Jul 11 03:08:57 IST 2014", "Asia/Kolkata"),
        "2014-07-10T21:38:57Z (2014-07-11 03:08:57 +05:30)"
    );
    assert_eq!(
        understood("Wed Jan  7 18:00:00 CST 2015", "Asia/Shanghai"),
        "2015-01-07T10:00:00Z (2015-01-07 18:00:00 +08:00)"
    );
    // An hour that comes twice is told apart by what it is called.
    for (name, shown) in [("EDT", "05:30:00Z"), ("EST", "06:30:00Z")] {
        let text = format!("2014-11-02 01:30 {name}");
        assert!(understood(&text, "America/New_York").contains(shown), "{text}");
    }
}

#[test]
fn two_readings_are_refused_with_both() {
    for (text, words) in [
        ("05/07/2014", "\"05/07/2014\" has two readings; write 2014-07-05 or 2014-05-07"),
        ("5.7.2014 18:00", "two readings; write 2014-07-05 or 2014-05-07"),
        ("Fri Jul 11 03:08:57 IST 2014", "\"IST\" may be +01:00 ("),
        ("Fri Jul 11 03:08:57 IST 2014", "or +05:30 (Asia/"),
        ("Wed Jan  7 18:00:00 CST 2015", "\"CST\" may be -06:00 ("),
        ("2014-05-07 18:00 GMT+3", "\"GMT+3\" has two readings, for POSIX means the other side of"),
        ("2014-05-07 18:00 GMT+3", "write +03:00 or -03:00"),
        ("2014-05-07 18:00 UTC-08:00", "write +08:00 or -08:00"),
    ] {
        let error = refused(text, "UTC");
        assert!(error.starts_with(&format!("start_date: {text:?}: ")), "{error}");
        assert!(error.contains(words), "{text}: {error}");
    }
    let twice = refused("2026-11-01 01:30", "America/New_York");
    let both = "say 2026-11-01T01:30:00-04:00 or 2026-11-01T01:30:00-05:00";
    assert!(twice.contains(both), "{twice}");
    let skipped = refused("2026-03-08 02:30", "America/New_York");
    assert!(skipped.contains("leave this time out; they go on at 03:00:00"), "{skipped}");
}

#[test]
fn no_word_is_dropped() {
    for (text, words) in [
        ("", "is no date"),
        ("   ", "is no date"),
        ("at", "is no date"),
        ("garbage", "\"garbage\" is not understood"),
        ("now", "\"now\" is not understood"),
        ("1399485600", "\"1399485600\" is not understood"),
        ("10", "says no year and no month"),
        ("Jul 2014", "says no day"),
        ("May 7 18:00", "says no year"),
        ("next friday", "\"next\" is not understood"),
        ("friday", "a weekday needs a date"),
        ("Fri May 7 2014", "2014-05-07 is a Wednesday, not a Friday"),
        ("2014-02-30", "\"2014-02-30\" is no day"),
        ("30 Feb 2014", "2014-02 has no day 30"),
        ("31/04/2014", "is no day"),
        ("05/07/14", "has no year of four digits"),
        ("2014-05-07 25:00", "\"25:00\" is no time of a day"),
        ("2014-05-07 18:60", "is no time of a day"),
        ("2014-05-07 13:00 pm", "am and pm go with hours from 1 to 12"),
        ("2014-05-07 pm", "says am or pm of no time"),
        ("2014-05-07 18:00 19:00", "says the time twice"),
        ("2014-05-07 8 May 2014", "says the day twice"),
        ("2014-05-07 18:00 XYZ", "no zone is called \"XYZ\" on 2014-05-07"),
        ("2014-01-07 18:00 PDT", "no zone is called \"PDT\" on 2014-01-07"),
        ("2014-05-07 18:00 Mars/Olympus", "\"Mars/Olympus\" is no known time zone"),
        ("2014-05-07 18:00 +02:00 PDT", "are not the same there"),
        ("2014-05-07 18:00 +25:00", "\"+25:00\" is not understood"),
        ("2014-05-07 18:00 soon", "\"soon\" is not understood"),
        ("22th May 2014", "\"22th\" is not understood"),
        ("1969-12-31", "is before 1970"),
        ("@99999999999999", "after the year 9999"),
        ("@5 2014", "stand alone"),
        ("2014-W19-3", "not understood"),
        ("2014-05-07 18:00; rm", "not understood"),
        ("٢٠١٤-05-07", "not understood"),
        ("2014-05-07T", "not understood"),
    ] {
        let error = refused(text, "UTC");
        assert!(error.contains(words), "{text}: {error}");
    }
    assert!(refused(&"2014 ".repeat(40), "UTC").contains("has 200 bytes, at most 128 fit"));
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[ -~é٣]{0,40}") {
        let _ = read("start_date", &text, &zone("Europe/Berlin"), NOW);
    }

    /// What is shown back means the same instant.
    #[test]
    fn instants_come_back(seconds in 0u64..253_402_300_799) {
        let at = Timestamp(seconds * 1000);
        let berlin = zone("Europe/Berlin");
        let moment = read("start_date", &at.to_string(), &berlin, NOW).unwrap();
        proptest::prop_assert_eq!(moment.at, at);
    }
}
