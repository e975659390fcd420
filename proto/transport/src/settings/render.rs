//! What people see of a table of settings: flags with their help, the reference page, the example
//! file, and the values in effect. Makes text only.

use clap::{Arg, ArgAction, ArgMatches};

use super::value::write_duration;
use super::{Kind, Setting, Table, Value, Values};

impl Setting {
    /// A default or example as it stands in the config file.
    pub(super) fn written(&self, text: &str) -> String {
        match self.kind {
            Kind::Switch | Kind::Count { .. } => text.into(),
            Kind::List(item) => {
                let inner = Setting { kind: *item, ..*self };
                let items = text.split(',').filter(|item| !item.is_empty());
                let items: Vec<_> = items.map(|item| inner.written(item.trim())).collect();
                format!("[{}]", items.join(", "))
            }
            _ => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        }
    }

    fn value_name(&self) -> &'static str {
        match self.kind {
            Kind::Switch => "true|false",
            Kind::Count { .. } => "N",
            Kind::Duration { .. } => "DURATION",
            Kind::Size { .. } => "SIZE",
            Kind::Socket => "IP:PORT",
            Kind::Endpoint => "HOST:PORT",
            Kind::Path => "PATH",
            Kind::List(Kind::Endpoint) => "HOST:PORT",
            Kind::List(Kind::Socket) => "IP:PORT",
            Kind::Text | Kind::OneOf(_) | Kind::Checked { .. } | Kind::List(_) => "VALUE",
        }
    }
}

impl Table {
    /// One flag per setting that is not secret. Values are not judged by clap, so that all mistakes
    /// are told at once.
    pub fn to_clap_args(&self) -> Vec<Arg> {
        let open = self.settings.iter().filter(|setting| !setting.secret);
        let args = open.map(|setting| {
            let default =
                setting.default.map_or(String::new(), |text| format!(" [default: {text}]"));
            let help = format!("{} [env: {}]{default}", setting.help, setting.variable());
            let arg = Arg::new(setting.key)
                .long(setting.key)
                .value_name(setting.value_name())
                .help(help)
                .action(if setting.kind.is_list() { ArgAction::Append } else { ArgAction::Set });
            match setting.kind {
                Kind::Switch => {
                    arg.num_args(0..=1).require_equals(true).default_missing_value("true")
                }
                _ => arg,
            }
        });
        args.collect()
    }

    /// What was given on the command line, in the form that [`Table::load`] takes.
    pub fn flags(&self, matches: &ArgMatches) -> Vec<(String, String)> {
        let mut flags = Vec::new();
        for setting in self.settings {
            if let Ok(Some(values)) = matches.try_get_many::<String>(setting.key) {
                flags.extend(values.map(|value| (setting.key.to_owned(), value.clone())));
            }
        }
        flags
    }

    /// The reference as a Markdown table.
    pub fn render_reference(&self) -> String {
        let mut page = String::from(
            "| setting | variable | value | default | meaning |\n|---|---|---|---|---|\n",
        );
        for setting in self.settings {
            let default = match (setting.default, setting.required) {
                (Some(text), _) => format!("`{}`", setting.written(text)),
                (None, true) => "required".into(),
                (None, false) => "none".into(),
            };
            let secret = if setting.secret { " No flag: it is a secret." } else { "" };
            page.push_str(&format!(
                "| `{}` | `{}` | {}, such as `{}` | {default} | {}{secret} |\n",
                setting.key,
                setting.variable(),
                setting.kind.shape(),
                setting.written(setting.example),
                setting.help,
            ));
        }
        page
    }

    /// A config file in which every optional setting stands as a comment with its default or an
    /// example.
    pub fn render_example(&self) -> String {
        let mut text = format!(
            "# Settings of {}.\n\
             # A flag wins over a LOCKSTEP_* variable, a variable over this file, this file over the default.\n\
             # A line that is commented out shows the default, or an example where there is none.\n",
            self.program
        );
        for setting in self.settings {
            let stands = match (setting.default, setting.required) {
                (Some(_), _) => "the default",
                (None, true) => "required, an example",
                (None, false) => "not set, an example",
            };
            let (help, shape) = (setting.help, setting.kind.shape());
            text.push_str(&format!("\n# {help}\n# Value: {shape} ({stands})\n"));
            let comment = if setting.required { "" } else { "# " };
            let value = setting.written(setting.default.unwrap_or(setting.example));
            text.push_str(&format!("{comment}{} = {value}\n", setting.key));
        }
        text
    }
}

impl Values {
    /// One line per setting that has a value, with where it came from; secrets are not shown.
    pub fn render_effective(&self) -> String {
        let mut text = String::new();
        for setting in self.table.settings {
            if let Some((value, origin)) = self.values.get(setting.key) {
                let value = if setting.secret { "(secret)".into() } else { shown(value) };
                text.push_str(&format!("{} = {value}  # {origin}\n", setting.key));
            }
        }
        text
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{text:?}"),
        Value::Switch(value) => value.to_string(),
        Value::Count(value) => value.to_string(),
        Value::Duration(value) => format!("\"{}\"", write_duration(*value)),
        Value::Socket(value) => format!("\"{value}\""),
        Value::Path(value) => format!("{value:?}"),
        Value::List(items) => {
            format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
    }
}
