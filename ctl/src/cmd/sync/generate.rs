//! `sync generate`: the three questions of the old generator, each answer checked at once; then the
//! sync, or the command that creates it for somebody who may.

use std::io::{BufRead, IsTerminal, Write};

use lockstep_model::path::DirPath;
use lockstep_model::sync::{Place, Target, TargetAt};
use lockstep_model::{NodeName, SyncName};
use lockstep_proto::v1;

use super::{show, targets, tell};
use crate::args::sync::Transport;
use crate::args::{Change, Global};
use crate::client::Client;
use crate::error::Failure;
use crate::render;
use crate::target::{Known, Wanted};

pub async fn run(global: &Global, name: Option<SyncName>, print: bool) -> Result<(), Failure> {
    let client = if print { None } else { Some(Client::connect(global).await) };
    let known = match &client {
        Some(Ok(client)) => Some(targets::all_nodes(client).await?),
        Some(Err(failure)) => {
            render::note(&format!("{failure}\nThe command will be printed instead."));
            None
        }
        None => None,
    };
    let stdin = std::io::stdin();
    let prompts = stdin.is_terminal();
    let mut questions = Questions { input: stdin.lock(), prompts };
    let answers = questions.ask(name, known.as_ref())?;
    match client {
        None => render::line(&answers.command()),
        Some(Err(failure)) => {
            render::line(&answers.command())?;
            Err(failure)
        }
        Some(Ok(client)) => create(&client, &answers, &known.unwrap_or_default()).await,
    }
}

async fn create(client: &Client, answers: &Answers, known: &Known) -> Result<(), Failure> {
    let target = |wanted: &Wanted| wanted.target(answers.path(), Transport::Mtls, known);
    let targets: Vec<Target> = answers.targets().map(target).collect::<Result<_, _>>()?;
    let request = v1::CreateSyncRequest {
        mutation: Change::default().mutation()?,
        name: answers.name.to_string(),
        source: Some(answers.source.clone().into()),
        targets: targets.into_iter().map(Target::into).collect(),
        options: None,
        selected: None,
        paused: false,
    };
    let answer = match client.syncs().create_sync(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => {
            let failure = Failure::from(status);
            if failure.is_denied() {
                render::note("You may not create it. Somebody who may has to give this command:");
                render::line(&answers.command())?;
            }
            return Err(failure);
        }
    };
    tell(answer.result.as_ref(), false);
    let sync = answer.sync.unwrap_or_default();
    render::show(client.format, &sync, || show::details(&sync))
}

struct Answers {
    name: SyncName,
    source: Place,
    /// As typed, and what it says.
    targets: Vec<(String, Wanted)>,
    dest: Option<DirPath>,
}

impl Answers {
    fn targets(&self) -> impl Iterator<Item = &Wanted> {
        self.targets.iter().map(|(_, wanted)| wanted)
    }

    fn path(&self) -> &DirPath {
        self.dest.as_ref().unwrap_or(&self.source.path)
    }

    fn command(&self) -> String {
        let Self { name, source, targets, dest } = self;
        let mut words = vec!["lockstepctl".to_owned(), "sync".to_owned(), "create".to_owned()];
        words.extend([name.to_string(), "--source".to_owned(), source.to_string()]);
        for (text, _) in targets {
            words.extend(["--target".to_owned(), text.clone()]);
        }
        // Where it is of no use, create would refuse it.
        let bare = self.targets().any(|wanted| !wanted.has_path());
        if let Some(dest) = dest.as_ref().filter(|_| bare) {
            words.extend(["--dest".to_owned(), dest.to_string()]);
        }
        let words: Vec<String> = words.iter().map(|word| shell_quoted(word)).collect();
        words.join(" ")
    }
}

/// For a POSIX shell.
fn shell_quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/=@,+".contains(c);
    if word.chars().all(plain) && !word.is_empty() {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

struct Questions<R> {
    input: R,
    /// A person sits there.
    prompts: bool,
}

impl<R: BufRead> Questions<R> {
    /// `known`: the nodes, when somebody could be asked for them.
    fn ask(&mut self, name: Option<SyncName>, known: Option<&Known>) -> Result<Answers, Failure> {
        let source = self.answer("Source directory, as NODE:/PATH", |text| {
            let place: Place = text.parse().map_err(|e: lockstep_model::Invalid| e.to_string())?;
            check_known(&place.node, known)?;
            Ok(place)
        })?;
        let targets = self
            .answer("Targets, comma-separated: nodes or their addresses", |text| {
                wanted(text, &source, known)
            })?;
        let question = format!("Directory on the targets; nothing for {}", source.path);
        let dest = self.answer(&question, |text| match text {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|e: lockstep_model::Invalid| e.to_string()),
        })?;
        let last = source.path.as_str().rsplit('/').next().unwrap_or_default();
        let name = match name.or_else(|| last.to_lowercase().replace(' ', "-").parse().ok()) {
            Some(name) => name,
            None => self.answer("Name of the sync", |text| {
                text.parse().map_err(|e: lockstep_model::Invalid| e.to_string())
            })?,
        };
        Ok(Answers { name, source, targets, dest })
    }

    /// Asks until the answer fits.
    fn answer<T>(
        &mut self,
        question: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        loop {
            if self.prompts {
                eprint!("{question}: ");
                std::io::stderr().flush()?;
            }
            let mut line = String::new();
            if self.input.read_line(&mut line)? == 0 {
                return Err(Failure::usage(format!("no answer to: {question}")));
            }
            match read(line.trim()) {
                Ok(answer) => return Ok(answer),
                Err(problem) => render::note(&format!("{problem}. Again, please.")),
            }
        }
    }
}

fn check_known(node: &NodeName, known: Option<&Known>) -> Result<(), String> {
    match known {
        Some(known) if !known.iter().any(|(name, _)| name == node) => {
            Err(format!("node {node} has not joined: see lockstepctl node list"))
        }
        _ => Ok(()),
    }
}

fn wanted(
    text: &str,
    source: &Place,
    known: Option<&Known>,
) -> Result<Vec<(String, Wanted)>, String> {
    let mut found = Vec::new();
    for text in text.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let wanted: Wanted = text.parse().map_err(|e: lockstep_model::Invalid| e.to_string())?;
        let by_address = known.is_none() && wanted.may_be_address();
        if !by_address {
            let nobody = Known::new();
            let target = wanted.target(&source.path, Transport::Mtls, known.unwrap_or(&nobody));
            let target = target.map_err(|problem| problem.problem)?;
            if target.node == source.node {
                return Err(format!("{} is the source", source.node));
            }
            if matches!(target.at, TargetAt::Node(_)) {
                check_known(&target.node, known)?;
            }
        }
        found.push((text.to_owned(), wanted));
    }
    if found.is_empty() { Err("at least one is needed".to_owned()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(lines: &str, known: Option<&Known>) -> Result<String, String> {
        let mut questions = Questions { input: lines.as_bytes(), prompts: false };
        let answers = questions.ask(None, known).map_err(|failure| failure.to_string())?;
        Ok(answers.command())
    }

    #[test]
    fn three_answers_are_a_command() {
        assert_eq!(
            command("master1:/srv/www\n web1, web2 \n\n", None).unwrap(),
            "lockstepctl sync create www --source master1:/srv/www --target web1 --target web2"
        );
        assert_eq!(
            command("m:/srv/My $www\nweb1,10.0.0.7\n/var/www\nmine\n", None).unwrap(),
            "lockstepctl sync create mine --source 'm:/srv/My $www' --target web1 \
             --target 10.0.0.7 --dest /var/www"
        );
    }

    #[test]
    fn what_does_not_fit_is_asked_again() {
        let known: Known = ["m", "web1"].map(|name| (name.parse().unwrap(), vec![])).into();
        let lines = "/srv\nx:/srv\nm:/srv/www\n,\nm\nweb2\nweb1;id\nweb1\nsrv\n/a/../b\n/srv\n";
        let made = command(lines, Some(&known)).unwrap();
        assert!(made.ends_with("www --source m:/srv/www --target web1 --dest /srv"), "{made}");
        let ended = command("m:/srv/www\n", Some(&known)).unwrap_err();
        assert!(ended.contains("no answer to: Targets"), "{ended}");
    }
}
