//! What is refused of clusters, and in which words; what is so already; what a request writes.

pub(crate) mod fixture;
mod moves;

use expect_test::expect;
use lockstep_model::cluster::{Act, Leaving, MemberAdmin};
use lockstep_model::request::{NewCluster, NodeAction, Request};

use self::fixture::{
    act, add, create, edit, lab, lose, member, name, new, node, put_state, remove, values,
};
use super::dsl::{Lab, create_sync};
use super::refusals::check;

#[test]
fn definitions() {
    let mut lab = Lab::with_nodes(&["db1", "db2", "db3"]);
    lab.join("gone");
    lab.act("gone", NodeAction::Expel);
    lab.join("off");
    lab.act("off", NodeAction::Disable);
    lab.try_ask(create(new("main", &["db1", "db2"], &[]))).unwrap();
    lab.try_ask(create_sync("web", "db3:/srv", &["db2:/srv/www"])).unwrap();
    let of = |node: &str, text: &[&str]| (fixture::node(node), values(text));
    let before = lab.world.revision();
    let other = || new("other", &["db3"], &[]);
    let mut refusals = Vec::new();
    for new in [
        new("main", &["db1"], &[]),
        new("other", &["nobody"], &[]),
        new("other", &["db3", "gone"], &[]),
        new("other", &["db3", "off"], &[]),
        NewCluster { members: vec![of("db2", &[]), of("db2", &[])], ..other() },
        // Port, directories.
        new("other", &["db3", "db2"], &[]),
        new("other", &["db1"], &["port=5433", "data-dir=/var/lib/postgresql/lockstep/main/x"]),
        new("other", &["db2"], &["port=5433", "data-dir=/srv/www"]),
        new("other", &["db3"], &["data-dir=/srv/db"]),
        new("other", &["db3"], &["wal-dir=/var/lib/postgresql/lockstep/other/wal"]),
        // What does not go together.
        new("other", &["db3"], &["sync=1"]),
        NewCluster {
            members: vec![of("db2", &["no-sync=yes", "port=5433"])],
            ..new("other", &["db3"], &["sync=1"])
        },
        new("other", &["db3"], &["lease=2s", "suspect-after=2s"]),
        new("other", &["db3"], &["manager=systemd:pg.service"]),
        NewCluster { adopt: true, ..other() },
        NewCluster { members: vec![of("db3", &["never-promote=yes"])], ..other() },
        NewCluster { members: vec![of("db3", &["speed=9"])], ..other() },
        NewCluster { members: vec![of("db2", &["port=5433", "upstream=db1"])], ..other() },
        NewCluster {
            members: vec![
                of("db2", &["port=5433", "upstream=db1"]),
                of("db1", &["port=5433", "upstream=db2"]),
            ],
            ..other()
        },
    ] {
        refusals.push(lab.refusal(create(new)));
    }
    // Others into a database's files.
    refusals.push(lab.refusal(create_sync("x", "db1:/var/lib/postgresql", &["db3:/copy"])));
    let disable = Request::ChangeNode { node: node("db1"), action: NodeAction::Disable };
    lab.try_ask(disable).unwrap();
    refusals.push(lab.refusal(Request::RemoveNode { node: node("db1") }));
    let clusters = lab.world.clusters().len();
    assert_eq!((clusters, lab.world.revision().0), (1, before.0 + 1), "nothing else was changed");
    check(
        &refusals,
        expect![[r#"
            AlreadyExists already_exists cluster/main: cluster main exists and differs: see lockstepctl cluster show main, change it with lockstepctl cluster edit main, or choose another name
            NotFound not_found node/nobody: members: node nobody has not joined: make a token for it with lockstepctl token create --node nobody
            FailedPrecondition node_expelled node/gone: members: node gone was expelled: choose another
            FailedPrecondition wrong_state node/off: members: node off is disabled: lockstepctl node enable off
            InvalidArgument invalid members: members: db2 is given twice
            FailedPrecondition overlap cluster/main/db2: port 5432 of db2 is cluster main's: give db2 another one (port)
            FailedPrecondition overlap cluster/main: db1:/var/lib/postgresql/lockstep/main/x overlaps db1:/var/lib/postgresql/lockstep/main, which is cluster main's: name another directory with data-dir or wal-dir
            FailedPrecondition overlap sync/web: db2:/srv/www overlaps db2:/srv/www, which is sync web's: name another directory with data-dir or wal-dir
            FailedPrecondition overlap sync/web: db3:/srv/db overlaps db3:/srv, which is sync web's: name another directory with data-dir or wal-dir
            InvalidArgument invalid db3.wal-dir: db3.wal-dir: /var/lib/postgresql/lockstep/other/wal overlaps the data directory /var/lib/postgresql/lockstep/other: they must be apart
            InvalidArgument invalid sync: sync: takes 1 standbys that acknowledge, and there are 0: add some, or promise less; those with no-sync, never-promote, upstream or delay do not count
            InvalidArgument invalid sync: sync: takes 1 standbys that acknowledge, and there are 0: add some, or promise less; those with no-sync, never-promote, upstream or delay do not count
            InvalidArgument invalid lease: lease: must be at least 4s, for this suspect-after and fence-time
            InvalidArgument invalid db3.data-dir: db3.data-dir: name the data directory that systemd:pg.service starts
            InvalidArgument invalid db3.data-dir: db3.data-dir: name the data directory of the primary that is taken over
            InvalidArgument invalid db3.never-promote: db3.never-promote: it is the first primary
            InvalidArgument invalid db3.setting: db3.setting: "speed" is unknown; there are priority, never-promote, no-load-balance, no-sync, clone-from, upstream, delay, group, data-dir, wal-dir, port, host, postgres-bin, manager, tag
            InvalidArgument invalid db2.upstream: db2.upstream: db1 is no member: name one, or none
            InvalidArgument invalid db1.upstream: db1.upstream: db1 follows it already: a member cannot follow itself
            FailedPrecondition overlap cluster/main: db1:/var/lib/postgresql overlaps db1:/var/lib/postgresql/lockstep/main, which cluster main writes: nothing may write a directory of another; choose another directory
            FailedPrecondition in_use node/db1: node db1 is a member of cluster main: first lockstepctl cluster remove main db1, or lockstepctl cluster release main
        "#]],
    );
}

#[test]
fn changes() {
    let mut lab = lab();
    let mut refusals = Vec::new();
    for request in [
        edit("nobody", &["sync=1"], &[]),
        edit("main", &["speed=9"], &[]),
        edit("main", &["sync=3"], &[]),
        edit("main", &["checksums=no"], &[]),
        edit("main", &["initdb-option=--encoding=UTF8"], &[]),
        edit("main", &["port=5433"], &[]),
        edit("main", &["data-dir=/srv/db"], &[]),
        edit("main", &["manager=systemd:pg.service", "data-dir=/srv/db"], &[]),
        edit("main", &["parameter=fsync=off"], &[]),
        edit("main", &[], &[("db2", &["wal-dir=/wal"])]),
        edit("main", &[], &[("db2", &["no-sync=yes"])]),
        edit("main", &[], &[("db2", &["upstream=db9"])]),
        edit("main", &[], &[("db9", &["priority=1"])]),
        add("main", "db3", &["priority=7"]),
        add("main", "nobody", &[]),
        add("main", "db4", &["upstream=db4"]),
    ] {
        refusals.push(lab.refusal(request));
    }
    check(
        &refusals,
        expect![[r#"
            NotFound not_found cluster/nobody: cluster nobody does not exist: see lockstepctl cluster list
            InvalidArgument invalid setting: setting: "speed" is unknown; there are postgres-bin, data-dir, wal-dir, port, socket-dir, manager, sync, on-sync-shortage, lease, fence-time, suspect-after, on-isolation, failover, on-crash, restart-limit, failover-budget, failover-window, max-lag, switchover-limit, external-fence, external-fence-timeout, salvage, salvage-max, salvage-timeout, on-salvage-failure, rewind, reclone, keep-old-data, replication-tls, slots, slot-ttl, slot-warning, poll, verify, check-timeout, check-retries, min-free, parameter, hba, hba-mode, initdb-option, checksums
            InvalidArgument invalid sync: sync: takes 3 standbys that acknowledge, and there are 2: add some, or promise less; those with no-sync, never-promote, upstream or delay do not count
            InvalidArgument invalid checksums: checksums: is fixed when a cluster is made: pg_checksums changes it while the cluster is stopped
            InvalidArgument invalid initdb-option: initdb-option: is fixed when a cluster is made: make another cluster
            InvalidArgument invalid port: port: of db1 is fixed when its data is made: remove it (lockstepctl cluster remove main db1) and add it with another
            InvalidArgument invalid data-dir: data-dir: of db1 is fixed when its data is made: remove it (lockstepctl cluster remove main db1) and add it with another
            InvalidArgument invalid data-dir: data-dir: of db1 is fixed when its data is made: remove it (lockstepctl cluster remove main db1) and add it with another
            InvalidArgument invalid parameter: parameter: fsync is Lockstep's: a copy that is not on disk is none
            InvalidArgument invalid wal-dir: wal-dir: of db2 is fixed when its data is made: remove it (lockstepctl cluster remove main db2) and add it with another
            InvalidArgument invalid sync: sync: takes 2 standbys that acknowledge, and there are 1: add some, or promise less; those with no-sync, never-promote, upstream or delay do not count
            InvalidArgument invalid db2.upstream: db2.upstream: db9 is no member: name one, or none
            NotFound not_found cluster/main/db9: node db9 is no member of cluster main: see lockstepctl cluster show main
            AlreadyExists already_exists cluster/main/db3: db3 is a member of cluster main, with other settings: lockstepctl cluster edit main --member db3:NAME=VALUE changes them
            NotFound not_found node/nobody: members: node nobody has not joined: make a token for it with lockstepctl token create --node nobody
            InvalidArgument invalid db4.upstream: db4.upstream: db4 follows it already: a member cannot follow itself
        "#]],
    );
    // Before anything is made all may be changed.
    let mut young = Lab::with_nodes(&["db1"]);
    young.try_ask(create(new("main", &["db1"], &[]))).unwrap();
    young.try_ask(edit("main", &["port=5433", "checksums=no"], &[])).unwrap();

    lab.try_ask(edit("main", &["sync=1"], &[("db2", &["no-sync=yes", "priority=7"])])).unwrap();
    let said = [
        lab.try_ask(edit("main", &["sync=1"], &[])).unwrap().detail,
        lab.try_ask(add("main", "db3", &[])).unwrap().detail,
        lab.try_ask(add("main", "db4", &["priority=3"])).unwrap().detail,
    ];
    let db4 = member(&lab, "db4");
    assert_eq!((db4.options.priority, db4.copy, db4.leaving), (3, 1, None));
    check(
        &said,
        expect![[r#"
        cluster main is just so already
        db3 is a member of cluster main already
        db4 becomes a standby of cluster main
    "#]],
    );
}

#[test]
fn members_that_are_needed() {
    let mut lab = lab();
    let mut refusals = Vec::new();
    let reclone = |of: &str| Request::Reclone { cluster: name("main"), node: node(of) };
    let admin =
        |of: &str, admin| Request::SetMemberAdmin { cluster: name("main"), node: node(of), admin };
    for request in [
        remove("main", "db1", false),
        remove("main", "db2", false),
        reclone("db1"),
        reclone("db2"),
        reclone("db9"),
        admin("db2", MemberAdmin::Stopped),
        admin("db9", MemberAdmin::Fenced),
    ] {
        refusals.push(lab.refusal(request));
    }
    // One that nobody waits for.
    lab.try_ask(add("main", "db4", &["no-sync=yes", "upstream=db3"])).unwrap();
    refusals.push(lab.refusal(remove("main", "db3", false)));
    check(
        &refusals,
        expect![[r#"
        FailedPrecondition is_primary cluster/main/db1: db1 is the primary: lockstepctl cluster switchover main makes another one first; lockstepctl cluster release main, or delete, is for the whole cluster
        FailedPrecondition needed cluster/main/db2: commits wait for 2 standbys, and without db2 there are 1: before you remove it, add another one (lockstepctl cluster add-standby main NODE), or promise less (lockstepctl cluster edit main --sync 1)
        FailedPrecondition is_primary cluster/main/db1: db1 is the primary, whose data is what others copy: lockstepctl cluster switchover main makes another one first
        FailedPrecondition needed cluster/main/db2: commits wait for 2 standbys, and without db2 there are 1: before you copy it anew, add another one (lockstepctl cluster add-standby main NODE), or promise less (lockstepctl cluster edit main --sync 1)
        NotFound not_found cluster/main/db9: node db9 is no member of cluster main: see lockstepctl cluster show main
        FailedPrecondition needed cluster/main/db2: commits wait for 2 standbys, and without db2 there are 1: before you stop it, add another one (lockstepctl cluster add-standby main NODE), or promise less (lockstepctl cluster edit main --sync 1)
        NotFound not_found cluster/main/db9: node db9 is no member of cluster main: see lockstepctl cluster show main
        FailedPrecondition in_use cluster/main/db4: db4 follows db3: lockstepctl cluster edit main --member db4:upstream=none first
    "#]],
    );

    let said: Vec<String> = [
        remove("main", "db9", false),
        remove("main", "db4", true),
        remove("main", "db4", true),
        edit("main", &["sync=1"], &[]),
        reclone("db3"),
        reclone("db3"),
        admin("db3", MemberAdmin::Fenced),
        admin("db3", MemberAdmin::Fenced),
        admin("db1", MemberAdmin::Stopped),
    ]
    .into_iter()
    .map(|request| lab.try_ask(request).unwrap().detail)
    .collect();
    check(
        &said,
        expect![[r#"
        db9 is no member of cluster main
        db4 leaves cluster main; with its data
        db4 is leaving cluster main already
        cluster main changed
        the data of db3 is copied anew
        a new copy of db3 is on its way already: lockstepctl explain cluster/main/db3
        db3 is fenced until lockstepctl cluster unfence
        db3 is fenced already
        db1 is stopped until lockstepctl cluster start; another member takes over if one can
    "#]],
    );
    assert_eq!(member(&lab, "db4").leaving, Some(Leaving::Delete));
    assert_eq!(member(&lab, "db3").copy, 2);
    let refusals =
        [lab.refusal(edit("main", &[], &[("db4", &["priority=1"])])), lab.refusal(reclone("db3"))];
    check(
        &refusals,
        expect![[r#"
        FailedPrecondition being_deleted cluster/main/db4: db4 is leaving cluster main: lockstepctl explain cluster/main says what it waits for
        FailedPrecondition wrong_state cluster/main/db3: db3 is fenced: lockstepctl cluster start, unfence or maintenance --off first
    "#]],
    );
}

#[test]
fn the_whole() {
    let mut lab = lab();
    let pause = |paused| Request::SetClusterPaused { cluster: name("main"), paused };
    let go = |leaving| Request::RemoveCluster { cluster: name("main"), leaving };
    let mut said = vec![
        lab.try_ask(pause(false)).unwrap().detail,
        lab.try_ask(pause(true)).unwrap().detail,
        lab.try_ask(pause(false)).unwrap().detail,
    ];
    put_state(&mut lab, |state| state.stage = fixture::promoting());
    let mut refusals = vec![lab.refusal(pause(true)), lab.refusal(remove("main", "db2", false))];
    said.push(lab.try_ask(go(Leaving::Release)).unwrap().detail);
    said.push(lab.try_ask(go(Leaving::Release)).unwrap().detail);
    said.push(
        lab.try_ask(Request::RemoveCluster { cluster: name("x"), leaving: Leaving::Delete })
            .unwrap()
            .detail,
    );
    refusals.push(lab.refusal(go(Leaving::Delete)));
    refusals.push(lab.refusal(pause(true)));
    check(
        &said,
        expect![[r#"
        cluster main is running already
        cluster main is paused: no failover happens until it is resumed
        cluster main is running now
        cluster main is being released; its databases run on
        cluster main is on its way out already
        cluster x does not exist: see lockstepctl cluster list
    "#]],
    );
    check(
        &refusals,
        expect![[r#"
        FailedPrecondition under_way cluster/main: a failover is under way (promoting): wait for its end before you pause the cluster; lockstepctl explain cluster/main says what it waits for
        FailedPrecondition under_way cluster/main: a failover is under way (promoting): wait for its end before you remove a member; lockstepctl explain cluster/main says what it waits for
        FailedPrecondition being_deleted cluster/main: cluster main is on its way out already, by release: lockstepctl explain cluster/main says what it waits for
        FailedPrecondition being_deleted cluster/main: cluster main is on its way out (release): lockstepctl explain cluster/main says what it waits for
    "#]],
    );
}

#[test]
fn acts() {
    let mut lab = lab();
    lose(&mut lab, "db3");
    let restart = Act::Restart { pending: false };
    let mut refusals = Vec::new();
    for request in [
        act("main", &[], restart.clone()),
        act("main", &["db3"], restart.clone()),
        act("main", &["db1"], Act::Rewind),
        act("main", &["db9"], Act::Reload),
        act("main", &["db2"], Act::Fence { node: node("db1"), timeout: lab.now.since(lab.now) }),
    ] {
        refusals.push(lab.refusal(request));
    }
    let all = lab.try_ask(act("main", &[], Act::Reload)).unwrap();
    let nodes = all.tasks.iter().map(|id| lab.world.task(*id).unwrap().value.node.to_string());
    assert_eq!(nodes.collect::<Vec<_>>(), ["db2", "db1"], "those that are there, the primary last");
    let said = [all.detail, lab.try_ask(act("main", &["db2"], Act::Reload)).unwrap().detail];
    refusals.push(lab.refusal(act("main", &["db2"], restart.clone())));
    put_state(&mut lab, |state| state.stage = fixture::promoting());
    refusals.push(lab.refusal(act("main", &["db2"], restart)));
    check(
        &said,
        expect![[r#"
        reload of db2, db1 asked for
        a reload is under way already
    "#]],
    );
    check(
        &refusals,
        expect![[r#"
        InvalidArgument invalid nodes: nodes: must be one: a restart goes from member to member, the primary last
        FailedPrecondition node_not_connected node/db3: node db3 is not connected: see lockstepctl node show db3, or name others
        FailedPrecondition is_primary cluster/main/db1: db1 is the primary, whose way is the one that others are held against
        NotFound not_found cluster/main/db9: node db9 is no member of cluster main: see lockstepctl cluster show main
        InvalidArgument invalid act: act: fence is the rules' own: lockstepctl cluster fence stops a member
        FailedPrecondition under_way task/19.0: another cluster-act is under way, task 19.0: wait for it or cancel it
        FailedPrecondition under_way cluster/main: a failover is under way (promoting): wait for its end before you restart members; lockstepctl explain cluster/main says what it waits for
    "#]],
    );
}

#[test]
fn explanations() {
    use lockstep_model::cluster::report::{PendingRestart, Progress, ProgressKind, Trouble};
    use lockstep_model::cluster::{MemberReport, MemberState};

    let mut lab = lab();
    let progress = Progress {
        what: ProgressKind::Clone,
        done_bytes: 5,
        total_bytes: Some(9),
        for_ms: lockstep_model::Millis(3000),
    };
    let db2 = MemberReport {
        problem: "the disk is full".to_owned(),
        trouble: Trouble::DiskFull,
        progress: Some(progress),
        ..fixture::report(MemberState::Standby, 1000)
    };
    fixture::say(&mut lab, "db2", db2);
    let pending = PendingRestart {
        name: "max_connections".to_owned(),
        now: "100".to_owned(),
        then: "200".to_owned(),
    };
    let db1 = MemberReport {
        pending_restart: vec![pending],
        warnings: vec!["less than 1G is free".to_owned()],
        ..fixture::report(MemberState::Primary, 1000)
    };
    fixture::say(&mut lab, "db1", db1);
    lose(&mut lab, "db3");
    let mut shown = Vec::new();
    for subject in ["cluster/main", "cluster/main/db2", "cluster/main/db4", "cluster/x", "node/db2"]
    {
        shown.push(format!("# {subject}"));
        match crate::explain::explain(&lab.world, &[], subject, lab.now) {
            Ok(found) => {
                shown.extend(found.iter().map(|r| format!("{} {}: {}", r.subject, r.rule, r.text)))
            }
            Err(refusal) => shown.push(refusal.to_string()),
        }
    }
    check(
        &shown,
        expect![[r#"
            # cluster/main
            cluster/main/db1 reported: db1: max_connections is 100, and 200 after a restart
            cluster/main/db1 reported: db1: less than 1G is free
            cluster/main/db2 reported: db2: the disk is full
            cluster/main/db2 reported: db2: it is standby, with disk-full
            cluster/main/db2 reported: db2: clone: 5 of 9 bytes in 3s
            node/db3 health: db3 is unavailable since 2026-11-21T00:00:00Z: not connected: link lost
            # cluster/main/db2
            cluster/main/db2 reported: db2: the disk is full
            cluster/main/db2 reported: db2: it is standby, with disk-full
            cluster/main/db2 reported: db2: clone: 5 of 9 bytes in 3s
            # cluster/main/db4
            node db4 is no member of cluster main: see lockstepctl cluster show main
            # cluster/x
            cluster x does not exist: see lockstepctl cluster list
            # node/db2
            cluster/main/db2 reported: db2: the disk is full
            cluster/main/db2 reported: db2: it is standby, with disk-full
            cluster/main/db2 reported: db2: clone: 5 of 9 bytes in 3s
        "#]],
    );
}
