//! The source's side of a comparison: asks, compares with its own tree, goes down where sums differ,
//! and looks again at what differs once the target has caught up. It changes nothing.

mod contents;

use std::collections::HashMap;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use super::content::join;
use super::entry::{Attr, Entry, KEY_LEN, Kind};
use super::finding::{self, FINDINGS_MAX, Finding, Findings};
use super::peer::Peer;
use super::view::{Listed, Meter, Side, View};
use super::wire::{
    Answer, BITS_MAX, BUCKETS_MAX, LOOK_MAX, Named, PARTS_MAX, Part, Request, Seen, VERSION,
    WireError,
};
use crate::journal::RelPath;

/// A directory with more entries is compared bucket by bucket.
const WHOLE_MAX: usize = 256;
/// Entries that a bucket should have.
const BUCKET_ENTRIES: u64 = 64;
/// Most directories that wait to be gone into.
const QUEUE_MAX: usize = 1_000_000;
/// Most times that the target is waited for; what differs first then is left to the next comparison.
const ROUNDS_MAX: usize = 4;

/// What is compared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Of {
    Tree,
    /// These and what is below them.
    Paths(Vec<RelPath>),
    /// The contents alone of the files after this one; empty: of all.
    Contents(RelPath),
    /// What was found before.
    Found(Vec<Finding>),
}

/// One comparison.
pub struct Compare<'a> {
    pub side: &'a Side,
    /// Fresh random bytes.
    pub key: [u8; KEY_LEN],
    /// Whether what only the target has is a difference.
    pub extras: bool,
    /// Compare contents too, reading so many bytes per second on each side.
    pub content: Option<u64>,
    /// Most findings, at least 1; looking for more is given up. At most [`FINDINGS_MAX`].
    pub most: usize,
    pub of: Of,
    /// Of a whole tree's contents, bytes after which the rest is left to the next comparison.
    pub slice_bytes: u64,
    /// Ends when the target has all that changed on the source before it was called.
    pub settle: &'a (dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync),
    /// Called every few seconds.
    pub progress: &'a (dyn Fn(Progress) + Send + Sync),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Of the source, looked at so far.
    pub entries: u64,
    /// Of contents read on the source.
    pub bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("refused by the target: {0}")]
    Refused(String),
    #[error("cannot read the source directory: {0}")]
    Source(rustix::io::Errno),
    #[error("the target did not catch up: {0}")]
    Unsettled(String),
}

/// Something that differed at the first look.
struct Candidate {
    path: RelPath,
    /// The source's entry then.
    own: Option<Entry>,
    cause: Cause,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Nothing was there, or something of another kind.
    Whole,
    Entry,
    Content,
    Unreadable,
}

/// Asks one target over a stream on which it serves. Dropping it ends it; nothing is left behind.
pub async fn compare<S: AsyncRead + AsyncWrite>(
    stream: S,
    what: &Compare<'_>,
) -> Result<Findings, CompareError> {
    let mut peer = Peer::new(stream);
    let Side { keep, rules, .. } = *what.side;
    let hello = Request::Hello { version: VERSION, key: what.key, keep, rules };
    let (answers, ()) = peer.ask(&hello, 1, async {}, &|| {}).await?;
    let [Answer::Ready { keep: theirs }] = answers[..] else { return Err(odd()) };
    let view = View::open(what.side, &what.key, keep.both(theirs)).await;
    let view = view.map_err(CompareError::Source)?;
    let meter = Meter::default();
    let comparison = Comparison {
        what,
        peer,
        view,
        meter: &meter,
        most: what.most.clamp(1, FINDINGS_MAX),
        candidates: Vec::new(),
        queue: Vec::new(),
        found: Findings::default(),
    };
    comparison.run().await
}

fn odd() -> CompareError {
    WireError::Malformed("an answer to another question").into()
}

struct Comparison<'a, S> {
    what: &'a Compare<'a>,
    peer: Peer<S>,
    view: View,
    meter: &'a Meter,
    most: usize,
    candidates: Vec<Candidate>,
    /// Directories that differ below; the last is next, so that few wait.
    queue: Vec<RelPath>,
    found: Findings,
}

impl<S: AsyncRead + AsyncWrite> Comparison<'_, S> {
    async fn run(mut self) -> Result<Findings, CompareError> {
        self.look_everywhere().await?;
        if self.found.truncated {
            // Perhaps only much is on its way.
            self.settle().await?;
            self.look_everywhere().await?;
        }
        for _ in 0..ROUNDS_MAX {
            if self.candidates.is_empty() {
                break;
            }
            self.settle().await?;
            self.confirm().await?;
            self.go_down_all().await?;
        }
        self.found.list.sort_by(|a, b| a.path.cmp(&b.path));
        self.found.list.dedup_by(|a, b| a.path == b.path);
        Ok(self.found)
    }

    async fn settle(&mut self) -> Result<(), CompareError> {
        let tick = tick(self.what, self.meter);
        let settled = self.peer.meanwhile((self.what.settle)(), &tick).await?;
        settled.map_err(CompareError::Unsettled)
    }

    async fn look_everywhere(&mut self) -> Result<(), CompareError> {
        self.found = Findings::default();
        self.candidates.clear();
        self.queue.clear();
        let content = self.what.content;
        match &self.what.of {
            Of::Tree => {
                self.look_at_tree().await?;
                self.compare_contents(vec![[].into()], [].into()).await
            }
            Of::Contents(after) => self.compare_contents(vec![[].into()], after.clone()).await,
            Of::Paths(paths) => {
                self.look_at(paths, content, true).await?;
                let dirs = self.queue.clone();
                self.go_down_all().await?;
                self.compare_contents(dirs, [].into()).await
            }
            Of::Found(before) => {
                let pick = |wanted: fn(&Finding) -> bool| -> Vec<RelPath> {
                    before.iter().filter(|f| wanted(f)).map(|f| f.path.clone()).collect()
                };
                let single = |f: &Finding| !f.is_content() && !f.is_whole();
                self.look_at(&pick(Finding::is_content), content, false).await?;
                self.look_at(&pick(single), None, false).await?;
                self.look_at(&pick(Finding::is_whole), None, true).await?;
                self.go_down_all().await
            }
        }
    }

    fn is_full(&mut self) -> bool {
        self.found.truncated |= self.candidates.len() >= self.most || self.queue.len() > QUEUE_MAX;
        self.found.truncated
    }

    fn suspect(&mut self, path: RelPath, own: Option<Entry>, cause: Cause) {
        if self.candidates.len() < self.most {
            self.candidates.push(Candidate { path, own, cause });
        } else {
            self.found.truncated = true;
        }
    }

    async fn look_at_tree(&mut self) -> Result<(), CompareError> {
        let tick = tick(self.what, self.meter);
        let walk = self.view.walk(self.meter);
        let (answers, own) = self.peer.ask(&Request::Tree, 1, walk, &tick).await?;
        let (sum, walked) = own.map_err(CompareError::Source)?;
        let [Answer::Tree { sum: theirs, walked: there }] = answers[..] else { return Err(odd()) };
        (self.found.source, self.found.target) = (walked, there);
        if sum != theirs {
            self.look_at(&[[].into()], None, true).await?;
            self.go_down_all().await?;
        }
        Ok(())
    }

    async fn look(
        &mut self,
        paths: Vec<RelPath>,
        content: Option<u64>,
    ) -> Result<Vec<(RelPath, Seen, Seen)>, CompareError> {
        let tick = tick(self.what, self.meter);
        let own = self.view.look_all(&paths, content, self.meter);
        let request = Request::Look { content, paths: paths.clone() };
        let (answers, own) = self.peer.ask(&request, 1, own, &tick).await?;
        match <[Answer; 1]>::try_from(answers) {
            Ok([Answer::Seen(theirs)]) if theirs.len() == own.len() => {
                let both = paths.into_iter().zip(own).zip(theirs);
                Ok(both.map(|((path, own), theirs)| (path, own, theirs)).collect())
            }
            _ => Err(odd()),
        }
    }

    /// At these paths, and with `deep` remembers which are directories on both sides.
    async fn look_at(
        &mut self,
        paths: &[RelPath],
        content: Option<u64>,
        deep: bool,
    ) -> Result<(), CompareError> {
        for paths in paths.chunks(LOOK_MAX) {
            for (path, own, theirs) in self.look(paths.to_vec(), content).await? {
                let entry = match own {
                    Seen::Entry(entry, _) => Some(entry),
                    _ => None,
                };
                if deep && is_dir(own) && is_dir(theirs) {
                    self.queue.push(path.clone());
                }
                if own == theirs {
                    continue;
                }
                let cause = match (own, theirs) {
                    (Seen::Unreadable, _) | (_, Seen::Unreadable) => Cause::Unreadable,
                    (Seen::Entry(own, _), Seen::Entry(theirs, _)) if own == theirs => {
                        Cause::Content
                    }
                    (Seen::Entry(own, _), Seen::Entry(theirs, _)) if own.kind == theirs.kind => {
                        Cause::Entry
                    }
                    (_, Seen::Entry(..)) if entry.is_none() && !self.what.extras => continue,
                    _ => Cause::Whole,
                };
                self.suspect(path, entry, cause);
            }
        }
        Ok(())
    }

    async fn go_down_all(&mut self) -> Result<(), CompareError> {
        while !self.queue.is_empty() && !self.is_full() {
            self.go_down().await?;
        }
        Ok(())
    }

    /// Into the next directories that differ.
    async fn go_down(&mut self) -> Result<(), CompareError> {
        let mut small = Vec::new();
        let next = self.queue.split_off(self.queue.len().saturating_sub(PARTS_MAX));
        for dir in next {
            match self.view.list(whole(&dir)).await {
                Listed::Entries(own) if own.len() <= WHOLE_MAX => small.push((dir, own)),
                Listed::Entries(own) => self.go_down_large(dir, own.len() as u64).await?,
                Listed::TooMany(count) => self.go_down_large(dir, count).await?,
                // It was there a moment ago: to be looked at again.
                Listed::Gone => self.suspect_unreadable(dir).await,
            }
        }
        let parts = small.iter().map(|(dir, _)| whole(dir)).collect();
        let tick = tick(self.what, self.meter);
        let request = Request::List(parts);
        let (answers, ()) = self.peer.ask(&request, small.len(), async {}, &tick).await?;
        for ((dir, own), answer) in small.into_iter().zip(answers) {
            match answer {
                Answer::Listing(theirs) => self.merge(&dir, own, theirs),
                Answer::TooMany(count) => self.go_down_large(dir, count).await?,
                Answer::Gone => self.suspect_unreadable(dir).await,
                _ => return Err(odd()),
            }
        }
        Ok(())
    }

    async fn suspect_unreadable(&mut self, dir: RelPath) {
        let own = self.view.look_all(std::slice::from_ref(&dir), None, self.meter).await;
        if let [Seen::Entry(entry, _)] = own[..] {
            self.suspect(dir, Some(entry), Cause::Unreadable);
        }
    }

    /// First the sums of its buckets, then the entries of those that differ.
    async fn go_down_large(&mut self, dir: RelPath, count: u64) -> Result<(), CompareError> {
        let bits = bits_for(count);
        let tick = tick(self.what, self.meter);
        let part = Part { dir: dir.clone(), bits, buckets: Vec::new() };
        let own = self.view.bucket_sums(dir.clone(), bits);
        let (answers, own) = self.peer.ask(&Request::Sums(vec![part]), 1, own, &tick).await?;
        let (Some(own), [Answer::Sums(theirs)]) = (own, &answers[..]) else {
            self.suspect_unreadable(dir).await;
            return Ok(());
        };
        if own.len() != theirs.len() {
            return Err(odd());
        }
        let differs =
            (0u32..).zip(own.iter().zip(theirs)).filter(|(_, (own, theirs))| own != theirs);
        let differing: Vec<u32> = differs.map(|(bucket, _)| bucket).collect();
        let mut parts: Vec<Part> = differing
            .chunks(BUCKETS_MAX)
            .map(|buckets| Part { dir: dir.clone(), bits, buckets: buckets.to_vec() })
            .collect();
        while let Some(part) = parts.pop() {
            if self.is_full() {
                break;
            }
            let own = self.view.list(part.clone());
            let request = Request::List(vec![part.clone()]);
            let (answers, own) = self.peer.ask(&request, 1, own, &tick).await?;
            match (own, <[Answer; 1]>::try_from(answers)) {
                (Listed::Entries(own), Ok([Answer::Listing(theirs)])) => {
                    self.merge(&dir, own, theirs);
                }
                (Listed::Gone, _) | (_, Ok([Answer::Gone])) => break,
                (Listed::TooMany(_), _) | (_, Ok([Answer::TooMany(_)])) => {
                    let (left, right) = part.buckets.split_at(part.buckets.len() / 2);
                    if left.is_empty() {
                        self.found.truncated = true;
                        break;
                    }
                    let half = |buckets: &[u32]| Part { buckets: buckets.to_vec(), ..part.clone() };
                    parts.extend([half(left), half(right)]);
                }
                _ => return Err(odd()),
            }
        }
        Ok(())
    }

    fn merge(&mut self, dir: &RelPath, own: Vec<Named>, theirs: Vec<Named>) {
        let mut theirs: HashMap<Box<[u8]>, Named> =
            theirs.into_iter().map(|named| (named.name.clone(), named)).collect();
        for Named { name, entry, tree } in own {
            let path = join(dir, &name);
            let Some(there) = theirs.remove(&name) else {
                self.suspect(path, Some(entry), Cause::Whole);
                continue;
            };
            let below = entry.kind == Kind::Dir && there.entry.kind == Kind::Dir;
            // A sum that one side does not know says nothing.
            if below && (tree.is_none() || tree != there.tree) {
                self.queue.push(path.clone());
            }
            if entry != there.entry {
                let is_same_kind = entry.kind == there.entry.kind;
                let cause = if is_same_kind { Cause::Entry } else { Cause::Whole };
                self.suspect(path, Some(entry), cause);
            }
        }
        if self.what.extras {
            for name in theirs.into_keys() {
                self.suspect(join(dir, &name), None, Cause::Whole);
            }
        }
    }

    /// Looks again at all that differed; what changed on the source meanwhile is on its way.
    async fn confirm(&mut self) -> Result<(), CompareError> {
        let candidates = std::mem::take(&mut self.candidates);
        let (contents, entries): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|candidate| candidate.cause == Cause::Content);
        for (candidates, content) in [(entries, None), (contents, self.what.content)] {
            for candidates in candidates.chunks(LOOK_MAX) {
                let paths: Vec<RelPath> = candidates.iter().map(|c| c.path.clone()).collect();
                let looked = self.look(paths.clone(), content).await?;
                let last = self.view.look_all(&paths, None, self.meter).await;
                for ((candidate, (path, own, theirs)), last) in
                    candidates.iter().zip(looked).zip(last)
                {
                    // It has come meanwhile; has all that is in it?
                    if candidate.cause == Cause::Whole && is_dir(own) && is_dir(theirs) {
                        self.queue.push(path.clone());
                    }
                    let still = match last {
                        Seen::Entry(entry, _) => Some(entry),
                        _ => None,
                    };
                    if still != candidate.own {
                        continue;
                    }
                    if let Some(kind) = judge(candidate, own, theirs, self.what.extras) {
                        self.found.list.push(Finding { path, kind, is_dir: is_dir(own) });
                    }
                }
            }
        }
        Ok(())
    }
}

fn is_dir(seen: Seen) -> bool {
    matches!(seen, Seen::Entry(entry, _) if entry.kind == Kind::Dir)
}

fn judge(candidate: &Candidate, own: Seen, theirs: Seen, extras: bool) -> Option<finding::Kind> {
    match (own, theirs) {
        (Seen::Unreadable, _) | (_, Seen::Unreadable) => Some(finding::Kind::Unreadable),
        (Seen::Nothing, Seen::Nothing) => None,
        (Seen::Entry(..), Seen::Nothing) => Some(finding::Kind::Missing),
        (Seen::Nothing, Seen::Entry(..)) => extras.then_some(finding::Kind::Extra),
        (Seen::Entry(own, hash), Seen::Entry(theirs, other)) => {
            let mut differing = own.differences(&theirs);
            if hash.is_some() && other.is_some() && hash != other {
                differing = differing.and(Attr::Content);
            }
            let unreadable = candidate.cause == Cause::Unreadable
                || (candidate.cause == Cause::Content && hash.is_some() != other.is_some());
            match (differing.is_empty(), unreadable) {
                (_, true) => Some(finding::Kind::Unreadable),
                (true, false) => None,
                (false, false) => Some(finding::Kind::Differs(differing)),
            }
        }
    }
}

fn tick<'a>(what: &'a Compare<'_>, meter: &'a Meter) -> impl Fn() + Send + Sync + 'a {
    || (what.progress)(Progress { entries: meter.entries(), bytes: meter.bytes() })
}

fn whole(dir: &RelPath) -> Part {
    Part { dir: dir.clone(), bits: 0, buckets: Vec::new() }
}

/// So that each bucket has few entries.
fn bits_for(count: u64) -> u8 {
    (0..BITS_MAX).find(|bits| count >> bits <= BUCKET_ENTRIES).unwrap_or(BITS_MAX)
}
