//! Every text that is written is read back; what does not fit is named.

use super::super::options::Symlinks;
use super::*;

fn read(values: &[(&str, &str)]) -> Result<SyncOptions, String> {
    SyncOptions::from_values(values.iter().copied()).map_err(|e| e.to_string())
}

fn again(options: &SyncOptions) -> SyncOptions {
    let values = options.values();
    let pairs = values.iter().map(|v| (v.name.as_str(), v.text.as_str()));
    SyncOptions::from_values(pairs).unwrap()
}

#[test]
fn what_is_default_is_not_written() {
    assert_eq!(SyncOptions::default().values(), []);
    assert_eq!(again(&SyncOptions::default()), SyncOptions::default());
}

#[test]
fn every_setting_is_read_as_written() {
    let samples = [
        ("delete", "running"),
        ("filter", "- *.tmp"),
        ("filter", "+ /a b/"),
        ("delay", "0s"),
        ("initial", "skip"),
        ("marker", ".sync/now"),
        ("priority", "*.html"),
        ("ignore", ".*.sw?"),
        ("symlinks", "follow"),
        ("perms", "no"),
        ("times", "no"),
        ("owner", "no"),
        ("group", "no"),
        ("devices", "no"),
        ("hard-links", "yes"),
        ("acls", "yes"),
        ("xattrs", "yes"),
        ("compress", "yes"),
        ("checksum", "yes"),
        ("whole-file", "yes"),
        ("inplace", "yes"),
        ("partial", "yes"),
        ("chmod", "D2775,F664"),
        ("chown", "33:33"),
        ("io-timeout", "5m"),
        ("delete-limit", "50%"),
        ("delete-window", "1h"),
        ("sentinel", ".mounted"),
        ("bwlimit", "10M"),
        ("transfers", "3"),
        ("verify-every", "none"),
        ("scrub-every", "30d"),
        ("hook", "purge-cache on=filled at=source failure=retry timeout=5s repeatable=yes"),
        ("hook", "note"),
        ("fanout", "3"),
        ("max-lag", "30s"),
        ("resync-schedule", "0 3 * * sun"),
        ("verify-schedule", "hour=4"),
        ("scrub-schedule", "day=last sat hour=2"),
        ("schedule-timezone", "Europe/Berlin"),
        ("schedule-missed", "skip"),
        ("schedule-grace", "10m"),
        ("schedule-overlap", "skip"),
        ("schedule-splay", "2h"),
    ];
    let options = read(&samples).unwrap();
    assert_eq!(options.transfer.symlinks, Symlinks::Follow);
    let limit = DeleteLimit { count: None, percent: Some(50), window: Millis(3_600_000) };
    assert_eq!(options.delete_limit, Some(limit));
    assert_eq!(again(&options), options);
    let written: Vec<_> = options.values().into_iter().map(|v| (v.name, v.text)).collect();
    assert_eq!(written, samples.map(|(n, t)| (n.to_owned(), t.to_owned())));
    let named: std::collections::BTreeSet<_> = samples.iter().map(|(name, _)| *name).collect();
    let unnamed: Vec<_> =
        SETTINGS.iter().map(|row| row.name).filter(|name| !named.contains(name)).collect();
    assert_eq!(
        unnamed,
        ["engine", "once", "sparse", "remove-source-files"],
        "each has a sample here or below"
    );
    for name in ["once", "sparse"] {
        let options = read(&[(name, "yes")]).unwrap();
        assert_eq!(again(&options), options);
    }
    let options = read(&[("engine", "classic")]).unwrap();
    assert_eq!((again(&options), options.engine), (options, Engine::Classic));
    let options = read(&[("remove-source-files", "yes"), ("delete", "never")]).unwrap();
    assert_eq!(again(&options), options);
}

#[test]
fn a_change_replaces_what_it_names_and_leaves_the_rest() {
    let mut options = read(&[("filter", "- a"), ("filter", "- b"), ("bwlimit", "1M")]).unwrap();
    options.set([("filter", "- c")]).unwrap();
    assert_eq!(crate::setting::text::texts(&options.filters), ["- c"]);
    options.set([("filter", ""), ("bwlimit", "none")]).unwrap();
    assert_eq!(options, SyncOptions::default());
    options.set([("delete-window", "1h")]).unwrap();
    options.set([("delete-limit", "7")]).unwrap();
    let limit = DeleteLimit { count: Some(7), percent: None, window: Millis(3_600_000) };
    assert_eq!(options.delete_limit, Some(limit));
}

#[test]
fn what_does_not_fit_is_named() {
    for (values, says) in [
        (&[("colour", "red")][..], "setting: \"colour\" is unknown; there are delete, filter,"),
        (&[("delete", "often")], "delete: must be one of always, never, startup, running"),
        (&[("delay", "1500ms")], "delay: must be whole seconds"),
        (&[("delay", "11m")], "delay: must be 0s to 10m"),
        (&[("delay", "1s"), ("delay", "2s")], "delay: is given twice"),
        (&[("marker", "../up")], "marker: must be relative to"),
        (&[("marker", "/up")], "marker: must be relative to"),
        (&[("filter", "*.tmp")], "filter: must begin with"),
        (&[("filter", "merge /etc/passwd")], "filter: must begin with"),
        (&[("filter", "- a\nb")], "filter: must have 1 to 1024 bytes and no control"),
        (&[("chmod", "$(x)")], "chmod: must be rsync's"),
        (&[("chmod", "--rsh=x")], "chmod: must be rsync's"),
        (&[("chown", "-e:x")], "chown: must be UID"),
        (&[("chown", ":")], "chown: must be UID"),
        (&[("delete-limit", "101%")], "delete-limit: must look like"),
        (&[("delete-limit", "1,2")], "delete-limit: must look like"),
        (&[("bwlimit", "fast")], "bwlimit: must be bytes per second"),
        (&[("transfers", "0")], "transfers: must be a number from 1 to 100"),
        (&[("max-lag", "2s")], "max-lag: must be 3s to 7d"),
        (&[("fanout", "1")], "fanout: must be a number from 2 to 100"),
        (&[("verify-every", "1s")], "verify-every: must be 10s to 366d"),
        (&[("hook", "../x")], "hook: must be 1 to 63"),
        (&[("hook", "x;rm")], "hook: must be 1 to 63"),
        (&[("hook", "x cmd=y")], "hook: knows on="),
        (&[("hook", "x timeout=0s")], "hook: must be 1s to 1h"),
        (&[("acls", "maybe")], "acls: must be yes or no"),
        (&[("remove-source-files", "yes")], "remove-source-files: needs delete=never"),
        (&[("once", "yes"), ("marker", "m")], "once: and marker exclude each other"),
        (&[("engine", "d3")], "engine: must be one of journal, classic"),
        (&[("engine", "classic"), ("once", "yes")], "engine: classic and once exclude"),
        (&[("engine", "classic"), ("marker", "m")], "engine: classic and marker exclude"),
        (&[("engine", "classic"), ("fanout", "3")], "engine: classic and fanout exclude"),
        (
            &[("engine", "classic"), ("remove-source-files", "yes"), ("delete", "never")],
            "engine: classic and remove-source-files exclude",
        ),
    ] {
        let problem = read(values).unwrap_err();
        assert!(problem.starts_with(says), "{values:?}: {problem}");
    }
}
