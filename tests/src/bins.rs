//! The binaries under test: the released ones, as a user gets them. It finds them and builds
//! nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

const CONTROLLER: &str = "lockstep-controller";
const AGENT: &str = "lockstep-agent";
const CTL: &str = "lockstepctl";

#[derive(Clone, Debug)]
pub struct Bins {
    dir: PathBuf,
}

impl Bins {
    /// In `LOCKSTEP_BIN_DIR`, else in the `release` directory beside the one that this test was
    /// built into.
    pub fn find() -> Result<Self> {
        let dir = match std::env::var_os("LOCKSTEP_BIN_DIR") {
            // Hosts start programs in directories of their own.
            Some(dir) => std::path::absolute(dir)?,
            None => release_dir(&std::env::current_exe()?)
                .context("no release build: run ./tests/run")?,
        };
        for name in [CONTROLLER, AGENT, CTL] {
            ensure!(
                dir.join(name).is_file(),
                "no {name} in {}: run ./tests/run, which builds it, or set LOCKSTEP_BIN_DIR",
                dir.display()
            );
        }
        Ok(Self { dir })
    }

    pub fn controller(&self) -> PathBuf {
        self.dir.join(CONTROLLER)
    }

    pub fn agent(&self) -> PathBuf {
        self.dir.join(AGENT)
    }

    pub fn ctl(&self) -> PathBuf {
        self.dir.join(CTL)
    }
}

/// Cargo's `release` directory: that above the test or beside one above it.
fn release_dir(exe: &Path) -> Option<PathBuf> {
    exe.ancestors().skip(1).map(|dir| dir.join("release")).find(|dir| dir.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_release_build_from_either_profile() -> Result<()> {
        let target = tempfile::tempdir()?;
        let release = target.path().join("release");
        for profile in ["debug", "release"] {
            let exe = target.path().join(profile).join("deps/hosts-1234");
            std::fs::create_dir_all(exe.join(".."))?;
            std::fs::create_dir_all(&release)?;
            assert_eq!(release_dir(&exe), Some(release.clone()), "{profile}");
        }
        Ok(())
    }
}
