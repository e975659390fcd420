//! The TCP options of every connection, accepted or dialed: no delay, and a dead peer is noticed.

use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

use crate::tls::Alpn;

const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_COUNT: u32 = 3;
/// How long sent data may stay without an answer.
const GRPC_UNANSWERED: Duration = Duration::from_secs(20);
/// The kernel counts a full receive window too, and an rsync that waits for its disk is not dead.
const DATA_UNANSWERED: Duration = Duration::from_secs(120);

pub(crate) fn tune(stream: &TcpStream, alpn: Alpn) -> io::Result<()> {
    let unanswered = match alpn {
        Alpn::Grpc => GRPC_UNANSWERED,
        Alpn::Data => DATA_UNANSWERED,
    };
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_COUNT)?;
    let unanswered_ms = u32::try_from(unanswered.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, unanswered_ms)?;
    Ok(())
}
