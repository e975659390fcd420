//! What is shown beside checks: pages, metrics, and what is not changed from here.

use super::*;

#[tokio::test]
async fn pages_show_what_the_member_knows_and_nothing_secret() {
    let node = Node::start().await;
    let options = ClusterOptions::from_values([
        ("lease", "7s"),
        ("parameter", "archive_command=push --key hidden"),
        ("hba", "hostssl hidden hidden 10.0.0.0/8 scram-sha-256"),
    ]);
    let peer = |name: &str, host: &str| lockstep_model::cluster::MemberPeer {
        peer: lockstep_model::task::Peer {
            node: name.parse().unwrap(),
            key_hash: lockstep_model::KeyHash([0; 32]),
            addresses: Vec::new(),
        },
        postgres: lockstep_model::HostPort::new(host, 5432).unwrap(),
        certificate: String::new(),
        clone_from: false,
    };
    let fork =
        |timeline, begins| lockstep_model::cluster::wal::Fork { timeline, begins: Lsn(begins) };
    let leading = ClusterPlace {
        options: options.unwrap(),
        holder: Some("db2".parse().unwrap()),
        peers: vec![peer("db1", "10.0.0.1"), peer("db3", "10.0.0.3")],
        ..place("main", primary())
    };
    let row = lockstep_model::cluster::report::StandbyRow {
        node: "db3".parse().unwrap(),
        streaming: true,
        sync_state: lockstep_model::cluster::report::SyncState::Quorum,
        sent: Lsn(10_000),
        flushed: Lsn(10_000),
        replayed: Lsn(9_500),
        replay_lag: None,
        reply_age: Millis(1),
    };
    let said = MemberReport {
        lineage: Lineage(vec![fork(1, 0), fork(2, 5_000)]),
        replayed: None,
        standbys: vec![row],
        ..report(MemberState::Primary)
    };
    node.lease(Boottime::NEVER);
    node.have(vec![(leading, Some(said))]);
    let page = async |path: &str| -> serde_json::Value {
        let (code, body) = node.ask("GET", path).await;
        assert_eq!(code, 200, "{path}: {body}");
        assert!(!body.contains("hidden"), "{body}");
        serde_json::from_str(&body).unwrap()
    };
    let cluster = page("/cluster").await;
    assert_eq!(cluster, page("/cluster/main/cluster").await);
    for (pointer, value) in [
        ("/scope", serde_json::json!("main")),
        ("/members/0/name", "db1".into()),
        ("/members/0/role", "replica".into()),
        ("/members/0/state", "unknown".into()),
        ("/members/1/role", "leader".into()),
        ("/members/1/timeline", 2.into()),
        ("/members/2/role", "quorum_standby".into()),
        ("/members/2/state", "streaming".into()),
        ("/members/2/host", "10.0.0.3".into()),
        ("/members/2/lag", 500.into()),
    ] {
        assert_eq!(cluster.pointer(pointer), Some(&value), "{pointer} of {cluster}");
    }
    let history = serde_json::json!([[1, 5_000, "no recovery target specified"]]);
    assert_eq!(page("/history").await, history);
    let config = page("/config").await;
    assert_eq!(config["ttl"], 7);
    assert_eq!(config["lockstep"]["lease"], "7s");

    for path in ["/metrics", "/cluster/main/metrics"] {
        let (code, text) = node.ask("GET", path).await;
        assert_eq!(code, 200, "{path}");
        for line in [
            "# TYPE patroni_primary gauge",
            "patroni_primary{scope=\"main\",name=\"db2\"} 1",
            "patroni_xlog_location{scope=\"main\",name=\"db2\"} 10000",
            "patroni_postgres_timeline{scope=\"main\",name=\"db2\"} 2",
            "lockstep_member_state{scope=\"main\",name=\"db2\",state=\"primary\"} 1",
            "lockstep_standby_replayed_lag_bytes{scope=\"main\",name=\"db2\",standby=\"db3\"} 500",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.ends_with("\nfurther 1\n"), path == "/metrics", "{text}");
    }
    node.lease(Boottime(0));
    let (_, text) = node.ask("GET", "/metrics").await;
    assert!(text.contains("patroni_primary{scope=\"main\",name=\"db2\"} 0"), "{text}");
    assert_eq!(node.ask("HEAD", "/metrics").await, (200, String::new()));
    assert_eq!(node.ask("POST", "/metrics").await.0, 405);

    for (method, path, command) in [
        ("POST", "/switchover", "cluster switchover main"),
        ("DELETE", "/cluster/main/switchover", "cluster switchover main"),
        ("POST", "/failover", "cluster failover main"),
        ("POST", "/restart", "cluster restart main"),
        ("POST", "/reinitialize", "cluster reclone main"),
        ("PATCH", "/config", "cluster edit main"),
    ] {
        let (code, body) = node.ask(method, path).await;
        assert_eq!(code, 501, "{method} {path}");
        assert!(body.contains(command), "{body}");
    }
    assert_eq!(node.code("/cluster/other/config").await, 404);
}
