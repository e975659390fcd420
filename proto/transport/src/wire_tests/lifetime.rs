//! What happens to open connections, and to the next ones, when identities, roots and rights change.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;
use crate::dial::dial_error_in;
use crate::keys::PrivateKey;
use crate::test_ca::{Dates, TestCa};
use crate::tls::client_config;
use crate::verify::provider;

#[tokio::test]
async fn closing_a_key_ends_all_its_connections_and_no_other() {
    let ca = TestCa::new("prod");
    let (web1, web2) = (ca.node("web1"), ca.node("web2"));
    let port = Port::echo(gate(&ca.controller(), Alpn::Data)).await;
    let expelled = member(&web1, Expect::Controller);
    let mut gone = [port.greet(&expelled).await.unwrap(), port.greet(&expelled).await.unwrap()];
    let mut stays = port.greet(&member(&web2, Expect::Controller)).await.unwrap();
    assert_eq!(port.connections.close_key(web1.current().key_hash), 2);
    for stream in &mut gone {
        let end = timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap();
        assert!(!matches!(end, Ok(1..)), "{end:?}");
    }
    say(&mut stays).await.unwrap();
    until("the places are free", || port.connections.count() == 1).await;
    assert_eq!(port.connections.close_key(web1.current().key_hash), 0);
    assert_eq!(port.connections.close_all(), 1);
}

#[tokio::test]
async fn closing_a_key_ends_its_grpc_streams() {
    let ca = TestCa::new("prod");
    let web1 = ca.node("web1");
    let port = Port::grpc(gate(&ca.controller(), Alpn::Grpc)).await;
    let caller = member(&web1, Expect::Controller);
    let channel = connect(std::slice::from_ref(&port.address), &caller).await.unwrap();
    let watch = HealthClient::new(channel).watch(HealthCheckRequest::default()).await.unwrap();
    let mut answers = watch.into_inner();
    answers.message().await.unwrap().unwrap();
    assert_eq!(port.connections.close_key(web1.current().key_hash), 1);
    let end = timeout(PATIENCE, answers.message()).await.unwrap();
    assert!(!matches!(end, Ok(Some(_))), "{end:?}");
}

/// A reader and a writer in tasks of their own are both woken.
#[tokio::test]
async fn closing_a_key_wakes_both_directions() {
    let ca = TestCa::new("prod");
    let (web1, controller) = (ca.node("web1"), ca.controller());
    let (listener, address) = listen().await;
    let gate = gate(&controller, Alpn::Data);
    let connections = gate.connections.clone();
    let mut incoming = accept(listener, gate);
    let caller = member(&web1, Expect::Controller);
    let (_client, _) = dial_data(&[address], &caller).await.unwrap();
    let (mut read, mut write) = tokio::io::split(incoming.next().await.unwrap());
    let reader = tokio::spawn(async move { read.read(&mut [0; 1]).await });
    // The client reads nothing, so this fills all buffers and then waits.
    let written = Arc::new(AtomicUsize::new(0));
    let count = written.clone();
    let writer = tokio::spawn(async move {
        loop {
            if let Err(e) = write.write_all(&[0; 65_536]).await {
                return e;
            }
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut before = 0;
    until("the writer waits", || {
        let now = written.load(Ordering::Relaxed);
        std::mem::replace(&mut before, now) == now && now > 0
    })
    .await;
    assert_eq!(connections.close_key(web1.current().key_hash), 1);
    let read_end = timeout(PATIENCE, reader).await.unwrap().unwrap().unwrap_err();
    let write_end = timeout(PATIENCE, writer).await.unwrap().unwrap();
    assert_eq!(read_end.kind(), std::io::ErrorKind::ConnectionAborted);
    assert_eq!(write_end.kind(), std::io::ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn renewal_disturbs_no_open_stream() {
    let ca = TestCa::new("prod");
    let (controller, web1) = (ca.controller(), ca.node("web1"));
    let port = Port::echo(gate(&controller, Alpn::Data)).await;
    let caller = member(&web1, Expect::Controller);
    let mut before = port.greet(&caller).await.unwrap();
    let mut changes = web1.subscribe();

    let longer = Dates { from_secs: -3600, to_secs: 7200 };
    for (handle, subject) in
        [(&web1, node("web1")), (&controller, Subject::Controller(node_name("c1")))]
    {
        handle.replace(ca.identity(subject, longer));
    }
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    say(&mut before).await.unwrap();

    let address = std::slice::from_ref(&port.address);
    let (_, server) = dial_data(address, &caller).await.unwrap();
    assert_eq!(server.key_hash, controller.current().key_hash);
    assert_eq!(server.not_after, controller.current().not_after);
    until("the server has seen both certificates", || {
        let ends: Vec<_> = port.peers().into_iter().map(|p| p.peer.unwrap().not_after).collect();
        ends.len() == 2 && ends[0] < ends[1] && ends[1] == web1.current().not_after
    })
    .await;
    say(&mut before).await.unwrap();
}

/// The rotation of the CA: both roots trusted first, then new certificates, then the old root goes.
#[tokio::test]
async fn roots_are_rotated_without_a_gap() {
    let (old, new) = (TestCa::new("prod"), TestCa::new("prod"));
    let subjects = [Subject::Controller(node_name("c1")), node("web1")];
    let handles = [old.controller(), old.node("web1")];
    let [controller, web1] = &handles;
    let port = Port::echo(gate(controller, Alpn::Data)).await;
    let caller = member(web1, Expect::Controller);
    let mut first = port.greet(&caller).await.unwrap();

    let both = || vec![old.root(), new.root()];
    // Each step changes one side at a time, in either order.
    for order in [[0, 1], [1, 0]] {
        let steps = [(&old, both()), (&new, both()), (&new, vec![new.root()])];
        for (ca, roots) in &steps {
            for i in order {
                let key = PrivateKey::generate().unwrap();
                let subject = subjects[i].clone();
                handles[i].replace(ca.renewed(key, subject, Dates::GOOD, roots.clone()));
                port.greet(&caller).await.unwrap();
            }
        }
        // Back to the start for the other order.
        for i in order {
            handles[i].replace(old.renewed(
                PrivateKey::generate().unwrap(),
                subjects[i].clone(),
                Dates::GOOD,
                vec![old.root()],
            ));
        }
    }
    say(&mut first).await.unwrap();

    let late = old.node("web1");
    controller.replace(new.identity(subjects[0].clone(), Dates::GOOD));
    let error = port.greet(&member(&late, Expect::Controller)).await.unwrap_err();
    assert!(error.to_string().contains("not issued under a root that we trust"), "{error}");
}

#[tokio::test]
async fn a_channel_reconnects_with_the_identity_of_then() {
    let ca = TestCa::new("prod");
    let web1 = ca.node("web1");
    let port = Port::grpc(gate(&ca.controller(), Alpn::Grpc)).await;
    let caller = member(&web1, Expect::Controller);
    let channel = connect(std::slice::from_ref(&port.address), &caller).await.unwrap();
    let mut client = HealthClient::new(channel);
    client.check(HealthCheckRequest::default()).await.unwrap();
    web1.replace(ca.identity(node("web1"), Dates::GOOD));
    port.connections.close_all();
    until("the first connection is gone", || port.connections.count() == 0).await;
    let retried = async {
        // The request that finds the connection dead fails; the next one makes a new connection.
        while client.check(HealthCheckRequest::default()).await.is_err() {}
    };
    timeout(PATIENCE, retried).await.unwrap();
    let last = port.peers().pop().unwrap().peer.unwrap();
    assert_eq!(last.key_hash, web1.current().key_hash);
}

#[tokio::test]
async fn a_channel_whose_server_is_gone_says_so() {
    let ca = TestCa::new("prod");
    let port = Port::grpc(gate(&ca.controller(), Alpn::Grpc)).await;
    let caller = member(&ca.node("web1"), Expect::Controller);
    let channel = connect(std::slice::from_ref(&port.address), &caller).await.unwrap();
    let mut client = HealthClient::new(channel);
    client.check(HealthCheckRequest::default()).await.unwrap();
    let connections = port.connections.clone();
    drop(port);
    connections.close_all();
    let seen = async {
        loop {
            let status = client.check(HealthCheckRequest::default()).await.unwrap_err();
            if let Some(error) = dial_error_in(&status) {
                return error;
            }
        }
    };
    let error = timeout(PATIENCE, seen).await.unwrap();
    assert!(error.is_unreachable() && error.to_string().contains("connection refused"), "{error}");
}

/// A client that wants to resume its session has to show its certificate again all the same.
#[tokio::test]
async fn no_session_is_resumed() {
    let ca = TestCa::new("prod");
    let port = Port::echo(gate(&ca.controller(), Alpn::Data)).await;
    let caller = member(&ca.node("web1"), Expect::Controller);
    let (config, _) = client_config(&caller, Alpn::Data).unwrap();
    let mut config = ClientConfig::clone(&config);
    config.resumption = Resumption::in_memory_sessions(8);
    let config = Arc::new(config);
    for _ in 0..2 {
        let tcp = TcpStream::connect(port.socket()).await.unwrap();
        let name = ServerName::try_from("lockstep").unwrap();
        let mut stream = TlsConnector::from(config.clone()).connect(name, tcp).await.unwrap();
        say(&mut stream).await.unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        assert!(matches!(
            kind,
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest)
        ));
    }
}

#[tokio::test]
async fn older_tls_is_not_spoken() {
    let ca = TestCa::new("prod");
    let port = Port::echo(gate(&ca.controller(), Alpn::Data)).await;
    let (log, _guard) = Log::start();
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let tcp = TcpStream::connect(port.socket()).await.unwrap();
    let name = ServerName::try_from("lockstep").unwrap();
    assert!(TlsConnector::from(Arc::new(config)).connect(name, tcp).await.is_err());
    log.has("TLS handshake failed").await;
}
