//! Wall clocks of hosts: each host's daemons read the machine's, moved by what a file says (libfaketime).
//! Clocks that nobody sets, by which waits and leases are counted, stay as they are.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::host::Host;

/// Where Debian has it, below the directory of an architecture's libraries.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
/// Below the host's directory.
const FILE: &str = "clock";

/// Has a daemon of the host read a clock that [`set`] moves; what it starts reads the machine's.
pub fn give(daemon: &mut Command, host: &Host) -> Result<()> {
    let library = Path::new(LIBRARY).metadata().map(|_| LIBRARY);
    let library = library.with_context(|| format!("no {LIBRARY}: install libfaketime"))?;
    if !host.path(FILE).exists() {
        set(host, 0)?;
    }
    daemon.env("LD_PRELOAD", library);
    daemon.env("FAKETIME_TIMESTAMP_FILE", host.path(FILE));
    daemon.env("FAKETIME_CACHE_DURATION", "1");
    daemon.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    daemon.env("DONT_FAKE_MONOTONIC", "1");
    Ok(())
}

/// Moves the clock of a host to so many seconds from the machine's; seen within a second.
pub fn set(host: &Host, offset_s: i64) -> Result<()> {
    // Read while it is written, an empty file would be the year 1970.
    let (new, file) = (host.path("clock.new"), host.path(FILE));
    fs::write(&new, format!("{offset_s:+}\n"))?;
    Ok(fs::rename(new, file)?)
}
