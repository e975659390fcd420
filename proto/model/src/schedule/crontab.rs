//! Crontab text: five fields, or six with seconds first. Where it differs from the eight fields
//! (0 and 7 are Sunday, either day suffices) it is turned into them here.

use super::expr::Expr;
use super::field::{FieldName, Form};
use super::rule::{Rule, list};
use crate::id::quote;
use crate::reject::Invalid;

const ORDER: [FieldName; 6] = [
    FieldName::Second,
    FieldName::Minute,
    FieldName::Hour,
    FieldName::Day,
    FieldName::Month,
    FieldName::DayOfWeek,
];

const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

pub fn read(text: String) -> Result<Rule, Invalid> {
    let spelled = match text.trim() {
        nickname if nickname.starts_with('@') => {
            let known = NICKNAMES.iter().find(|(name, _)| *name == nickname);
            known.map(|(_, spelled)| *spelled).ok_or_else(|| {
                let names = NICKNAMES.map(|(name, _)| name).join(", ");
                let problem = format!("{} is not known; there are {names}", quote(nickname));
                Invalid::new("schedule", problem)
            })?
        }
        spelled => spelled,
    };
    let words: Vec<&str> = spelled.split_whitespace().collect();
    let names = match words.len() {
        5 => &ORDER[1..],
        6 => &ORDER[..],
        count => {
            let problem = format!(
                "{} has {count} words: it must be fields such as 'minute=*/30 hour=1-5', or crontab \
                 text of five fields such as '*/15 * * * *', or six with seconds first",
                quote(&text)
            );
            return Err(Invalid::new("schedule", problem));
        }
    };
    let mut fields: [Vec<Expr>; 8] = FieldName::ALL.map(|_| vec![Expr::Every { step: None }]);
    fields[FieldName::Second as usize] = list(&FieldName::Second.form(), "0")?;
    let mut days_restricted = 0;
    for (&name, word) in names.iter().zip(words) {
        let is_weekday = name == FieldName::DayOfWeek;
        let is_day = is_weekday || name == FieldName::Day;
        days_restricted += u32::from(is_day && !word.starts_with('*'));
        let exprs = list(&form(name), word)?;
        fields[name as usize] = if is_weekday { from_sunday(exprs) } else { exprs };
    }
    Rule::new(text, fields, days_restricted == 2)
}

fn form(name: FieldName) -> Form {
    match name {
        FieldName::DayOfWeek => {
            Form { min: 0, max: 7, names: &WEEKDAYS, first_name: 0, ..name.form() }
        }
        _ => Form { days_of_month: false, ..name.form() },
    }
}

/// The same days counted from Monday.
fn from_sunday(exprs: Vec<Expr>) -> Vec<Expr> {
    if exprs == [Expr::Every { step: None }] {
        return exprs;
    }
    let fits = |day: u32| exprs.iter().any(|expr| expr.next(day, 0, 7, 0) == Some(day));
    let monday_first = (0..7).filter(|monday| {
        let from_sunday = monday + 1;
        fits(from_sunday) || from_sunday == 7 && fits(0)
    });
    monday_first.map(|day| Expr::Range { first: day, last: day, step: None, named: true }).collect()
}
