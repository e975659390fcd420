//! Contexts: the controllers that this machine knows, each with the key made for it here. One
//! directory per context holds the identity's files and `controllers`, one address a line.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use lockstep_model::{FleetName, HostPort};
use lockstep_transport::durable;
use lockstep_transport::identity::disk;
use lockstep_transport::identity::{Identity, IdentityHandle};
use lockstep_transport::token::JoinToken;

use crate::error::Failure;

/// All contexts of one person on one machine.
pub struct Contexts {
    dir: PathBuf,
}

/// One controller, and as whom to call it.
pub struct Context {
    pub name: String,
    pub controllers: Vec<HostPort>,
    pub identity: IdentityHandle,
    dir: PathBuf,
}

impl Contexts {
    pub fn open(dir: Option<&Path>) -> Result<Self, Failure> {
        if let Some(dir) = dir {
            return Ok(Self { dir: dir.to_owned() });
        }
        let from = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let base = from("XDG_CONFIG_HOME").or_else(|| from("HOME").map(|h| h.join(".config")));
        let base = base.ok_or_else(|| {
            Failure::usage("neither HOME nor XDG_CONFIG_HOME is set; give --config-dir")
        })?;
        Ok(Self { dir: base.join("lockstep") })
    }

    /// Where the context of this name lives; the name is checked as a file name.
    pub fn place(&self, name: &str) -> Result<PathBuf, Failure> {
        let name: FleetName = name.parse().map_err(|e: lockstep_model::Invalid| {
            Failure::usage(format!("context: {}", e.problem))
        })?;
        Ok(self.dir.join("contexts").join(name.as_str()))
    }

    pub fn list(&self) -> Result<Vec<String>, Failure> {
        let entries = match fs::read_dir(self.dir.join("contexts")) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(self.broken(&e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| self.broken(&e))?;
            if disk::exists(&entry.path()) {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort();
        Ok(names)
    }

    pub fn current(&self) -> Option<String> {
        let text = fs::read_to_string(self.dir.join("current")).ok()?;
        Some(text.trim().to_owned()).filter(|name| !name.is_empty())
    }

    pub fn set_current(&self, name: &str) -> Result<(), Failure> {
        let path = self.dir.join("current");
        durable::write(&path, format!("{name}\n").as_bytes()).map_err(|e| self.broken(&e))
    }

    /// Saves what a login brought.
    pub fn save(
        &self,
        name: &str,
        identity: &Identity,
        controllers: &[HostPort],
    ) -> Result<(), Failure> {
        let dir = self.place(name)?;
        disk::save(&dir, identity).map_err(|e| Failure::failed(e.to_string()))?;
        let lines: String = controllers.iter().map(|c| format!("{c}\n")).collect();
        let path = dir.join("controllers");
        durable::write(&path, lines.as_bytes()).map_err(|e| self.broken(&e))
    }

    pub fn remove(&self, name: &str) -> Result<(), Failure> {
        let dir = self.place(name)?;
        if !disk::exists(&dir) {
            return Err(self.unknown(name));
        }
        fs::remove_dir_all(&dir).map_err(|e| self.broken(&e))?;
        if self.current().as_deref() == Some(name) {
            fs::remove_file(self.dir.join("current")).map_err(|e| self.broken(&e))?;
        }
        Ok(())
    }

    /// The named context, else the current one, else the only one.
    pub fn load(&self, name: Option<&str>) -> Result<Context, Failure> {
        let name = match name.map(str::to_owned).or_else(|| self.current()) {
            Some(name) => name,
            None => match self.list()?.as_slice() {
                [] => {
                    return Err(Failure::denied(
                        "not logged in: run lockstepctl login --controller HOST --token …",
                    ));
                }
                [only] => only.clone(),
                many => {
                    let names = many.join(", ");
                    return Err(Failure::usage(format!(
                        "which controller? Choose with --context or lockstepctl context use: {names}"
                    )));
                }
            },
        };
        let dir = self.place(&name)?;
        if !disk::exists(&dir) {
            return Err(self.unknown(&name));
        }
        let identity = disk::load(&dir).map_err(|e| Failure::usage(e.to_string()))?;
        let path = dir.join("controllers");
        let text = fs::read_to_string(&path)
            .map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
        let controllers = text
            .lines()
            .map(str::parse)
            .collect::<Result<Vec<HostPort>, _>>()
            .map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
        Ok(Context { name, controllers, identity: IdentityHandle::new(identity), dir })
    }

    /// Where a key waits for the answer to this token.
    pub fn waiting(&self, token: &JoinToken) -> Result<PathBuf, Failure> {
        let dir = self.dir.join("joining").join(token.id().as_str());
        fs::create_dir_all(&dir).map_err(|e| self.broken(&e))?;
        Ok(dir)
    }

    pub fn forget_waiting(&self, dir: &Path) -> Result<(), Failure> {
        fs::remove_dir_all(dir).map_err(|e| self.broken(&e))
    }

    fn unknown(&self, name: &str) -> Failure {
        Failure::usage(format!("there is no context {name}; see lockstepctl context list"))
    }

    fn broken(&self, error: &std::io::Error) -> Failure {
        Failure::usage(format!("{}: {error}", self.dir.display()))
    }
}

impl Context {
    /// Keeps a renewed certificate.
    pub fn renewed(&self, identity: Identity) -> Result<(), Failure> {
        disk::save(&self.dir, &identity).map_err(|e| Failure::failed(e.to_string()))?;
        self.identity.replace(identity);
        Ok(())
    }
}
