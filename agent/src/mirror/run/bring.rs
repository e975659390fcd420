//! What rsync does in a run: stage by stage, into the tree or into the next snapshot, each stage by
//! the steps that `pull::course` names.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use lockstep_model::mirror::Pulled;
use lockstep_model::mirror::options::Publish;
use lockstep_model::mirror::report::PullPhase;
use lockstep_model::mirror::rsync::Delete;
use lockstep_model::sync::filter::Pattern;
use lockstep_model::task::{OutcomeKind, PullFrom, Stage};

use super::{Failure, Turn, free};
use crate::data::lane::Lane;
use crate::data::limit::Limiter;
use crate::mirror::mark::Mark;
use crate::mirror::passwords::PasswordFile;
use crate::mirror::publish::{Current, Site, WORK, Work};
use crate::mirror::pull::argv::{LINKS_MAX, Pull, Source, Step};
use crate::mirror::pull::course::{Course, Guards, Next, Place};
use crate::mirror::pull::ending::{End, Retry};
use crate::mirror::step::{Cut, Run};
use crate::mirror::trace;
use crate::secrets;

/// What a pull is made with, once.
struct Means {
    password: Option<PasswordFile>,
    /// Open while it is pulled from an agent.
    _lane: Option<Lane>,
    own: Vec<Pattern>,
}

/// One stage, and where it goes.
struct Part<'a> {
    site: &'a Site,
    work: &'a Work,
    means: &'a Means,
    /// What is left to a later stage.
    late: &'a [Pattern],
    place: Place,
    into: &'a Path,
    links: &'a [&'a Path],
}

impl Turn<'_> {
    /// By rsync.
    pub(super) async fn bring(
        &self,
        site: &Site,
        mark: &Mark,
        pulled: &mut Pulled,
    ) -> Result<String, Failure> {
        let spec = self.spec;
        let means = self.means()?;
        let work = site.prepare()?;
        let is_snapshot = spec.options.publish == Publish::Snapshot;
        let two = spec.options.stages.two && !is_snapshot && spec.stage == Stage::Whole;
        let stages = if two { vec![Stage::First, Stage::Second] } else { vec![spec.stage] };
        let mut told = String::new();
        let mut first = !mark.is_filled();
        for stage in stages {
            let late = if stage == Stage::First { spec.options.late() } else { Vec::new() };
            let words = match is_snapshot {
                true => self.build(site, &work, &means, &late, pulled).await?,
                false => {
                    site.flatten()?;
                    site.make_tree()?;
                    let place = if first { Place::First } else { Place::Tree };
                    let into = site.tree();
                    let (work, means, late) = (&work, &means, &late);
                    let part = Part { site, work, means, late, place, into, links: &[] };
                    self.course(&part, pulled).await?
                }
            };
            first = false;
            if !words.is_empty() {
                told = words;
            }
        }
        if spec.stage != Stage::First {
            work.clear()?;
        }
        Ok(told)
    }

    /// A new snapshot, published when it is complete and other than the current one.
    async fn build(
        &self,
        site: &Site,
        work: &Work,
        means: &Means,
        late: &[Pattern],
        pulled: &mut Pulled,
    ) -> Result<String, Failure> {
        site.adopt()?;
        let current = match site.current()? {
            Current::Nothing | Current::Directory => None,
            Current::Snapshot(path) => Some(path),
        };
        work.begin()?;
        let left = Some(work.left_tree()).filter(|left| left.exists());
        let links: Vec<PathBuf> = left.into_iter().chain(current.clone()).take(LINKS_MAX).collect();
        let links: Vec<&Path> = links.iter().map(PathBuf::as_path).collect();
        let place = if current.is_some() { Place::Snapshot } else { Place::First };
        let into = work.new_tree();
        let before = pulled.files;
        let part = Part { site, work, means, late, place, into: &into, links: &links };
        let told = self.course(&part, pulled).await?;
        let is_new = pulled.changed || pulled.files > before || current.is_none();
        if late.is_empty() && is_new {
            self.show(PullPhase::Finishing);
            self.leave_trace_in(&into, pulled)?;
            site.publish(work)?;
            let keep = self.spec.options.snapshots as usize;
            site.prune(keep, |path| self.engine.trees.is_read(path))?;
        }
        Ok(told)
    }

    /// All steps of one stage.
    async fn course(&self, part: &Part<'_>, pulled: &mut Pulled) -> Result<String, Failure> {
        let Part { site, work, means, late, place, into, links } = *part;
        let Self { engine, local, spec, log, .. } = self;
        let hop = spec.options.hop(spec.hop);
        let delete = if late.is_empty() { hop.delete } else { Delete::None };
        let guards = Guards {
            limit: spec.options.guards.delete,
            min_free: spec.options.guards.min_free,
            allow: spec.allow,
        };
        let mut course = Course::new(delete, place, guards);
        let (settings, base) = (&engine.settings, *pulled);
        let mut told = String::new();
        let mut counted_bytes = None;
        let mut next = course.first(free(site)?);
        loop {
            let step = match next {
                Next::Run(step) => step,
                Next::Done => return Ok(told),
                Next::Refused(refusal) => return Err(Failure::permanent(refusal.to_string())),
            };
            // A dry run of a snapshot is against what readers see.
            let against = links.last().filter(|_| step == Step::Count && place == Place::Snapshot);
            let pull = Pull {
                source: self.source(means),
                hop: &hop,
                filters: spec.options.filters(spec.hop),
                own: &means.own,
                late,
                rate: spec.options.bwlimit(spec.hop),
                io_timeout: spec.options.limits.io_timeout,
                connect_timeout: spec.options.limits.connect_timeout,
                family: spec.options.family,
                into: against.unwrap_or(&into),
                links: if against.is_some() { &[] } else { links },
                work: Some(work.path()),
            };
            let phase = match step {
                Step::Count => PullPhase::Counting,
                Step::Content => PullPhase::Content,
                Step::Removing { .. } => PullPhase::Deleting,
            };
            self.show(phase);
            let run = Run {
                host: &engine.host,
                rsync: &settings.rsync,
                local,
                log,
                options: &spec.options,
                number: spec.number,
                started_at: self.started_at,
                phase,
                counted_bytes,
                stop: self.stop,
            };
            if step != Step::Count {
                self.touched.store(true, Ordering::Relaxed);
            }
            let (ended, output) = match run.complete(&pull, step).await {
                Ok(done) => done,
                Err(Cut::Stopped) => return Err(Failure::stopped()),
                Err(Cut::Failed(why)) => return Err(Failure::permanent(why)),
            };
            pulled.exit_code = ended.code;
            let is_other = pulled.changed || output.changed || output.stats.brought > 0;
            self.touched.store(is_other && step != Step::Count, Ordering::Relaxed);
            if let End::Failed(retry) = ended.end {
                course.add(step, &output);
                add(pulled, &base, &course.pulled());
                let permanent = retry == Retry::Never;
                return Err(Failure { kind: OutcomeKind::Failed, why: ended.why, permanent });
            }
            if !ended.why.is_empty() {
                told.clone_from(&ended.why);
            }
            if step == Step::Count {
                counted_bytes = Some(output.stats.brought_bytes);
            }
            next = course.next(step, &ended, &output, free(site)?);
            add(pulled, &base, &course.pulled());
        }
    }

    fn means(&self) -> Result<Means, Failure> {
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
        let lane = match &spec.from {
            PullFrom::Agent(peer) => {
                let free = Limiter::new(None);
                Some(engine.lanes.open(&spec.mirror, peer, &free, &free))
            }
            PullFrom::Remote(remote) => {
                if password.is_none() {
                    secrets::check(&engine.settings.secrets_dir, remote)
                        .map_err(Failure::permanent)?;
                }
                None
            }
            PullFrom::Here => None,
        };
        let mut own = vec![format!("/{WORK}/")];
        own.extend(
            spec.options
                .trace
                .as_ref()
                .map(|dir| trace::pattern(dir, engine.settings.name.as_str())),
        );
        let own = own.into_iter().filter_map(|text| text.parse().ok()).collect();
        Ok(Means { password, _lane: lane, own })
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

/// Two stages of one run are counted together.
fn add(pulled: &mut Pulled, base: &Pulled, course: &Pulled) {
    let Pulled { entries, tree_bytes, files, created, deleted, received_bytes, changed, .. } =
        *course;
    pulled.entries = entries;
    pulled.tree_bytes = tree_bytes;
    pulled.files = base.files + files;
    pulled.created = base.created + created;
    pulled.deleted = base.deleted + deleted;
    pulled.received_bytes = base.received_bytes + received_bytes;
    pulled.changed = base.changed || changed;
}
