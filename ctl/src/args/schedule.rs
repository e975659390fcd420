//! The words of `schedule`, and the options of whatever takes a schedule.

use clap::{Args as ClapArgs, Subcommand};
use lockstep_model::Millis;
use lockstep_model::schedule::{Missed, Overlap, Policy, ScheduleText};

#[derive(Subcommand, Debug)]
pub enum ScheduleCommand {
    /// How a schedule is understood and when it fires next; nothing is kept.
    #[command(after_help = "Examples:
  lockstepctl schedule preview 'minute=*/30 hour=1-5' --timezone Europe/Berlin
  lockstepctl schedule preview '*/15 * * * *' -n 20 -o json
  lockstepctl schedule preview 'day=last fri hour=3' --start-date '2027-01-01' --end-date '2027-06-30'")]
    Preview(Preview),
}

#[derive(ClapArgs, Debug)]
pub struct Preview {
    /// Eight fields such as minute=*/30, or crontab text.
    #[arg(id = RULE, value_name = "RULE")]
    pub rule: String,
    #[command(flatten)]
    pub terms: Terms,
    /// How many instants, 1 to 100.
    #[arg(short = 'n', long, default_value_t = 5, value_parser = count(), value_name = "COUNT")]
    pub count: u32,
}

/// The argument that the others belong to, whatever it is called on the command line.
const RULE: &str = "schedule";

fn count() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=100)
}

/// Of what may have a schedule.
#[derive(ClapArgs, Debug, Default)]
pub struct ScheduleArgs {
    /// When it happens by itself: eight fields such as minute=*/30, or crontab text.
    #[arg(id = RULE, long = "schedule", value_name = "RULE")]
    pub rule: Option<String>,
    #[command(flatten)]
    pub terms: Terms,
    /// Show how the schedule is understood and the next so many instants, before it is kept.
    #[arg(long, requires = RULE, value_parser = count(), value_name = "COUNT")]
    pub schedule_preview: Option<u32>,
}

impl ScheduleArgs {
    /// None: no schedule is named.
    pub fn text(&self) -> Option<ScheduleText> {
        self.rule.as_ref().map(|rule| self.terms.text(rule))
    }
}

/// How a rule is read and followed.
#[derive(ClapArgs, Debug, Default)]
pub struct Terms {
    /// Whose clock the rule speaks of: Europe/Berlin, +05:30; UTC unless given.
    #[arg(long, requires = RULE, value_name = "ZONE")]
    pub timezone: Option<String>,
    /// Nothing before: '2014-05-07 18:00', or as date prints it.
    #[arg(long, requires = RULE, value_name = "DATE")]
    pub start_date: Option<String>,
    /// Nothing after.
    #[arg(long, requires = RULE, value_name = "DATE")]
    pub end_date: Option<String>,
    /// Of runs whose time passed longer than --grace ago: skip them, run once for all, or all of
    /// them; once unless given.
    #[arg(long, requires = RULE, value_name = "WHAT")]
    pub missed: Option<Missed>,
    /// A run that starts so late is on time, up to 7d; 1m unless given.
    #[arg(long, requires = RULE, value_name = "TIME")]
    pub grace: Option<Millis>,
    /// Of a run whose time comes during the one before: skip it, or queue exactly one; queue unless
    /// given.
    #[arg(long, requires = RULE, value_name = "WHAT")]
    pub overlap: Option<Overlap>,
    /// Spread starts over so much time after their instants, up to 1d; 0s unless given.
    #[arg(long, requires = RULE, value_name = "TIME")]
    pub splay: Option<Millis>,
}

impl Terms {
    /// The schedule of a rule under these terms, as it is said to the controller.
    pub fn text(&self, rule: &str) -> ScheduleText {
        let Self { timezone, start_date, end_date, missed, grace, overlap, splay } = self;
        let plain = Policy::default();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        ScheduleText {
            rule: rule.to_owned(),
            zone: text(timezone),
            start_date: text(start_date),
            end_date: text(end_date),
            policy: Policy {
                missed: missed.unwrap_or(plain.missed),
                grace: grace.unwrap_or(plain.grace),
                overlap: overlap.unwrap_or(plain.overlap),
                splay: splay.unwrap_or(plain.splay),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser, Debug)]
    #[command(no_binary_name = true)]
    struct Command {
        #[command(flatten)]
        args: ScheduleArgs,
    }

    #[test]
    fn terms_need_a_rule_and_have_the_defaults_of_the_model() {
        let read = |args: &[&str]| Command::try_parse_from(args).map(|c| c.args.text());
        assert_eq!(read(&[]).unwrap(), None);
        let text = read(&["--schedule", "hour=4"]).unwrap().unwrap();
        let plain = ScheduleText { rule: "hour=4".to_owned(), ..ScheduleText::default() };
        assert_eq!(text, plain);
        let all = "--schedule @daily --timezone UTC --start-date 2027-01-01 --end-date 2028-01-01 \
                   --missed all --grace 5m --overlap skip --splay 1h --schedule-preview 3";
        let text = read(&all.split_whitespace().collect::<Vec<_>>()).unwrap().unwrap();
        let policy = Policy {
            missed: Missed::All,
            grace: Millis::from_secs(300),
            overlap: Overlap::Skip,
            splay: Millis::from_secs(3600),
        };
        assert_eq!(
            text,
            ScheduleText {
                rule: "@daily".to_owned(),
                zone: "UTC".to_owned(),
                start_date: "2027-01-01".to_owned(),
                end_date: "2028-01-01".to_owned(),
                policy,
            }
        );
        for (args, says) in [
            (&["--timezone", "UTC"][..], "--schedule"),
            (&["--schedule", "hour=4", "--missed", "maybe"], "one of skip, once, all"),
            (&["--schedule", "hour=4", "--grace", "5"], "must look like"),
            (&["--schedule", "hour=4", "--schedule-preview", "101"], "1..=100"),
        ] {
            let error = read(args).unwrap_err().to_string();
            assert!(error.contains(says), "{args:?}: {error}");
        }
    }
}
