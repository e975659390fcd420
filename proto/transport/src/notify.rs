//! Tells systemd how the service is: ready, stopping, its status line, and the watchdog's pings
//! while the board says `live`. One datagram each to the socket of NOTIFY_SOCKET; without that
//! variable it does nothing.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::health::{HealthBoard, LIVE, Verdict};

/// What systemd asked of this process by its environment.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID through `variable`; `pid` is this
    /// process. A socket that cannot be reached is logged once and then left out.
    pub fn new(variable: impl Fn(&str) -> Option<String>, pid: u32) -> Self {
        let socket = variable("NOTIFY_SOCKET").and_then(|path| {
            let connected = connect(&path);
            connected
                .inspect_err(|error| tracing::warn!(%error, path, "cannot reach systemd's socket"))
                .ok()
        });
        let ours = variable("WATCHDOG_PID").is_none_or(|text| text.parse() == Ok(pid));
        let period_us = variable("WATCHDOG_USEC").and_then(|text| text.parse::<u64>().ok());
        let watchdog = period_us.filter(|us| ours && *us > 0).map(Duration::from_micros);
        Self { socket, watchdog }
    }

    /// Start-up is complete.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The shutdown has begun.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The line that `systemctl status` shows.
    pub fn status(&self, line: &str) {
        self.send(&format!("STATUS={}", line.replace(char::is_control, " ")));
    }

    /// Pings the watchdog at half its period as long as the board says `live`; returns at once
    /// without a watchdog. To be run beside the program's work.
    pub async fn keep_watchdog(&self, board: &HealthBoard) {
        let Some(period) = self.watchdog else { return };
        let mut ticks = interval(period / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if board.get(LIVE).is_some_and(|live| live.verdict == Verdict::Serving) {
                self.send("WATCHDOG=1");
            }
        }
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket {
            // A full or closed socket is systemd's trouble; ours would be to wait for it.
            let _ = socket.send(message.as_bytes());
        }
    }
}

fn connect(path: &str) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match path.strip_prefix('@') {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(path)?,
    }
    Ok(socket)
}
