//! What rsync does in a run: stage by stage, into the tree or into the next snapshot, each stage by
//! the steps that `pull::course` names.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use lockstep_model::mirror::Pulled;
use lockstep_model::mirror::options::Publish;
use lockstep_model::mirror::report::PullPhase;
use lockstep_model::mirror::rsync::Delete;
use lockstep_model::sync::filter::Pattern;
use lockstep_model::task::{OutcomeKind, Stage};

use super::feed::Feed;
use super::{Failure, Turn, free};
use crate::mirror::mark::Mark;
use crate::mirror::publish::{Current, Site, Work};
use crate::mirror::pull::argv::{LINKS_MAX, Pull, Step};
use crate::mirror::pull::course::{Course, Guards, Next, Place};
use crate::mirror::pull::ending::{End, Retry};
use crate::mirror::step::{Cut, Run};

/// One stage of one feed, and where it goes.
struct Part<'a> {
    site: &'a Site,
    work: &'a Work,
    feed: &'a Feed<'a>,
    /// What is left to a later stage.
    late: &'a [Pattern],
    place: Place,
    into: &'a Path,
    links: &'a [&'a Path],
    /// A snapshot is built although this feed has nothing new: another one may have.
    anyway: bool,
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
        let feeds = self.feeds(&means);
        let work = site.prepare()?;
        let is_snapshot = spec.options.publish == Publish::Snapshot;
        let two = spec.options.stages.two && !is_snapshot && spec.stage == Stage::Whole;
        let stages = if two { vec![Stage::First, Stage::Second] } else { vec![spec.stage] };
        let mut told = String::new();
        let mut first = !mark.is_filled();
        for stage in stages {
            let late = if stage == Stage::First { spec.options.late() } else { Vec::new() };
            // Each stage counts all that is there.
            (pulled.entries, pulled.tree_bytes) = (0, 0);
            let words = match is_snapshot {
                true => self.build(site, &work, &feeds, &late, pulled).await?,
                false => self.bring_into(site, &work, &feeds, &late, first, pulled).await?,
            };
            first = false;
            if !words.is_empty() {
                told = words;
            }
        }
        match spec.stage {
            Stage::First => work.end_stage()?,
            Stage::Whole | Stage::Second => work.clear()?,
        }
        Ok(told)
    }

    /// Into the tree that readers see. `first`: nothing complete is known to be there.
    async fn bring_into(
        &self,
        site: &Site,
        work: &Work,
        feeds: &[Feed<'_>],
        late: &[Pattern],
        first: bool,
        pulled: &mut Pulled,
    ) -> Result<String, Failure> {
        site.flatten()?;
        site.make_tree()?;
        let mut told = String::new();
        for feed in feeds {
            let (into, is_new) = feed.make(site.tree())?;
            let place = if first || is_new { Place::First } else { Place::Tree };
            let (into, links, anyway) = (into.as_path(), &[][..], false);
            let part = Part { site, work, feed, late, place, into, links, anyway };
            let words = self.course(&part, pulled).await.map_err(|failed| feed.named(failed))?;
            if !words.is_empty() {
                told = words;
            }
        }
        Ok(told)
    }

    /// A new snapshot, published when it is complete and other than the current one.
    async fn build(
        &self,
        site: &Site,
        work: &Work,
        feeds: &[Feed<'_>],
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
        let trees: Vec<PathBuf> = left.into_iter().chain(current.clone()).collect();
        let new = work.new_tree();
        let before = pulled.files;
        let mut told = String::new();
        for feed in feeds {
            let (into, _) = feed.make(&new)?;
            let there = match &current {
                Some(current) => feed.find(current)?.is_some(),
                None => false,
            };
            let place = if there { Place::Snapshot } else { Place::First };
            let found = trees.iter().map(|tree| feed.find(tree));
            let links = found.filter_map(io::Result::transpose).collect::<io::Result<Vec<_>>>()?;
            let links: Vec<&Path> = links.iter().take(LINKS_MAX).map(PathBuf::as_path).collect();
            let (into, links, anyway) = (into.as_path(), links.as_slice(), feeds.len() > 1);
            let part = Part { site, work, feed, late, place, into, links, anyway };
            let words = self.course(&part, pulled).await.map_err(|failed| feed.named(failed))?;
            if !words.is_empty() {
                told = words;
            }
        }
        let is_new = pulled.changed || pulled.files > before || current.is_none();
        if late.is_empty() && is_new {
            self.show(PullPhase::Finishing);
            self.leave_trace_in(&new, pulled)?;
            site.publish(work)?;
            let keep = self.spec.options.snapshots as usize;
            site.prune(keep, |path| self.engine.trees.is_read(path))?;
        }
        Ok(told)
    }

    /// All steps of one stage.
    async fn course(&self, part: &Part<'_>, pulled: &mut Pulled) -> Result<String, Failure> {
        let Part { site, work, feed, late, place, into, links, anyway } = *part;
        let Self { engine, local, spec, log, .. } = self;
        let hop = spec.options.hop(spec.hop);
        let delete = if late.is_empty() { hop.delete } else { Delete::None };
        let guards = Guards {
            limit: spec.options.guards.delete,
            min_free: spec.options.guards.min_free,
            allow: spec.allow,
        };
        let mut course = Course::new(delete, place, guards).built_anyway(anyway);
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
                source: feed.source,
                hop: &hop,
                filters: spec.options.filters(spec.hop),
                own: &feed.own,
                late,
                rate: spec.options.bwlimit(spec.hop),
                io_timeout: spec.options.limits.io_timeout,
                connect_timeout: spec.options.limits.connect_timeout,
                family: spec.options.family,
                into: against.unwrap_or(&into),
                links: if against.is_some() { &[] } else { links },
                work: Some(work.path()),
                // The first try after a complete one has nothing to go on with.
                keeps: work.keeps || place != Place::Tree,
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
            if step != Step::Count {
                self.touched.store(is_other, Ordering::Relaxed);
            }
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
}

/// Feeds and stages of one run are counted together.
fn add(pulled: &mut Pulled, base: &Pulled, course: &Pulled) {
    let Pulled { entries, tree_bytes, files, created, deleted, received_bytes, changed, .. } =
        *course;
    pulled.entries = base.entries + entries;
    pulled.tree_bytes = base.tree_bytes + tree_bytes;
    pulled.files = base.files + files;
    pulled.created = base.created + created;
    pulled.deleted = base.deleted + deleted;
    pulled.received_bytes = base.received_bytes + received_bytes;
    pulled.changed = base.changed || changed;
}
