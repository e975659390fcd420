//! `lockstepctl context …`: local, no controller is asked.

use serde::Serialize;

use crate::args::{ContextCommand, Global};
use crate::context::Contexts;
use crate::error::Failure;
use crate::{render, wait};

#[derive(Serialize)]
struct Row {
    name: String,
    current: bool,
    controllers: Vec<String>,
    identity: String,
}

pub fn run(global: &Global, command: ContextCommand) -> Result<(), Failure> {
    let contexts = Contexts::open(global.config_dir.as_deref())?;
    match command {
        ContextCommand::List => list(global, &contexts),
        ContextCommand::Use { name } => {
            contexts.load(Some(&name))?;
            contexts.set_current(&name)
        }
        ContextCommand::Remove { name, yes } => {
            wait::confirm(yes, &format!("The key of context {name} will be gone."))?;
            contexts.remove(&name)
        }
    }
}

fn list(global: &Global, contexts: &Contexts) -> Result<(), Failure> {
    let current = contexts.current();
    let mut rows = Vec::new();
    for name in contexts.list()? {
        let context = contexts.load(Some(&name))?;
        rows.push(Row {
            current: current.as_deref() == Some(&name),
            controllers: context.controllers.iter().map(ToString::to_string).collect(),
            identity: context.identity.current().spiffe.to_string(),
            name,
        });
    }
    render::show(global.output, &rows, || {
        render::table(
            &["name", "current", "controllers", "identity"],
            rows.iter().map(|row| {
                let current = if row.current { "*" } else { "" };
                [
                    row.name.clone(),
                    current.to_owned(),
                    row.controllers.join(","),
                    row.identity.clone(),
                ]
            }),
        )
    })
}
