//! A member's data made anew as a copy of another member's: into a directory beside, proven, and only
//! then in place of what was there. It starts and stops no instance.

mod paths;
mod proof;
mod source;
mod swap;

use std::path::Path;
use std::time::Duration;

use lockstep_model::cluster::{ClusterPlace, MemberPeer, SystemId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::paths::{Paths, Tablespace};
use self::source::Source;
pub use self::source::sources;
use super::instance::{Data, Instance, Processes, files, slot_name};
use super::rewind;
use super::tool::{self, ToolError};
use super::upstream::Upstream;

/// How often the source is asked how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// Left free on top of what is copied, in bytes: the log that is written meanwhile comes too.
const ROOM_BYTES: u64 = 64 << 20;

/// What is to be copied.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    pub place: &'a ClusterPlace,
    /// Best first: the members to copy from.
    pub sources: &'a [&'a MemberPeer],
    pub replace: Replace,
    /// The agent's own directory of the cluster, not postgres'.
    pub own: &'a Path,
}

/// What may be replaced; it is kept aside until the copy is settled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Replace {
    /// Only a directory that is missing or empty.
    Nothing,
    /// Data of the same database too.
    Own,
    /// Whatever is there: somebody said so.
    Any,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Moved {
    pub done_bytes: u64,
    /// None: not known yet.
    pub total_bytes: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CopyError {
    /// Trying again does no good until something is changed; nothing was touched.
    #[error("{0}")]
    Refused(String),
    /// What was there is as it was.
    #[error("{0}")]
    Failed(String),
    #[error("the copy was stopped")]
    Stopped,
}

/// Copies from the first source that can be copied from. Afterwards the data is a stopped standby
/// without a configuration of its own yet. When it fails or is stopped, what was there is untouched.
pub async fn clone(
    instance: &Instance,
    order: Order<'_>,
    progress: &watch::Sender<Moved>,
    stop: &CancellationToken,
) -> Result<(), CopyError> {
    let Some(system_id) = order.place.system_id else {
        return Err(CopyError::Refused("no primary has told which database it is yet".to_owned()));
    };
    may_replace(instance, order.replace, system_id).await?;
    repair(instance, order.own).await.map_err(CopyError::Failed)?;
    let mut problem = CopyError::Failed("there is nobody to copy from yet".to_owned());
    for &peer in order.sources {
        let upstream = Upstream { instance, place: order.place, peer };
        match (Copy { upstream, order, system_id, progress, stop }).run().await {
            Ok(()) => return Ok(()),
            Err(_) if stop.is_cancelled() => return Err(CopyError::Stopped),
            Err(error) => {
                tracing::warn!(cluster = %order.place.cluster, from = %peer.peer.node, %error, "cannot copy");
                problem = error;
            }
        }
    }
    Err(problem)
}

/// The copy streams: what it replaced goes, or stays for good under another name. `own` as in `Order`.
pub async fn settle(own: &Path, keep_old: bool) -> Result<(), String> {
    let own = own.to_owned();
    blocking(move || swap::settle(&own, keep_old)).await
}

/// Something that was replaced lies aside yet.
pub fn is_unsettled(own: &Path) -> bool {
    swap::is_unsettled(own)
}

/// Ends a replacement that was interrupted and takes half a copy away; before the data is looked at
/// for the first time. `own` as in `Order`.
pub async fn repair(instance: &Instance, own: &Path) -> Result<(), String> {
    let (own, layout) = (own.to_owned(), instance.layout().clone());
    blocking(move || {
        swap::resume(&own)?;
        let fail = |path: &Path, error| format!("cannot remove {}: {error}", path.display());
        let mut leftovers = paths::leftovers(&layout).into_iter();
        leftovers.try_for_each(|path| swap::remove(&path).map_err(|e| fail(&path, e)))
    })
    .await
}

async fn may_replace(
    instance: &Instance,
    replace: Replace,
    system_id: SystemId,
) -> Result<(), CopyError> {
    if instance.processes().await != Processes::None {
        return Err(CopyError::Refused("postgres runs: its data is not replaced".to_owned()));
    }
    let at = instance.layout().data.display().to_string();
    let refused = |why: String| Err(CopyError::Refused(why));
    match instance.data().await {
        Data::Missing => Ok(()),
        _ if replace == Replace::Any => Ok(()),
        Data::Foreign(why) => refused(format!(
            "{at} is not touched: {why}; empty it, or order a copy in its place: lockstepctl cluster reclone"
        )),
        Data::There(control) if control.system_id != system_id => refused(format!(
            "{at} holds database {}, not {system_id}: order a copy in its place by lockstepctl cluster reclone, or set another data-dir",
            control.system_id
        )),
        Data::There(_) if replace == Replace::Nothing => {
            refused(format!("{at} holds data of this database already"))
        }
        Data::There(_) => Ok(()),
    }
}

/// One try, from one source.
struct Copy<'a> {
    upstream: Upstream<'a>,
    order: Order<'a>,
    system_id: SystemId,
    progress: &'a watch::Sender<Moved>,
    stop: &'a CancellationToken,
}

impl Copy<'_> {
    async fn run(&self) -> Result<(), CopyError> {
        let instance = self.upstream.instance;
        self.upstream.prepare().map_err(CopyError::Failed)?;
        let source = source::look(&self.upstream, &slot_name(instance.me()), self.stop).await?;
        self.check(&source).await?;
        let paths = self.plan(&source.tablespaces).await?;
        let made = match self.make(&paths).await {
            Ok(()) => self.fill(&paths, &source).await,
            Err(error) => Err(error),
        };
        let Err(error) = made else { return Ok(()) };
        let gone: Vec<_> = paths.made().cloned().collect();
        let removed = blocking(move || {
            gone.iter().try_for_each(|path| {
                swap::remove(path).map_err(|e| format!("cannot remove {}: {e}", path.display()))
            })
        });
        if let Err(why) = removed.await {
            tracing::error!(cluster = %self.order.place.cluster, why, "half a copy is left");
        }
        Err(error)
    }

    async fn check(&self, source: &Source) -> Result<(), CopyError> {
        let (node, refused) = (self.upstream.node(), |why| Err(CopyError::Refused(why)));
        let Source { identity, major, behind, .. } = source;
        if identity.system_id != self.system_id {
            return refused(format!(
                "{node} has database {}, not {}",
                identity.system_id, self.system_id
            ));
        }
        let most = self.order.place.options.failover.max_lag;
        match behind {
            Some(behind) if *behind <= most.0 => {}
            Some(behind) => {
                let why = format!("{node} is {behind} bytes behind, more than max-lag {most}");
                return Err(CopyError::Failed(why));
            }
            None => return Err(CopyError::Failed(format!("{node} follows nobody itself"))),
        }
        let instance = self.upstream.instance;
        let version = tool::succeed(instance, "postgres", &["--version"], None, self.stop).await;
        let version = version.map_err(CopyError::Failed)?;
        let words = version.split_ascii_whitespace();
        let own =
            words.filter_map(|word| word.split(['.', 'b', 'r']).next()?.parse::<u32>().ok()).next();
        match own {
            Some(own) if own == *major => Ok(()),
            own => refused(format!(
                "{node} has PostgreSQL {major} and this node {}: install PostgreSQL {major} here, or set postgres-bin",
                own.map_or_else(|| "none that is known".to_owned(), |own| own.to_string())
            )),
        }
    }

    async fn plan(&self, tablespaces: &[Tablespace]) -> Result<Paths, CopyError> {
        let layout = self.upstream.instance.layout().clone();
        let (tablespaces, any) = (tablespaces.to_vec(), self.order.replace == Replace::Any);
        blocking(move || Paths::plan(&layout, &tablespaces, any)).await.map_err(CopyError::Refused)
    }

    /// Empty directories of the owner's.
    async fn make(&self, paths: &Paths) -> Result<(), CopyError> {
        let layout = self.upstream.instance.layout().clone();
        let places = paths.tablespaces.iter().map(|space| space.place.clone());
        let (places, made): (Vec<_>, Vec<_>) = (places.collect(), paths.made().cloned().collect());
        let make = move || {
            for dir in places.iter().chain(&made) {
                if made.contains(dir) {
                    swap::remove(dir)
                        .map_err(|e| format!("cannot remove {}: {e}", dir.display()))?;
                }
                let done = files::make_dir(dir, &layout.owner);
                done.map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
            }
            Ok(())
        };
        blocking(make).await.map_err(CopyError::Failed)
    }

    async fn fill(&self, paths: &Paths, source: &Source) -> Result<(), CopyError> {
        let instance = self.upstream.instance;
        self.check_room(paths, source.total_bytes)?;
        self.back_up(paths, source).await?;
        let bytes = self.progress.borrow().done_bytes.max(source.total_bytes.unwrap_or(0));
        let expected = (self.system_id, source.major);
        let proven = proof::prove(instance, &paths.copy, expected, bytes, self.stop).await;
        proven.map_err(CopyError::Failed)?;
        // From here on it is quick, and not stopped any more.
        if self.stop.is_cancelled() {
            return Err(CopyError::Stopped);
        }
        may_replace(instance, self.order.replace, self.system_id).await?;
        let (layout, paths, own) =
            (instance.layout().clone(), paths.clone(), self.order.own.to_owned());
        let put = move || {
            paths.finish(&layout)?;
            let moves =
                paths.moves(&layout).map_err(|e| format!("{}: {e}", paths.copy.display()))?;
            swap::swap(&own, &moves)?;
            rewind::forget(&own)?;
            // What is left of them is empty.
            paths.tablespaces.iter().for_each(|space| drop(std::fs::remove_dir(&space.copy)));
            Ok(())
        };
        blocking(put).await.map_err(CopyError::Failed)
    }

    async fn back_up(&self, paths: &Paths, source: &Source) -> Result<(), CopyError> {
        let Self { upstream, progress, .. } = self;
        let own = self.stop.child_token();
        let args = paths.arguments(
            &upstream.conninfo(&source::application(upstream.instance.me())),
            source.slot.then(|| slot_name(upstream.instance.me())).as_deref(),
        );
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let backup = tool::run(upstream.instance, "pg_basebackup", &args, None, &own);
        tokio::pin!(backup);
        let mut full = None;
        let follow = async {
            let mut known = source.total_bytes;
            loop {
                tokio::time::sleep(PROGRESS_INTERVAL).await;
                let Some(moved) = source::progress(upstream, &own).await else { continue };
                progress.send_replace(moved);
                if moved.total_bytes.is_some() && moved.total_bytes != known {
                    known = moved.total_bytes;
                    self.check_room(
                        paths,
                        known.map(|total| total.saturating_sub(moved.done_bytes)),
                    )?;
                }
            }
        };
        tokio::pin!(follow);
        let ended = loop {
            tokio::select! {
                ended = &mut backup => break ended,
                Err::<(), _>(error) = &mut follow, if full.is_none() => {
                    own.cancel();
                    full = Some(error);
                }
            }
        };
        if let Some(full) = full {
            return Err(full);
        }
        match ended {
            Ok(said) if said.status.success() => Ok(()),
            Ok(said) => Err(CopyError::Failed(format!(
                "pg_basebackup from {}: {}",
                upstream.node(),
                tool::last_words(&said.messages)
            ))),
            Err(ToolError::Stopped) => Err(CopyError::Stopped),
            Err(error) => Err(CopyError::Failed(error.to_string())),
        }
    }

    fn check_room(&self, paths: &Paths, more_bytes: Option<u64>) -> Result<(), CopyError> {
        let Some(more) = more_bytes else { return Ok(()) };
        let room = paths.room_bytes().map_err(|e| CopyError::Failed(format!("free space: {e}")))?;
        match more.saturating_add(ROOM_BYTES) <= room {
            true => Ok(()),
            false => Err(CopyError::Refused(format!(
                "a copy needs {} MiB and {} has {} MiB free: make room, or set another data-dir",
                (more + ROOM_BYTES) >> 20,
                paths.copy.parent().unwrap_or(&paths.copy).display(),
                room >> 20
            ))),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}
