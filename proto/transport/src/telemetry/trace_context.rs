//! W3C trace context: which span of which process something was done for. A peer's text is parsed
//! strictly, and garbage means no parent, never an error.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tonic::metadata::{MetadataMap, MetadataValue};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The name of the metadata entry.
pub const TRACEPARENT: &str = "traceparent";
/// version, trace id, span id and flags with their dashes.
const LENGTH: usize = 2 + 1 + 32 + 1 + 16 + 1 + 2;

/// The current span in the form that another process can take as a parent; None when no spans are
/// kept.
pub fn current_traceparent() -> Option<String> {
    let context = Span::current().context();
    let span = context.span();
    let span = span.span_context();
    let flags = span.trace_flags() & TraceFlags::SAMPLED;
    span.is_valid().then(|| format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id()))
}

/// Makes `span` a child of another process's span. Only before the span is entered the first time;
/// without spans kept, or with text that is no traceparent, nothing happens.
pub fn set_parent(span: &Span, traceparent: &str) {
    if let Some(parent) = parse(traceparent) {
        let context = opentelemetry::Context::new().with_remote_span_context(parent);
        // Refused for a span that the filter left out, which then needs no parent.
        let _ = span.set_parent(context);
    }
}

/// Puts the current span into a request's metadata.
pub fn inject_traceparent(metadata: &mut MetadataMap) {
    let value = current_traceparent().and_then(|text| MetadataValue::try_from(text).ok());
    if let Some(value) = value {
        metadata.insert(TRACEPARENT, value);
    }
}

/// The caller's span as a request carries it, if that is one.
pub fn extract_traceparent(metadata: &MetadataMap) -> Option<&str> {
    metadata.get(TRACEPARENT)?.to_str().ok().filter(|text| parse(text).is_some())
}

fn parse(text: &str) -> Option<SpanContext> {
    let bytes = text.as_bytes();
    let hex = |range: std::ops::Range<usize>| {
        let part = text.get(range)?;
        part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')).then_some(part)
    };
    if bytes.len() < LENGTH || [2, 35, 52].iter().any(|dash| bytes[*dash] != b'-') {
        return None;
    }
    // A later version may add fields after another dash; its first four mean the same.
    match hex(0..2)? {
        "ff" => return None,
        "00" if bytes.len() > LENGTH => return None,
        _ if bytes.len() > LENGTH && bytes[LENGTH] != b'-' => return None,
        _ => {}
    }
    let trace = TraceId::from_hex(hex(3..35)?).ok()?;
    let span = SpanId::from_hex(hex(36..52)?).ok()?;
    let flags = u8::from_str_radix(hex(53..55)?, 16).ok()?;
    let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    let context = SpanContext::new(trace, span, flags, true, TraceState::NONE);
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_taken_or_left() {
        let later = format!("cc{}-what-comes", &GOOD[2..]);
        for text in [GOOD, &GOOD.replace("-01", "-00"), &GOOD.replace("-01", "-ff"), &later] {
            assert!(parse(text).is_some(), "{text}");
        }
        let zeros = |n| "0".repeat(n);
        for text in [
            "".to_owned(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-"),
            format!("{GOOD}0"),
            format!("ff{}", &GOOD[2..]),
            format!("cc{}x", &GOOD[2..]),
            GOOD.to_uppercase(),
            GOOD.replace('-', "_"),
            GOOD.replace("4bf9", "4bg9"),
            GOOD.replace("4bf9", "+bf9"),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &zeros(32)),
            GOOD.replace("00f067aa0ba902b7", &zeros(16)),
            format!(" {}", &GOOD[1..]),
            "é".repeat(30),
        ] {
            assert!(parse(&text).is_none(), "{text}");
        }
    }
}
