//! Nodes: labels, reports, states.

use lockstep_model::Invalid;
use lockstep_model::id::quote;
use lockstep_model::label::{LABELS_MAX, LabelKey, Labels, parse_label};
use lockstep_model::node::{NodeAdmin, NodeHealth, NodeReport, Tool};

use super::{each, one_line};
use crate::v1;

const FEATURES_MAX: usize = 64;
const TOOLS_MAX: usize = 32;
const WARNINGS_MAX: usize = 16;
const LINE_MAX: usize = 256;

/// Labels of a request; also refuses more than fit.
pub fn labels(
    wire: impl IntoIterator<Item = (String, String), IntoIter: ExactSizeIterator>,
) -> Result<Labels, Invalid> {
    let wire = wire.into_iter();
    if wire.len() > LABELS_MAX {
        return Err(Invalid::new("labels", format!("at most {LABELS_MAX} fit")));
    }
    wire.map(|(key, value)| parse_label(&format!("{key}={value}"))).collect()
}

pub fn label_keys(wire: &[String]) -> Result<Vec<LabelKey>, Invalid> {
    super::parse_each("remove", LABELS_MAX, wire)
}

pub fn wire_labels(labels: &Labels) -> std::collections::HashMap<String, String> {
    labels.iter().map(|(k, v)| (k.to_string(), v.clone())).collect()
}

impl From<NodeAdmin> for v1::NodeAdmin {
    fn from(admin: NodeAdmin) -> Self {
        match admin {
            NodeAdmin::Enabled => Self::Enabled,
            NodeAdmin::Draining => Self::Draining,
            NodeAdmin::Disabled => Self::Disabled,
            NodeAdmin::Expelled => Self::Expelled,
        }
    }
}

impl From<NodeHealth> for v1::NodeHealth {
    fn from(health: NodeHealth) -> Self {
        match health {
            NodeHealth::Unknown => Self::Unknown,
            NodeHealth::Healthy => Self::Healthy,
            NodeHealth::Warning => Self::Warning,
            NodeHealth::Unavailable => Self::Unavailable,
            NodeHealth::Down => Self::Down,
        }
    }
}

impl TryFrom<v1::NodeReport> for NodeReport {
    type Error = Invalid;
    fn try_from(report: v1::NodeReport) -> Result<Self, Invalid> {
        let v1::NodeReport { version, features, tools, warnings } = report;
        if features.len() > FEATURES_MAX || warnings.len() > WARNINGS_MAX {
            let problem =
                format!("at most {FEATURES_MAX} features and {WARNINGS_MAX} warnings fit");
            return Err(Invalid::new("report", problem));
        }
        Ok(Self {
            version: check_version(&version)?,
            features: features.iter().map(|f| one_line(f, LINE_MAX)).collect(),
            tools: each("tools", TOOLS_MAX, tools)?,
            warnings: warnings.iter().map(|w| one_line(w, LINE_MAX)).collect(),
        })
    }
}

impl From<NodeReport> for v1::NodeReport {
    fn from(report: NodeReport) -> Self {
        let NodeReport { version, features, tools, warnings } = report;
        Self { version, features, tools: tools.into_iter().map(Into::into).collect(), warnings }
    }
}

impl TryFrom<v1::Tool> for Tool {
    type Error = Invalid;
    fn try_from(tool: v1::Tool) -> Result<Self, Invalid> {
        let v1::Tool { name, version, path } = tool;
        Ok(Self {
            name: one_line(&name, LINE_MAX),
            version: one_line(&version, LINE_MAX),
            path: one_line(&path, LINE_MAX),
        })
    }
}

impl From<Tool> for v1::Tool {
    fn from(tool: Tool) -> Self {
        let Tool { name, version, path } = tool;
        Self { name, version, path }
    }
}

/// `major.minor.patch`, digits only.
fn check_version(text: &str) -> Result<String, Invalid> {
    let parts: Vec<&str> = text.split('.').collect();
    let plain = |p: &&str| (1..=6).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit());
    if parts.len() == 3 && parts.iter().all(plain) {
        return Ok(text.to_owned());
    }
    Err(Invalid::new("version", format!("must look like 1.2.3, not {}", quote(text))))
}
