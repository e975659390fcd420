//! The law of the house, as ARCHITECTURE.md states it: who may know whom, and what every file
//! promises. It reads `cargo metadata` and the sources, and runs nothing.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest source file. 400 is where the house starts to ask what a file is hiding.
const LINES_MAX: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Our crates' dependencies, those for tests only left out.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let needs = package["dependencies"].as_array().unwrap().iter();
            let needs = needs.filter(|d| d["kind"] != "dev").map(|d| text(&d["name"])).collect();
            (text(&package["name"]), needs)
        })
        .collect()
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut dirs = vec![root()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    dirs.push(path);
                }
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    assert!(found.len() > 50, "the sources are not where this test looks for them");
    found
}

#[test]
fn who_may_know_whom() {
    let law: &[(&str, &[&str])] = &[
        ("lockstep-model", &[]),
        ("lockstep-proto", &["lockstep-model"]),
        ("lockstep-transport", &["lockstep-model"]),
        ("lockstep-plan", &["lockstep-model"]),
        (
            "lockstep-controller",
            &["lockstep-model", "lockstep-plan", "lockstep-proto", "lockstep-transport"],
        ),
        ("lockstep-agent", &["lockstep-model", "lockstep-proto", "lockstep-transport"]),
        ("lockstepctl", &["lockstep-model", "lockstep-proto", "lockstep-transport"]),
    ];
    let found = dependencies();
    for (name, may) in law {
        let ours = found[*name].iter().filter(|d| d.starts_with("lockstep"));
        let beyond: Vec<_> = ours.filter(|d| !may.contains(&d.as_str())).collect();
        assert!(beyond.is_empty(), "{name} must not know {beyond:?}");
    }
    let known: BTreeSet<&str> = law.iter().map(|(name, _)| *name).collect();
    let others: Vec<_> =
        found.keys().filter(|n| !known.contains(n.as_str()) && *n != "lockstep-tests").collect();
    assert!(others.is_empty(), "a crate without a law: {others:?}");
}

#[test]
fn the_pure_crates_do_no_io() {
    let found = dependencies();
    let law =
        [("lockstep-model", &["thiserror"][..]), ("lockstep-plan", &["lockstep-model", "jiff"])];
    for (name, may) in law {
        let beyond: Vec<_> = found[name].iter().filter(|d| !may.contains(&d.as_str())).collect();
        assert!(beyond.is_empty(), "{name} is pure and must not need {beyond:?}");
    }
    // The last four are jiff's ways to the machine's clock and zones.
    let forbidden = [
        "std::fs",
        "std::process",
        "std::thread",
        "std::env",
        "SystemTime",
        "::now()",
        "TimeZone::get",
        "TimeZone::system",
        "from_env",
    ];
    for (path, text) in sources() {
        if path.starts_with("proto/model/src") || path.starts_with("controller/plan/src") {
            for word in forbidden {
                assert!(!text.contains(word), "{} is pure and names {word}", path.display());
            }
        }
    }
}

/// Words that only some places may say.
#[test]
fn what_only_some_rooms_may_name() {
    let law: &[(&str, &[&str])] = &[
        ("sled::", &["controller/src/store"]),
        ("Status::new(", &["proto/src/status.rs"]),
        (
            "Command::new(",
            &["agent/src/host", "agent/src/pg/guard", "controller/src/store/crash.rs", "tests/"],
        ),
    ];
    for (path, text) in sources() {
        for (word, rooms) in law {
            let may = rooms.iter().any(|room| path.to_string_lossy().starts_with(room))
                || path.ends_with("house.rs");
            // Tests beside the code may drive what they like.
            let text = text.split("#[cfg(test)]").next().unwrap_or_default();
            let in_tests =
                path.components().any(|c| c.as_os_str().to_string_lossy().contains("test"));
            assert!(may || in_tests || !text.contains(word), "{} names {word}", path.display());
        }
    }
}

#[test]
fn every_file_says_what_it_does_and_is_short() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if !text.starts_with("//!") {
            wrong.push(format!("{} does not start with //!", path.display()));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{} has {lines} lines, at most {LINES_MAX}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A file that no module names is not compiled, and a test in it never runs.
#[test]
fn every_file_is_part_of_its_crate() {
    let texts: BTreeMap<PathBuf, String> = sources().into_iter().collect();
    for path in texts.keys() {
        let (dir, name) = (path.parent().unwrap(), path.file_stem().unwrap().to_str().unwrap());
        let parents =
            [dir.join("mod.rs"), dir.join("lib.rs"), dir.join("main.rs"), dir.with_extension("rs")];
        let parents: Vec<&String> = parents.iter().filter_map(|parent| texts.get(parent)).collect();
        let is_root = ["lib", "main", "mod"].contains(&name) || parents.is_empty();
        let ours = format!(" mod {name};");
        let declared =
            |text: &&String| text.lines().any(|line| format!(" {line}").ends_with(&ours));
        assert!(is_root || parents.iter().any(declared), "no module names {}", path.display());
    }
}

#[test]
fn nothing_is_left_for_later() {
    let marks =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX"), concat!("HA", "CK")];
    for (path, text) in sources() {
        for mark in marks {
            let found = text.split(|c: char| !c.is_ascii_alphanumeric()).any(|w| w == mark);
            assert!(!found, "{} holds {mark}", path.display());
        }
    }
}
