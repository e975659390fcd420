//! Serving a mirror's tree to one of its readers: a read-only rsync, confined to the tree as it is
//! when the reader comes. It decides nothing; who may read what is `mirror::trees`'.

use lockstep_model::MirrorName;
use lockstep_model::identity::Principal;
use tokio::io::AsyncWriteExt;

use super::header::Answer;
use super::lane::Meter;
use super::pump::{PULL_IDLE_MAX, pump};
use super::{END_MAX, LINGER, MESSAGES_MAX, Server, Stream, refuse};
use crate::host::{Child, tail};
use crate::mirror::trees::{Admission, Denial};
use crate::rsync::exit::said;

impl Server<'_> {
    pub(super) async fn feed(
        &self,
        mut stream: impl Stream,
        mirror: &MirrorName,
        caller: &Principal,
    ) {
        let admission = match self.trees.admit(mirror, caller) {
            Ok(admission) => admission,
            Err(Denial::Unfilled) => {
                let _ = Answer::Unfilled.write(&mut stream).await;
                let _ = stream.shutdown().await;
                return;
            }
            Err(Denial::Refused(why)) => {
                return refuse(&mut stream, caller, Some(mirror.into()), &why).await;
            }
        };
        let root = rustix::process::geteuid().is_root();
        let started = admission.open(root).and_then(|config| {
            let child = self.daemon(config.path())?;
            Ok((config, child))
        });
        let (_config, mut child) = match started {
            Ok(started) => started,
            Err(why) => {
                tracing::warn!(%mirror, why, "cannot serve a mirror");
                let _ = Answer::Refused(why).write(&mut stream).await;
                let _ = stream.shutdown().await;
                return;
            }
        };
        let meter = self.lanes.lend();
        tokio::select! {
            () = admission.withdrawn.cancelled() => {
                tracing::info!(target: "audit", %mirror, caller = %caller.subject, "ended a transfer: the assignment was withdrawn");
            }
            () = transfer(stream, &mut child, &admission, &meter) => {}
        }
        if let Err(error) = child.end().await {
            tracing::error!(%mirror, %error, "cannot end a sender");
        }
    }
}

async fn transfer(
    mut stream: impl Stream,
    child: &mut Child,
    admission: &Admission,
    meter: &Meter,
) {
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
    let (out, into) = ((stdout, writer, Some(meter)), (reader, stdin, None));
    let pumped = pump(out, into, PULL_IDLE_MAX, LINGER).await;
    let ended = tokio::time::timeout(END_MAX, child.wait()).await;
    if pumped.is_ok() && matches!(&ended, Ok(Ok(status)) if status.success()) {
        return;
    }
    let said = match tokio::time::timeout(END_MAX, messages).await {
        Ok(Ok(messages)) => said(&messages).unwrap_or_default(),
        _ => String::new(),
    };
    tracing::warn!(mirror = %admission.mirror, ?ended, ?pumped, said, "a transfer from here failed");
}
