//! Who gets in and who does not, and in which words.

use super::*;
use crate::identity::Identity;
use crate::keys::PrivateKey;
use crate::test_ca::{Dates, TestCa};

fn refusal<T>(result: Result<T, DialError>) -> String {
    result.map(|_| "accepted").unwrap_err().to_string()
}

#[tokio::test]
async fn members_find_each_other() {
    let ca = TestCa::new("prod");
    let (controller, web1, web2, alice) =
        (ca.controller(), ca.node("web1"), ca.node("web2"), ca.user("alice"));
    let grpc = Port::grpc(gate(&controller, Alpn::Grpc)).await;
    grpc.check(&member(&web1, Expect::Controller)).await.unwrap();
    grpc.check(&member(&alice, Expect::Controller)).await.unwrap();
    let names: Vec<String> =
        grpc.peers().into_iter().map(|p| p.peer.unwrap().spiffe.to_string()).collect();
    assert_eq!(names, ["spiffe://prod/node/web1", "spiffe://prod/user/alice"]);
    assert_eq!(grpc.peers()[0].peer.as_ref().unwrap().key_hash, web1.current().key_hash);

    let data = Port::echo(gate(&web2, Alpn::Data)).await;
    data.greet(&member(&web1, expect_node("web2"))).await.unwrap();
    data.greet(&member(&web1, expect_pinned("web2", &web2, false))).await.unwrap();
}

#[tokio::test]
async fn a_client_refuses_whom_it_did_not_mean() {
    let (ca, other) = (TestCa::new("prod"), TestCa::new("prod"));
    let (controller, web1, web2) = (ca.controller(), ca.node("web1"), ca.node("web2"));
    let expired = IdentityHandle::new(ca.identity(node("old"), Dates::EXPIRED));
    let future = IdentityHandle::new(ca.identity(node("new"), Dates::FUTURE));
    let foreign = other.node("web1");
    for (server, client, expect, want) in [
        (&web2, &web1, expect_node("web3"), "it is node/web2, not node/web3"),
        (&web2, &web1, Expect::Controller, "it is node/web2, not a controller"),
        (&controller, &web1, expect_node("c1"), "it is controller/c1, not node/c1"),
        (&web2, &web1, expect_pinned("web2", &web1, true), "node/web2 has another key"),
        (&web2, &foreign, expect_node("web2"), "not issued under a root that we trust"),
        (&expired, &web1, expect_node("old"), "its certificate expired at 20"),
        (&expired, &web1, expect_pinned("old", &expired, false), "its certificate expired at 20"),
        (&expired, &web1, expect_pinned("old", &web1, true), "node/old has another key"),
        (&future, &web1, expect_pinned("new", &future, true), "compare the clocks"),
    ] {
        let port = Port::echo(gate(server, Alpn::Data)).await;
        let error = refusal(port.greet(&member(client, expect.clone())).await);
        assert!(error.contains(want), "{expect:?}: {error}");
        assert!(error.contains(&port.address.to_string()), "{error}");
        assert_eq!(port.peers(), []);
    }
    let port = Port::echo(gate(&expired, Alpn::Data)).await;
    port.greet(&member(&web1, expect_pinned("old", &expired, true))).await.unwrap();
}

#[tokio::test]
async fn a_server_refuses_strangers_and_logs_them() {
    let (ca, other) = (TestCa::new("prod"), TestCa::new("prod"));
    let controller = ca.controller();
    // It trusts our root, so it gets as far as showing its own certificate.
    let key = PrivateKey::generate().unwrap();
    let roots = vec![other.root(), ca.root()];
    let foreign = IdentityHandle::new(other.renewed(key, node("web1"), Dates::GOOD, roots));
    let expired = IdentityHandle::new(ca.identity(node("old"), Dates::EXPIRED));
    let future = IdentityHandle::new(ca.identity(node("new"), Dates::FUTURE));
    let members = |identity: &IdentityHandle| member(identity, Expect::Controller);
    let guest = Caller::Guest { root_sha256: ca.root_sha256() };
    for (alpn, caller, said, logged) in [
        (Alpn::Grpc, members(&foreign), "another fleet", "claims to be spiffe://prod/node/web1"),
        (Alpn::Grpc, members(&expired), "expired", "its certificate expired at 20"),
        (Alpn::Grpc, members(&future), "not yet valid", "compare the clocks"),
        (Alpn::Grpc, guest.clone(), "join first", "no certificate"),
        (Alpn::Data, members(&foreign), "another fleet", "not issued under a root that we trust"),
        (Alpn::Data, members(&expired), "expired", "claims to be spiffe://prod/node/old"),
        (Alpn::Data, guest, "join first", "peer sent no certificates"),
    ] {
        let (log, _guard) = Log::start();
        let error = match alpn {
            Alpn::Grpc => refusal(Port::grpc(gate(&controller, alpn)).await.check(&caller).await),
            Alpn::Data => refusal(Port::echo(gate(&controller, alpn)).await.greet(&caller).await),
        };
        assert!(error.starts_with("refused by 127.0.0.1:") && error.contains(said), "{error}");
        log.has(logged).await;
        assert!(log.text().contains("refused a connection from=127.0.0.1:"), "{}", log.text());
    }
}

#[tokio::test]
async fn an_expired_client_passes_where_its_key_is_vouched_for() {
    let ca = TestCa::new("prod");
    let old = IdentityHandle::new(ca.identity(node("old"), Dates::EXPIRED));
    let stranger = IdentityHandle::new(ca.identity(node("old"), Dates::EXPIRED));
    let known = old.current().key_hash;
    let mut gate = gate(&ca.node("web2"), Alpn::Data);
    gate.policy.accept_expired = Arc::new(move |peer| peer.key_hash == known);
    let port = Port::echo(gate.clone()).await;
    port.greet(&member(&old, expect_node("web2"))).await.unwrap();
    let error = refusal(port.greet(&member(&stranger, expect_node("web2"))).await);
    assert!(error.contains("expired"), "{error}");

    // A controller that is long dead: both certificates have run out.
    gate.identity = IdentityHandle::new(ca.identity(node("web2"), Dates::EXPIRED));
    let expect = expect_pinned("web2", &gate.identity, true);
    Port::echo(gate).await.greet(&member(&old, expect)).await.unwrap();
}

#[tokio::test]
async fn a_guest_believes_only_the_root_in_its_token() {
    let (ca, other) = (TestCa::new("prod"), TestCa::new("prod"));
    let guest = Caller::Guest { root_sha256: ca.root_sha256() };
    let open =
        |identity: &IdentityHandle| Gate { policy: anonymous_too(), ..gate(identity, Alpn::Grpc) };
    let port = Port::grpc(open(&ca.controller())).await;
    port.check(&guest).await.unwrap();
    assert_eq!(port.peers()[0].peer, None);

    let error = refusal(Port::grpc(open(&other.controller())).await.check(&guest).await);
    assert!(error.contains("root certificate does not match the token"), "{error}");
    let error = refusal(Port::grpc(open(&ca.node("web1"))).await.check(&guest).await);
    assert!(error.contains("it is node/web1, not a controller"), "{error}");
    let expired = ca.identity(Subject::Controller(node_name("c1")), Dates::EXPIRED);
    let expired = IdentityHandle::new(expired);
    let error = refusal(Port::grpc(open(&expired)).await.check(&guest).await);
    assert!(error.contains("expired at"), "{error}");
}

/// Presents the right root beside a chain that another CA signed.
#[tokio::test]
async fn a_borrowed_root_convinces_no_guest() {
    let (ca, other) = (TestCa::new("prod"), TestCa::new("prod"));
    let key = PrivateKey::generate().unwrap();
    let mut chain = other.issue(Subject::Controller(node_name("c1")), key.signer(), Dates::GOOD);
    chain.push(ca.root());
    let impostor = IdentityHandle::new(Identity::new(key, chain, vec![other.root()]).unwrap());
    let gate = Gate { policy: anonymous_too(), ..gate(&impostor, Alpn::Grpc) };
    let guest = Caller::Guest { root_sha256: ca.root_sha256() };
    let error = refusal(Port::grpc(gate).await.check(&guest).await);
    assert!(error.contains("not issued under a root that we trust"), "{error}");
}

#[tokio::test]
async fn a_certificate_of_another_fleet_under_the_same_root_is_refused() {
    let ca = TestCa::new("prod");
    let issue = |uri: &str| {
        let key = PrivateKey::generate().unwrap();
        let chain = ca.issue_named(&[uri], key.signer(), Dates::GOOD);
        IdentityHandle::new(Identity::new(key, chain, vec![ca.root()]).unwrap())
    };
    let (test, prod) = (issue("spiffe://test/node/a"), issue("spiffe://prod/node/b"));
    let port = Port::echo(gate(&prod, Alpn::Data)).await;
    let error = refusal(port.greet(&member(&test, expect_node("b"))).await);
    assert!(error.contains("it belongs to fleet prod, we to test"), "{error}");
}

#[tokio::test]
async fn the_wrong_port_is_named_as_such() {
    let ca = TestCa::new("prod");
    let (controller, web1) = (ca.controller(), ca.node("web1"));
    let caller = member(&web1, Expect::Controller);

    let grpc = Port::grpc(gate(&controller, Alpn::Grpc)).await;
    let error = refusal(grpc.greet(&caller).await);
    assert!(error.contains("speaks another protocol; is it the right port?"), "{error}");

    let (listener, address) = listen().await;
    let plain = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = tcp.read(&mut [0; 1024]).await;
    });
    let error = connect(&[address], &caller).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, DialError::NotTls { .. }), "{error}");
    plain.await.unwrap();

    let (listener, address) = listen().await;
    drop(listener);
    let error = connect(std::slice::from_ref(&address), &caller).await.map(|_| ()).unwrap_err();
    let want =
        format!("cannot reach {address}: connection refused; is the controller running there?");
    assert_eq!(error.to_string(), want);
    assert_eq!(
        connect(&[], &caller).await.map(|_| ()).unwrap_err().to_string(),
        "no address is known to dial"
    );

    // A dead address costs nothing where another one answers.
    connect(&[address.clone(), grpc.address.clone()], &caller).await.unwrap();
    let error = connect(&[address.clone(), address], &caller).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().starts_with("none of 2 addresses will do: cannot reach"), "{error}");
}

#[tokio::test]
async fn a_name_that_nobody_has_is_said_to_be_so() {
    let ca = TestCa::new("prod");
    let caller = member(&ca.node("web1"), Expect::Controller);
    let nowhere = HostPort::new("nowhere.invalid", 7400).unwrap();
    let error = connect(&[nowhere], &caller).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, DialError::Resolve { .. }), "{error}");
}
