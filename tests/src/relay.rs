//! Delay, loss and reordering for kernels without netem: a TAP on the switch that receives the
//! frames of detoured directions and sends them on, late or never. It sees no other frame.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{self, PipeReader, PipeWriter, pipe};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tappers::Interface;
use tappers::linux::Tap;

use crate::address::{HostNo, Mac};
use crate::impair::{Impair, Line};
use crate::netns::NetNs;

/// The relay's port on the switch.
pub const PORT: &str = "relay";
/// Frames on their way; more are lost, as in any full queue.
const FRAMES_MAX: usize = 20_000;
/// An Ethernet frame of the usual MTU with a VLAN tag, and room.
const FRAME_BYTES_MAX: usize = 2048;

type Lines = Arc<Mutex<HashMap<(HostNo, HostNo), Line>>>;

pub struct Relay {
    lines: Lines,
    // Dropping the writer ends the thread, and with it the TAP.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Makes the port in the namespace of the switch; to attach it is the caller's.
    pub fn start(switch: &NetNs) -> Result<Self> {
        let tap = switch
            .enter(|| -> io::Result<Tap> {
                let tap = Tap::create_named(Interface::new(PORT)?)?;
                tap.set_nonblocking(true)?;
                Ok(tap)
            })?
            .context("make a TAP: is /dev/net/tun there?")?;
        let lines = Lines::default();
        let (stopped, stop) = pipe()?;
        let mut forwarder =
            Forwarder { tap, lines: lines.clone(), queue: BinaryHeap::new(), count: 0 };
        let thread = thread::Builder::new()
            .name("relay".to_owned())
            .spawn(move || forwarder.run(&stopped))?;
        Ok(Self { lines, stop: Some(stop), thread: Some(thread) })
    }

    /// Carries a direction from now on; until then, and after `None`, its frames are lost.
    pub fn carry(&self, from: HostNo, to: HostNo, impair: Option<Impair>) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        match impair {
            Some(impair) => lines.insert((from, to), Line::new(impair)),
            None => lines.remove(&(from, to)),
        };
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A frame on its way: when it is due, its number, itself.
type Frame = Reverse<(Instant, u64, Vec<u8>)>;

struct Forwarder {
    tap: Tap,
    lines: Lines,
    queue: BinaryHeap<Frame>,
    count: u64,
}

impl Forwarder {
    fn run(&mut self, stopped: &PipeReader) {
        loop {
            let timeout = self.queue.peek().map(|Reverse((due, ..))| {
                Timespec::try_from(due.saturating_duration_since(now())).unwrap_or_default()
            });
            let mut events =
                [PollFd::new(&self.tap, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
            if poll(&mut events, timeout.as_ref()).is_err() || !events[1].revents().is_empty() {
                return;
            }
            self.take_in();
            self.send_due();
        }
    }

    fn take_in(&mut self) {
        let mut buffer = [0; FRAME_BYTES_MAX];
        while let Ok(length) = self.tap.recv(&mut buffer) {
            let Some(frame) = buffer.get(..length) else { return };
            if let Some((due, frame)) = self.admit(frame)
                && self.queue.len() < FRAMES_MAX
            {
                self.count += 1;
                self.queue.push(Reverse((due, self.count, frame)));
            }
        }
    }

    /// The frame as it goes on, and when; `None` if it does not.
    fn admit(&self, frame: &[u8]) -> Option<(Instant, Vec<u8>)> {
        let (from, to) = Mac(*frame.first_chunk()?).direction()?;
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let due = lines.get_mut(&(from, to))?.due(now())?;
        let mut frame = frame.to_vec();
        *frame.first_chunk_mut()? = Mac::of(to).0;
        Some((due, frame))
    }

    fn send_due(&mut self) {
        while let Some(Reverse((due, ..))) = self.queue.peek()
            && *due <= now()
        {
            if let Some(Reverse((_, _, frame))) = self.queue.pop() {
                // A switch that is being taken down loses frames.
                let _ = self.tap.send(&frame);
            }
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the relay is what time does to frames")]
fn now() -> Instant {
    Instant::now()
}
