//! The shipped HAProxy example, run by a real HAProxy against two health boards: what the boards say is
//! where the requests go.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use lockstep_transport::health::{HealthBoard, Verdict, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

const EXAMPLE: &str = include_str!("../../../deploy/haproxy/haproxy.cfg");
const BOUND: Duration = Duration::from_secs(30);

/// Two web heads on addresses of their own and one port, as on two machines.
struct Heads {
    boards: [HealthBoard; 2],
    web_port: u16,
    health_port: u16,
}

async fn pair_of_listeners() -> ([TcpListener; 2], u16) {
    for _ in 0..100 {
        let first = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let port = first.local_addr().unwrap().port();
        if let Ok(second) = TcpListener::bind(("127.0.0.3", port)).await {
            return ([first, second], port);
        }
    }
    panic!("no port is free on both addresses");
}

async fn start_heads() -> Heads {
    let (web, web_port) = pair_of_listeners().await;
    let (health, health_port) = pair_of_listeners().await;
    let boards = [HealthBoard::new(), HealthBoard::new()];
    for ((web, health), (name, board)) in
        web.into_iter().zip(health).zip(["web1", "web2"].into_iter().zip(&boards))
    {
        let page = Router::new().fallback(move || async move { name });
        tokio::spawn(axum::serve(web, page).into_future());
        tokio::spawn(serve(health, board.clone(), axum::Router::new(), CancellationToken::new()));
    }
    Heads { boards, web_port, health_port }
}

async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn start_haproxy(dir: &Path, heads: &Heads) -> (Child, SocketAddr) {
    let (front, api) = (free_address().await, free_address().await);
    let config = EXAMPLE
        .replace("bind :80\n", &format!("bind {front}\n"))
        .replace("bind :7400\n", &format!("bind {api}\n"))
        .replace("192.0.2.11:80", &format!("127.0.0.2:{}", heads.web_port))
        .replace("192.0.2.12:80", &format!("127.0.0.3:{}", heads.web_port))
        .replace("192.0.2.1:", "127.0.0.1:")
        .replace("port 7403", &format!("port {}", heads.health_port));
    let path = dir.join("haproxy.cfg");
    std::fs::write(&path, config).unwrap();
    let child = Command::new("haproxy").arg("-db").arg("-f").arg(path).kill_on_drop(true).spawn();
    (child.expect("haproxy is installed (./tests/run does it)"), front)
}

/// One request through the proxy: its code and body.
async fn ask(front: SocketAddr) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(front).await.ok()?;
    let request = b"GET / HTTP/1.1\r\nHost: www\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.ok()?;
    let mut answer = String::new();
    timeout(BOUND, stream.read_to_string(&mut answer)).await.ok()?.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.to_owned(), body.to_owned()))
}

/// Waits until the last eight answers come from exactly these heads, or are 503 for none.
async fn wait_for(front: SocketAddr, heads: &[&str]) {
    let expected = |(code, body): (String, String)| match heads {
        [] => (code == "503").then(String::new),
        _ => (code == "200" && heads.contains(&body.as_str())).then_some(body),
    };
    let settled = async {
        let mut last = Vec::new();
        loop {
            match ask(front).await.and_then(expected) {
                Some(body) => last.push(body),
                None => last.clear(),
            }
            let recent = &last[last.len().saturating_sub(8)..];
            let all = heads.iter().all(|head| recent.iter().any(|body| body == head));
            if recent.len() == 8 && all {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(BOUND, settled).await.unwrap_or_else(|_| panic!("requests do not go to {heads:?}"));
}

#[tokio::test]
async fn requests_go_where_the_boards_say() {
    let heads = start_heads().await;
    let dir = tempfile::tempdir().unwrap();
    let (_haproxy, front) = start_haproxy(dir.path(), &heads).await;
    let [web1, web2] = &heads.boards;

    // HAProxy takes a server as up until its first check: an unknown name must take it out.
    wait_for(front, &[]).await;
    web1.set("sync/webroot", Verdict::Serving, "filled");
    wait_for(front, &["web1"]).await;
    web2.set("sync/webroot", Verdict::Serving, "filled");
    wait_for(front, &["web1", "web2"]).await;
    web1.set("sync/webroot", Verdict::NotServing, "drained");
    wait_for(front, &["web2"]).await;
    web2.remove("sync/webroot");
    wait_for(front, &[]).await;
}
