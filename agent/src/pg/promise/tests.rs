//! Both ends of the question, over a pipe.

use std::sync::Mutex;

use lockstep_model::KeyHash;
use lockstep_model::cluster::{Goal, MemberPeer};

use super::*;

/// Promises half of what is asked, and notes who asked.
#[derive(Default)]
struct Half(Mutex<Vec<(NodeName, Term)>>);

impl Promise for Half {
    fn promise<'a>(
        &'a self,
        caller: &'a NodeName,
        _cluster: &'a ClusterName,
        term: Term,
        length: Millis,
    ) -> BoxFuture<'a, Result<Millis, String>> {
        self.0.lock().unwrap().push((caller.clone(), term));
        let answer = match term {
            Term(0) => Err("this node promised term 9 to db3".to_owned()),
            // More than was asked: the caller does not believe it.
            Term(99) => Ok(Millis(u64::MAX)),
            _ => Ok(Millis(length.0 / 2)),
        };
        async move { answer }.boxed()
    }
}

/// A node in the same process.
struct Pipe {
    member: Arc<Half>,
    caller: Principal,
    in_force: Vec<TaskSpec>,
}

impl Dial for Pipe {
    fn dial<'a>(&'a self, _peer: &'a Peer) -> BoxFuture<'a, Result<Box<dyn Stream>, String>> {
        let (ours, mut theirs) = tokio::io::duplex(256);
        let (member, caller) = (self.member.clone(), self.caller.clone());
        let in_force = self.in_force.clone();
        tokio::spawn(async move {
            let Ok(Request::Promise(question)) = Request::read(&mut theirs).await else {
                panic!("a question")
            };
            serve(theirs, &caller, &question, &in_force, &*member).await;
        });
        async move { Ok(Box::new(ours) as Box<dyn Stream>) }.boxed()
    }
}

fn peer(name: &str, key: u8) -> Peer {
    Peer { node: name.parse().unwrap(), key_hash: KeyHash([key; 32]), addresses: vec![] }
}

fn caller(name: &str, key: u8) -> Principal {
    Principal { subject: Subject::Node(name.parse().unwrap()), key_hash: KeyHash([key; 32]) }
}

fn pipe(caller: Principal) -> Pipe {
    let member = MemberPeer {
        peer: peer("db1", 1),
        postgres: "10.0.0.1:5432".parse().unwrap(),
        certificate: String::new(),
        clone_from: false,
    };
    let mut place = crate::pg::health::tests::place("main", Goal::Standby { upstream: None });
    place.peers = vec![member];
    let in_force = vec![TaskSpec::ClusterPlace(Box::new(place))];
    Pipe { member: Arc::default(), caller, in_force }
}

async fn asked(pipe: &Pipe, cluster: &str, term: u64) -> Result<Millis, String> {
    let cluster = cluster.parse().unwrap();
    ask(pipe, &peer("db2", 2), &cluster, Term(term), Millis(5000)).await
}

#[tokio::test]
async fn a_member_is_answered_with_what_it_may_count_on() {
    let pipe = pipe(caller("db1", 1));
    assert_eq!(asked(&pipe, "main", 7).await, Ok(Millis(2500)));
    assert_eq!(asked(&pipe, "main", 99).await, Ok(Millis(5000)), "never more than was asked");
    assert_eq!(
        asked(&pipe, "main", 0).await,
        Err("db2 promised nothing: this node promised term 9 to db3".to_owned())
    );
    let db1: NodeName = "db1".parse().unwrap();
    let heard = [Term(7), Term(99), Term(0)].map(|term| (db1.clone(), term));
    assert_eq!(*pipe.member.0.lock().unwrap(), heard);
}

#[tokio::test]
async fn nobody_else_is_promised_anything() {
    for (name, key, cluster) in [
        ("db1", 1, "other"),
        ("db3", 3, "main"),
        // The name, with a key that it had once or never.
        ("db1", 9, "main"),
        ("db3", 1, "main"),
    ] {
        let pipe = pipe(caller(name, key));
        let refused = asked(&pipe, cluster, 7).await.unwrap_err();
        assert!(refused.contains("no member"), "{refused}");
        assert!(pipe.member.0.lock().unwrap().is_empty(), "{name} {key} {cluster}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_not_waited_for() {
    struct Silent(Mutex<Vec<tokio::io::DuplexStream>>);
    impl Dial for Silent {
        fn dial<'a>(&'a self, _peer: &'a Peer) -> BoxFuture<'a, Result<Box<dyn Stream>, String>> {
            let (ours, theirs) = tokio::io::duplex(256);
            self.0.lock().unwrap().push(theirs);
            async move { Ok(Box::new(ours) as Box<dyn Stream>) }.boxed()
        }
    }
    let silent = Silent(Mutex::default());
    let cluster = "main".parse().unwrap();
    let answer = ask(&silent, &peer("db2", 2), &cluster, Term(1), Millis(5000)).await;
    assert_eq!(answer, Err("db2 does not answer".to_owned()));
}
