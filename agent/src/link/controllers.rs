//! Whom to call: the controllers of the settings first, then those that a controller named, which
//! are kept on disk. It dials nobody.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use lockstep_model::HostPort;
use lockstep_transport::durable;

use crate::config::CONTROLLERS_MAX;

/// Longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024;

pub struct Controllers {
    file: PathBuf,
    set: Vec<HostPort>,
    learnt: Vec<HostPort>,
}

impl Controllers {
    /// `file` has one `host:port` per line; lines that are none are left out.
    pub fn open(file: PathBuf, set: Vec<HostPort>) -> Self {
        let mut text = String::new();
        if let Ok(file) = File::open(&file)
            && let Err(error) = file.take(FILE_BYTES_MAX).read_to_string(&mut text)
        {
            tracing::warn!(%error, "cannot read the list of learnt controllers; using those of the settings");
        }
        let learnt = text.lines().filter_map(|line| line.parse().ok()).collect();
        Self { file, set, learnt }
    }

    /// Best first, each once.
    pub fn list(&self) -> Vec<HostPort> {
        let mut list: Vec<HostPort> = Vec::new();
        for at in self.set.iter().chain(&self.learnt) {
            if list.len() < CONTROLLERS_MAX && !list.contains(at) {
                list.push(at.clone());
            }
        }
        list
    }

    /// What a controller named replaces what was learnt before; naming none changes nothing.
    /// Durable when it returns.
    pub fn learn(&mut self, named: &[String]) -> io::Result<()> {
        let mut named: Vec<HostPort> = named.iter().filter_map(|text| text.parse().ok()).collect();
        named.truncate(CONTROLLERS_MAX);
        if named.is_empty() || named == self.learnt {
            return Ok(());
        }
        let lines: String = named.iter().map(|at| format!("{at}\n")).collect();
        durable::write(&self.file, lines.as_bytes())?;
        self.learnt = named;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learnt_is_kept_behind_what_was_set() {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let set = vec!["c1:7400".parse().unwrap(), "c2:7400".parse().unwrap()];
            Controllers::open(dir.path().join("controllers"), set)
        };
        let shown = |c: &Controllers| c.list().iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut controllers = open();
        assert_eq!(shown(&controllers), ["c1:7400", "c2:7400"]);
        let named = ["c3:7400", "no address", "c1:7400"].map(str::to_owned);
        controllers.learn(&named).unwrap();
        assert_eq!(shown(&controllers), ["c1:7400", "c2:7400", "c3:7400"]);
        controllers.learn(&[]).unwrap();
        assert_eq!(shown(&open()), ["c1:7400", "c2:7400", "c3:7400"]);
        let many: Vec<String> = (0..100).map(|n| format!("m{n}:1")).collect();
        controllers.learn(&many).unwrap();
        assert_eq!(open().list().len(), CONTROLLERS_MAX);
        std::fs::write(dir.path().join("controllers"), b"\xff\xfe").unwrap();
        assert_eq!(shown(&open()), ["c1:7400", "c2:7400"]);
    }
}
