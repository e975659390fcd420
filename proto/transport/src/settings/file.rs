//! Reads the TOML text of a config file into written values, each with its line. Every mistake of
//! the file is found in one pass, and no line of it is quoted, because a secret may stand there.

use toml::de::{DeTable, DeValue};

use super::{FILE_BYTES_MAX, File, Given, Raw, SettingError, Table};

impl Table {
    pub(super) fn read_file(&self, file: File<'_>, errors: &mut Vec<SettingError>) -> Vec<Given> {
        if file.text.len() > FILE_BYTES_MAX {
            let problem = format!("is longer than {FILE_BYTES_MAX} bytes; is it the right file?");
            errors.push(SettingError::new(format!("config file {}", file.name), problem));
            return Vec::new();
        }
        let place = |at: usize| format!("{}:{}", file.name, line(file.text, at));
        let (table, mistakes) = DeTable::parse_recoverable(file.text);
        for mistake in mistakes {
            let at = mistake.span().map_or(0, |span| span.start);
            errors.push(SettingError::new(
                place(at),
                format!("is not TOML: {}; write lines such as name = \"value\"", mistake.message()),
            ));
        }
        let mut given = Vec::new();
        let mut entries: Vec<_> = table.get_ref().iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let name: &str = key.get_ref();
            let place = format!("{}, key {}", place(key.span().start), shown(name));
            match self.find(name) {
                Some(setting) => {
                    given.push(Given { setting, place, raw: raw(value.get_ref()) });
                }
                None => {
                    let hint = match self.nearest(name) {
                        Some(near) => format!("did you mean {}?", near.key),
                        None => format!("{} --help lists the settings", self.program),
                    };
                    errors.push(SettingError::new(place, format!("is unknown; {hint}")));
                }
            }
        }
        given
    }
}

fn line(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

fn shown(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.len() <= 64 && key.chars().all(plain) {
        return key.into();
    }
    Raw::Text(key.into()).shown()
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.clone().into_owned()),
        DeValue::Boolean(value) => Raw::Switch(*value),
        DeValue::Integer(number) => {
            match i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()) {
                Ok(number) => Raw::Number(number),
                Err(_) => Raw::Other("number of that size"),
            }
        }
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Float(_) => Raw::Other("fraction"),
        DeValue::Datetime(_) => Raw::Other("date"),
        DeValue::Table(_) => Raw::Other("table"),
    }
}
