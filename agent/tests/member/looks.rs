//! What a look at a primary tells that is not death, and for how long.

use lockstep_model::cluster::parameter::Parameter;
use lockstep_model::cluster::report::Trouble;
use lockstep_model::cluster::{CrashPlan, Goal, MemberState, Origin, Term};
use rustix::process::{Pid, Signal, kill_process};

use crate::bed::{Bed, primary, with_id};

/// Its sessions go on, and nothing but its state tells: no probe is due.
#[tokio::test]
async fn a_postmaster_that_was_stopped_by_a_signal_hangs_after_one_timeout() {
    let bed = Bed::new(&["db1"], &[("verify", "24h"), ("check-timeout", "1s")]);
    let db1 = bed.node("db1").await;
    bed.decide(1, Some(&db1));
    db1.take(&bed.place(&db1, 1, Goal::Primary(primary(Origin::Initdb, CrashPlan::Restart)))).await;
    db1.until_primary(1).await;
    let pid = Pid::from_raw(db1.postmaster().unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let hung = db1.until("a hang", |report| report.trouble == Trouble::Hung).await;
    assert_eq!((hung.state, hung.holds), (MemberState::Primary, Some(Term(1))));
    kill_process(pid, Signal::CONT).unwrap();
    db1.until("its end", |report| report.trouble == Trouble::None).await;
    db1.clean_up().await;
}

#[tokio::test]
async fn a_setting_that_was_refused_is_told_until_another_is_taken() {
    let bed = Bed::new(&["db1"], &[]);
    let db1 = bed.node("db1").await;
    bed.decide(1, Some(&db1));
    let make = bed.place(&db1, 1, Goal::Primary(primary(Origin::Initdb, CrashPlan::Restart)));
    db1.take(&make).await;
    let made = db1.until_primary(1).await;
    let place = with_id(make, &made);
    let mut wrong = place.clone();
    let (name, value) = ("work_mem".to_owned(), "plenty".to_owned());
    wrong.options.parameters.push(Parameter { name, value });
    db1.take(&wrong).await;
    let warns = |report: &lockstep_model::cluster::MemberReport| {
        report.warnings.iter().any(|line| line.contains("work_mem"))
    };
    db1.until("a warning", warns).await;
    db1.take(&place).await;
    db1.until("its end", |report| !warns(report)).await;
    db1.clean_up().await;
}
