//! What is read, what is refused and in which words, and the normal form.

use super::*;

fn normal(text: &str) -> String {
    let rule: Rule = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(rule.to_string(), text, "printed as written");
    rule.expanded().map(|(_, value)| value).join(" | ")
}

fn refusal(text: &str) -> String {
    match text.parse::<Rule>() {
        Ok(rule) => panic!("{text} was read as {:?}", rule.expanded()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_is_not_given_follows_the_order_of_the_fields() {
    for (text, expected) in [
        ("second=*", "* | * | * | * | * | * | * | *"),
        ("minute=*", "* | * | * | * | * | * | * | 0"),
        ("minute=*/5", "* | * | * | * | * | * | */5 | 0"),
        ("hour=*/2", "* | * | * | * | * | */2 | 0 | 0"),
        ("hour=*/2 minute=*", "* | * | * | * | * | */2 | * | 0"),
        ("day=1 minute=20", "* | * | 1 | * | * | * | 20 | 0"),
        ("day_of_week=mon-fri hour=5 minute=30", "* | * | * | * | mon-fri | 5 | 30 | 0"),
        ("week=40", "* | * | * | 40 | * | 0 | 0 | 0"),
        ("year=2016", "2016 | 1 | 1 | * | * | 0 | 0 | 0"),
        ("month=2", "* | 2 | 1 | * | * | 0 | 0 | 0"),
        ("year=2016 month=2 day=29", "2016 | 2 | 29 | * | * | 0 | 0 | 0"),
        ("second=30", "* | * | * | * | * | * | * | 30"),
    ] {
        assert_eq!(normal(text), expected, "{text}");
    }
}

#[test]
fn every_form_of_an_expression_has_one_normal_form() {
    for (text, expected) in [
        ("minute=7/10", "* | * | * | * | * | * | 7/10 | 0"),
        ("minute= 5 , 10 ,15", "* | * | * | * | * | * | 5,10,15 | 0"),
        ("minute=05,10-20/3,50-52,9-9", "* | * | * | * | * | * | 5,10-20/3,50-52,9 | 0"),
        ("month=6-8,11-12 day=3rd  FRI hour=0-3", "* | 6-8,11-12 | 3rd fri | * | * | 0-3 | 0 | 0"),
        ("day=15, Last,last Sun", "* | * | 15,last,last sun | * | * | 0 | 0 | 0"),
        ("month=feb,NOV-dec", "* | feb,nov-dec | 1 | * | * | 0 | 0 | 0"),
        ("minute = */30  hour = 1-5", "* | * | * | * | * | 1-5 | */30 | 0"),
        ("*/15 * * * *", "* | * | * | * | * | * | */15 | 0"),
        ("30 5 */2 1 * sun", "* | * | 1 | * | sun | */2 | 5 | 30"),
        ("0 4 * * 1-5", "* | * | * | * | mon,tue,wed,thu,fri | 4 | 0 | 0"),
        ("0 4 * * 0", "* | * | * | * | sun | 4 | 0 | 0"),
        ("0 4 * * 5-7", "* | * | * | * | fri,sat,sun | 4 | 0 | 0"),
        ("0 4 * * Fri-Sun", "* | * | * | * | fri,sat,sun | 4 | 0 | 0"),
        ("0 4 * * */2", "* | * | * | * | tue,thu,sat,sun | 4 | 0 | 0"),
        ("@weekly", "* | * | * | * | sun | 0 | 0 | 0"),
        ("@hourly", "* | * | * | * | * | * | 0 | 0"),
    ] {
        assert_eq!(normal(text), expected, "{text}");
    }
}

#[test]
fn what_the_old_library_took_by_mistake_is_refused() {
    for (text, words) in [
        ("", "nothing is given"),
        ("  ", "nothing is given"),
        ("minute=75", "minute: \"75\" is out of range: allowed are 0 to 59"),
        ("minute=60", "out of range"),
        ("day_of_week=7", "day_of_week: \"7\" is out of range: allowed are 0 to 6 or mon to sun"),
        ("hour=24", "out of range"),
        ("day=0", "out of range"),
        ("day=32", "out of range"),
        ("week=0", "out of range"),
        ("week=54", "out of range"),
        ("month=13", "out of range"),
        ("year=1969", "out of range"),
        ("year=10000", "out of range"),
        ("minute=75/5", "out of range"),
        ("minute=50-60", "out of range"),
        ("minute=*/90", "step larger than the field's range"),
        ("minute=*/60", "step larger than the field's range"),
        ("day=*/31", "step larger than the field's range"),
        ("minute=50/20", "step larger than what is left"),
        ("minute=5-10/6", "step larger than its range"),
        ("minute=0-0/5", "step larger than its range"),
        ("minute=*/0", "has the step 0"),
        ("minute=5/0", "has the step 0"),
        ("minute=55-5", "ends before it begins"),
        ("hour=22-2", "ends before it begins"),
        ("day_of_week=sun-tue", "ends before it begins"),
        ("day_of_week=fri-mon", "ends before it begins"),
        ("day_of_week=mon-fri/2", "step behind a name"),
        ("month=jan-jun/2", "step behind a name"),
        ("day_of_week=mon/2", "step behind a name"),
        ("day=lastday", "day: \"lastday\" is not understood"),
        ("day=last sunday", "not understood"),
        ("day=last sun x", "not understood"),
        ("day=last 0", "not understood"),
        ("day=6th mon", "not understood"),
        ("day=1stmon", "not understood"),
        ("day=mon", "not understood"),
        ("day_of_week=last sun", "not understood"),
        ("day_of_week=monday", "not understood"),
        ("day_of_week=mon-", "not understood"),
        ("day_of_week=mon-5", "not understood"),
        ("day_of_week=0-fri", "not understood"),
        ("month=jan-3", "not understood"),
        ("minute=5,", "minute: an empty item is"),
        ("minute=,5", "an empty item"),
        ("minute=", "minute: has no value"),
        ("minute=+5", "not understood"),
        ("minute=-5", "not understood"),
        ("minute=5-", "not understood"),
        ("minute=1-2-3", "not understood"),
        ("minute=5/", "has no number as its step"),
        ("minute=5/2/2", "has no number as its step"),
        ("minute=5.0", "not understood"),
        ("minute=**", "not understood"),
        ("minute=* /5", "not understood"),
        ("minute=٣", "not understood"),
        ("minute=99999999999999999999", "not understood"),
        ("minute=5 minute=6", "minute: is given twice"),
        ("foo=1", "\"foo\" is no field of a schedule; there are year, month,"),
        ("minute=5 Hour=3", "\"Hour\" is no field"),
        ("=5", "\"\" is no field"),
        ("every minute=5", "\"every minute\" is no field"),
        ("hourly", "has 1 words"),
        ("* * * *", "has 4 words"),
        ("0 0 * * * * 2026", "has 7 words"),
        ("@reboot", "\"@reboot\" is not known"),
        ("60 * * * *", "minute: \"60\" is out of range"),
        ("* * * * 8", "day_of_week: \"8\" is out of range: allowed are 0 to 7 or sun to sat"),
        ("* * L * *", "not understood"),
        ("* * last * *", "not understood"),
        ("* * ? * *", "not understood"),
        ("* * * * 5#2", "not understood"),
        ("* * * * mon-fri/2", "step behind a name"),
        ("* * * * sat-mon", "ends before it begins"),
        ("*/15 * * * *\n* * * * *", "must be one line"),
    ] {
        let error = refusal(text);
        assert!(error.contains(words), "{text}: {error}");
    }
    let long = format!("minute={}", vec!["5"; 300].join(","));
    assert!(refusal(&long).contains("at most 512 fit"));
}

#[test]
fn what_can_never_fire_is_refused() {
    for (text, words) in [
        ("month=2 day=30", "can never fire: no day fits month=2 day=30"),
        ("month=feb,apr day=31", "no day fits month=feb,apr day=31"),
        ("year=2015 month=2 day=29", "no day fits year=2015 month=2 day=29"),
        ("year=2100 month=2 day=29", "can never fire"),
        ("week=53 month=6 day=*", "can never fire"),
        ("week=1 month=3 day=*", "can never fire"),
        ("week=10 day=1st mon month=1", "can never fire"),
        ("day=1st sun,2nd sun day_of_week=mon", "can never fire"),
        ("month=2 day=5th mon year=2026", "can never fire"),
        ("year=2026 week=53 month=12 day=27", "can never fire"),
        ("year=2025 week=53", "can never fire"),
        ("0 0 30 2 *", "can never fire"),
    ] {
        let error = refusal(text);
        assert!(error.contains(words), "{text}: {error}");
    }
    // Rare, but they come.
    for text in [
        "month=2 day=29",
        "month=2 day=5th mon",
        "week=53 day=3 month=1",
        "month=2 day=29 day_of_week=mon week=9",
        "year=9999 month=12 day=31",
        // Either day suffices, so Mondays remain.
        "0 0 30 2 1",
    ] {
        normal(text);
    }
}

#[test]
fn crontab_days_need_both_restricted_for_either() {
    let either = |text: &str| text.parse::<Rule>().unwrap().is_either_day();
    assert!(either("0 0 13 * 5"));
    assert!(!either("0 0 * * 5"));
    assert!(!either("0 0 13 * *"));
    assert!(!either("0 0 */2 * 1"), "a field that begins with * does not restrict");
    assert!(!either("day=13 day_of_week=fri"));

    let rule: Rule = "0 0 13 * 5".parse().unwrap();
    // February 2026 begins on a Sunday: Fridays are 6, 13, 20, 27.
    assert_eq!(rule.days(2026, 2), 1 << 6 | 1 << 13 | 1 << 20 | 1 << 27);
    assert_eq!(rule.days(2026, 1).count_ones(), 6, "five Fridays and the 13th");
    let both: Rule = "day=13 day_of_week=fri".parse().unwrap();
    assert_eq!((both.days(2026, 1), both.days(2026, 2)), (0, 1 << 13));
}

#[test]
fn days_of_a_month() {
    for (text, month, expected) in [
        ("day=last", 2, vec![28]),
        ("day=5th sat", 2, vec![]),
        ("day=5th sat", 1, vec![31]),
        ("day=last fri,1st mon", 1, vec![5, 30]),
        ("day=*/10", 1, vec![1, 11, 21, 31]),
        ("day=*/10", 2, vec![1, 11, 21]),
        ("day=25/3", 2, vec![25, 28]),
        ("week=1", 1, vec![1, 2, 3, 4]),
        ("week=1", 12, vec![]),
        ("week=53", 12, vec![28, 29, 30, 31]),
        ("month=3 day=*", 2, vec![]),
    ] {
        let days = text.parse::<Rule>().unwrap().days(2026, month);
        let found: Vec<u32> = (0..32).filter(|day| days >> day & 1 == 1).collect();
        assert_eq!(found, expected, "{text} in month {month}");
    }
}

#[test]
fn fields_can_come_one_by_one() {
    let rule = Rule::of_fields([("minute", "*/30"), ("day", "last fri")]).unwrap();
    assert_eq!(rule, "minute=*/30 day=last fri".parse().unwrap());
    assert!(Rule::of_fields([]).is_err());
    assert!(Rule::of_fields([("minute", "")]).is_err());
    assert!(Rule::of_fields([("minute", "5 hour=3")]).is_err());
}

#[test]
fn policies_and_zones_have_limits() {
    assert_eq!("once".parse(), Ok(Missed::Once));
    assert_eq!("queue".parse(), Ok(Overlap::Queue));
    let error = "twice".parse::<Missed>().unwrap_err().to_string();
    assert_eq!(error, "missed: must be one of skip, once, all, not \"twice\"");
    let policy = Policy { splay: crate::Millis::from_secs(90_000), ..Policy::default() };
    assert_eq!(policy.check().unwrap_err().to_string(), "splay: is 25h, at most 1d is allowed");
    for good in ["UTC", "Europe/Berlin", "+05:30", "Etc/GMT+5"] {
        assert_eq!(good.parse::<ZoneName>().unwrap().to_string(), good);
    }
    for bad in ["", "Europe Berlin", "../etc", "é"] {
        assert!(bad.parse::<ZoneName>().is_err(), "{bad}");
    }
}
