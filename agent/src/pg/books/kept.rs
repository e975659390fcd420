//! A member's books in memory and on disk: everybody reads what is durable, one at a time changes it.

use std::sync::Arc;

use tokio::sync::{Mutex, watch};

use super::{Books, BooksError, BooksFile};

/// Clones are the same books.
#[derive(Clone)]
pub struct Kept(Arc<Inner>);

struct Inner {
    file: BooksFile,
    /// Held while the disk is written.
    writing: Arc<Mutex<()>>,
    books: watch::Sender<Books>,
}

impl Kept {
    pub fn new(file: BooksFile, books: Books) -> Self {
        let writing = Arc::default();
        Self(Arc::new(Inner { file, writing, books: watch::Sender::new(books) }))
    }

    /// As they are on disk.
    pub fn read(&self) -> Books {
        self.0.books.borrow().clone()
    }

    /// As they are on disk once every change that was begun has come to its end: whoever gave one up
    /// must not decide by what was before it.
    pub async fn settled(&self) -> Books {
        let _writing = self.0.writing.lock().await;
        self.read()
    }

    /// Durable when it returns; nothing has changed when it fails. Once begun it goes on to its end,
    /// also when it is dropped.
    pub async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Books) -> T + Send + 'static,
    ) -> Result<T, BooksError> {
        let this = self.clone();
        let writing = self.0.writing.clone().lock_owned().await;
        let changed = tokio::spawn(async move {
            let _writing = writing;
            let before = this.read();
            let mut books = before.clone();
            let value = change(&mut books);
            if books == before {
                return Ok(value);
            }
            let (file, written) = (this.0.file.clone(), books.clone());
            let saved = tokio::task::spawn_blocking(move || file.save(&written)).await;
            saved.unwrap_or(Err(BooksError::Ended))?;
            this.0.books.send_replace(books);
            Ok(value)
        });
        changed.await.unwrap_or(Err(BooksError::Ended))
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[tokio::test]
    async fn a_change_that_was_given_up_is_known_before_anybody_decides() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::new(BooksFile::new(dir.path()), Books::default());
        {
            let mut change = pin!(kept.change(|books| books.fenced = true));
            assert!(change.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        assert!(!kept.read().fenced, "it is not on disk yet");
        assert!(kept.settled().await.fenced);
    }
}
