//! Which names rsync complains about on standard error, so that only they are brought again. Pure; a
//! line that names nothing makes the whole text worthless, since then anything may be missing.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::journal::RelPath;

/// Names in whose place a directory with something in it stays for want of power; rsync calls that a
/// success when the name was to be removed.
pub fn blocked(stderr: &str) -> Vec<RelPath> {
    let bare = |line: &str| BARE.iter().find_map(|start| line.strip_prefix(start)).map(unescape);
    stderr.lines().filter_map(|line| tidy(bare(line)?)).collect()
}

/// How rsync says that it left something which was to be removed.
const DELETIONS_CUT: &str = "Deletions stopped due to --max-delete limit";

/// Entries that `--max-delete` left, as rsync counts them: of a directory that is not empty only what
/// is in it. None when it left none.
pub fn deletions_cut(stderr: &str) -> Option<u64> {
    let rest = stderr.lines().find_map(|line| line.strip_prefix(DELETIONS_CUT))?;
    let count = rest.trim_start_matches([' ', '(']).split(' ').next();
    Some(count.and_then(|count| count.parse().ok()).unwrap_or(u64::MAX))
}

/// Whether all that is said is that something is in the way of something else, or was left.
pub fn is_only_blocked(stderr: &str) -> bool {
    let lines = stderr.lines().filter(|line| !line.trim_end().is_empty());
    let starts = |line: &str, of: &[&str]| of.iter().any(|start| line.starts_with(start));
    let mut telling = lines.filter(|line| !starts(line, &SUMMARIES)).peekable();
    telling.peek().is_some() && telling.all(|line| starts(line, &BARE))
}

/// What only sums up what other lines say.
const SUMMARIES: [&str; 4] = [
    "rsync error: ",
    "rsync warning: ",
    "Deletions stopped due to ",
    "*** Skipping any contents from this failed directory ***",
];
/// In front of a name that stands at the end of a line, in no quotes.
const BARE: [&str; 4] = [
    "cannot delete non-empty directory: ",
    "could not make way for new regular file: ",
    "could not make way for new symlink: ",
    "could not make way for new directory: ",
];

/// The names of all complaints, seen from the top of `source`; None when a line does not tell its
/// name. Names may be those of directories above or of files below what was asked for. `top` is how
/// the target calls its own top, if it puts that in front of names.
pub fn names(stderr: &str, source: &Path, top: &str) -> Option<Vec<RelPath>> {
    // A blank at the end may be the name's.
    let lines = stderr.lines().filter(|line| !line.trim_end().is_empty());
    let telling = lines.filter(|line| !SUMMARIES.iter().any(|start| line.starts_with(start)));
    let (source, top) = (source.as_os_str().as_bytes(), top.as_bytes());
    telling.map(|line| name(line, source, top)).collect()
}

fn name(line: &str, source: &[u8], top: &[u8]) -> Option<RelPath> {
    if let Some(bare) = BARE.iter().find_map(|start| line.strip_prefix(start)) {
        return tidy(unescape(bare));
    }
    // `[receiver] rename "/.f.AbCdEf" (in webroot) -> "f": …` names two: the last is the real one.
    let quoted = match line.split_once("\" -> \"").or(line.split_once(" -> \"")) {
        Some((_, to)) if line.contains("] rename \"") => to.split('"').next()?,
        _ => match line.split_once('"') {
            Some((_, rest)) => rest.split('"').next()?,
            // `delete_file: unlink(a/b) failed: …`
            None => {
                let (_, rest) = line.split_once("delete_file: ")?;
                rest.split_once('(')?.1.rsplit_once(") failed")?.0
            }
        },
    };
    let full = unescape(quoted);
    // The sender names its files in full, the receiver from the top of its directory or module.
    let is_own = line.contains("[sender]") || line.starts_with("file has vanished");
    let inner = match (below(&full, source), below(&full, top)) {
        (Some(inner), _) if is_own => inner,
        (_, Some(inner)) if !is_own && !top.is_empty() => inner,
        (Some(inner), _) if top.is_empty() => inner,
        _ if is_own || (full.starts_with(b"/") && !top.is_empty()) => return None,
        _ => full,
    };
    let path = if line.contains("] mkstemp \"") { without_temporary(&inner)? } else { inner };
    tidy(path)
}

fn below(full: &[u8], top: &[u8]) -> Option<Vec<u8>> {
    let rest = full.strip_prefix(top)?;
    (rest.is_empty() || rest.starts_with(b"/")).then(|| rest.to_vec())
}

fn tidy(path: Vec<u8>) -> Option<RelPath> {
    let path = path.strip_prefix(b"/").unwrap_or(&path);
    (!path.is_empty()).then(|| path.into())
}

/// `dir/.name.AbCdEf` is a temporary file of `dir/name`; a long name is cut in it, and tells nothing.
fn without_temporary(path: &[u8]) -> Option<Vec<u8>> {
    let at = path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
    let (dir, file) = path.split_at(at);
    let name = file.strip_prefix(b".")?;
    let len = name.len().checked_sub(7)?;
    let fits = name.get(len) == Some(&b'.') && name.len() < 200;
    fits.then(|| [dir, &name[..len]].concat())
}

/// `\#ooo` is the byte with this octal number.
fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes[at..].strip_prefix(b"\\#").and_then(|rest| rest.get(..3));
        let value = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match value {
            Some(byte) => {
                out.push(byte);
                at += 5;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_of_rsync_tell_their_names() {
        let cases = [
            (r#"rsync: [receiver] mkstemp "/ro/.n.3V0h5j" (in m) failed: No (1)"#, Some("ro/n")),
            (
                r#"rsync: [receiver] mkstemp "/ro/.w\#012r.Tlq7qa" (in m) failed: x"#,
                Some("ro/w\nr"),
            ),
            (r#"rsync: [receiver] rename "/.imm.jWMegj" (in m) -> "imm": No (1)"#, Some("imm")),
            (r#"rsync: [sender] opendir "/srv/www/sub" failed: Permission denied"#, Some("sub")),
            (r#"rsync: [sender] send_files failed to open "/srv/www/a b": No"#, Some("a b")),
            (r#"rsync: [generator] delete_file: unlink(ro/z) failed: No (1)"#, Some("ro/z")),
            (r#"rsync: [generator] recv_generator: mkdir "/d/e" (in m) failed: x"#, Some("d/e")),
            (r#"rsync: [generator] symlink "/l" (in m) -> "to" failed: No"#, Some("l")),
            (r#"file has vanished: "/srv/www/gone""#, Some("gone")),
            ("cannot delete non-empty directory: sub/b", Some("sub/b")),
            ("could not make way for new regular file: sub/b", Some("sub/b")),
            ("IO error encountered -- skipping file deletion", None),
            (r#"rsync: [sender] opendir "/srv/wwwx/sub" failed: x"#, None),
            (r#"rsync: [sender] opendir "/srv/www" failed: x"#, None),
            (r#"rsync: [receiver] write failed on "unclosed"#, Some("unclosed")),
        ];
        for (line, name) in cases {
            let text = format!("\n{line}\nrsync error: some files (code 23) at main.c(1394)\n");
            let told = names(&text, Path::new("/srv/www"), "");
            assert_eq!(told, name.map(|name| vec![name.as_bytes().into()]), "{line}");
        }
        // A target without an agent puts its own top in front of names.
        let far = |line: &str| names(line, Path::new("/srv"), "/srv/www");
        let told = |name: &str| Some(vec![RelPath::from(name.as_bytes())]);
        let line = r#"rsync: [receiver] mkstemp "/srv/www/ro/.n.3V0h5j" failed: No (1)"#;
        assert_eq!(far(line), told("ro/n"));
        let line = r#"rsync: [generator] recv_generator: mkdir "/srv/www/a" failed: No (13)"#;
        let skipped = "*** Skipping any contents from this failed directory ***";
        assert_eq!(far(&format!("{line}\n{skipped}\n")), told("a"));
        assert_eq!(
            far(r#"rsync: [sender] send_files failed to open "/srv/www/a": x"#),
            told("www/a")
        );
        assert_eq!(
            far(r#"rsync: [generator] delete_file: unlink(a/b) failed: No (1)"#),
            told("a/b")
        );
        assert_eq!(far(r#"rsync: [generator] failed to set times on "/srv/b": No (1)"#), None);
        let both = "cannot delete non-empty directory: a\nwho knows\n";
        assert_eq!(names(both, Path::new("/s"), ""), None);
        assert_eq!(names("", Path::new("/s"), ""), Some(vec![]));
    }

    #[test]
    fn a_name_may_end_in_a_blank() {
        let text = "could not make way for new regular file: d/trail \r\n";
        let name: RelPath = b"d/trail "[..].into();
        assert_eq!(blocked(text), std::slice::from_ref(&name));
        assert_eq!(names(text, Path::new("/src"), ""), Some(vec![name]));
        assert!(is_only_blocked(text));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,60}", line in "[-> \"a/.\\\\#0-7():]{0,40}") {
            let _ = (names(&text, Path::new("/"), ""), names(&line, Path::new("/s"), ""));
        }
    }
}
