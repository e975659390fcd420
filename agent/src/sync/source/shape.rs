//! What every copy has to look like, as it is kept on disk: patterns and attributes. Only finds what
//! has changed of it and writes that; what follows from it is the source's.

use std::fs;
use std::path::PathBuf;

use lockstep_model::sync::SyncOptions;
use lockstep_transport::durable;

use crate::rsync::exclude;
use crate::rsync::options::shape;
use crate::sync::context::Context;

/// A file that has to be written.
pub struct Part {
    file: PathBuf,
    text: String,
    /// Something else is there: copies look like that.
    pub differs: bool,
}

/// What is not on disk as these options say.
pub fn changed(context: &Context, options: &SyncOptions) -> Vec<Part> {
    let files = [
        (context.excludes_file.clone(), exclude::file(&options.filters)),
        (context.dir.join("shape"), shape(options)),
    ];
    let part = |(file, text): (PathBuf, String)| {
        let before = fs::read_to_string(&file).ok();
        let differs = before.is_some();
        (before.as_deref() != Some(&text)).then_some(Part { file, text, differs })
    };
    files.into_iter().filter_map(part).collect()
}

impl Part {
    pub async fn write(self) -> Result<(), String> {
        let Self { file, text, .. } = self;
        let name = file.display().to_string();
        let write = move || durable::write(&file, text.as_bytes());
        let written = tokio::task::spawn_blocking(write).await.map_err(|e| e.to_string())?;
        written.map_err(|error| format!("cannot write {name}: {error}"))
    }
}
