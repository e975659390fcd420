//! Slots of a cluster of three, as its primary and as a standby have them.

use lockstep_model::KeyHash;
use lockstep_model::cluster::{ClusterOptions, Goal, Lineage, MemberOptions, MemberPeer, Term};
use lockstep_model::task::Peer;

use super::*;

const HOUR: u64 = 3_600_000;

fn place() -> ClusterPlace {
    let peer = |node: &str| MemberPeer {
        peer: Peer { node: node.parse().unwrap(), key_hash: KeyHash([0; 32]), addresses: vec![] },
        postgres: lockstep_model::HostPort::parse("h", 5432).unwrap(),
        certificate: String::new(),
        clone_from: false,
    };
    let mut options = ClusterOptions::default();
    options.replication.slot_ttl = Some(Millis(HOUR));
    ClusterPlace {
        cluster: "main".parse().unwrap(),
        term: Term(1),
        goal: Goal::Standby { upstream: None },
        system_id: None,
        holder: None,
        lineage: Lineage::default(),
        copy: 1,
        options,
        member: MemberOptions::default(),
        peers: vec![peer("db2"), peer("db3")],
        promotable: vec![],
        sync: false,
        paused: false,
        serve: true,
    }
}

fn slot(name: &str, active: bool, held_bytes: u64) -> SlotRow {
    SlotRow {
        name: name.to_owned(),
        active,
        physical: true,
        restart: Some(Lsn(100)),
        held_bytes,
        lost: false,
    }
}

const FLUSHED: Lsn = Lsn(1 << 40);

#[test]
fn who_is_away_for_too_long_holds_nothing_back() {
    let (place, mut absences) = (place(), Absences::default());
    let at_least = |absences: &Absences, now| -> Vec<Option<Lsn>> {
        let wishes = wishes(&place, FLUSHED, None, absences, Boottime(now));
        wishes.into_iter().map(|wish| wish.at_least).collect()
    };
    let only_db2 = [slot("lockstep_db2", true, 0), slot("lockstep_db3", false, 0)];
    absences.note(&place, &only_db2, Boottime(1000));
    absences.note(&place, &only_db2, Boottime(HOUR));
    assert_eq!(at_least(&absences, HOUR), [None, None]);
    assert_eq!(at_least(&absences, HOUR + 1001), [None, Some(FLUSHED)]);
    let both = [slot("lockstep_db2", true, 0), slot("lockstep_db3", true, 0)];
    absences.note(&place, &both, Boottime(HOUR + 1002));
    absences.note(&place, &only_db2, Boottime(HOUR + 1003));
    assert_eq!(at_least(&absences, HOUR + 1004), [None, None], "it came back");
    let mut forever = place.clone();
    forever.options.replication.slot_ttl = None;
    let kept = wishes(&forever, FLUSHED, None, &absences, Boottime(100 * HOUR));
    assert!(kept.iter().all(|wish| wish.at_least.is_none()));
    forever.options.replication.slots = false;
    assert!(wishes(&forever, FLUSHED, None, &absences, Boottime(0)).is_empty());
}

#[test]
fn a_standby_keeps_the_same_for_everybody() {
    let place = place();
    let of = |replayed| wishes(&place, FLUSHED, Some(replayed), &Absences::default(), Boottime(0));
    assert!(of(Lsn(5)).iter().all(|wish| wish.at_least.is_none()));
    let kept = of(Lsn(STANDBY_KEEPS + 7));
    assert!(kept.iter().all(|wish| wish.at_least == Some(Lsn(7))));
}

#[test]
fn what_fills_the_disk_is_warned_of() {
    let mut options = place().options.replication;
    options.slot_warning = Size(1 << 30);
    let mut lost = slot("other", false, 0);
    lost.lost = true;
    let slots = [slot("lockstep_db2", true, 1 << 30), slot("mine", false, 2 << 30), lost];
    let warnings = warnings(&options, &slots);
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].contains("slot mine holds 2048 MiB") && warnings[0].contains("nobody"));
    assert!(warnings[1].contains("other has lost"));
}
