//! The part of a comparison that reads files: all of a tree in one order, so that it can be left after
//! any of them and go on there another time. It changes nothing.

use std::collections::VecDeque;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Cause, CompareError, Comparison, Of};
use crate::journal::RelPath;
use crate::verify::content::Files;
use crate::verify::entry::Entry;
use crate::verify::wire::{LOOK_MAX, Seen};

/// Bytes of files whose contents are asked for at once.
const BATCH_BYTES: u64 = 64 << 20;
/// What a small file counts as, in bytes of content.
const FILE_BYTES_MIN: u64 = 4096;

impl<S: AsyncRead + AsyncWrite> Comparison<'_, S> {
    /// Of all files below these directories that are alike otherwise, as far as the slice goes.
    pub(super) async fn compare_contents(
        &mut self,
        dirs: Vec<RelPath>,
        mut after: RelPath,
    ) -> Result<(), CompareError> {
        let Some(rate) = self.what.content else { return Ok(()) };
        let in_slices = matches!(self.what.of, Of::Tree | Of::Contents(_));
        let mut files = Files::below(dirs, after.clone());
        let mut found: VecDeque<(RelPath, Entry)> = VecDeque::new();
        let mut read = 0u64;
        loop {
            let mut batch: Vec<RelPath> = Vec::new();
            let mut bytes = 0u64;
            while batch.len() < LOOK_MAX
                && bytes <= BATCH_BYTES
                && let Some((path, entry)) = found.pop_front()
            {
                batch.push(path);
                bytes = bytes.saturating_add(entry.size.max(FILE_BYTES_MIN));
            }
            let Some(last) = batch.last().cloned() else {
                let Some((rest, next)) = self.view.next_files(files).await else { return Ok(()) };
                (files, found) = (rest, next.into());
                continue;
            };
            let is_full =
                !self.candidates.is_empty() && self.candidates.len() + LOOK_MAX > self.most;
            if self.found.truncated && !in_slices {
                return Ok(());
            }
            if in_slices && (self.found.truncated || is_full || read >= self.what.slice_bytes) {
                self.found.next = Some(after);
                return Ok(());
            }
            self.compare_batch(batch, rate).await?;
            read = read.saturating_add(bytes);
            after = last;
        }
    }

    async fn compare_batch(&mut self, batch: Vec<RelPath>, rate: u64) -> Result<(), CompareError> {
        for (path, own, theirs) in self.look(batch, Some(rate)).await? {
            let (Seen::Entry(own, hash), Seen::Entry(theirs, other)) = (own, theirs) else {
                continue;
            };
            self.found.contents += u64::from(hash.is_some() && other.is_some());
            if own == theirs && hash != other {
                self.suspect(path, Some(own), Cause::Content);
            }
        }
        Ok(())
    }
}
