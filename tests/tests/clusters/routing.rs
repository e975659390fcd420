//! Clients find the primary: by health checks, by HAProxy, and by libpq alone.

use std::fs;

use anyhow::{Context, Result, ensure};
use lockstep_tests::clusters::PASSWORD;
use lockstep_tests::fleet::AGENT_HEALTH_PORT;
use lockstep_tests::{Fleet, Host, Proc, Writer, cmd, sql, until};

use super::{NODES, SOON, check, wait_other_primary, world_in_sync, write};

/// `deploy/haproxy/postgres.cfg`, with the addresses of this world.
fn balance(host: &Host, fleet: &Fleet) -> Result<Proc> {
    let from = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/haproxy/postgres.cfg");
    let mut text = fs::read_to_string(from)?;
    for (n, node) in NODES.iter().enumerate() {
        let there = format!("192.0.2.1{}:5432", n + 1);
        let here = format!("{}:{}", fleet.node(node)?.host.ip(), fleet.pg_port(node)?);
        ensure!(text.contains(&there), "{there} is not in the configuration");
        text = text.replace(&there, &here);
    }
    let config = host.path("haproxy.cfg");
    fs::write(&config, text)?;
    host.spawn(cmd("haproxy").arg("-db").arg("-f").arg(config))
}

/// What each member answers to the paths that balancers ask.
fn answers(fleet: &Fleet, node: &str, paths: &[(&str, u16)]) -> Result<()> {
    for (path, expected) in paths {
        until(SOON, &format!("{node} answers {expected} to {path}"), || -> Result<()> {
            let reply = fleet.pg_health(node, path)?;
            ensure!(reply.status == *expected, "{reply:?}");
            Ok(())
        });
    }
    Ok(())
}

#[test]
fn members_answer_what_balancers_ask() -> Result<()> {
    let (_net, fleet, _client) = world_in_sync()?;
    answers(
        &fleet,
        "db1",
        &[
            ("/cluster/main/primary", 200),
            ("/cluster/main/read-write", 200),
            ("/cluster/main/replica", 503),
            ("/cluster/main/read-only", 200),
            ("/cluster/main/health", 200),
            ("/primary", 200),
            ("/master", 200),
            ("/leader", 200),
            ("/", 200),
            ("/replica", 503),
            ("/live", 200),
            ("/ready", 200),
            ("/node/health", 200),
            ("/cluster/nobody/primary", 404),
        ],
    )?;
    for node in ["db2", "db3"] {
        answers(
            &fleet,
            node,
            &[
                ("/cluster/main/primary", 503),
                ("/replica", 200),
                ("/replica?lag=16MB", 200),
                ("/replica?replication_state=streaming", 200),
                ("/replica?tag_rack=r1", 503),
                ("/read-only", 200),
                ("/quorum", 200),
                ("/asynchronous", 503),
                ("/health", 200),
                ("/readiness", 200),
                ("/liveness", 200),
            ],
        )?;
    }
    let edit = ["--member", "db2:no-load-balance=yes", "--member", "db3:tag=rack=r1"];
    fleet.ctl(&[&["cluster", "edit", "main"], &edit[..]].concat())?.ok()?;
    answers(&fleet, "db2", &[("/replica", 503), ("/health", 200)])?;
    answers(&fleet, "db3", &[("/replica?tag_rack=r1", 200), ("/replica?tag_rack=r2", 503)])?;
    let text = fleet.pg_health("db3", "/replica")?.body;
    let json: serde_json::Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    ensure!(json["role"] == "replica" && json["timeline"] == 1, "{text}");

    let pages = [("/metrics", 200), ("/cluster", 200), ("/history", 200), ("/config", 200)];
    answers(&fleet, "db1", &pages)?;
    let text = fleet.pg_health("db1", "/cluster")?.body;
    let json: serde_json::Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    ensure!(json["members"][0]["role"] == "leader", "{text}");
    ensure!(json["members"][2]["state"] == "streaming", "{text}");
    for node in ["db1", "db3"] {
        fleet.ctl(&["node", "drain", node])?.ok()?;
    }
    answers(&fleet, "db3", &[("/replica", 503), ("/read-only", 503), ("/health", 200)])?;
    answers(&fleet, "db1", &[("/primary", 200), ("/replica", 503)])?;
    let checked = fleet.ctl(&["cluster", "check", "main"])?;
    ensure!(checked.stdout.contains("db1, is drained, and writes go there still"), "{checked}");
    Ok(())
}

#[test]
fn haproxy_and_libpq_both_follow_a_failover() -> Result<()> {
    let (net, fleet, client) = world_in_sync()?;
    let balancer = net.host("balancer")?;
    let mut haproxy = balance(&balancer, &fleet)?;
    fleet.make_table_named(&client, &NODES, "balanced")?;
    let through = |port: u16| {
        let ip = balancer.ip();
        format!(
            "host={ip} port={port} user=lockstep password={PASSWORD} dbname=postgres connect_timeout=1"
        )
    };
    let primary = || sql::value(&client, &through(5000), "select pg_is_in_recovery()");
    until(SOON, "it knows the primary", || primary().is_ok_and(|text| text == "f"));
    let reading = || sql::value(&client, &through(5001), "select pg_is_in_recovery()");
    until(SOON, "it knows a standby", || reading().is_ok_and(|text| text == "t"));

    let direct = write(&fleet, &client)?;
    let balanced = Writer::start_into(&client, &through(5000), "balanced");
    for change in ["crash", "switchover"] {
        let (holder, _) = super::roles(&fleet.cluster("main")?);
        fleet.wait_sync_any("main", 1);
        match change {
            "crash" => fleet.kill_postgres(&holder)?,
            _ => drop(fleet.ctl(&["cluster", "switchover", "main"])?.ok()?),
        }
        wait_other_primary(&fleet, &holder, &[]);
        direct.wait_more(30);
        balanced.wait_more(30);
    }
    // libpq itself: psql with the string that is advised.
    let url = fleet.ctl(&["cluster", "url", "main", "--user", "lockstep"])?.ok()?;
    let mut psql = cmd("psql");
    psql.arg(url.trim()).args(["-Atc", "select pg_is_in_recovery()"]).env("PGPASSWORD", PASSWORD);
    ensure!(client.run(&mut psql)?.ok()?.trim() == "f");

    ensure!(haproxy.is_running(), "{}", haproxy.log());
    let written = balanced.stop()?;
    let rows = sql::ask(&client, &fleet.pg_target(&NODES)?, "select id from balanced")?;
    let present = rows.iter().map(|row| Ok(row[0].parse()?)).collect::<Result<Vec<u64>>>()?;
    ensure!(written.lost(&present)?.is_empty(), "{:?}", written.lost(&present)?);
    check(&fleet, &client, direct)
}

#[test]
fn the_balancers_configuration_is_one() -> Result<()> {
    ensure!(AGENT_HEALTH_PORT == 7403, "the configuration says 7403");
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/haproxy/postgres.cfg");
    let checked = cmd("haproxy").args(["-c", "-f", config]).output()?;
    ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    Ok(())
}
