//! Health, asked as load balancers ask: over gRPC, over HTTP, slowly, and in crowds.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::*;

const SOON: Duration = Duration::from_secs(10);

struct Listener {
    board: HealthBoard,
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

async fn start() -> Listener {
    let board = HealthBoard::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(serve(listener, board.clone(), Router::new(), shutdown.clone()));
    Listener { board, address, shutdown, task }
}

impl Listener {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn ask(&self, line: &str) -> String {
        let mut stream = self.connect().await;
        let request = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        timeout(SOON, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        text
    }

    async fn grpc(&self) -> HealthClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        HealthClient::new(endpoint.connect().await.unwrap())
    }
}

fn named(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

#[test]
fn the_board_keeps_what_it_was_told() {
    let board = HealthBoard::new();
    assert_eq!(board.get(LIVE).unwrap().verdict, Verdict::Serving);
    assert_eq!(board.get(READY).unwrap().verdict, Verdict::NotServing);
    board.set("sync/www", Verdict::Serving, &format!(" a\r\nb{}", "x".repeat(500)));
    let reason = board.get("sync/www").unwrap().reason;
    assert!(reason.starts_with("a  b") && reason.len() == REASON_MAX, "{reason}");
    board.remove("sync/www");
    assert_eq!(board.get("sync/www"), None);
    for i in 0..2 * NAMES_MAX {
        board.set(&format!("sync/{i}"), Verdict::Serving, "");
    }
    assert_eq!(board.list().len(), NAMES_MAX);
    board.set(READY, Verdict::Serving, "a known name is set also on a full board");
    assert_eq!(board.get(READY).unwrap().verdict, Verdict::Serving);
}

#[tokio::test]
async fn live_needs_a_pulse() {
    let board = HealthBoard::new();
    let (pulse, judge) = board.pulse(Duration::from_millis(50));
    let judge = tokio::spawn(judge);
    let turns = async |verdict| {
        let mut answers = board.answers.subscribe();
        let turned = answers.wait_for(|answers| answers[LIVE].verdict == verdict);
        timeout(SOON, turned).await.unwrap().unwrap()[LIVE].reason.clone()
    };
    assert_eq!(turns(Verdict::NotServing).await, "the main loop was silent for 50ms");
    pulse.beat();
    assert_eq!(turns(Verdict::Serving).await, "running");
    drop(pulse);
    timeout(SOON, judge).await.unwrap().unwrap();
    assert_eq!(turns(Verdict::NotServing).await, "the main loop has ended");
}

#[tokio::test]
async fn http_answers_what_the_board_says() {
    let it = start().await;
    it.board.set(NODE, Verdict::Serving, "healthy");
    it.board.set("sync/www", Verdict::NotServing, "first fill: 3 of 9 GiB");
    it.board.set("cluster/main/primary", Verdict::Serving, "term 4");
    let cases = [
        ("GET /live", "200", "running\n"),
        ("GET /ready", "503", "starting\n"),
        ("GET /ready?from=haproxy", "503", "starting\n"),
        ("GET /node/health", "200", "healthy\n"),
        ("GET /sync/www", "503", "first fill: 3 of 9 GiB\n"),
        ("HEAD /sync/www", "503", ""),
        ("HEAD /live", "200", ""),
        ("GET /cluster/main/primary", "200", "term 4\n"),
        ("GET /sync/other", "404", "nothing of this name is known here\n"),
        ("GET /sync/../live", "404", "nothing of this name is known here\n"),
        ("GET /", "404", "nothing of this name is known here\n"),
        ("POST /live", "405", "ask with GET or HEAD\n"),
        ("DELETE /sync/www", "405", "ask with GET or HEAD\n"),
    ];
    for (line, code, body) in cases {
        let answer = it.ask(line).await;
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {code} ")), "{line}: {answer}");
        assert!(head.contains("content-type: text/plain"), "{line}: {answer}");
        assert_eq!(text, body, "{line}");
        assert_eq!(head.contains("allow: GET, HEAD"), code == "405", "{line}: {answer}");
    }
    assert!(it.ask("HEAD /live").await.contains("content-length: 8\r\n"));
}

#[tokio::test]
async fn grpc_check_and_watch_follow_the_protocol() {
    let it = start().await;
    let mut client = it.grpc().await;
    let unknown = client.check(named("sync/www")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let overall = client.check(named("")).await.unwrap().into_inner();
    assert_eq!(overall.status(), ServingStatus::NotServing);

    let mut watch = client.watch(named("sync/www")).await.unwrap().into_inner();
    let mut next =
        async || timeout(SOON, watch.message()).await.unwrap().unwrap().unwrap().status();
    assert_eq!(next().await, ServingStatus::ServiceUnknown);
    it.board.set("sync/www", Verdict::Serving, "filled");
    assert_eq!(next().await, ServingStatus::Serving);
    // Neither another name nor another reason is news.
    it.board.set(READY, Verdict::Serving, "ready");
    it.board.set("sync/www", Verdict::Serving, "lag 1 s");
    it.board.set("sync/www", Verdict::NotServing, "drained");
    assert_eq!(next().await, ServingStatus::NotServing);
    it.board.remove("sync/www");
    assert_eq!(next().await, ServingStatus::ServiceUnknown);

    let overall = client.check(named("")).await.unwrap().into_inner();
    assert_eq!(overall.status(), ServingStatus::Serving);
    let long = client.check(named(&"x".repeat(5000))).await.unwrap_err();
    assert_eq!(long.code(), Code::OutOfRange);
}

#[tokio::test]
async fn watches_are_limited() {
    let it = start().await;
    let mut open = Vec::new();
    let mut clients = Vec::new();
    while open.len() < WATCHES_MAX {
        // One connection carries 32 streams.
        let mut client = it.grpc().await;
        for _ in 0..16 {
            open.push(client.watch(named("")).await.unwrap());
        }
        clients.push(client);
    }
    let mut client = it.grpc().await;
    assert_eq!(client.watch(named("")).await.unwrap_err().code(), Code::ResourceExhausted);
    assert!(client.check(named("live")).await.is_ok());
    open.clear();
    let freed = async {
        while client.watch(named("")).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, freed).await.unwrap();
}

#[tokio::test]
async fn shutdown_ends_watches_and_idle_connections() {
    let it = start().await;
    let mut client = it.grpc().await;
    let mut watch = client.watch(named("")).await.unwrap().into_inner();
    watch.message().await.unwrap();
    let mut silent = it.connect().await;
    it.shutdown.cancel();
    timeout(SOON, it.task).await.unwrap().unwrap();
    assert_eq!(timeout(SOON, watch.message()).await.unwrap().unwrap(), None);
    let mut byte = [0];
    assert_eq!(timeout(SOON, silent.read(&mut byte)).await.unwrap().unwrap_or(0), 0);
    assert!(TcpStream::connect(it.address).await.is_err());
}

/// Reads until the listener closes the connection.
async fn closed(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let _ = timeout(3 * SOON, stream.read_to_end(&mut rest)).await.expect("still open");
}

#[tokio::test]
async fn quiet_and_slow_connections_are_closed() {
    let it = start().await;
    let mut client = it.grpc().await;
    let mut watch = client.watch(named("live")).await.unwrap().into_inner();
    watch.message().await.unwrap();

    let silent = it.connect().await;
    let mut partial_preface = it.connect().await;
    partial_preface.write_all(b"PRI * HT").await.unwrap();
    let mut partial_head = it.connect().await;
    partial_head.write_all(b"GET /live HTTP/1.1\r\nhost: x\r\nx-slow: ").await.unwrap();
    let mut idle = it.connect().await;
    idle.write_all(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut partial_body = it.connect().await;
    let head =
        b"POST /grpc.health.v1.Health/Check HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n";
    partial_body.write_all(head).await.unwrap();
    let (read, mut dripping) = it.connect().await.into_split();
    let drip = tokio::spawn(async move {
        dripping.write_all(b"GET /live HTTP/1.1\r\n").await.unwrap();
        while dripping.write_all(b"a: b\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    for stream in [silent, partial_preface, partial_head, idle, partial_body] {
        closed(stream).await;
    }
    timeout(3 * SOON, drip).await.expect("a slow head is still read").unwrap();
    drop(read);

    // The watch went on all the while.
    it.board.set("live", Verdict::NotServing, "stuck");
    let news = timeout(SOON, watch.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(news.status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn a_thousand_silent_connections_do_not_keep_a_check_out() {
    let it = start().await;
    let mut silent = Vec::new();
    for _ in 0..2 * CONNECTIONS_MAX {
        silent.push(it.connect().await);
        if silent.len().is_multiple_of(100) {
            let answer = timeout(Duration::from_secs(3), it.ask("GET /live")).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
    }
    // The first ones had to make room.
    closed(silent.swap_remove(0)).await;
    assert!(it.ask("GET /live").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn garbage_is_refused() {
    let it = start().await;
    let mut stream = it.connect().await;
    stream.write_all(&[0x16, 3, 1, 0, 0x80, 1, 0, 0, 0x7c, 3, 3]).await.unwrap();
    stream.write_all(b"\r\n\r\n").await.unwrap();
    closed(stream).await;
    let mut stream = it.connect().await;
    let mut head = b"GET /live HTTP/1.1\r\nx: ".to_vec();
    head.resize(100_000, b'x');
    let _ = stream.write_all(&head).await;
    closed(stream).await;
    assert!(it.ask("GET /live").await.starts_with("HTTP/1.1 200 "));
}
