//! The patterns against rsync itself: what a pass leaves out is what the matcher covers.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use proptest::prelude::*;

use super::*;

const FILES: [&str; 14] = [
    "a",
    "b.tmp",
    "cache/x",
    "cache/deep/y",
    "d/a",
    "d/b.tmp",
    "d/cache/z",
    "d/e/f/g",
    "d/e/a",
    "x[1]",
    "d/x*",
    "e/d/a",
    "e/cache2/q",
    "back\\slash",
];

/// Names that rsync leaves out of a recursive listing of `FILES`.
#[allow(clippy::disallowed_methods)] // the test asks rsync itself
fn left_out_by_rsync(filters: &[Filter]) -> BTreeSet<String> {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    for name in FILES {
        let path = from.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    let rules = dir.path().join("rules");
    fs::write(&rules, file(filters)).unwrap();
    let status = Command::new("rsync")
        .arg("-r")
        .arg(format!("--exclude-from={}", rules.display()))
        .arg(format!("{}/", from.display()))
        .arg(&to)
        .status()
        .unwrap();
    assert!(status.success());
    FILES.iter().filter(|name| !to.join(name).exists()).map(|name| (*name).to_owned()).collect()
}

fn left_out_by_us(filters: &[Filter]) -> BTreeSet<String> {
    let excludes = Excludes::new(filters);
    let covered = |name: &&&str| excludes.cover(name.as_bytes(), false);
    FILES.iter().filter(covered).map(|name| (*name).to_owned()).collect()
}

#[test]
fn patterns_mean_what_they_mean_to_rsync() {
    let cases = [
        "a",
        "*.tmp",
        "cache",
        "cache/",
        "/cache",
        "/a",
        "d/a",
        "/d/*",
        "/d/**",
        "d/**/a",
        "**/a",
        "e/*/a",
        "**",
        "*",
        "?",
        "x[[]1]",
        "x\\[1\\]",
        "x[[1]1]",
        "[a-c]*",
        "[!a]",
        "[^a]",
        "cache*",
        "cache/***",
        "/d/e/***",
        "*/a",
        "**e**",
        "[[:alpha:]]",
        "d/[a-",
        "[",
        "back\\slash",
        "back\\\\slash",
        "x\\*",
        "d/x\\*",
        "/",
        "//a",
        "a/",
        "e/d/",
        "- a",
        "+ a",
        "!",
        ". a",
        "#a",
        "**/",
        "***",
        "d***",
        "*e",
        "c**y",
        "/*/a",
        "/**a",
    ];
    for case in cases {
        let pattern = [Filter::exclude(case.parse().unwrap())];
        assert_eq!(left_out_by_us(&pattern), left_out_by_rsync(&pattern), "pattern {case:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn random_patterns_mean_what_they_mean_to_rsync(
        text in proptest::collection::vec(
            prop::sample::select(vec!["a", "d", "e", "cache", ".tmp", "*", "**", "/", "?", "[a-d]", "x", "b"]),
            1..6,
        )
    ) {
        let pattern = [Filter::exclude(text.concat().parse().unwrap())];
        prop_assert_eq!(left_out_by_us(&pattern), left_out_by_rsync(&pattern), "{:?}", pattern);
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = |lines: &[&str]| lines.iter().map(|l| l.parse().unwrap()).collect::<Vec<Filter>>();
    for case in [
        &["+ /d/", "- /*"][..],
        &["+ *.tmp", "- b*", "- a"],
        &["- a", "+ d/a"],
        &["+ /d/***", "- /*"],
        &["+ d/", "+ d/e/***", "- *"],
        &["+ cache/***", "- **/x", "- y"],
        &["- d", "+ /d/a"],
        &["+ */", "+ a", "- *"],
        &["+ /***", "- a"],
        &["+ /*", "- e/***"],
    ] {
        let filters = rules(case);
        assert_eq!(left_out_by_us(&filters), left_out_by_rsync(&filters), "rules {case:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn random_rules_mean_what_they_mean_to_rsync(
        rules in proptest::collection::vec((any::<bool>(), prop::sample::select(vec![
            "a", "d/", "/d", "e/***", "cache/***", "*.tmp", "*", "**/a", "d/**", "/*", "x?1]", "b.tmp", "*/",
        ])), 1..5)
    ) {
        let filters: Vec<Filter> = rules
            .into_iter()
            .map(|(include, text)| Filter { include, pattern: text.parse().unwrap() })
            .collect();
        prop_assert_eq!(left_out_by_us(&filters), left_out_by_rsync(&filters), "{:?}", filters);
    }
}

proptest! {
    #[test]
    fn no_pattern_and_no_name_panics(pattern in "[ -~]{1,20}", name: Vec<u8>) {
        let excludes = Excludes::new(&[Filter::exclude(pattern.parse().unwrap())]);
        excludes.cover(&name, true);
    }
}
