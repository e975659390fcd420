//! Writes an instance's configuration and has postgres read it. What Lockstep sets is in files of its
//! own; of the owner's files it changes one line of postgresql.conf, a marked block of pg_hba.conf, and
//! what would override it in postgresql.auto.conf.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use lockstep_model::cluster::REPLICATION_USER;

use super::conf::{self, Conf, HBA_BEGIN, HBA_END, OWN_FILE, PASS_FILE};
use super::found::Processes;
use super::sql::{SqlTrouble, column, is_true};
use super::{Instance, files, manager, parameters, run, tls};

/// For postgres to have read its files.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(2);
const RELOAD_STEP: Duration = Duration::from_millis(2);
const POSTGRESQL_CONF: &str = "postgresql.conf";
const AUTO_CONF: &str = "postgresql.auto.conf";
const HBA_CONF: &str = "pg_hba.conf";

/// What a configuration changed.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Configured {
    /// Files changed; a running instance has read them.
    pub changed: bool,
    /// Something waits for a restart, since now or earlier; false while postgres does not run.
    pub restart: bool,
    /// The cluster's settings that postgres does not take, and why; those before are in force.
    pub refused: Option<String>,
}

impl Instance {
    /// Writes all files of a configuration and has a running instance read them. The cluster's own
    /// settings are tried by postgres before they replace those that work.
    pub async fn configure(&self, conf: &Conf) -> Result<Configured, String> {
        let (layout, owner) = (self.layout(), &self.layout().owner);
        let mut changed = self.write_secrets(conf)?;
        let own = layout.config.join(OWN_FILE);
        changed |= files::write(&own, &conf.render_own(), 0o600, owner)?;
        let names: BTreeSet<&str> = conf.names().collect();
        changed |= self.edit(layout.data.join(AUTO_CONF), |text| Some(without(text, &names)))?;
        changed |= self.edit(layout.config.join(POSTGRESQL_CONF), |text| Some(included(text)))?;
        // They are tried together with what the files above say.
        let refused = self.write_parameters(conf).await?;
        changed |= refused.changed;
        if let Some(lines) = &conf.hba {
            let hba = layout.config.join(HBA_CONF);
            changed |= self.edit(hba, |text| with_block(text, lines))?;
        }
        let mut restart = false;
        if let Processes::Running { .. } = self.processes().await {
            restart = match changed {
                true => self.reload().await?,
                false => self.waits_for_restart().await,
            };
        }
        Ok(Configured { changed, restart, refused: refused.why })
    }

    /// Its pg_hba.conf is that of `Role::Closed`.
    pub fn is_closed(&self) -> bool {
        let text = files::read(&self.layout().config.join(HBA_CONF), &self.layout().owner);
        text.is_ok_and(|text| text.is_some_and(|text| conf::is_closed(&text)))
    }

    /// What connecting to other members needs, without a change of the configuration.
    pub fn write_secrets(&self, conf: &Conf) -> Result<bool, String> {
        let (private, owner) = (self.private_dir(), &self.layout().owner);
        let password = escape_pass(&self.secrets().replication);
        let line = Zeroizing::new(format!("*:*:*:{REPLICATION_USER}:{}\n", *password));
        let mut changed = false;
        // Read anew for each connection.
        files::write(&private.join(PASS_FILE), &line, 0o600, owner)?;
        for (name, pem) in &conf.certificates {
            changed |= files::write(&private.join(name), pem, 0o600, owner)?;
        }
        if conf.tls {
            tls::ensure(self.layout(), self.me())?;
        }
        Ok(changed)
    }

    /// None: it is left as it is. A file that is not there counts as empty.
    fn edit(
        &self,
        path: std::path::PathBuf,
        edit: impl FnOnce(&str) -> Option<String>,
    ) -> Result<bool, String> {
        let owner = &self.layout().owner;
        let old = files::read(&path, owner)?.unwrap_or_default();
        match edit(&old) {
            Some(new) if new != old => files::write(&path, &new, 0o600, owner),
            _ => Ok(false),
        }
    }

    /// Replaces one of Lockstep's own settings in its file.
    pub(super) fn write_setting(&self, name: &str, value: &str) -> Result<(), String> {
        let path = self.layout().config.join(OWN_FILE);
        self.edit(path, |text| {
            let kept = text.lines().filter(|line| setting_name(line) != Some(name.to_owned()));
            let mut text: String = kept.flat_map(|line| [line, "\n"]).collect();
            text += &conf::line(name, value);
            Some(sorted_as_rendered(&text))
        })
        .map(drop)
    }

    pub(super) async fn signal_reload(&self) -> Result<(), String> {
        match self.processes().await {
            Processes::Running { pid, .. } => run::signal_reload(pid, &self.real_data()),
            Processes::None | Processes::Orphans(_) => Err("postgres does not run".to_owned()),
        }
    }

    /// Has postgres read its files again; true when something waits for a restart. One that takes no
    /// sessions yet has been told, and is not waited for.
    pub async fn reload(&self) -> Result<bool, String> {
        let before = self.load_time().await;
        self.signal_reload().await?;
        let before = match before {
            Ok(time) => Some(time),
            // It may be what it reads now that lets Lockstep's role in.
            Err(SqlTrouble::Refused { .. }) => None,
            Err(_) => return Ok(false),
        };
        let loaded = async {
            loop {
                match self.load_time().await {
                    Err(SqlTrouble::Refused { .. }) => {}
                    Ok(time) if Some(&time) == before.as_ref() => {}
                    Ok(_) | Err(_) => return,
                }
                sleep(RELOAD_STEP).await;
            }
        };
        // A hung one is seen by who looks at it; the files are right.
        let _ = timeout(RELOAD_TIMEOUT, loaded).await;
        Ok(self.waits_for_restart().await)
    }

    async fn load_time(&self) -> Result<String, SqlTrouble> {
        const QUERY: &str = "SELECT extract(epoch FROM pg_conf_load_time()) AS time";
        let answer = self.sessions().ask(QUERY, RELOAD_TIMEOUT).await?;
        let row = answer.first().and_then(|rows| rows.first());
        Ok(row.and_then(|row| column(row, "time")).unwrap_or_default())
    }

    async fn waits_for_restart(&self) -> bool {
        const QUERY: &str =
            "SELECT EXISTS (SELECT FROM pg_settings WHERE pending_restart) AS waits";
        let answer = self.sessions().ask(QUERY, RELOAD_TIMEOUT).await.unwrap_or_default();
        answer.first().and_then(|rows| rows.first()).is_some_and(|row| is_true(row, "waits"))
    }

    async fn write_parameters(&self, conf: &Conf) -> Result<parameters::Written, String> {
        let text = conf.render_parameters();
        let state = parameters::State::read(self.layout())?;
        if let Some(done) = state.settled(&text) {
            return Ok(done);
        }
        // postgres looks at each of them as at a start, and does not start.
        let mut args = vec!["-C".to_owned(), "port".to_owned()];
        args.extend(manager::files_args(self.layout()));
        for parameter in &conf.parameters {
            args.extend(["-c".to_owned(), format!("{}={}", parameter.name, parameter.value)]);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match timeout(RELOAD_TIMEOUT * 5, self.run("postgres", &args, "")).await {
            Ok(Ok(_)) => state.put(self.layout(), &text),
            Ok(Err(why)) => state.refuse(self.layout(), &text, &why),
            Err(_) => Err("postgres does not look at its settings in time".to_owned()),
        }
    }

    /// After a start: these settings work.
    pub(super) fn accept_parameters(&self) -> Result<(), String> {
        parameters::accept(self.layout())
    }

    /// After a start that failed: true when there are earlier ones that worked, which are back now.
    pub(super) fn refuse_parameters(&self) -> bool {
        parameters::go_back(self.layout()).unwrap_or(false)
    }
}

/// `name = value` and `name value`, as postgresql.conf may have them; None for what sets nothing.
fn setting_name(line: &str) -> Option<String> {
    let name: String = line
        .trim_start()
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || "_.".contains(*c))
        .collect();
    (!name.is_empty()).then(|| name.to_ascii_lowercase())
}

/// Of postgresql.auto.conf, where ALTER SYSTEM and pg_basebackup write.
fn without(text: &str, names: &BTreeSet<&str>) -> String {
    let kept = text
        .lines()
        .filter(|line| setting_name(line).is_none_or(|name| !names.contains(name.as_str())));
    kept.flat_map(|line| [line, "\n"]).collect()
}

/// Lockstep's file is read last.
fn included(text: &str) -> String {
    let line = format!("include '{OWN_FILE}'");
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    if last == Some(line.as_str()) {
        return text.to_owned();
    }
    let kept = text.lines().filter(|other| other.trim() != line);
    let mut text: String = kept.flat_map(|line| [line, "\n"]).collect();
    text += &line;
    text += "\n";
    text
}

/// At the head, as the first line that fits counts. None: the end of the block is gone, and so what is
/// the owner's cannot be told.
fn with_block(text: &str, lines: &[String]) -> Option<String> {
    let mut block = format!("{HBA_BEGIN}\n");
    for line in lines {
        block += line;
        block.push('\n');
    }
    block += HBA_END;
    block.push('\n');
    let rest = match text.split_once(HBA_BEGIN) {
        None => text.to_owned(),
        Some((before, rest)) => {
            let (_, after) = rest.split_once(HBA_END)?;
            format!("{before}{}", after.trim_start_matches('\n'))
        }
    };
    Some(block + &rest)
}

/// The include first, then settings by name: as `Conf::render_own` has them, so that a later
/// configuration with the same content finds nothing changed.
fn sorted_as_rendered(text: &str) -> String {
    let (mut head, mut settings) = (Vec::new(), Vec::new());
    for line in text.lines() {
        match setting_name(line) {
            Some(name) if !name.starts_with("include") => settings.push((name, line)),
            _ => head.push(line),
        }
    }
    settings.sort();
    let all = head.into_iter().chain(settings.into_iter().map(|(_, line)| line));
    all.flat_map(|line| [line, "\n"]).collect()
}

/// libpq's passfile has ':' between fields.
fn escape_pass(password: &str) -> Zeroizing<String> {
    Zeroizing::new(password.replace('\\', "\\\\").replace(':', "\\:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owners_lines_stay() {
        assert_eq!(included("a = 1\n"), "a = 1\ninclude 'lockstep.conf'\n");
        let twice = "include 'lockstep.conf'\nport = 1\n";
        assert_eq!(included(twice), "port = 1\ninclude 'lockstep.conf'\n");
        let done = included(twice);
        assert_eq!(included(&done), done);

        let lines = ["local all lockstep scram-sha-256".to_owned()];
        let once = with_block("# mine\nlocal all all peer\n", &lines).unwrap();
        assert!(once.starts_with(HBA_BEGIN) && once.ends_with("# mine\nlocal all all peer\n"));
        assert_eq!(with_block(&once, &lines), Some(once.clone()));
        assert_eq!(with_block(&once.replace(HBA_END, ""), &lines), None);

        let names = ["primary_conninfo", "port"].into();
        let auto = "# c\nPrimary_conninfo = 'x'\nport 5\nwork_mem = '1MB'\n";
        assert_eq!(without(auto, &names), "# c\nwork_mem = '1MB'\n");
    }

    #[test]
    fn passwords_may_hold_colons() {
        assert_eq!(*escape_pass("a:b\\c"), "a\\:b\\\\c");
    }
}
