//! The operator's pages say what is so: their commands run, their tables are those of the sources,
//! every word that a refusal may carry is explained.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lockstep_controller::config as controller;
use lockstep_model::cluster::{ClusterOptions, MemberOptions};
use lockstep_model::mirror::MirrorOptions;
use lockstep_model::setting::Settings;
use lockstep_model::sync::SyncOptions;
use lockstep_tests::{Bins, Fleet, Host, Net, Upstream, cmd};

/// Set to write the settings' reference anew instead of comparing it.
const WRITE: &str = "LOCKSTEP_TEST_WRITE";

const PAGES: [&str; 12] = [
    "README.md",
    "ARCHITECTURE.md",
    "docs/syncs.md",
    "docs/mirrors.md",
    "docs/clusters.md",
    "docs/failover.md",
    "docs/reliability.md",
    "docs/schedules.md",
    "docs/rsync-options.md",
    "docs/operating.md",
    "docs/from-slavemaster-and-lsyncd.md",
    "docs/from-handyrep.md",
];

/// A source and three heads, as most pages have it.
const HEADS: [&str; 4] = ["master1", "web1", "web2", "web3"];
const MEMBERS: [&str; 3] = ["db1", "db2", "db3"];

fn root() -> Result<PathBuf> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("tests has a parent")?.to_owned())
}

fn page(name: &str) -> Result<String> {
    let path = root()?.join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// The commands of a page's `console` blocks: the prompt's host and what is typed there.
fn commands(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ if inside => found.extend(prompt(line)),
            _ => {}
        }
    }
    found
}

fn prompt(line: &str) -> Option<(String, String)> {
    if let Some(command) = line.strip_prefix("$ ") {
        return Some(("you".to_owned(), command.to_owned()));
    }
    let (host, command) = line.split_once("# ")?;
    let plain = host.chars().all(|c| c.is_ascii_alphanumeric());
    plain.then(|| (host.to_owned(), command.to_owned()))
}

/// The hosts of a test share the machine's files, so each gets `/srv` and `/var/lib` below its own
/// directory.
fn on_test_hosts(fleet: &Fleet, host: &Host, upstream: IpAddr, command: &str) -> Result<String> {
    if command.starts_with("lockstepctl cluster create") {
        let more: Vec<String> =
            fleet.instance_args(&MEMBERS)?.iter().map(|arg| format!("'{arg}'")).collect();
        return Ok(format!("{command} {}", more.join(" ")));
    }
    let mut text = command.to_owned();
    for name in HEADS {
        if let Ok(node) = fleet.node(name) {
            let place = format!("{name}:{}", node.host.path("srv").display());
            text = text.replace(&format!("{name}:/srv"), &place);
        }
    }
    let below = |path: &str| format!(" {}", host.path(path).display());
    Ok(text
        .replace(" /srv", &below("srv"))
        .replace(" /var/lib/lockstep-controller", &below("var/lib/lockstep-controller"))
        .replace("10.0.0.1", &host.ip().to_string())
        .replace("//rsync.example.org", &format!("//{upstream}"))
        .replace("@rsync.example.org", &format!("@{upstream}")))
}

/// Types every command of a page on a fleet of these nodes.
fn follow(name: &str, nodes: &[&str]) -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, nodes)?;
    let second = net.host("second")?;
    let upstream = Upstream::start(&net)?;
    upstream.write("index.html", "<h1>first</h1>")?;
    for node in nodes {
        fs::create_dir_all(fleet.node(node)?.host.path("srv/ftp"))?;
    }
    fs::create_dir_all(fleet.controller.host.path("srv/ftp"))?;
    let source = fleet.node(nodes[0])?.host.path("srv/www");
    fs::create_dir_all(&source)?;
    fs::write(source.join("index.html"), "<h1>hello</h1>")?;

    let typed = commands(&page(name)?);
    ensure!(typed.len() > 3, "{name} has no commands to try");
    let bin_dir = fleet.bins().ctl().parent().context("a directory")?.to_owned();
    let path = format!("{}:{}", bin_dir.display(), std::env::var("PATH").unwrap_or_default());
    for (prompt, command) in typed {
        let host = match prompt.as_str() {
            "you" => fleet.controller.host.clone(),
            // The page sets up a controller, and one runs already.
            "controller" => second.clone(),
            node => fleet.node(node)?.host.clone(),
        };
        let text = on_test_hosts(&fleet, &host, upstream.host.ip(), &command)?;
        let mut shell = cmd("bash");
        shell.args(["-c", &text]).env("PATH", &path);
        shell.env("LOCKSTEP_CONFIG_DIR", fleet.controller.host.path("ctl"));
        host.run(&mut shell)?.ok().with_context(|| format!("{name}: {prompt}: {command}"))?;
    }
    Ok(())
}

#[test]
fn the_page_on_syncs_can_be_followed() -> Result<()> {
    follow("docs/syncs.md", &HEADS)
}

#[test]
fn the_page_on_mirrors_can_be_followed() -> Result<()> {
    follow("docs/mirrors.md", &HEADS)
}

#[test]
fn the_page_on_clusters_can_be_followed() -> Result<()> {
    follow("docs/clusters.md", &MEMBERS)
}

#[test]
fn the_page_on_schedules_can_be_followed() -> Result<()> {
    follow("docs/schedules.md", &HEADS)
}

#[test]
fn the_page_on_operating_can_be_followed() -> Result<()> {
    follow("docs/operating.md", &HEADS)
}

/// Everything that stands as code and begins with one of our programs is a command there is.
#[test]
fn every_command_that_is_named_exists() -> Result<()> {
    let bins = Bins::find()?;
    let mut checked = 0;
    for name in PAGES {
        let text = page(name)?.replace("`", "\n").replace(" | ", "\n");
        for line in text.lines() {
            let line = line.trim().trim_start_matches("$ ").split("# ").last().unwrap_or_default();
            let mut words = line.split_whitespace();
            let program = match words.next() {
                Some("lockstepctl") => bins.ctl(),
                Some("lockstep-controller") => bins.controller(),
                Some("lockstep-agent") => bins.agent(),
                _ => continue,
            };
            let plain = |w: &&str| {
                w.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !w.starts_with('-')
            };
            let verbs: Vec<&str> = words.by_ref().take_while(plain).take(2).collect();
            let options: Vec<&str> =
                line.split_whitespace().filter(|w| w.starts_with("--")).collect();
            // The second word is a verb, or an argument such as a shell's name.
            let help = |verbs: &[&str]| cmd(&program).args(verbs).arg("--help").output();
            let mut output = help(&verbs)?;
            if !output.status.success() && verbs.len() == 2 {
                output = help(&verbs[..1])?;
            }
            let shown = String::from_utf8_lossy(&output.stdout).into_owned();
            ensure!(output.status.success(), "{name}: {line}: there is no such command");
            for option in options {
                let option = option.split('=').next().unwrap_or_default();
                let known = shown.contains(option) || ["--help", "--version"].contains(&option);
                ensure!(known, "{name}: {line}: {option} is not in its help");
            }
            checked += 1;
        }
    }
    ensure!(checked > 20, "only {checked} commands were found");
    Ok(())
}

#[test]
fn the_settings_are_those_of_the_programs() -> Result<()> {
    let mut text = page("docs/operating.md")?;
    for table in [controller::TABLE, lockstep_agent::config::TABLE] {
        let mark = format!("<!-- settings of {} -->\n", table.program);
        let begin = text.find(&mark).with_context(|| mark.clone())? + mark.len();
        let rest = &text[begin..];
        let end = begin + rest.find("\n#").context("a heading follows")?;
        text.replace_range(begin..end, &format!("\n{}", table.render_reference()));
    }
    if std::env::var_os(WRITE).is_some() {
        fs::write(root()?.join("docs/operating.md"), &text)?;
    }
    ensure!(text == page("docs/operating.md")?, "docs/operating.md is behind: run with {WRITE}=1");
    Ok(())
}

#[test]
fn the_settings_of_a_sync_are_those_of_the_model() -> Result<()> {
    settings_of::<SyncOptions>("docs/syncs.md", "<!-- settings of a sync -->\n")
}

#[test]
fn the_settings_of_a_mirror_are_those_of_the_model() -> Result<()> {
    settings_of::<MirrorOptions>("docs/mirrors.md", "<!-- settings of a mirror -->\n")
}

#[test]
fn the_settings_of_a_cluster_are_those_of_the_model() -> Result<()> {
    settings_of::<ClusterOptions>("docs/clusters.md", "<!-- settings of a cluster -->\n")?;
    settings_of::<MemberOptions>("docs/clusters.md", "<!-- settings of a member -->\n")
}

#[test]
fn the_rules_of_clusters_are_those_of_the_planner() -> Result<()> {
    let (name, mark) = ("docs/failover.md", "<!-- rules of clusters -->\n");
    let mut text = page(name)?;
    let begin = text.find(mark).context("the mark of the rules")? + mark.len();
    let end = begin + text[begin..].find("\n#").context("a heading follows")?;
    text.replace_range(begin..end, &format!("\n{}", lockstep_plan::clusters::manual()));
    if std::env::var_os(WRITE).is_some() {
        fs::write(root()?.join(name), &text)?;
    }
    ensure!(text == page(name)?, "{name} is behind: run with {WRITE}=1");
    Ok(())
}

fn settings_of<O: Settings>(name: &str, mark: &str) -> Result<()> {
    let escaped = |text: &str| text.replace('|', "\\|");
    let mut table = "| setting | value | default | meaning |\n|---|---|---|---|\n".to_owned();
    for (row, (_, default)) in O::TABLE.iter().zip(O::default().all_values()) {
        let value = match (row.value, row.repeated) {
            ("", _) => "`yes`, `no`".to_owned(),
            (value, true) => format!("{value}, repeatable"),
            (value, false) => value.to_owned(),
        };
        let default =
            if default.is_empty() { "–".into() } else { format!("`{}`", default.join(" ")) };
        table.push_str(&format!(
            "| `{}` | {value} | {default} | {} |\n",
            row.name,
            escaped(row.help)
        ));
    }
    let mut text = page(name)?;
    let begin = text.find(mark).context("the mark of the table")? + mark.len();
    let end = begin + text[begin..].find("\n#").context("a heading follows")?;
    text.replace_range(begin..end, &format!("\n{table}"));
    if std::env::var_os(WRITE).is_some() {
        fs::write(root()?.join(name), &text)?;
    }
    ensure!(text == page(name)?, "{name} is behind: run with {WRITE}=1");
    Ok(())
}

/// The words in the sources that a refusal or a goodbye may carry: the first snake_case literal
/// after one of their constructors.
fn reasons() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for dir in ["controller/src", "controller/plan/src", "proto/model/src"] {
        let mut left = vec![root()?.join(dir)];
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(&dir)? {
                let path = entry?.path();
                if path.is_dir() {
                    left.push(path);
                } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs")
                {
                    let text = fs::read_to_string(&path)?;
                    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
                    found.extend(words_of(code));
                }
            }
        }
    }
    Ok(found)
}

fn words_of(code: &str) -> BTreeSet<String> {
    const MAKERS: [&str; 5] =
        ["Reject::new(", "Self::new(", "precondition(", "refused(", "Goodbye::new("];
    let mut found = BTreeSet::new();
    for maker in MAKERS {
        for (at, _) in code.match_indices(maker) {
            let call = &code[at + maker.len()..];
            let call = call.split(';').next().unwrap_or_default();
            let mut literals = call.split('"').skip(1).step_by(2);
            if let Some(word) = literals.next() {
                let snake = word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
                if snake
                    && word.len() > 3
                    && !call.trim_start().starts_with('"') | (maker != "Self::new(")
                {
                    found.insert(word.to_owned());
                }
            }
        }
    }
    found
}

#[test]
fn every_word_of_a_refusal_is_explained() -> Result<()> {
    let text = page("docs/operating.md")?;
    let rows = text.lines().filter_map(|l| l.strip_prefix("| `")?.split_once("` | "));
    let explained: BTreeSet<String> = rows.map(|(word, _)| word.to_owned()).collect();
    let used = reasons()?;
    ensure!(used.len() > 30, "the words are not where this test looks for them: {used:?}");
    let missing: Vec<_> = used.difference(&explained).collect();
    ensure!(missing.is_empty(), "not in docs/operating.md: {missing:?}");
    let begin = text.find("## Why it was refused").context("the section of the words")?;
    let stale = text[begin..].lines().filter_map(|l| l.strip_prefix("| `")?.split_once("` | "));
    let stale: Vec<_> = stale.map(|(word, _)| word).filter(|w| !used.contains(*w)).collect();
    ensure!(stale.is_empty(), "in docs/operating.md, and nowhere else: {stale:?}");
    Ok(())
}
