//! The books as a small text that is either the old one or the new one, and known to be whole. Books
//! that cannot be read are an error: nothing is done for a member whose promises are not known.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use lockstep_model::Millis;
use lockstep_model::NodeName;
use lockstep_model::cluster::report::Released;
use lockstep_model::cluster::{Quorum, SystemId, Term};
use lockstep_transport::durable;

use super::{Books, Promise};
use crate::pg::boottime::Boottime;

const HEAD: &str = "lockstep books 1";
/// The file's name in the directory of its cluster.
const FILE: &str = "books";

#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{} is damaged; fence this instance by hand, make sure that it is no primary, and remove the file",
        path.display()
    )]
    Damaged { path: PathBuf },
    #[error("the agent ends")]
    Ended,
}

/// Where books are kept; the directory exists.
#[derive(Clone, Debug)]
pub struct BooksFile(PathBuf);

impl BooksFile {
    pub fn new(dir: &Path) -> Self {
        Self(dir.join(FILE))
    }

    /// Empty books when there are none yet.
    pub fn load(&self) -> Result<Books, BooksError> {
        let text = match fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Books::default()),
            Err(source) if source.kind() == io::ErrorKind::InvalidData => {
                return Err(BooksError::Damaged { path: self.0.clone() });
            }
            Err(source) => return Err(BooksError::Io { path: self.0.clone(), source }),
        };
        read(&text).ok_or_else(|| BooksError::Damaged { path: self.0.clone() })
    }

    /// Durable when it returns. Waits for the disk.
    pub fn save(&self, books: &Books) -> Result<(), BooksError> {
        let wrote = durable::write(&self.0, write(books).as_bytes());
        wrote.map_err(|source| BooksError::Io { path: self.0.clone(), source })
    }
}

fn write(books: &Books) -> String {
    let Books {
        system_id,
        promised,
        holding,
        led,
        released,
        sealed_for,
        fenced,
        copy,
        quorum,
        promotable,
        promise,
    } = books;
    let mut text =
        format!("{HEAD}\npromised {promised}\nfenced {fenced}\ncopy {copy}\nled {led}\n");
    let mut line = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            text += &format!("{key} {value}\n");
        }
    };
    line("system-id", system_id.map(|id| id.to_string()));
    line("holding", holding.map(|term| term.to_string()));
    line("sealed-for", sealed_for.map(|term| term.to_string()));
    line("quorum", Some(format!("{} {}", quorum.k, join(&quorum.of))));
    line("promotable", Some(join(promotable)));
    line(
        "released",
        released.as_ref().map(|Released { term, end, clean }| {
            let end = end.map_or("-".to_owned(), |end| end.to_string());
            format!("{term} {end} {clean}")
        }),
    );
    line(
        "promise",
        promise.as_ref().map(|Promise { term, to, length, boot, until }| {
            format!("{term} {to} {} {} {boot}", length.0, until.0)
        }),
    );
    let sum = crc32fast::hash(text.as_bytes());
    text + &format!("sum {sum:08x}\n")
}

fn join(names: &BTreeSet<NodeName>) -> String {
    names.iter().map(NodeName::as_str).collect::<Vec<_>>().join(",")
}

fn read(text: &str) -> Option<Books> {
    let (body, sum) = text.strip_suffix('\n')?.rsplit_once("\nsum ")?;
    let body = format!("{body}\n");
    if u32::from_str_radix(sum, 16).ok()? != crc32fast::hash(body.as_bytes()) {
        return None;
    }
    let mut books = Books::default();
    let mut lines = body.lines();
    if lines.next()? != HEAD {
        return None;
    }
    for line in lines {
        let (key, value) = line.split_once(' ')?;
        match key {
            "promised" => books.promised = Term(number(value)?),
            "fenced" => books.fenced = number(value)?,
            "led" => books.led = number(value)?,
            "copy" => books.copy = number(value)?,
            "system-id" => books.system_id = Some(SystemId(number(value)?)),
            "holding" => books.holding = Some(Term(number(value)?)),
            "sealed-for" => books.sealed_for = Some(Term(number(value)?)),
            "quorum" => {
                let (k, of) = value.split_once(' ')?;
                books.quorum = Quorum { k: number(k)?, of: split(of)? };
            }
            "promotable" => books.promotable = split(value)?,
            "released" => {
                let [term, end, clean] = fields(value)?;
                let end = if end == "-" { None } else { Some(end.parse().ok()?) };
                books.released =
                    Some(Released { term: Term(number(term)?), end, clean: number(clean)? });
            }
            "promise" => {
                let [term, to, length, until, boot] = fields(value)?;
                books.promise = Some(Promise {
                    term: Term(number(term)?),
                    to: to.parse().ok()?,
                    length: Millis(number(length)?),
                    boot: boot.to_owned(),
                    until: Boottime(number(until)?),
                });
            }
            _ => return None,
        }
    }
    Some(books)
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn fields<const N: usize>(text: &str) -> Option<[&str; N]> {
    text.split(' ').collect::<Vec<_>>().try_into().ok()
}

fn split(text: &str) -> Option<BTreeSet<NodeName>> {
    text.split(',').filter(|name| !name.is_empty()).map(|name| name.parse().ok()).collect()
}
