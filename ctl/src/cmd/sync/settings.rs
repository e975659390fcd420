//! `sync settings`: the model's table, without a controller.

use lockstep_model::setting::Settings;
use lockstep_model::sync::SyncOptions;
use lockstep_proto::v1;

use crate::args::Format;
use crate::error::Failure;
use crate::render;

pub fn show(format: Format) -> Result<(), Failure> {
    let rows = SyncOptions::TABLE.iter().zip(SyncOptions::default().all_values());
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
