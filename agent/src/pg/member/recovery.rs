//! How far crash recovery is: what the startup process says of itself in its title. It proves nothing
//! but that something moves.

use std::fs;

/// The segment that is being replayed; None: nobody recovers, or the title is not shown.
pub fn segment(pids: &[i32]) -> Option<String> {
    pids.iter().find_map(|pid| read(&fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?))
}

/// `postgres: main: startup recovering 000000010000000000000003`.
fn read(title: &str) -> Option<String> {
    let title = title.trim_end_matches(['\0', ' ']);
    let (before, segment) = title.split_once("recovering ")?;
    (before.starts_with("postgres:") && before.contains("startup")).then(|| segment.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_tells_the_segment() {
        let title = "postgres: db1: startup recovering 000000010000000000000003\0\0";
        assert_eq!(read(title).as_deref(), Some("000000010000000000000003"));
        assert_eq!(read("postgres: db1: checkpointer"), None);
        assert_eq!(read("vi recovering 1"), None);
        assert_eq!(segment(&[]), None);
    }
}
