//! Mirrors as modules of the node's own rsync daemon: a file per mirror in the directory that its
//! configuration includes. No file is changed or removed that does not begin as ours do.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lockstep_model::MirrorName;
use lockstep_model::mirror::RsyncdModule;
use lockstep_model::path::DirPath;
use lockstep_model::task::MirrorPlace;
use lockstep_transport::durable;

use super::publish::WORK;

const HEAD: &str = "# Written by lockstep-agent for mirror ";

/// The files of all mirrors of a node; None: the node lends nothing.
pub struct Modules(Option<PathBuf>);

impl Modules {
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self(dir)
    }

    /// Makes the file of a mirror what its assignment says; without one, or without a module in it,
    /// there is none. The error says what to do.
    pub fn set(&self, mirror: &MirrorName, place: Option<&MirrorPlace>) -> Result<(), String> {
        let wanted = place.and_then(|place| {
            let module = place.options.module.as_ref().filter(|module| module.is_at(place.hop));
            Some((module?, &place.tree))
        });
        let Some(dir) = &self.0 else {
            return match wanted {
                None => Ok(()),
                Some((module, _)) => Err(format!(
                    "module {} is not lent from here: the agent's setting rsyncd-dir names no \
                     directory",
                    module.name
                )),
            };
        };
        let path = dir.join(format!("lockstep-{mirror}.conf"));
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        let there = match fs::read_to_string(&path) {
            Ok(text) if text.starts_with(HEAD) => Some(text),
            Ok(_) if wanted.is_none() => return Ok(()),
            Ok(_) => {
                let shown = path.display();
                return Err(format!("{shown} was not written by Lockstep: move it away"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let text = wanted.map(|(module, tree)| render(mirror, module, tree)).transpose()?;
        match text {
            text if text == there => Ok(()),
            Some(text) => durable::write(&path, text.as_bytes()).map_err(failed),
            None => fs::remove_file(&path).map_err(failed),
        }
    }

    /// Removes the files of mirrors that are not here any more.
    pub fn sweep(&self, known: &BTreeSet<MirrorName>) -> Result<(), String> {
        let Some(dir) = &self.0 else { return Ok(()) };
        let failed = |error: io::Error| format!("{}: {error}", dir.display());
        for entry in fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if let Some(mirror) = mirror_of(&path).filter(|mirror| !known.contains(mirror)) {
                self.set(&mirror, None)?;
            }
        }
        Ok(())
    }
}

fn mirror_of(path: &Path) -> Option<MirrorName> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix("lockstep-")?.strip_suffix(".conf")?.parse().ok()
}

/// What readers get is confined to the tree, which they cannot change.
fn render(mirror: &MirrorName, module: &RsyncdModule, tree: &DirPath) -> Result<String, String> {
    let RsyncdModule { name, at: _, allow, connections, list } = module;
    // rsync replaces `%NAME%` by its environment.
    if tree.as_str().contains('%') {
        return Err(format!("the tree {tree}: rsync cannot take a '%' in it"));
    }
    let mut text = format!(
        "{HEAD}{mirror}; it is removed with the mirror or its rsyncd-module.
[{name}]
path = {tree}/.
comment = mirror {mirror}
read only = yes
use chroot = yes
munge symlinks = no
exclude = /{WORK}/
list = {}
",
        if *list { "yes" } else { "no" }
    );
    if !allow.is_empty() {
        let hosts: Vec<String> = allow.iter().map(ToString::to_string).collect();
        text += &format!("hosts allow = {}\n", hosts.join(" "));
    }
    if let Some(most) = connections {
        text += &format!("max connections = {most}\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_model::mirror::{HopKind, MirrorOptions};
    use lockstep_model::setting::Settings;

    fn place(module: &str, tree: &str) -> MirrorPlace {
        MirrorPlace {
            mirror: "fedora".parse().unwrap(),
            tree: tree.parse().unwrap(),
            moved_from: None,
            hop: HopKind::Replica,
            readers: vec![],
            serve: false,
            options: MirrorOptions::from_values([("rsyncd-module", module)]).unwrap(),
        }
    }

    #[test]
    fn a_module_comes_and_goes_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let modules = Modules::new(Some(dir.path().to_owned()));
        let mirror: MirrorName = "fedora".parse().unwrap();
        let file = dir.path().join("lockstep-fedora.conf");
        let set = |module: &str, tree: &str| modules.set(&mirror, Some(&place(module, tree)));
        set("pub allow=10.0.0.0/8,*.example.org connections=7 list=no", "/srv/my tree").unwrap();
        expect_test::expect![[r#"
            # Written by lockstep-agent for mirror fedora; it is removed with the mirror or its rsyncd-module.
            [pub]
            path = /srv/my tree/.
            comment = mirror fedora
            read only = yes
            use chroot = yes
            munge symlinks = no
            exclude = /.lockstep/
            list = no
            hosts allow = 10.0.0.0/8 *.example.org
            max connections = 7
        "#]]
        .assert_eq(&fs::read_to_string(&file).unwrap());
        set("pub at=master", "/srv/x").unwrap();
        assert!(!file.exists(), "this node is a replica");
        set("pub", "/srv/x").unwrap();
        modules.sweep(&BTreeSet::from([mirror.clone()])).unwrap();
        assert!(file.exists());
        assert!(set("pub", "/srv/%HOME%").unwrap_err().contains('%'));
        modules.sweep(&BTreeSet::new()).unwrap();
        assert!(!file.exists());

        fs::write(&file, "[pub]\npath = /srv/own\n").unwrap();
        assert!(set("pub", "/srv/x").unwrap_err().contains("move it away"));
        modules.set(&mirror, None).unwrap();
        modules.sweep(&BTreeSet::new()).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "[pub]\npath = /srv/own\n");
        let none = Modules::new(None);
        assert!(none.set(&mirror, Some(&place("pub", "/x"))).unwrap_err().contains("rsyncd-dir"));
        none.set(&mirror, None).unwrap();
    }
}
