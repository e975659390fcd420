//! `store export|import|check` at the command line: files in, files out, what is wrong on stderr.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Write, stdin, stdout};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ArgMatches;
use lockstep_controller::offline::{self, Checked, Exported};
use lockstep_controller::store::audit::Damage;
use lockstep_transport::clock;

use crate::cli::absolute;

/// Most damages that are told; there may be one for every record.
const DAMAGES_MAX: usize = 100;

pub fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    match matches.subcommand() {
        Some(("export", matches)) => export(matches),
        Some(("import", matches)) => import(matches),
        Some(("check", matches)) => check(matches),
        Some(_) | None => Ok(()), // clap asks for one
    }
}

fn export(matches: &ArgMatches) -> anyhow::Result<()> {
    let (dir, log) = (absolute(matches)?, matches.get_flag("log"));
    let exported = match file(matches) {
        None => offline::export(&dir, stdout().lock(), log, clock::now())?,
        Some(path) => {
            let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            let mut out = BufWriter::new(open.with_context(|| path.display().to_string())?);
            let exported = offline::export(&dir, &mut out, log, clock::now())?;
            out.flush()?;
            out.get_ref().sync_all()?;
            exported
        }
    };
    let Exported { records, entries, damage } = exported;
    eprintln!("exported {records} records and {entries} entries of the log");
    tell(&dir, &damage)
}

fn import(matches: &ArgMatches) -> anyhow::Result<()> {
    let (dir, incomplete) = (absolute(matches)?, matches.get_flag("allow-incomplete"));
    let import = match file(matches) {
        None => offline::import(&dir, stdin().lock(), incomplete)?,
        Some(path) => {
            let file = File::open(&path).with_context(|| path.display().to_string())?;
            offline::import(&dir, BufReader::new(file), incomplete)?
        }
    };
    let (records, entries) = (import.records.len(), import.log.len());
    eprintln!(
        "imported {records} records and {entries} entries of the log, at revision {}",
        import.header.revision
    );
    eprintln!("the fleet goes on when {} also holds its ca directory", dir.display());
    Ok(())
}

fn check(matches: &ArgMatches) -> anyhow::Result<()> {
    let dir = absolute(matches)?;
    let Checked { schema, revision, records, entries, damage } = offline::check(&dir)?;
    eprintln!(
        "schema {schema}, revision {revision}, {records} records, {entries} entries of the log"
    );
    tell(&dir, &damage)
}

fn tell(dir: &Path, damage: &[Damage]) -> anyhow::Result<()> {
    for Damage { key, problem } in damage.iter().take(DAMAGES_MAX) {
        eprintln!("damaged: {key}: {problem}");
    }
    match damage.len() {
        0 => Ok(()),
        n => bail!(
            "{} is damaged in {n} places: restore a copy, or export what can be read and import it with --allow-incomplete",
            dir.display()
        ),
    }
}

/// None for `-`: stdin or stdout.
fn file(matches: &ArgMatches) -> Option<PathBuf> {
    matches.get_one::<PathBuf>("file").filter(|path| path.as_os_str() != "-").cloned()
}
