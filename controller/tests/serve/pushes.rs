//! Runs asked for over HTTP, by those who have a token and by those who have not.

use std::net::SocketAddr;

use lockstep_proto::v1;
use lockstep_proto::v1::mirror_service_client::MirrorServiceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fleet::{Fleet, PATIENCE, reason};
use crate::mirrors::fedora;

/// The status and the body of an answer.
async fn push(at: SocketAddr, path: &str, authorization: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n{authorization}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.trim().to_owned())
}

#[tokio::test]
async fn a_push_needs_the_mirrors_own_token_and_is_one_run_however_often_it_comes() {
    let fleet = Fleet::with(&[("push-listen", "127.0.0.1:0")]).await;
    fleet.join("master1").await;
    let mut client = MirrorServiceClient::new(fleet.admin().await);
    for name in ["fedora", "debian"] {
        let create =
            v1::CreateMirrorRequest { name: name.to_owned(), replicas: Vec::new(), ..fedora() };
        client.create_mirror(create).await.unwrap();
    }
    let new = |mirror: &str| v1::CreatePushTokenRequest {
        mirror: mirror.to_owned(),
        ..Default::default()
    };
    let made = client.create_push_token(new("fedora")).await.unwrap().into_inner();
    let (token, id) = (made.text.clone(), made.token.as_ref().unwrap().id.clone());
    assert!(token.starts_with("lsp_") && !format!("{made:?}").contains(&token));
    let other = client.create_push_token(new("debian")).await.unwrap().into_inner().text;
    assert_eq!(reason(client.create_push_token(new("centos")).await), "not_found");
    let dry = v1::Mutation { dry_run: true, ..Default::default() };
    let tried = v1::CreatePushTokenRequest { mutation: Some(dry), ..new("fedora") };
    assert_eq!(client.create_push_token(tried).await.unwrap().into_inner().text, "");

    let at = fleet.push_address();
    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
    let stranger = push(at, "/push/centos", &bearer(&token)).await;
    assert_eq!(stranger.0, 401);
    for (path, authorization) in [
        ("/push/fedora", String::new()),
        ("/push/fedora", bearer("")),
        ("/push/fedora", bearer(&other)),
        ("/push/fedora", bearer(&token[..token.len() - 1])),
        ("/push/fedora", bearer(&format!("{token}{token}{token}{token}"))),
        ("/push/fedora", format!("authorization: Basic {token}\r\n")),
        ("/push/..%2f..", bearer(&token)),
    ] {
        let refused = push(at, path, &authorization).await;
        assert_eq!(refused, stranger, "who knows no token learns nothing: {path} {authorization}");
    }
    for _ in 0..3 {
        let (status, body) = push(at, "/push/fedora", &bearer(&token)).await;
        assert_eq!((status, body.as_str()), (202, r#"{"run":"fedora/1"}"#));
    }
    let get = v1::GetMirrorRequest { name: "fedora".to_owned() };
    let shown = client.get_mirror(get).await.unwrap().into_inner().mirror.unwrap();
    assert_eq!(shown.wanted_run, 1);

    let off = v1::SetMirrorEnabledRequest { name: "fedora".to_owned(), ..Default::default() };
    client.set_mirror_enabled(off).await.unwrap();
    let (status, body) = push(at, "/push/fedora", &bearer(&token)).await;
    assert!(status == 409 && body.contains("disabled"), "{status} {body}");

    let list = v1::ListPushTokensRequest { mirror: "fedora".to_owned() };
    let tokens = client.list_push_tokens(list).await.unwrap().into_inner().tokens;
    assert_eq!(tokens.iter().map(|token| token.id.as_str()).collect::<Vec<_>>(), [id.as_str()]);
    let gone = v1::DeletePushTokenRequest {
        mirror: "fedora".to_owned(),
        id: id.clone(),
        ..Default::default()
    };
    let done = client.delete_push_token(gone.clone()).await.unwrap().into_inner();
    assert!(done.result.unwrap().changed);
    let again = client.delete_push_token(gone).await.unwrap().into_inner();
    assert!(!again.result.unwrap().changed);
    assert_eq!(push(at, "/push/fedora", &bearer(&token)).await, stranger);
}
