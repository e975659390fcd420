//! The arguments of each step, word by word, and what none of them may ever hold.

use super::*;
use lockstep_model::mirror::rsync::RsyncOptions;
use proptest::prelude::*;

fn hop(delete: Delete, options: &str) -> Hop {
    let parsed = |text: &str| text.parse::<RsyncOptions>().unwrap();
    Hop { defaults: parsed("-avH"), options: parsed(options), delete }
}

struct Given {
    hop: Hop,
    filters: Vec<Filter>,
    own: Vec<Pattern>,
    late: Vec<Pattern>,
    remote: Option<Remote>,
    password: bool,
    links: bool,
}

impl Given {
    fn new(hop: Hop) -> Self {
        let remote = Some("rsync://b@up.example/fedora/linux".parse().unwrap());
        let (filters, own, late) = (Vec::new(), Vec::new(), Vec::new());
        Self { hop, filters, own, late, remote, password: false, links: false }
    }

    fn words(&self, step: Step) -> Vec<String> {
        let (mirror, node) = ("fedora".parse().unwrap(), "master1".parse().unwrap());
        let source = match &self.remote {
            Some(remote) => Source::Remote {
                remote,
                secrets: Path::new("/etc/s"),
                password: self.password.then_some(Path::new("/run/p")),
            },
            None => Source::Agent {
                mirror: &mirror,
                node: &node,
                agent: Path::new("/usr/bin/lockstep-agent"),
                data_dir: Path::new("/var/lib/a"),
            },
        };
        let pull = Pull {
            source,
            hop: &self.hop,
            filters: &self.filters,
            own: &self.own,
            late: &self.late,
            rate: Some("1M".parse().unwrap()),
            io_timeout: Millis::from_secs(600),
            connect_timeout: Millis::from_secs(60),
            family: Family::Ipv4,
            into: Path::new("/data/fedora"),
            links: if self.links { &[Path::new("/data/.fedora.1")] } else { &[] },
            work: None,
            keeps: true,
        };
        argv(&pull, step).into_iter().map(|word| word.into_string().unwrap()).collect()
    }
}

#[test]
fn a_step_has_these_words() {
    let mut given = Given::new(hop(Delete::After, "--exclude=*.iso --exclude=*.src.rpm"));
    given.filters = vec!["+ /a/".parse().unwrap(), "- *.tmp x".parse().unwrap()];
    given.own = vec!["/trace/master1".parse().unwrap()];
    given.password = true;
    let mut shown = vec![given.words(Step::Content).join(" ")];
    shown.push(given.words(Step::Count).join(" "));
    given.late = vec!["Packages*".parse().unwrap()];
    given.remote = None;
    shown.push(given.words(Step::Content).join(" "));
    expect_test::expect![[r#"
        --filter=H /trace/master1 --filter=P /trace/master1 --filter=P /trace/ --filter=+ /a/ --filter=- *.tmp x -avH --exclude=*.iso --exclude=*.src.rpm --delete-after --max-delete=0 --out-format=%i %n%L --stats --no-human-readable --no-motd --info=progress2 --outbuf=L --timeout=600 --ipv4 --bwlimit=1024 --password-file=/run/p --contimeout=60 --sockopts=TCP_NODELAY -- rsync://b@up.example:873/fedora/linux/ /data/fedora/
        --filter=H /trace/master1 --filter=P /trace/master1 --filter=P /trace/ --filter=+ /a/ --filter=- *.tmp x -avH --exclude=*.iso --exclude=*.src.rpm --delete-after --out-format=%i --stats --no-human-readable --no-motd --dry-run --timeout=600 --ipv4 --bwlimit=1024 --password-file=/run/p --contimeout=60 --sockopts=TCP_NODELAY -- rsync://b@up.example:873/fedora/linux/ /data/fedora/
        --filter=H /trace/master1 --filter=P /trace/master1 --filter=P /trace/ --filter=- Packages* --filter=+ /a/ --filter=- *.tmp x -avH --exclude=*.iso --exclude=*.src.rpm --out-format=%i %n%L --stats --no-human-readable --no-motd --info=progress2 --outbuf=L --timeout=600 --ipv4 --stderr=client -e '/usr/bin/lockstep-agent' '--data-dir' '/var/lib/a' 'rsh' '--mirror' 'fedora' --bwlimit=1024 -- master1::fedora/ /data/fedora/"#]].assert_eq(&shown.join("\n"));
}

#[test]
fn removals_are_asked_for_as_each_mode_wants_and_never_unbounded() {
    let of = |delete, step| {
        let words = Given::new(hop(delete, "")).words(step);
        let about = |word: &&String| word.contains("delete") || *word == "--del";
        words.iter().filter(about).cloned().collect::<Vec<_>>().join(" ")
    };
    let most = Step::Removing { most: 7 };
    for (delete, content, count, removing) in [
        (Delete::None, "", "", ""),
        (Delete::Plain, "", "--delete", "--delete --max-delete=7"),
        (Delete::Del, "", "--del", "--del --max-delete=7"),
        (Delete::Before, "", "--delete-before", "--delete-before --max-delete=7"),
        (Delete::During, "", "--delete-during", "--delete-during --max-delete=7"),
        (Delete::Delay, "", "--delete-delay", "--delete-delay --max-delete=7"),
        (
            Delete::After,
            "--delete-after --max-delete=0",
            "--delete-after",
            "--delete-after --max-delete=7",
        ),
        (
            Delete::Excluded,
            "--delete-after --delete-excluded --max-delete=0",
            "--delete-after --delete-excluded",
            "--delete-after --delete-excluded --max-delete=7",
        ),
    ] {
        let told = [Step::Content, Step::Count, most].map(|step| of(delete, step));
        assert_eq!(told, [content, count, removing], "{delete}");
    }
    let huge = of(Delete::After, Step::Removing { most: u64::MAX });
    assert_eq!(huge, "--delete-after --max-delete=2147483647");
}

#[test]
fn a_stage_and_a_new_directory_remove_nothing() {
    for delete in Delete::ALL {
        let mut given = Given::new(hop(delete, ""));
        given.late = vec!["Packages*".parse().unwrap()];
        let words = given.words(Step::Content).join(" ");
        assert!(!words.contains("del") && words.contains("--filter=- Packages*"), "{words}");
        let mut given = Given::new(hop(delete, ""));
        given.links = true;
        let words = given.words(Step::Content).join(" ");
        assert!(!words.contains("del") && words.contains("--link-dest=/data/.fedora.1"), "{words}");
    }
}

#[test]
fn the_environment_names_a_proxy_to_daemons_only() {
    let at = "proxy:3128".parse().unwrap();
    let of = |url: &str| {
        let remote = url.parse().unwrap();
        let source = Source::Remote { remote: &remote, secrets: Path::new("/s"), password: None };
        environment(&source, Some(&at))
    };
    let asks_nobody = ("RSYNC_PASSWORD", String::new());
    let through = ("RSYNC_PROXY", "proxy:3128".to_owned());
    assert_eq!(of("rsync://h/m"), [asks_nobody.clone(), through]);
    assert_eq!(of("ssh://h/m"), [asks_nobody]);
}

#[test]
fn a_run_yields_as_it_is_asked_to() {
    assert_eq!(yielding(0, Ionice::None), Vec::<String>::new());
    assert_eq!(yielding(10, Ionice::Idle).join(" "), "nice -n 10 ionice -c3");
    assert_eq!(yielding(0, Ionice::BestEffort).join(" "), "ionice -c2 -n7");
}

proptest! {
    #[test]
    fn no_pattern_is_an_option_and_operands_come_last(
        pattern in "[ -~]{1,30}", own in "[ -~]{1,30}", dir in "[ -~]{1,30}",
    ) {
        let mut given = Given::new(hop(Delete::After, ""));
        given.filters = vec![Filter::exclude(pattern.parse().unwrap())];
        given.own = vec![own.parse().unwrap()];
        given.remote = format!("ssh://h/{dir}").parse().ok().filter(|_| !dir.contains(['?', '#']));
        let words = given.words(Step::Removing { most: 1 });
        let operands = words.iter().position(|word| word == "--").unwrap();
        prop_assert_eq!(words.len(), operands + 3);
        prop_assert_eq!(words[operands + 2].as_str(), "/data/fedora/");
        prop_assert!(!words[operands + 1].starts_with('-'));
        let known = |word: &String| word.starts_with("--filter=") || !word.contains(&*pattern)
            || given.remote.as_ref().is_some_and(|r| r.path.contains(&*pattern))
            || pattern.len() < 9;
        prop_assert!(words.iter().all(known), "{:?}", words);
    }
}
