//! Joining, against a scripted controller: what is written, and each refusal.

use std::sync::Arc;

use lockstep_model::identity::Subject;
use lockstep_transport::test_ca::TestCa;
use lockstep_transport::token::JoinToken;
use tempfile::TempDir;
use tonic::Status;

use super::*;
use crate::scripted::Controller;

async fn controller() -> Controller {
    let controller = Controller::start(Arc::new(TestCa::new("prod"))).await;
    let node = Subject::Node("web1".parse().unwrap());
    controller.script(|script| script.enroll = Box::new(move |_| Ok(node.clone())));
    controller
}

fn token(ca: &TestCa) -> JoinToken {
    JoinToken::mint("t1".parse().unwrap(), ca.root_sha256()).unwrap()
}

fn wish(controller: &Controller, dir: &TempDir) -> Wish {
    Wish {
        controllers: vec![controller.address.clone()],
        token: token(&controller.ca),
        data_dir: dir.path().join("agent"),
        listen: None,
        advertise: vec!["lan=10.0.0.7:7402".parse().unwrap()],
        replace: false,
    }
}

fn joined(dir: &TempDir) -> bool {
    disk::exists(&dir.path().join("agent").join(identity::DIR))
}

#[tokio::test]
async fn a_token_becomes_an_identity_and_a_config() {
    let (controller, dir) = (controller().await, tempfile::tempdir().unwrap());
    let wish = wish(&controller, &dir);
    let (id, secret) = (wish.token.id().to_string(), wish.token.secret().to_vec());
    controller.script(|script| {
        script.enroll = Box::new(move |request| {
            assert_eq!((&request.token_id, &request.token_secret), (&id, &secret));
            Ok(Subject::Node("web1".parse().unwrap()))
        });
    });
    let said = join(wish.clone()).await.unwrap();
    assert_eq!(said.spiffe_id, "spiffe://prod/node/web1");
    let data_dir = vec![("data-dir".to_owned(), wish.data_dir.display().to_string())];
    let (config, _) = config::load(None, vec![], data_dir).unwrap();
    assert_eq!(config.controllers, wish.controllers);
    assert_eq!(config.advertise, wish.advertise);
    assert!(!wish.data_dir.join(JOINING).exists());

    let again = join(wish.clone()).await.unwrap_err();
    assert!(
        matches!(&again, JoinError::Joined { who } if who == "spiffe://prod/node/web1"),
        "{again}"
    );
    assert_eq!(controller.script(|script| script.requests.len()), 1, "nobody was asked");
}

#[tokio::test]
async fn a_lost_answer_costs_nothing() {
    let (controller, dir) = (controller().await, tempfile::tempdir().unwrap());
    controller.script(|script| script.lose_answers = 2);
    for _ in 0..2 {
        let error = join(wish(&controller, &dir)).await.unwrap_err();
        assert!(matches!(error, JoinError::Lost(_)), "{error}");
        assert!(!joined(&dir));
    }
    join(wish(&controller, &dir)).await.unwrap();
    let keys = controller.script(|script| {
        let key = |csr: &Vec<u8>| {
            use lockstep_transport::keys::{public_key_hash, read_request};
            public_key_hash(&read_request(csr).unwrap())
        };
        script.requests.iter().map(key).collect::<Vec<_>>()
    });
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0]), "the same key came again");
}

#[tokio::test]
async fn refusals_say_why_and_leave_nothing() {
    let (controller, dir) = (controller().await, tempfile::tempdir().unwrap());
    let refuse = |status: Status| {
        controller.script(|script| script.enroll = Box::new(move |_| Err(status.clone())));
    };
    for why in ["the token expired at 2026-01-01T00:00:00Z", "the token was used by another key"] {
        refuse(Status::unauthenticated(why));
        let error = join(wish(&controller, &dir)).await.unwrap_err();
        assert!(matches!(&error, JoinError::Refused(text) if text == why), "{error}");
    }
    refuse(Status::already_exists("node web1 has joined already"));
    let error = join(wish(&controller, &dir)).await.unwrap_err().to_string();
    assert!(error.contains("web1 has joined already"), "{error}");

    let stranger = token(&TestCa::new("prod"));
    let asked = controller.script(|script| script.requests.len());
    let error = join(Wish { token: stranger, ..wish(&controller, &dir) }).await.unwrap_err();
    assert!(error.to_string().contains("does not match the token"), "{error}");
    assert_eq!(controller.script(|script| script.requests.len()), asked, "the secret stayed here");

    let nobody = vec!["127.0.0.1:1".parse().unwrap()];
    let error = join(Wish { controllers: nobody, ..wish(&controller, &dir) }).await.unwrap_err();
    assert!(error.to_string().contains("cannot reach 127.0.0.1:1"), "{error}");

    let user = Subject::User("ann".parse().unwrap());
    controller.script(|script| script.enroll = Box::new(move |_| Ok(user.clone())));
    let error = join(wish(&controller, &dir)).await.unwrap_err();
    assert!(matches!(&error, JoinError::NotNode(who) if who == "user/ann"), "{error}");
    assert!(!joined(&dir));
}

#[tokio::test]
async fn another_identity_begins_without_the_memories_of_the_former() {
    let (controller, dir) = (controller().await, tempfile::tempdir().unwrap());
    join(wish(&controller, &dir)).await.unwrap();
    let home = dir.path().join("agent");
    let key = || disk::load(&home.join(identity::DIR)).unwrap().key_hash;
    for _ in 0..2 {
        fs::create_dir_all(home.join("ledger")).unwrap();
        fs::write(home.join("ledger/sync+webroot"), "x").unwrap();
        fs::write(home.join("told"), "x").unwrap();
        let before = key();
        let said = join(Wish { replace: true, ..wish(&controller, &dir) }).await.unwrap();
        assert!(said.config_kept);
        assert_ne!(key(), before);
        assert!(!home.join("ledger").exists() && !home.join("told").exists());
        assert!(home.join(BEFORE).join("ledger/sync+webroot").exists());
        assert_eq!(disk::load(&home.join(BEFORE).join(identity::DIR)).unwrap().key_hash, before);
    }
    // A refusal leaves the former one as it was.
    let before = key();
    fs::write(home.join("told"), "x").unwrap();
    controller.script(|script| script.enroll = Box::new(|_| Err(Status::unauthenticated("no"))));
    join(Wish { replace: true, ..wish(&controller, &dir) }).await.unwrap_err();
    assert_eq!(key(), before);
    assert!(home.join("told").exists());
}
