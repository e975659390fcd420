//! Asks a health listener over plain HTTP, as a load balancer does. One request, one answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::host::Host;

const WITHIN: Duration = Duration::from_secs(5);
const REPLY_BYTES_MAX: u64 = 1 << 20;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    pub status: u16,
    pub body: String,
}

/// The answer to `GET path`, asked from this host; an error if there is none within five seconds.
pub fn get(from: &Host, at: SocketAddr, path: &str) -> Result<Reply> {
    from.enter(|| fetch(at, path))?
}

/// As [`get`], from where the calling thread is.
pub fn fetch(at: SocketAddr, path: &str) -> Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&at, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n")?;
    let mut text = String::new();
    stream.take(REPLY_BYTES_MAX).read_to_string(&mut text)?;
    parse(&text).with_context(|| format!("not HTTP: {text:?}"))
}

fn parse(text: &str) -> Option<Reply> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Reply { status, body: body.trim_end().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_status_and_the_reason() {
        let text = "HTTP/1.0 503 Service Unavailable\r\ncontent-length: 9\r\n\r\ndraining\n";
        assert_eq!(parse(text), Some(Reply { status: 503, body: "draining".to_owned() }));
        for garbage in
            ["", "\r\n\r\n", "HTTP/1.1\r\n\r\n", "HTTP/1.1 x\r\n\r\n", "SSH-2.0 200 x\r\n\r\n"]
        {
            assert_eq!(parse(garbage), None, "{garbage:?}");
        }
    }
}
