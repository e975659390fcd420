//! Bad input from the network: whoever knocks gets nothing and stops nobody; another fleet is not
//! believed.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_proto::v1;
use lockstep_tests::fleet::{CONTROLLER_HEALTH_PORT, CONTROLLER_PORT};
use lockstep_tests::wait::timed;
use lockstep_tests::{Fleet, Host, Net, cmd, until};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

const SOON: Duration = Duration::from_secs(90);

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
