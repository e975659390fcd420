//! What a durable commit takes on this machine's disk, through the store's own door, beside the least
//! that any store must do there.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use anyhow::{Context, Result};
use lockstep_controller::store::{SledStore, Store};
use lockstep_model::identity::{Role, User};
use lockstep_model::record::{Actor, Record, Txn, Write};
use lockstep_model::{Revision, Timestamp};
use tokio::runtime::Builder;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::{Size, bounded, ms};
use crate::figures::{Figure, Figures};

const PEER: &str = "write, fdatasync";
const PEER_BYTES: usize = 1024;
/// Commits in one go.
const TURN: usize = 50;
/// Records that are written again and again.
const USERS: u64 = 50;

/// The two take turns, so that both meet the same disk, and run on the same threads: how soon a
/// thread learns that the disk is done differs more than the disk.
pub fn measure(figures: &mut Figures, size: &Size) -> Result<()> {
    // Beside this program: a temporary directory is often memory, and that flushes for nothing.
    let exe = std::env::current_exe()?;
    let dir = tempfile::tempdir_in(exe.parent().context("no directory")?)?;
    let store = SledStore::create(dir.path())?;
    let file = File::create(dir.path().join("peer"))?;
    file.write_all_at(&[0; PEER_BYTES], 0)?;
    file.sync_all()?;
    let file = Arc::new(file);

    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let (ours, peers) = runtime.block_on(bounded("commits", async {
        let (mut ours, mut peers) = (Vec::new(), Vec::new());
        for turn in 0..size.commits.div_ceil(TURN) {
            for n in 0..TURN {
                let txn = txn((turn * TURN + n) as u64)?;
                let began = Instant::now();
                store.commit(txn).await?;
                ours.push(ms(began.elapsed()));
            }
            for _ in 0..TURN {
                let file = file.clone();
                let began = Instant::now();
                spawn_blocking(move || write(&file)).await??;
                peers.push(ms(began.elapsed()));
            }
        }
        Ok((ours, peers))
    }))?;
    let peer = Figure::p50("", "ms", &peers);
    figures.add(Figure::p50("sled commit with flush: p50", "ms", &ours).beside(PEER, &peer));
    let peer = Figure::p99("", "ms", &peers);
    figures.add(Figure::p99("sled commit with flush: p99", "ms", &ours).beside(PEER, &peer));
    Ok(())
}

/// In place: a file that grows has its length to keep as well.
fn write(file: &File) -> io::Result<()> {
    file.write_all_at(&[b'x'; PEER_BYTES], 0)?;
    file.sync_data()
}

/// One record, on the revision that the ones before it have made.
fn txn(n: u64) -> Result<Txn> {
    let user = User {
        name: format!("user-{}", n % USERS).parse()?,
        role: Role::Viewer,
        disabled: false,
        key_hash: None,
        created_at: Timestamp(n),
    };
    Ok(Txn {
        base: Revision(n),
        raise_to: Revision::ZERO,
        at: Timestamp(n),
        actor: Actor::Offline,
        cause: "bench".to_owned(),
        writes: vec![Write::Put(Record::User(user))],
    })
}
