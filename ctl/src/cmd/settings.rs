//! A table of settings as people and programs read it, without a controller.

use lockstep_model::setting::Settings;
use lockstep_proto::v1;

use crate::args::Format;
use crate::error::Failure;
use crate::render;

pub fn show<O: Settings>(format: Format) -> Result<(), Failure> {
    let rows = O::TABLE.iter().zip(O::default().all_values());
    let settings = rows.map(|(row, (_, default_values))| v1::SettingInfo {
        name: row.name.to_owned(),
        value: row.value.to_owned(),
        help: row.help.to_owned(),
        repeated: row.repeated,
        default_values,
    });
    let answer = v1::ListSettingsResponse { settings: settings.collect() };
    render::show(format, &answer, || {
        let rows = answer.settings.iter().map(|setting| {
            let value = match (setting.value.as_str(), setting.repeated) {
                ("", _) => "yes|no".to_owned(),
                (value, true) => format!("{value}, repeatable"),
                (value, false) => value.to_owned(),
            };
            let default = render::or_dash(&setting.default_values.join(" "));
            [setting.name.clone(), value, default, setting.help.clone()]
        });
        render::table(&["setting", "value", "default", "meaning"], rows)
    })
}

/// Those that differ from the default, in one line.
pub fn line(settings: &[v1::Setting]) -> String {
    let quoted = |text: &str| match text.contains(' ') {
        true => format!("'{text}'"),
        false => text.to_owned(),
    };
    let words: Vec<String> =
        settings.iter().map(|s| format!("{}={}", s.name, quoted(&s.value))).collect();
    words.join(" ")
}
