//! Wire to model and back. Everything from outside passes through `TryFrom`, is validated there and
//! names the field that does not fit; the way out is `From`. Both destructure without `..`, so that
//! a new field cannot be forgotten.

pub mod agent;
pub mod cluster;
mod identity;
pub mod mirror;
pub mod node;
mod report;
mod schedule;
mod sync;
pub mod task;

use lockstep_model::{Invalid, Timestamp};

/// A message field that must be there.
pub fn required<T>(field: &'static str, value: Option<T>) -> Result<T, Invalid> {
    value.ok_or_else(|| Invalid::new(field, "is missing"))
}

/// Converts each element, naming its place: `targets[2].node name: must not be empty`.
pub fn each<W, M: TryFrom<W, Error = Invalid>>(
    field: &'static str,
    max: usize,
    items: impl IntoIterator<Item = W, IntoIter: ExactSizeIterator>,
) -> Result<Vec<M>, Invalid> {
    let items = items.into_iter();
    if items.len() > max {
        return Err(Invalid::new(field, format!("has {} entries, at most {max} fit", items.len())));
    }
    items
        .enumerate()
        .map(|(i, item)| M::try_from(item).map_err(|e| e.within(format_args!("{field}[{i}]"))))
        .collect()
}

/// Parses each text, naming its place.
pub fn parse_each<M: std::str::FromStr<Err = Invalid>>(
    field: &'static str,
    max: usize,
    texts: &[String],
) -> Result<Vec<M>, Invalid> {
    if texts.len() > max {
        return Err(Invalid::new(field, format!("has {} entries, at most {max} fit", texts.len())));
    }
    texts
        .iter()
        .enumerate()
        .map(|(i, text)| text.parse::<M>().map_err(|e| e.within(format_args!("{field}[{i}]"))))
        .collect()
}

/// Parses one text, naming the field.
pub fn parse<M: std::str::FromStr<Err = Invalid>>(
    field: &'static str,
    text: &str,
) -> Result<M, Invalid> {
    text.parse::<M>().map_err(|e| e.within(field))
}

/// Empty: none.
pub fn optional<M: std::str::FromStr<Err = Invalid>>(
    field: &'static str,
    text: &str,
) -> Result<Option<M>, Invalid> {
    if text.is_empty() { Ok(None) } else { parse(field, text).map(Some) }
}

pub fn to_wire_time(Timestamp(ms): Timestamp) -> pbjson_types::Timestamp {
    pbjson_types::Timestamp {
        seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        nanos: (ms % 1000) as i32 * 1_000_000,
    }
}

/// Times before 1970 become 0: nothing here has one.
pub fn from_wire_time(time: &pbjson_types::Timestamp) -> Timestamp {
    let seconds = u64::try_from(time.seconds).unwrap_or(0);
    let ms = u64::try_from(time.nanos / 1_000_000).unwrap_or(0);
    Timestamp(seconds.saturating_mul(1000).saturating_add(ms))
}

/// Text from a peer that ends up in lists and logs: one line, at most `max` bytes.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let mut line: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(max).collect();
    line.truncate(line.floor_char_boundary(max));
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;

    #[test]
    fn the_place_of_a_wrong_element_is_named() {
        let good = v1::Place { node: "web1".into(), path: "/srv".into() };
        let bad = v1::Place { node: "web 2".into(), path: "/srv".into() };
        let result = each::<_, lockstep_model::sync::Place>("targets", 9, vec![good, bad]);
        let error = result.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.starts_with("targets[1].node name: "), "{error}");
    }

    #[test]
    fn text_from_a_peer_becomes_one_short_line() {
        assert_eq!(one_line("a\nb\u{1b}[31m ", 80), "a b [31m");
        assert_eq!(one_line("ééé", 3), "é");
    }

    #[test]
    fn times_survive_the_wire() {
        for ms in [0, 1, 999, 1000, 1_790_000_000_123] {
            assert_eq!(from_wire_time(&to_wire_time(Timestamp(ms))), Timestamp(ms));
        }
    }
}
