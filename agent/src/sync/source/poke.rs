//! Where dispatchers tell a source that the journal has grown. It carries nothing but that; without
//! it the source looks by itself a second later.

use std::fs;
use std::path::Path;

use tokio::net::UnixDatagram;

pub struct Poke(Option<UnixDatagram>);

impl Poke {
    /// There is none when the path is too long for a socket.
    pub fn bind(path: &Path) -> Self {
        let _ = fs::remove_file(path);
        let bound = UnixDatagram::bind(path).inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "changes are noticed a second later");
        });
        Self(bound.ok())
    }

    pub async fn received(&self) {
        let mut byte = [0];
        match &self.0 {
            Some(socket) => drop(socket.recv(&mut byte).await),
            None => std::future::pending().await,
        }
    }
}
