//! Laws of the lease, against random times.

use proptest::prelude::*;

use super::*;

const FENCE: Millis = Millis(1000);

fn grant(term: u64, sent: u64, answer: Answer) -> Grant {
    Grant { cluster: "main".parse().unwrap(), term: Term(term), sent_ms: sent, answer }
}

fn granted(term: u64, sent: u64, length: u64) -> Grant {
    grant(term, sent, Answer::For(Millis(length)))
}

#[test]
fn a_lease_counts_from_its_request() {
    let mut lease = Lease::new(Term(2), false);
    assert!(!lease.is_good(FENCE, Boottime(0)));
    assert!(lease.grant(&granted(2, 10_000, 5000), Boottime(14_000)));
    assert_eq!(lease.until, Boottime(14_995));
    assert!(!lease.is_good(FENCE, Boottime(14_000)), "what is left is the time to fence");
    assert!(lease.is_good(FENCE, Boottime(13_994)));
    assert!(!lease.grant(&granted(1, 13_000, 5000), Boottime(14_000)), "another term's");
    assert!(!lease.grant(&granted(2, 15_000, 5000), Boottime(14_000)), "from the future");
    assert!(!lease.grant(&granted(2, 9_000, 90_000), Boottime(14_000)), "an old one");
    assert!(!lease.grant(&grant(2, 13_000, Answer::Refused("no".into())), Boottime(14_000)));
    assert_eq!(lease.until, Boottime(14_995));
}

#[test]
fn without_end_ends_with_the_next_one_that_has_an_end() {
    let mut lease = Lease::new(Term(2), false);
    assert!(lease.grant(&grant(2, 10, Answer::WithoutEnd), Boottime(20)));
    assert_eq!(lease.fence_at(FENCE), Boottime::NEVER);
    assert!(lease.is_good(FENCE, Boottime(u64::MAX - 1)));
    assert!(lease.grant(&granted(2, 1000, 5000), Boottime(1100)));
    assert_eq!(lease.until, Boottime(5995));
}

#[test]
fn the_next_term_keeps_what_is_left_and_needs_a_grant_of_its_own() {
    let mut lease = Lease::new(Term(2), false);
    lease.grant(&granted(2, 0, 5000), Boottime(10));
    lease.go_on(Term(3));
    assert_eq!((lease.until, lease.is_good(FENCE, Boottime(100))), (Boottime(4995), false));
    lease.promise(Boottime(1000), Millis(5000));
    assert_eq!(lease.until, Boottime(4995), "peers carry on only what the controller gave");
    assert!(lease.grant(&granted(3, 1000, 5000), Boottime(1010)));
    lease.promise(Boottime(2000), Millis(5000));
    assert_eq!(lease.until, Boottime(6995));
}

#[test]
fn after_a_restart_the_guards_deadline_counts() {
    let mut lease = Lease::new(Term(2), true);
    assert!(!lease.is_good(FENCE, Boottime(100)));
    lease.resume(Boottime(4000));
    assert!(lease.is_good(FENCE, Boottime(100)));
    let mut stranger = Lease::new(Term(3), false);
    stranger.resume(Boottime(4000));
    assert!(!stranger.is_good(FENCE, Boottime(100)));
}

proptest! {
    /// I4: the holder's end is never after the giver's, however late a message comes and with clocks
    /// that run apart by as much as is allowed.
    #[test]
    fn the_holder_never_counts_longer(
        rounds in proptest::collection::vec((1u64..5000, 0u64..5000, 0u64..5000, 0u64..20_000), 1..30),
        slow in 0u64..=1,
    ) {
        // The holder's clock shows less time than the giver's when it is slow.
        let shown = |real: u64| Boottime(real - real * slow / 1000);
        let mut lease = Lease::new(Term(1), false);
        let (mut real, mut giver_end) = (0u64, 0u64);
        for (wait, there, back, length) in rounds {
            let sent = shown(real);
            let at_giver = real + there;
            giver_end = giver_end.max(at_giver + length + (length * DRIFT_PER_MILLE).div_ceil(1000));
            real = at_giver + back;
            lease.grant(&granted(1, sent.0, length), shown(real));
            // The real time at which the holder's clock shows its end.
            let real_end = (0..=lease.until.0 / 900 + 2)
                .map(|extra| lease.until.0 + extra)
                .find(|&at| shown(at) >= lease.until);
            prop_assert!(real_end.is_none_or(|end| end <= giver_end), "{real_end:?} {giver_end}");
            real += wait;
        }
    }
}
