//! Logs on stderr and spans over OTLP. Sets the process up once; a dead collector costs one log
//! line per outage and nothing else. What is logged, and which spans exist, is decided where they
//! are written.

mod otlp;
mod trace_context;

use std::io::IsTerminal;
use std::str::FromStr;

use opentelemetry::trace::TracerProvider as _;
use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::settings::{Kind, Setting, SettingError, Values};

pub use trace_context::{
    TRACEPARENT, current_traceparent, extract_traceparent, inject_traceparent, set_parent,
};

/// Other crates speak from `warn` on, unless the filter names them.
const QUIET_CRATES: &str =
    "h2=warn,hyper=warn,hyper_util=warn,tonic=warn,tower=warn,rustls=warn,sled=warn";
/// Spans of these never go over OTLP: exporting would make more of them.
const EXPORT_CRATES: [&str; 5] = ["h2", "hyper", "hyper_util", "tonic", "tower"];

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Human on a terminal, JSON otherwise.
    #[default]
    Auto,
    Human,
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err("log format is auto, human or json".into()),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Options {
    /// A level, or tracing's directives: `info`, `lockstep_agent=debug,info`.
    pub filter: String,
    pub format: Format,
    /// The collector, as `http://HOST:PORT`; no spans are kept without one.
    pub otlp_endpoint: Option<String>,
    /// The node's name, told to the collector.
    pub node: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { filter: "info".into(), format: Format::Auto, otlp_endpoint: None, node: None }
    }
}

/// The setting behind [`Options::filter`].
pub const LOG_FILTER: Setting = Setting::new(
    "log-filter",
    Kind::Checked { shape: "a log filter", check: check_filter },
    "What is logged on stderr: error, warn, info, debug or trace, or target=level pairs.",
    "lockstep_agent=debug,info",
)
.default("info");

/// The setting behind [`Options::format`].
pub const LOG_FORMAT: Setting = Setting::new(
    "log-format",
    Kind::OneOf(&["auto", "human", "json"]),
    "How log lines look; auto is human on a terminal and JSON otherwise.",
    "json",
)
.default("auto");

/// The setting behind [`Options::otlp_endpoint`].
pub const OTLP_ENDPOINT: Setting = Setting::new(
    "otlp-endpoint",
    Kind::Checked { shape: "a collector's address", check: check_endpoint },
    "The OpenTelemetry collector that gets the spans over OTLP/gRPC, in plain text.",
    "http://127.0.0.1:4317",
);

impl Options {
    /// From a table that holds [`LOG_FILTER`], [`LOG_FORMAT`] and [`OTLP_ENDPOINT`].
    pub fn from_values(values: &Values, node: Option<String>) -> Result<Self, SettingError> {
        let format: String = values.get(LOG_FORMAT.key)?;
        Ok(Self {
            filter: values.get(LOG_FILTER.key)?,
            format: format.parse().map_err(|error| SettingError::new(LOG_FORMAT.key, error))?,
            otlp_endpoint: values.find(OTLP_ENDPOINT.key)?,
            node,
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error(
        "log filter {filter:?} is not understood: {problem}; write a level such as info, or target=level,…"
    )]
    Filter { filter: String, problem: String },
    #[error("otlp endpoint {endpoint:?} cannot be used: {problem}; write http://HOST:PORT")]
    Endpoint { endpoint: String, problem: String },
    #[error("telemetry is set up already; call init once per process")]
    Twice,
}

/// Sends what is left when dropped, within two seconds. To be kept until the end of `main`.
#[must_use = "spans are lost when the guard is dropped"]
#[derive(Debug)]
pub struct Guard {
    _exporter: Option<otlp::Exporter>,
}

/// Sets up logs and, with an endpoint, spans for the whole process. Works inside and outside of a
/// runtime.
pub fn init(service: &'static str, options: &Options) -> Result<Guard, TelemetryError> {
    let terminal = std::io::stderr().is_terminal();
    let (subscriber, guard) = build(service, options, terminal, std::io::stderr)?;
    subscriber.try_init().map_err(|_| TelemetryError::Twice)?;
    Ok(guard)
}

/// Says what is wrong with a log filter; for the table of settings.
pub fn check_filter(filter: &str) -> Result<(), String> {
    parse_filter(filter).map(drop).map_err(|error| error.to_string())
}

/// Says what is wrong with a collector's address; for the table of settings.
pub fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let uri: http::Uri = endpoint.parse().map_err(|_| "it is not a URL".to_owned())?;
    match (uri.scheme_str(), uri.port_u16()) {
        (Some("http"), Some(_)) => Ok(()),
        (Some("https"), _) => Err("the collector is reached in plain text".into()),
        _ => Err("it has no http:// or no port".into()),
    }
}

fn parse_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    // A later directive for the same target wins, so a user can still ask for `h2=trace`.
    EnvFilter::builder()
        .with_default_directive(LevelFilter::ERROR.into())
        .parse(format!("{QUIET_CRATES},{filter}"))
        .map_err(|error| TelemetryError::Filter {
            filter: filter.into(),
            problem: error.to_string(),
        })
}

/// The subscriber of one process, without installing it; tests make two in one process.
fn build<W>(
    service: &'static str,
    options: &Options,
    terminal: bool,
    writer: W,
) -> Result<(impl Subscriber + for<'a> LookupSpan<'a> + Send + Sync + use<W>, Guard), TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let exporter = match &options.otlp_endpoint {
        Some(endpoint) => Some(otlp::Exporter::start(service, endpoint, options.node.as_deref())?),
        None => None,
    };
    let spans = exporter.as_ref().map(|exporter| {
        let tracer = exporter.provider().tracer(service);
        // Whatever is logged: lockstepctl logs warnings only, and is where traces begin.
        let own = Targets::new()
            .with_default(LevelFilter::INFO)
            .with_targets(EXPORT_CRATES.map(|name| (name, LevelFilter::OFF)));
        tracing_opentelemetry::layer().with_tracer(tracer).with_filter(own)
    });
    let human = match options.format {
        Format::Human => true,
        Format::Json => false,
        Format::Auto => terminal,
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(terminal)
        // It would tell of a broken stderr on stderr, and panic.
        .log_internal_errors(false);
    let lines = if human { lines.boxed() } else { lines.json().flatten_event(true).boxed() };
    let lines = lines.with_filter(parse_filter(&options.filter)?);
    let subscriber = tracing_subscriber::registry().with(spans).with(lines);
    Ok((subscriber, Guard { _exporter: exporter }))
}

#[cfg(test)]
mod tests;
