//! Where a run's content comes from: one other side for the whole tree, and perhaps further upstreams
//! that each fill a directory of it. What it finds of a tree it finds without following symlinks,
//! which an upstream may have put there.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use lockstep_model::mirror::{FurtherUpstream, HopKind};
use lockstep_model::sync::filter::{FilePath, Pattern};
use lockstep_model::task::{OutcomeKind, PullFrom};

use super::{Failure, Turn};
use crate::data::lane::Lane;
use crate::data::limit::Limiter;
use crate::mirror::passwords::PasswordFile;
use crate::mirror::publish::WORK;
use crate::mirror::pull::argv::{Source, anchored};
use crate::mirror::trace;
use crate::secrets;

/// What a pull is made with, once.
pub struct Means {
    password: Option<PasswordFile>,
    /// Open while it is pulled from an agent.
    _lane: Option<Lane>,
}

pub struct Feed<'a> {
    /// None: the whole tree, but for the directories of others.
    dir: Option<&'a FilePath>,
    pub source: Source<'a>,
    /// What is below it and not its own to bring or to remove.
    pub own: Vec<Pattern>,
}

impl Feed<'_> {
    /// Its directory in a tree that is there; None: it is not.
    pub fn find(&self, tree: &Path) -> io::Result<Option<PathBuf>> {
        let mut at = tree.to_owned();
        for name in self.dir.iter().flat_map(|dir| dir.as_str().split('/')) {
            at.push(name);
            match fs::symlink_metadata(&at) {
                Ok(found) if found.is_dir() => {}
                Ok(_) => {
                    let shown = at.display();
                    let why = format!(
                        "{shown} is not a directory, and a further upstream is to fill it: leave it \
                         out with a filter, or choose another directory"
                    );
                    return Err(io::Error::other(why));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(at))
    }

    /// Its directory in a tree, and whether it was made. The one that it is made in belongs to another
    /// upstream, whose next run would find its time changed.
    pub fn make(&self, tree: &Path) -> io::Result<(PathBuf, bool)> {
        if let Some(at) = self.find(tree)? {
            return Ok((at, false));
        }
        let at = self.dir.map_or(tree.to_owned(), |dir| tree.join(dir.as_str()));
        let made_in = at.ancestors().skip(1).find(|dir| dir.is_dir()).unwrap_or(tree);
        let time = fs::metadata(made_in)?.modified()?;
        DirBuilder::new().recursive(true).mode(0o755).create(&at)?;
        File::open(made_in)?.set_modified(time)?;
        Ok((at, true))
    }

    /// Says whose failure it is.
    pub fn named(&self, failure: Failure) -> Failure {
        match self.dir {
            None => failure,
            Some(dir) => Failure { why: format!("{dir}: {}", failure.why), ..failure },
        }
    }
}

impl Turn<'_> {
    pub(super) fn means(&self) -> Result<Means, Failure> {
        let Self { engine, local, spec, .. } = self;
        let mut password = None;
        if spec.has_password {
            let Some(text) = engine.passwords.take(&spec.mirror) else {
                let why = "the upstream's password was only in memory, and the agent was started \
                           anew; the run is given again"
                    .to_owned();
                return Err(Failure { kind: OutcomeKind::Interrupted, why, permanent: false });
            };
            let file = PasswordFile::write(local.path(), &text);
            password = Some(file.map_err(|error| {
                Failure::passing(format!("cannot hand the password to rsync: {error}"))
            })?);
        }
        let check = |remote| {
            secrets::check(&engine.settings.secrets_dir, remote).map_err(Failure::permanent)
        };
        let lane = match &spec.from {
            PullFrom::Agent(peer) => {
                let free = Limiter::new(None);
                Some(engine.lanes.open(&spec.mirror, peer, &free, &free))
            }
            PullFrom::Remote(remote) => {
                if password.is_none() {
                    check(remote)?;
                }
                None
            }
            PullFrom::Here => None,
        };
        self.further().iter().try_for_each(|further| check(&further.remote))?;
        Ok(Means { password, _lane: lane })
    }

    /// That of the whole tree comes first.
    pub(super) fn feeds<'m>(&'m self, means: &'m Means) -> Vec<Feed<'m>> {
        let spec = self.spec;
        let work = format!("/{WORK}/");
        let host = self.engine.settings.name.as_str();
        let trace = spec.options.trace.as_ref().map(|dir| trace::pattern(dir, host));
        let others = self.further().iter().map(|further| anchored(further.dir.as_str()));
        let patterns = |texts: Vec<String>| -> Vec<Pattern> {
            texts.into_iter().filter_map(|text| text.parse().ok()).collect()
        };
        let own = [work.clone()].into_iter().chain(trace).chain(others).collect();
        let whole = Feed { dir: None, source: self.source(means), own: patterns(own) };
        let further = self.further().iter().map(|FurtherUpstream { dir, remote }| Feed {
            dir: Some(dir),
            source: Source::Remote {
                remote,
                secrets: &self.engine.settings.secrets_dir,
                password: None,
            },
            own: patterns(vec![work.clone()]),
        });
        [whole].into_iter().chain(further).collect()
    }

    /// Who pulls from the first upstream pulls from the others; a copy within the fleet has it all.
    fn further(&self) -> &[FurtherUpstream] {
        match (self.spec.hop, &self.spec.from) {
            (HopKind::Upstream, PullFrom::Remote(_)) => &self.spec.options.further,
            _ => &[],
        }
    }

    fn source<'m>(&'m self, means: &'m Means) -> Source<'m> {
        let settings = &self.engine.settings;
        match &self.spec.from {
            PullFrom::Agent(peer) => Source::Agent {
                mirror: &self.spec.mirror,
                node: &peer.node,
                agent: &settings.agent,
                data_dir: &settings.data_dir,
            },
            PullFrom::Remote(remote) => Source::Remote {
                remote,
                secrets: &settings.secrets_dir,
                password: means.password.as_ref().map(PasswordFile::path),
            },
            // It is never pulled.
            PullFrom::Here => Source::Agent {
                mirror: &self.spec.mirror,
                node: &self.engine.settings.name,
                agent: &settings.agent,
                data_dir: &settings.data_dir,
            },
        }
    }
}
