//! The data port: what another agent may do here, and the calls to others' data ports. A caller is
//! checked against the current assignment before anything is read but its header, and rsync then
//! runs confined to that one directory, writing only or, for a mirror's replicas, reading only.

pub mod below;
pub mod call;
pub mod changes;
mod feed;
pub mod header;
pub mod lane;
pub mod limit;
pub mod local;
pub mod pump;
mod unfinished;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use lockstep_model::identity::Principal;
use lockstep_model::task::Peer;
use lockstep_transport::dial::dial_data;
use lockstep_transport::identity::IdentityHandle;
use lockstep_transport::tls::Caller;
use lockstep_transport::verify::{Expect, Pin};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::host::{Child, Host, Program, tail};
use crate::mirror::trees::Trees;
use crate::moves;
use crate::rsync::exit::said;
use crate::sync::target::{Admission, Targets};
use crate::verify::{self, Served};
use header::{About, Answer, Header, Mark, Offer, Op, Request};
use lane::Lanes;
use pump::{IDLE_MAX, pump};

/// For a caller's header, and for the answer to ours.
const GREET_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a sender may take to hear that its receiver has ended.
const LINGER: Duration = Duration::from_secs(2);
/// How long a receiver may take to end when its connection has.
const END_MAX: Duration = Duration::from_secs(5);
/// Longest tail of rsync's messages that is logged, in bytes.
const MESSAGES_MAX: usize = 2048;

/// A connection to or from another agent.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How other agents' data ports are reached.
pub trait Dial: Send + Sync + 'static {
    /// The error is one line for people that names the address.
    fn dial<'a>(&'a self, peer: &'a Peer) -> BoxFuture<'a, Result<Box<dyn Stream>, String>>;
}

/// With the node's certificate, to exactly the peer of an assignment.
#[derive(Clone)]
pub struct MemberDial(pub IdentityHandle);

impl Dial for MemberDial {
    fn dial<'a>(&'a self, peer: &'a Peer) -> BoxFuture<'a, Result<Box<dyn Stream>, String>> {
        // The key is pinned by the assignment, so a certificate that ran out while the controller
        // is away does no harm.
        let pin = Pin { key_hash: peer.key_hash, accept_expired: true };
        let expect = Expect::Node { name: peer.node.clone(), pin: Some(pin) };
        let caller = Caller::Member { identity: self.0.clone(), expect };
        Box::pin(async move {
            let (stream, _) =
                dial_data(&peer.addresses, &caller).await.map_err(|error| error.to_string())?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// Sends a header and reads the answer.
pub async fn ask(stream: &mut impl Stream, request: impl Into<Request>) -> Result<Answer, String> {
    let request = request.into().encode();
    let asked = async {
        stream.write_all(&request).await?;
        stream.flush().await?;
        Answer::read(stream).await
    };
    match tokio::time::timeout(GREET_TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("it does not answer".to_owned()),
    }
}

/// Tells a target what its source knows of it.
pub async fn mark(dial: &dyn Dial, peer: &Peer, header: &Header) -> Result<Answer, String> {
    let mut stream = dial.dial(peer).await?;
    let answer = ask(&mut stream, header).await;
    let _ = stream.shutdown().await;
    answer
}

/// What an authenticated caller wants; None: nothing that is known here, and it was told so.
pub async fn greet(stream: &mut impl Stream, caller: &Principal) -> Option<Request> {
    let why = match tokio::time::timeout(GREET_TIMEOUT, Request::read(stream)).await {
        Ok(Ok(request)) => return Some(request),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no header in time".to_owned(),
    };
    refuse(stream, caller, None, &why).await;
    None
}

/// What a connection needs of the agent.
#[derive(Clone, Copy)]
pub struct Server<'a> {
    pub targets: &'a Targets,
    pub trees: &'a Trees,
    /// What is lent counts as sent.
    pub lanes: &'a Lanes,
    pub host: &'a Host,
    pub rsync: &'a Path,
}

impl Server<'_> {
    /// Serves one authenticated connection to its end, after what it asks for.
    pub async fn serve(&self, mut stream: impl Stream, request: Request, caller: &Principal) {
        let header = match request {
            Request::Sync(header) => header,
            Request::Pull(mirror) => return self.feed(stream, &mirror, caller).await,
            // A member's, who is asked by the port itself.
            Request::Promise(_) | Request::Wal(_) => return,
        };
        let admission = match self.targets.admit(&header.sync, caller) {
            Ok(admission) => admission,
            Err(why) => {
                return refuse(&mut stream, caller, Some((&header.sync).into()), &why).await;
            }
        };
        if let Err(error) = admission.target.notice_loss().await {
            let why = format!("cannot record that the copy of {} is gone: {error}", header.sync);
            return refuse(&mut stream, caller, Some((&header.sync).into()), &why).await;
        }
        match header.op {
            Op::Mark(mark) => {
                let answer = note(&admission, mark).await;
                let _ = answer.write(&mut stream).await;
                let _ = stream.shutdown().await;
            }
            Op::Push { pass: false } | Op::Verify if !admission.target.is_filled() => {
                let _ = Answer::Unfilled.write(&mut stream).await;
                let _ = stream.shutdown().await;
            }
            Op::Move if !admission.target.is_filled() => {
                let _ = Answer::Unfilled.write(&mut stream).await;
                let _ = stream.shutdown().await;
            }
            Op::Move if !admission.target.gives_up_names() => {
                let why = "nothing is removed here as it happens, so no name is given up";
                refuse(&mut stream, caller, Some((&header.sync).into()), why).await;
            }
            Op::Move => rename(stream, &admission).await,
            Op::Push { .. } => self.receive(stream, &admission).await,
            Op::Verify => self.compare(stream, &admission, caller, &header).await,
            Op::Changes => {
                let target = &admission.target;
                let dir = target.is_relay().then(|| target.state_dir());
                let took = tokio::select! {
                    () = admission.withdrawn.cancelled() => return,
                    took = changes::take(&mut stream, dir) => took,
                };
                match took {
                    Ok(()) => admission.target.note_told(),
                    Err(error) => {
                        tracing::warn!(sync = %header.sync, %error, "what changed could not be taken in");
                    }
                }
            }
            Op::Offer(offer) => {
                let answer = consider(&admission, &offer).await;
                let _ = answer.write(&mut stream).await;
                let _ = stream.shutdown().await;
            }
            Op::Below => tokio::select! {
                () = admission.withdrawn.cancelled() => {}
                () = below::tell(&mut stream, admission.target.below()) => {}
            },
            Op::Allow { entries } => {
                admission.target.allow(entries);
                let _ = Answer::Go.write(&mut stream).await;
                let _ = stream.shutdown().await;
            }
        }
    }

    async fn receive(&self, mut stream: impl Stream, admission: &Admission) {
        let target = &admission.target;
        // A newer push means that the older one's sender is gone.
        let Some(turn) = target.take_turn().await else { return };
        let mut child = match self.start(admission).await {
            Ok(child) => child,
            Err(why) => {
                target.set_problem(&why);
                let _ = Answer::Refused(why).write(&mut stream).await;
                let _ = stream.shutdown().await;
                return;
            }
        };
        let (pid, top, mut unfinished) = (child.id(), target.path(), None);
        let follow = async {
            // What it then writes is the files themselves.
            match target.writes_in_place() {
                true => std::future::pending().await,
                false => unfinished::follow(pid, &top, &mut unfinished).await,
            }
        };
        tokio::select! {
            () = admission.withdrawn.cancelled() => {
                tracing::info!(target: "audit", sync = %target.sync(), "ended a transfer: the assignment was withdrawn");
            }
            () = turn.superseded() => {}
            () = transfer(stream, &mut child, admission) => {}
            () = follow => {}
        }
        // Asked first, it takes its unfinished file away.
        if let Err(error) = child.end().await {
            tracing::error!(sync = %target.sync(), %error, "cannot end a receiver");
            return;
        }
        if let Some(unfinished) = unfinished {
            unfinished::remove(&top, unfinished).await;
        }
    }

    async fn compare(
        &self,
        mut stream: impl Stream,
        admission: &Admission,
        caller: &Principal,
        header: &Header,
    ) {
        let target = &admission.target;
        let Ok(_turn) = target.comparisons.try_acquire() else {
            let why = "too many comparisons are under way";
            return refuse(&mut stream, caller, Some((&header.sync).into()), why).await;
        };
        if Answer::Go.write(&mut stream).await.is_err() {
            return;
        }
        let side = target.side();
        tokio::select! {
            () = admission.withdrawn.cancelled() => {}
            served = verify::serve(stream, &side) => match served {
                Ok(Served { whole }) => drop(target.compared.fetch_add(whole.into(), Ordering::Relaxed)),
                Err(error) => {
                    tracing::warn!(sync = %target.sync(), %error, "a comparison ended badly");
                }
            }
        }
    }

    async fn start(&self, admission: &Admission) -> Result<Child, String> {
        let target = admission.target.clone();
        let prepared = tokio::task::spawn_blocking(move || target.prepare()).await;
        self.daemon(&prepared.map_err(|error| error.to_string())??)
    }

    /// rsync, which serves one connection by this configuration.
    fn daemon(&self, config: &Path) -> Result<Child, String> {
        let mut option = std::ffi::OsString::from("--config=");
        option.push(config);
        let program = Program {
            path: self.rsync.to_owned(),
            args: vec!["--server".into(), "--daemon".into(), option, ".".into()],
            fed: true,
        };
        self.host.spawn(&program).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "rsync is not installed: apt install rsync".to_owned(),
            _ => format!("cannot start {}: {error}", self.rsync.display()),
        })
    }
}

async fn transfer(mut stream: impl Stream, child: &mut Child, admission: &Admission) {
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return;
    };
    if Answer::Go.write(&mut stream).await.is_err() {
        return;
    }
    let messages = tokio::spawn(tail(stderr, MESSAGES_MAX));
    let (reader, writer) = tokio::io::split(stream);
    let pumped = pump((stdout, writer, None), (reader, stdin, None), IDLE_MAX, LINGER).await;
    let ended = tokio::time::timeout(END_MAX, child.wait()).await;
    let target = &admission.target;
    if pumped.is_ok() && matches!(&ended, Ok(Ok(status)) if status.success()) {
        return target.set_problem("");
    }
    // What goes wrong with a file is told to the sender; here is what it could not be told.
    let said = match tokio::time::timeout(END_MAX, messages).await {
        Ok(Ok(messages)) => said(&messages).unwrap_or_default(),
        _ => String::new(),
    };
    tracing::warn!(sync = %target.sync(), ?ended, ?pumped, said, "a transfer to here failed");
    target.set_problem(&said);
}

/// Like a push, it runs alone and ends when the assignment does.
async fn rename(mut stream: impl Stream, admission: &Admission) {
    let target = &admission.target;
    let Some(turn) = target.take_turn().await else { return };
    if Answer::Go.write(&mut stream).await.is_err() {
        return;
    }
    let served = tokio::select! {
        () = admission.withdrawn.cancelled() => return,
        () = turn.superseded() => return,
        served = moves::serve(&mut stream, target.path()) => served,
    };
    match served {
        Ok(told) => {
            tracing::debug!(sync = %target.sync(), ?told, "renamed what its source renamed")
        }
        Err(error) => {
            tracing::warn!(sync = %target.sync(), %error, "cannot take its source's renames")
        }
    }
}

async fn note(admission: &Admission, mark: Mark) -> Answer {
    if let Err(error) = admission.target.note(mark).await {
        let why = format!("cannot record the fill of {}: {error}", admission.target.sync());
        admission.target.set_problem(&why);
        return Answer::Refused(why);
    }
    if admission.target.is_filled() { Answer::Go } else { Answer::Unfilled }
}

async fn consider(admission: &Admission, offer: &Offer) -> Answer {
    match admission.target.consider(offer).await {
        Err(why) => Answer::Refused(why),
        Ok(()) if admission.target.is_filled() => Answer::Go,
        Ok(()) => Answer::Unfilled,
    }
}

pub async fn refuse(stream: &mut impl Stream, caller: &Principal, about: Option<About>, why: &str) {
    tracing::warn!(
        target: "audit",
        caller = %caller.subject,
        key = %caller.key_hash,
        about = about.map(|about| about.to_string()),
        why,
        "refused a data connection"
    );
    let _ = Answer::Refused(why.to_owned()).write(stream).await;
    let _ = stream.shutdown().await;
}
