//! Strangers who take places and say nothing, or the wrong thing.

use std::net::Ipv4Addr;

use tokio::net::{TcpSocket, TcpStream};

use super::*;
use crate::test_ca::TestCa;

/// A TCP connection from a given loopback address.
async fn from(ip: [u8; 4], port: &Port) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::from(ip), 0).into()).unwrap();
    socket.connect(port.socket()).await.unwrap()
}

/// Whether the other side has ended the connection.
fn ended(stream: &TcpStream) -> bool {
    !matches!(stream.try_read(&mut [0; 64]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test]
async fn a_thousand_silent_connections_block_nobody() {
    const SILENT: usize = 1000;
    const PLACES: usize = 64;
    let ca = TestCa::new("prod");
    let mut gate = gate(&ca.controller(), Alpn::Data);
    gate.limits.handshakes = PLACES;
    let port = Port::echo(gate).await;
    let mut silent = Vec::new();
    for i in 0..SILENT {
        // Half of them from one address, half from all over.
        let ip = if i % 2 == 0 { [127, 0, 0, 2] } else { [127, 0, 1, (i % 250) as u8] };
        silent.push(from(ip, &port).await);
    }
    let caller = member(&ca.node("web1"), Expect::Controller);
    port.greet(&caller).await.unwrap();
    until("only as many as there are places are left", || {
        silent.iter().filter(|s| !ended(s)).count() <= PLACES
    })
    .await;
}

#[tokio::test]
async fn one_address_takes_at_most_half_of_the_places() {
    let ca = TestCa::new("prod");
    let mut gate = gate(&ca.controller(), Alpn::Data);
    gate.limits.handshakes = 8;
    let port = Port::echo(gate).await;
    let (log, _guard) = Log::start();
    let patient = from([127, 0, 0, 3], &port).await;
    let mut greedy = Vec::new();
    for _ in 0..20 {
        greedy.push(from([127, 0, 0, 2], &port).await);
    }
    until("the greedy one keeps its newest four", || {
        greedy.iter().take(16).all(ended) && !greedy.iter().skip(16).any(ended)
    })
    .await;
    assert!(!ended(&patient), "who came first, from elsewhere, has kept its place");
    log.has("too many handshakes").await;
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_ends() {
    let ca = TestCa::new("prod");
    let mut gate = gate(&ca.controller(), Alpn::Data);
    gate.limits.handshake_timeout = Duration::from_millis(100);
    let port = Port::echo(gate).await;
    let (log, _guard) = Log::start();
    let silent = from([127, 0, 0, 1], &port).await;
    let mut slow = from([127, 0, 0, 1], &port).await;
    slow.write_all(&[0x16, 3]).await.unwrap(); // the first bytes of a TLS record, and no more
    until("both are gone", || ended(&silent) && ended(&slow)).await;
    log.has("did not finish the TLS handshake in time").await;
}

#[tokio::test]
async fn plaintext_and_garbage_are_refused_by_name() {
    let ca = TestCa::new("prod");
    let port = Port::grpc(gate(&ca.controller(), Alpn::Grpc)).await;
    for (bytes, logged) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "speaks plaintext on the TLS port"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "speaks plaintext on the TLS port"),
        (b"\0", "speaks plaintext on the TLS port"),
        (&[0x16; 600], "TLS handshake failed"),
        (b"\x16\x03\x01\x00\x05hello", "TLS handshake failed"),
    ] {
        let (log, _guard) = Log::start();
        let mut stream = from([127, 0, 0, 1], &port).await;
        stream.write_all(bytes).await.unwrap();
        until("it is closed", || ended(&stream)).await;
        log.has(logged).await;
    }
    let (log, _guard) = Log::start();
    drop(from([127, 0, 0, 1], &port).await);
    port.check(&member(&ca.node("web1"), Expect::Controller)).await.unwrap();
    assert!(!log.text().contains("refused"), "a port check is no refusal: {}", log.text());
}

#[tokio::test]
async fn no_more_than_allowed_are_open() {
    let ca = TestCa::new("prod");
    let mut gate = gate(&ca.controller(), Alpn::Data);
    gate.limits.connections = 2;
    let port = Port::echo(gate).await;
    let (log, _guard) = Log::start();
    let caller = member(&ca.node("web1"), Expect::Controller);
    let first = port.greet(&caller).await.unwrap();
    let mut second = port.greet(&caller).await.unwrap();
    assert_eq!(port.connections.count(), 2);
    assert!(port.greet(&caller).await.is_err());
    log.has("as many as allowed are open").await;
    say(&mut second).await.unwrap();
    drop(first);
    until("there is room again", || port.connections.count() < 2).await;
    port.greet(&caller).await.unwrap();
}

#[tokio::test]
async fn who_shows_no_certificate_may_not_stay() {
    let ca = TestCa::new("prod");
    let mut gate = gate(&ca.controller(), Alpn::Data);
    gate.policy = anonymous_too();
    gate.limits.anonymous_life = Duration::from_millis(200);
    let port = Port::echo(gate).await;
    let mut guest = port.greet(&Caller::Guest { root_sha256: ca.root_sha256() }).await.unwrap();
    let mut known = port.greet(&member(&ca.node("web1"), Expect::Controller)).await.unwrap();
    let end = timeout(PATIENCE, guest.read(&mut [0; 1])).await.unwrap();
    assert!(!matches!(end, Ok(1..)), "{end:?}");
    say(&mut known).await.unwrap();
    until("its place is free", || port.connections.count() == 1).await;
}
