//! Bad input of every kind, from people and from the network: a clear refusal, an exit code that
//! tells, nothing half made, and everybody else served meanwhile.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_proto::v1;
use lockstep_tests::fleet::{CONTROLLER_HEALTH_PORT, CONTROLLER_PORT};
use lockstep_tests::wait::timed;
use lockstep_tests::{Fleet, Host, Net, Output, cmd, until};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

const SOON: Duration = Duration::from_secs(30);

/// What a shell reports of a command line that was not understood, and of a refusal.
const USAGE: i32 = 2;
const REFUSED: i32 = 3;

#[test]
fn every_wrong_argument_is_named() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    fleet.sync_www("master1", &["web1"])?;
    let revision =
        || -> Result<u64> { Ok(fleet.ask::<v1::GetStatusResponse>(&["status"])?.revision) };
    fleet.wait_healthy(&["master1", "web1", "web2"]);
    until(SOON, "the fleet is quiet", || -> Result<()> {
        let live: v1::ListTasksResponse = fleet.ask(&["task", "list", "--live"])?;
        ensure!(live.tasks.is_empty(), "{live:?}");
        Ok(())
    });
    let before = revision()?;

    let long_name = "n".repeat(64);
    let long_path = format!("web1:/{}", "p/".repeat(3000));
    let www = fleet.place("web1")?;
    let inside = format!("{www}/below");
    let many = "x".repeat(2000);
    let table: &[(&[&str], i32, &str)] = &[
        // Names.
        (&["token", "create", "--node", "we b"], USAGE, "node name"),
        (&["token", "create", "--node", "web\n1"], USAGE, "node name"),
        (&["token", "create", "--node", "web\u{1b}[31m"], USAGE, "node name"),
        (&["token", "create", "--node", ""], USAGE, "node name: must not be empty"),
        (&["token", "create", "--node=-web"], USAGE, "must start with a letter or a digit"),
        (&["token", "create", "--node", "-web"], USAGE, "'-w'"),
        (&["token", "create", "--node", ".."], USAGE, "node name"),
        (&["token", "create", "--node", "a..b"], USAGE, "'..'"),
        (&["token", "create", "--node", "../../etc"], USAGE, "node name"),
        (&["token", "create", "--node", "WEB"], USAGE, "a-z"),
        (&["token", "create", "--node", "w\u{e9}b"], USAGE, "node name"),
        (&["token", "create", "--node", &long_name], USAGE, "at most 63"),
        (&["token", "create", "--node", "2001:db8::7"], USAGE, "node name"),
        (&["token", "create", "--node", "web1"], REFUSED, "node web1 has joined already"),
        (&["token", "create"], USAGE, "--node"),
        (&["token", "create", "--user", "nobody"], REFUSED, "user nobody does not exist"),
        (&["token", "create", "--node", "w", "--ttl", "25h"], REFUSED, "ttl"),
        (&["token", "create", "--node", "w", "--ttl", "5"], USAGE, "--ttl"),
        (&["token", "create", "--node", "w", "--label", "a b=c"], USAGE, "label"),
        (&["user", "add", "anna", "--role", "king"], USAGE, "role"),
        (&["user", "disable", "nobody"], REFUSED, "user nobody does not exist"),
        (&["node", "show", "nobody"], REFUSED, "node nobody does not exist"),
        (&["node", "ping", "nobody"], REFUSED, "nobody"),
        (&["node", "label", "web1", "noequals"], USAGE, "noequals"),
        (&["node", "label", "web1", "k=v\nw"], USAGE, "label"),
        (&["node", "expel", "web1"], USAGE, "--yes"),
        (&["node", "drain", "web1", "--if-revision", "1"], REFUSED, "revision"),
        (&["node", "drain", "web1", "--request-id", "a b"], REFUSED, "request_id"),
        (&["node", "drain", "web1", "--request-id", &many], REFUSED, "request_id"),
        // Places.
        (
            &["sync", "create", "s", "--source", "master1:srv", "--target", &www],
            USAGE,
            "must be absolute",
        ),
        (&["sync", "create", "s", "--source", "master1:/a/../b", "--target", &www], USAGE, "'..'"),
        (
            &["sync", "create", "s", "--source", "master1:/a\nb", "--target", &www],
            USAGE,
            "control characters",
        ),
        (
            &["sync", "create", "s", "--source", "master1:/", "--target", &www],
            USAGE,
            "must not be '/'",
        ),
        (&["sync", "create", "s", "--source", "master1", "--target", &www], USAGE, "node:/path"),
        (
            &["sync", "create", "s", "--source", "[fd77::2]:/srv", "--target", &www],
            USAGE,
            "node name",
        ),
        (
            &["sync", "create", "s", "--source", "master1:/srv", "--target", &long_path],
            USAGE,
            "at most 4095",
        ),
        (
            &["sync", "create", "s", "--source", "nobody:/srv", "--target", "web2:/srv"],
            REFUSED,
            "node nobody has not joined",
        ),
        (
            &["sync", "create", "s", "--source", "web1:/srv", "--target", "nobody:/srv"],
            REFUSED,
            "node nobody has not joined",
        ),
        (&["sync", "create", "s", "--source", "master1:/srv"], REFUSED, "targets"),
        (
            &["sync", "create", "s", "--source", "web2:/a", "--target", "web2:/b"],
            REFUSED,
            "web2 is the source",
        ),
        (
            &[
                "sync",
                "create",
                "s",
                "--source",
                "master1:/a",
                "--target",
                "web2:/a",
                "--target",
                "web2:/b",
            ],
            REFUSED,
            "targets[1]",
        ),
        (&["sync", "create", "s", "--source", "web2:/a", "--target", &www], REFUSED, "overlaps"),
        (&["sync", "create", "s", "--source", "web2:/a", "--target", &inside], REFUSED, "overlaps"),
        (&["sync", "create", "s", "--source", &inside, "--target", "web2:/a"], REFUSED, "overlaps"),
        (
            &["sync", "create", "www", "--source", "master1:/a", "--target", "web2:/a"],
            REFUSED,
            "sync www exists",
        ),
        (
            &[
                "sync",
                "create",
                "s",
                "--source",
                "master1:/a",
                "--target",
                "web2:/a",
                "--delay",
                "1500ms",
            ],
            REFUSED,
            "delay",
        ),
        (
            &[
                "sync",
                "create",
                "s",
                "--source",
                "master1:/a",
                "--target",
                "web2:/a",
                "--delay",
                "11m",
            ],
            REFUSED,
            "delay",
        ),
        (
            &[
                "sync",
                "create",
                "s",
                "--source",
                "master1:/a",
                "--target",
                "web2:/a",
                "--exclude",
                "a\nb",
            ],
            USAGE,
            "exclude",
        ),
        (
            &[
                "sync",
                "create",
                "s",
                "--source",
                "master1:/a",
                "--target",
                "web2:/a",
                "--delete",
                "maybe",
            ],
            USAGE,
            "delete",
        ),
        (&["sync", "add-target", "nosync", "web2:/a"], REFUSED, "sync nosync does not exist"),
        (&["sync", "add-target", "www", "web1:/elsewhere"], REFUSED, "is a target already"),
        (&["sync", "remove-target", "www", "web2"], REFUSED, "no target"),
        (&["sync", "show", "nosync"], REFUSED, "sync nosync does not exist"),
        (&["sync", "delete", "nosync", "--yes"], REFUSED, "sync nosync does not exist"),
        // The rest.
        (&["task", "show", "x"], USAGE, "task id"),
        (&["task", "show", "99999999999999999999.0"], USAGE, "task id"),
        (&["task", "cancel", "999999.0"], REFUSED, "999999.0 does not exist"),
        (&["task", "list", "--node", "a b"], USAGE, "node name"),
        (&["explain", "cluster/main"], REFUSED, "subject"),
        (&["explain", "node/nobody"], REFUSED, "nobody does not exist"),
        (&["log", "--limit", "0"], USAGE, "--limit"),
        (&["node", "list", "--timeout", "5"], USAGE, "--timeout"),
        (&["node", "list", "--context", "nowhere"], USAGE, "nowhere"),
        (&["node", "list", "--context", "../../etc"], USAGE, "context"),
        (&["login", "--controller", "a b", "--token", "x"], USAGE, "--controller"),
        (&["login", "--controller", "::1:x:", "--token", "x"], USAGE, "--controller"),
        (&["login", "--controller", "h:99999", "--token", "x"], USAGE, "port"),
        (&["login", "--controller", "h", "--token", "ls1.short"], USAGE, "--token"),
        (&["store", "adopt"], USAGE, "--yes"),
        (&["nonsense"], USAGE, "nonsense"),
    ];
    for (args, code, says) in table {
        let done = fleet.ctl(args)?;
        assert_eq!(done.status.code(), Some(*code), "{done}");
        assert!(done.stderr.contains(says), "{says:?} is not in: {done}");
        assert!(done.stdout.is_empty(), "data of a refused command: {done}");
    }
    assert_eq!(revision()?, before, "something was written");

    // A dry run checks as much and changes as little.
    let ok = fleet.ctl(&["node", "drain", "web1", "--dry-run"])?;
    assert!(ok.status.success() && ok.stderr.contains("would change"), "{ok}");
    assert_eq!(revision()?, before);
    Ok(())
}

/// How a peer that is hung up on sees it: the end, or an error.
fn is_hung_up(stream: &mut impl Read) -> bool {
    let mut bytes = [0; 1024];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => return e.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

fn connect(from: &Host, to: SocketAddr) -> Result<TcpStream> {
    let stream = from.enter(|| TcpStream::connect_timeout(&to, SOON))??;
    stream.set_read_timeout(Some(SOON))?;
    Ok(stream)
}

#[test]
fn strangers_on_the_ports_get_nothing_and_stop_nobody() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["web1"])?;
    fleet.wait_healthy(&["web1"]);
    let stranger = net.host("stranger")?;
    let controller = fleet.controller.host.at(CONTROLLER_PORT);
    let data = fleet.node("web1")?.host.at(7402);
    let works = |what: &str| -> Result<()> {
        let (answer, took) = timed(|| fleet.ask::<v1::PingNodeResponse>(&["node", "ping", "web1"]));
        answer.with_context(|| format!("during {what}"))?;
        ensure!(took < Duration::from_secs(5), "{took:?} during {what}");
        Ok(())
    };
    for port in [controller, data] {
        let mut plain = connect(&stranger, port)?;
        plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
        assert!(is_hung_up(&mut plain), "plaintext on {port}");
        let mut garbage = connect(&stranger, port)?;
        garbage.write_all(&[0x16, 3, 1, 0xff, 0xff].repeat(1000)).ok();
        assert!(is_hung_up(&mut garbage), "garbage on {port}");
        works("plaintext and garbage")?;
    }

    // A stranger may shake hands with the controller, to join. Garbage inside ends it.
    let mut inside = shake_hands(connect(&stranger, controller)?)?;
    inside.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    let frames: Vec<u8> =
        (0..20_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    inside.write_all(&frames).ok();
    assert!(is_hung_up(&mut inside), "garbage frames");
    works("garbage frames")?;

    // Those who say nothing, or one byte and no more.
    let mut silent: Vec<TcpStream> = Vec::new();
    for n in 0..1000 {
        let mut stream = connect(&stranger, if n % 4 == 0 { data } else { controller })?;
        if n % 2 == 0 {
            stream.write_all(&[0x16])?;
        }
        silent.push(stream);
    }
    works("a thousand connections that never speak")?;
    let mut first = silent.swap_remove(0);
    assert!(is_hung_up(&mut first), "a handshake has a bound");
    works("slow handshakes")?;
    drop(silent);

    // The health port takes no more than it can.
    let health = fleet.controller.host.at(CONTROLLER_HEALTH_PORT);
    let mut long = connect(&stranger, health)?;
    long.write_all(format!("GET /{} HTTP/1.1\r\n", "x".repeat(1 << 20)).as_bytes()).ok();
    assert!(is_hung_up(&mut long), "an endless request line");
    assert_eq!(fleet.controller.status("/ready"), 200);
    assert_eq!(fleet.controller.status("/sync/../../etc/passwd"), 404);
    Ok(())
}

/// TLS with whoever is there.
fn shake_hands(stream: TcpStream) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("lockstep")?;
    let mut tls = StreamOwned::new(ClientConnection::new(Arc::new(config), name)?, stream);
    tls.conn.complete_io(&mut tls.sock)?;
    Ok(tls)
}

/// Believes everyone: we are the attacker.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519]
    }
}

#[test]
fn another_fleet_is_not_believed() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["web1"])?;
    let other = net.host("other")?;
    let mut init = cmd(fleet.bins().controller());
    init.args(["init", "--name", "test", "--listen", &other.at(CONTROLLER_PORT).to_string()]);
    let token = other.run(init.arg("--data-dir").arg(other.path("data")))?.ok()?;
    let mut run = cmd(fleet.bins().controller());
    run.args(["run", "--health-listen", &other.at(CONTROLLER_HEALTH_PORT).to_string()]);
    let _daemon = other.spawn(run.arg("--data-dir").arg(other.path("data")))?;
    let mut login = cmd(fleet.bins().ctl());
    login.env("LOCKSTEP_CONFIG_DIR", other.path("ctl"));
    login.args(["login", "--controller", &other.at(CONTROLLER_PORT).to_string(), "--token", "-"]);
    until(SOON, "the other fleet's admin is in", || other.run_with(&mut login, &token)?.ok());

    // Of the same name, and yet another: by its root. Our controller's address, their admin.
    let controllers = other.path("ctl/contexts/test/controllers");
    fs::write(controllers, format!("{}\n", fleet.controller.host.at(CONTROLLER_PORT)))?;
    let mut list = cmd(fleet.bins().ctl());
    list.env("LOCKSTEP_CONFIG_DIR", other.path("ctl")).args(["node", "list"]);
    let denied = other.run(&mut list)?;
    assert_eq!(denied.status.code(), Some(4), "{denied}");
    assert!(denied.stderr.contains("not to be trusted"), "{denied}");
    // A token of ours is none of theirs.
    let ours = fleet.token("web2")?;
    let mut join = cmd(fleet.bins().agent());
    join.args(["join", "--controller", &other.at(CONTROLLER_PORT).to_string(), "--token", "-"]);
    let said = other.run_with(join.arg("--data-dir").arg(other.path("agent")), &ours)?.refused()?;
    assert!(said.contains("not to be trusted"), "{said}");
    Ok(())
}

fn controller_run(fleet: &Fleet, args: &[&str]) -> Result<Output> {
    fleet.controller.host.run(cmd(fleet.bins().controller()).arg("run").args(args))
}

#[test]
fn ten_mistakes_are_ten_lines() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["web1"])?;
    let host = &fleet.controller.host;
    let file = host.path("wrong.toml");
    let name = file.to_string_lossy().into_owned();
    fs::write(
        &file,
        "data-dir = 5\nlisten = \"here\"\nhealth-listen = \"1.2.3.4\"\nadvertise = [\"a b\"]\n\
         leaf-life = \"1 year\"\nheartbeat = \"0s\"\nlog-format = \"xml\"\nlog-filter = 7\n\
         health_listen = \"x\"\ncolour = \"red\"\n",
    )?;
    let refused = controller_run(&fleet, &["--config", &name, "--check-config"])?;
    assert_eq!(refused.status.code(), Some(USAGE), "{refused}");
    for key in [
        "data-dir",
        "listen",
        "health-listen",
        "advertise",
        "leaf-life",
        "heartbeat",
        "log-format",
        "log-filter",
        "health_listen",
        "colour",
    ] {
        assert!(refused.stderr.lines().any(|line| line.contains(key)), "{key} is not in {refused}");
    }
    let lines = refused.stderr.lines().filter(|line| line.contains("wrong.toml")).count();
    assert_eq!(lines, 10, "{refused}");

    fs::write(&file, "listen = [\n")?;
    assert!(controller_run(&fleet, &["--config", &name])?.refused()?.contains("wrong.toml"));
    assert!(
        controller_run(&fleet, &["--config", "/nowhere.toml"])?
            .refused()?
            .contains("/nowhere.toml")
    );
    let mut environment = cmd(fleet.bins().controller());
    environment.args(["run", "--check-config"]).env("LOCKSTEP_LISTN", "x");
    assert!(host.run(&mut environment)?.refused()?.contains("LOCKSTEP_LISTN"));

    let agent = fleet.node("web1")?.host.clone();
    let file = agent.path("agent.toml");
    fs::write(
        &file,
        "controllers = []\nlisten = \"x\"\nallow-roots = [\"srv\"]\nlog-formt = \"json\"\n",
    )?;
    let mut check = cmd(fleet.bins().agent());
    let refused = agent.run(check.args(["run", "--check-config", "--config"]).arg(&file))?;
    assert_eq!(refused.status.code(), Some(USAGE), "{refused}");
    for key in ["listen", "allow-roots", "did you mean log-format"] {
        assert!(refused.stderr.contains(key), "{key} is not in {refused}");
    }
    Ok(())
}

#[test]
fn a_data_directory_has_one_controller_of_its_own_version() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["web1"])?;
    let host = fleet.controller.host.clone();
    let dir = host.path("data").to_string_lossy().into_owned();
    let second =
        ["--data-dir", &dir, "--listen", "127.0.0.1:7500", "--health-listen", "127.0.0.1:7501"];
    let refused = controller_run(&fleet, &second)?.refused()?;
    assert!(refused.contains(&dir), "{refused}");
    let mut init = cmd(fleet.bins().controller());
    let refused = host.run(init.args(["init", "--name", "x", "--data-dir", &dir]))?.refused()?;
    assert!(refused.contains("not empty"), "{refused}");
    for verb in ["export", "check"] {
        let mut offline = cmd(fleet.bins().controller());
        let refused = host.run(offline.args(["store", verb, "--data-dir", &dir]))?.refused()?;
        assert!(refused.contains(&dir), "{verb}: {refused}");
    }
    fleet.wait_healthy(&["web1"]);
    let agent = fleet.node("web1")?.host.clone();
    let mut again = cmd(fleet.bins().agent());
    let refused =
        agent.run(again.arg("run").arg("--data-dir").arg(agent.path("data")))?.refused()?;
    assert!(refused.contains("data"), "{refused}");
    let _: v1::PingNodeResponse = fleet.ask(&["node", "ping", "web1"])?;

    // Nothing there, not ours, of another time.
    let empty = host.path("empty").to_string_lossy().into_owned();
    fs::create_dir(&empty)?;
    assert!(controller_run(&fleet, &["--data-dir", &empty])?.refused()?.contains("init"));
    fs::write(host.path("empty/photo.jpg"), "x")?;
    assert!(controller_run(&fleet, &["--data-dir", &empty])?.refused()?.contains("init"));

    let export = fleet.ctl(&["store", "export"])?.ok()?;
    fleet.controller.daemon.kill()?;
    let (first, rest) = export.split_once('\n').context("an export has lines")?;
    let newer = first
        .replace("\"schema\":1", "\"schema\":99")
        .replace("\"schema\":\"1\"", "\"schema\":\"99\"");
    ensure!(newer != first, "no schema in {first}");
    let import = |name: &str, text: &str| -> Result<Output> {
        let (file, into) = (host.path(&format!("{name}.ndjson")), host.path(name));
        fs::write(&file, text)?;
        let mut import = cmd(fleet.bins().controller());
        host.run(import.args(["store", "import"]).arg("--data-dir").arg(into).arg(file))
    };
    let refused = import("newer", &format!("{newer}\n{rest}"))?.refused()?;
    assert!(refused.contains("99"), "{refused}");
    let refused = import("cut", &export[..export.len() / 2])?.refused()?;
    assert!(!refused.is_empty(), "half a backup is none");
    let refused = import("data", &export)?.refused()?;
    assert!(refused.contains("data"), "{refused}");
    import("fine", &export)?.ok()?;
    Ok(())
}

/// Commits that may fit into what the store has of the disk already.
const FITS_MAX: usize = 3000;

#[test]
fn a_full_or_read_only_disk_under_the_store_loses_nothing() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["master1", "web1"])?;
    fleet.sync_www("master1", &["web1"])?;
    let host = fleet.controller.host.clone();
    fleet.controller.daemon.kill()?;
    host.run(cmd("mv").arg(host.path("data")).arg(host.path("kept")))?.ok()?;
    let disk = host.disk("data", 16 << 20)?;
    host.run(cmd("cp").arg("-a").arg(host.path("kept/.")).arg(host.path("data")))?.ok()?;
    fleet.restart_controller()?;
    fleet.wait_healthy(&["master1", "web1"]);
    fleet.ctl(&["node", "label", "web1", "before=full"])?.ok()?;

    disk.fill()?;
    // The store has some room of its own in its file, so a few more fit.
    let mut acknowledged = 0;
    let failed = (0..FITS_MAX).find_map(|n| {
        let label = format!("n={n}");
        match fleet.ctl(&["node", "label", "web1", &label, "--timeout", "20s"]) {
            Ok(done) if done.status.success() => {
                acknowledged = n;
                None
            }
            other => Some(other),
        }
    });
    let failed = failed.context("a full disk was never noticed")??;
    assert!(!failed.stderr.is_empty(), "{failed}");
    // Service goes on without it.
    fleet.wait_arrives("master1", &["web1"], "while the disk was full")?;
    until(SOON, "the controller says why", || -> Result<()> {
        let log = fleet.controller.daemon.log();
        ensure!(log.contains("No space left") || log.contains("full"), "{log}");
        Ok(())
    });
    disk.free()?;
    fleet.restart_controller()?;
    let node: v1::Node = fleet.ask(&["node", "show", "web1"])?;
    assert_eq!(node.labels.get("before").map(String::as_str), Some("full"));
    // What was refused may or may not be there; what was acknowledged is.
    let last: usize = node.labels.get("n").context("no label is left")?.parse()?;
    ensure!(last >= acknowledged, "{acknowledged} was acknowledged, {last} is there");
    fleet.wait_healthy(&["master1", "web1"]);

    fleet.controller.daemon.kill()?;
    disk.read_only(true)?;
    let dir = disk.path().to_string_lossy().into_owned();
    let refused = controller_run(&fleet, &["--data-dir", &dir])?.refused()?;
    assert!(refused.contains(&dir), "{refused}");
    disk.read_only(false)?;
    fleet.restart_controller()?;
    fleet.wait_healthy(&["master1", "web1"]);
    Ok(())
}
