//! Passwords and tokens: from a file or from stdin, which does not show them on a terminal.

use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::Path;

use console::Term;

use crate::error::Failure;

/// Longest password or token, in bytes.
const SECRET_BYTES_MAX: u64 = 4096;

/// A password: the first line of a file, or of stdin with `-`. `option` is how the file was named.
pub fn password(option: &str, file: &Path) -> Result<String, Failure> {
    let wrong =
        |why: &dyn std::fmt::Display| Failure::usage(format!("{option} {}: {why}", file.display()));
    let line = match file.as_os_str() == "-" {
        true => of_stdin("Password"),
        false => first_line(std::fs::File::open(file).map_err(|e| wrong(&e))?),
    };
    line.map_err(|e| wrong(&e))
}

/// The first line of stdin; a terminal is asked for it by this name.
pub fn of_stdin(name: &str) -> Result<String, String> {
    let terminal = Term::stderr();
    if !(std::io::stdin().is_terminal() && terminal.is_term()) {
        return first_line(std::io::stdin());
    }
    let asked = terminal.write_str(&format!("{name}: "));
    let line = asked.and_then(|()| terminal.read_secure_line()).map_err(|e| e.to_string())?;
    first_line(line.as_bytes())
}

fn first_line(from: impl Read) -> Result<String, String> {
    let mut line = String::new();
    let read = BufReader::new(from.take(SECRET_BYTES_MAX + 2)).read_line(&mut line);
    read.map_err(|e| e.to_string())?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    match line {
        "" => Err("its first line is empty".to_owned()),
        line if line.len() as u64 > SECRET_BYTES_MAX => {
            Err(format!("its first line has more than {SECRET_BYTES_MAX} bytes"))
        }
        line => Ok(line.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line() {
        let read = |text: &str| first_line(text.as_bytes());
        for (text, password) in [
            ("secret", "secret"),
            ("secret\nmore\n", "secret"),
            ("a b \r\n", "a b "),
            (" x\n", " x"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(password));
        }
        for wrong in ["", "\n", "\r\n", "\nsecret\n", &"x".repeat(4097)] {
            let problem = read(wrong).unwrap_err();
            assert!(!problem.contains("secret"), "{problem}");
        }
    }
}
