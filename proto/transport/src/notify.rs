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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn socket() -> (tempfile::TempDir, tokio::net::UnixDatagram, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
        (dir, socket, path.to_str().unwrap().to_owned())
    }

    async fn next(socket: &tokio::net::UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let received = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer));
        let length = received.await.unwrap().unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[tokio::test]
    async fn systemd_is_told() {
        let (_dir, socket, path) = socket();
        let notifier = Notifier::new(|name| (name == "NOTIFY_SOCKET").then(|| path.clone()), 1);
        notifier.ready();
        notifier.status("two\nlines");
        notifier.stopping();
        for expected in ["READY=1", "STATUS=two lines", "STOPPING=1"] {
            assert_eq!(next(&socket).await, expected);
        }
        // No watchdog was asked for: nothing to keep.
        notifier.keep_watchdog(&HealthBoard::new()).await;
    }

    #[tokio::test]
    async fn the_watchdog_is_fed_only_while_live() {
        let (_dir, socket, path) = socket();
        let variable = |name: &str| match name {
            "NOTIFY_SOCKET" => Some(path.clone()),
            "WATCHDOG_USEC" => Some("20000".to_owned()),
            "WATCHDOG_PID" => Some("7".to_owned()),
            _ => None,
        };
        let board = HealthBoard::new();
        let notifier = Notifier::new(variable, 7);
        let told = async {
            for _ in 0..3 {
                assert_eq!(next(&socket).await, "WATCHDOG=1");
            }
            board.set(LIVE, Verdict::NotServing, "stuck");
            notifier.status("stuck");
            // At most the ping of a tick that was under way comes before the line.
            while next(&socket).await != "STATUS=stuck" {}
            let more = tokio::time::timeout(Duration::from_millis(100), next(&socket)).await;
            assert!(more.is_err(), "{more:?}");
        };
        tokio::select! {
            () = notifier.keep_watchdog(&board) => panic!("ended"),
            () = told => {}
        }
        let of_another = Notifier::new(variable, 8);
        of_another.keep_watchdog(&board).await;
    }

    #[test]
    fn without_systemd_nothing_happens() {
        Notifier::new(|_| None, 1).ready();
        Notifier::new(|_| Some("/nonexistent/socket".into()), 1).ready();
    }

    #[test]
    fn an_abstract_socket_is_reached() {
        let name = format!("lockstep-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        Notifier::new(|_| Some(format!("@{name}")), 1).ready();
        let mut buffer = [0; 16];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 7);
    }
}
