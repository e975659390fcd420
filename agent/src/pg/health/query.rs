//! The parameters of a check.

use lockstep_model::rate::Size;
use percent_encoding::percent_decode_str;

/// Most parameters that are read; more make a check fail.
const PARAMETERS_MAX: usize = 64;

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Query {
    /// Most that a standby may be behind.
    pub lag: Option<Size>,
    /// `streaming` or `in archive recovery`.
    pub replication_state: Option<String>,
    /// Lag counts what is written, and not what is applied.
    pub written: bool,
    pub tags: Vec<(String, String)>,
}

impl Query {
    /// Parameters that nobody knows are not looked at, as balancers add their own.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut query = Self::default();
        let pairs: Vec<&str> = text.split('&').filter(|pair| !pair.is_empty()).collect();
        if pairs.len() > PARAMETERS_MAX {
            return Err(format!("at most {PARAMETERS_MAX} parameters are read"));
        }
        for pair in pairs {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (plain(name), plain(value));
            match name.as_str() {
                "lag" => query.lag = Some(size(&value)?),
                "replication_state" => query.replication_state = Some(value),
                "mode" if value == "apply" => query.written = false,
                "mode" if value == "write" => query.written = true,
                "mode" => return Err("mode must be apply or write".to_owned()),
                name => {
                    if let Some(tag) = name.strip_prefix("tag_") {
                        query.tags.push((tag.to_owned(), value));
                    }
                }
            }
        }
        Ok(query)
    }
}

fn plain(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

/// `1048576`, `16kB`, `10MB`, `1GB`.
fn size(text: &str) -> Result<Size, String> {
    let upper = text.to_ascii_uppercase();
    let size = upper.strip_suffix('B').unwrap_or(&upper).parse();
    size.map_err(|_| "lag must look like 1048576, 16kB, 10MB or 1GB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_balancers_write_them() {
        for (text, lag) in [
            ("lag=100", 100),
            ("lag=16kB", 16 << 10),
            ("lag=10MB&x=y", 10 << 20),
            ("a&lag=1GB", 1 << 30),
            ("lag=100B", 100),
            ("lag=0", 0),
        ] {
            assert_eq!(Query::read(text).unwrap().lag, Some(Size(lag)), "{text}");
        }
        let query =
            Query::read("tag_key1=value1&tag_a%20b=c+d&mode=write&replication_state=streaming");
        let query = query.unwrap();
        let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(query.tags, [tag("key1", "value1"), tag("a b", "c d")]);
        assert_eq!(query.replication_state.as_deref(), Some("streaming"));
        assert!(query.written);
        assert_eq!(Query::read("").unwrap(), Query::default());
        for wrong in ["lag=much", "lag=", "lag=-1", "lag=1XB", "mode=x", &"a&".repeat(65)] {
            assert!(Query::read(wrong).is_err(), "{wrong}");
        }
    }
}
