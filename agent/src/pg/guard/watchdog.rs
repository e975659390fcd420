//! The kernel's watchdog, which resets the machine when it is not fed in time: for what no kill ends, and
//! for a guard that gets no processor. Fed only as long as a reset would come before the lease's end;
//! allocates nothing once it is made.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use lockstep_model::Millis;
use rustix::fs::{Mode, OFlags};

use crate::pg::boottime::Boottime;

/// Between two times of feeding, of the device's timeout.
const FEEDS_PER_TIMEOUT: u64 = 4;
/// Written before the end, it disarms the device.
const MAGIC: &[u8] = b"V";

/// As the node has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchdogSettings {
    pub device: PathBuf,
    /// To which the device is set; this is not changed here.
    pub timeout: Millis,
    /// Without it nothing is primary here.
    pub is_required: bool,
}

impl WatchdogSettings {
    /// Err: the kernel says that the device has another timeout.
    pub fn check(&self) -> Result<(), String> {
        let name = self.device.file_name().unwrap_or_default();
        let told = Path::new("/sys/class/watchdog").join(name).join("timeout");
        let told = std::fs::read_to_string(told).ok().and_then(|text| text.trim().parse().ok());
        match told {
            Some(seconds) if Millis::from_secs(seconds) != self.timeout => Err(format!(
                "{} has a timeout of {seconds} s: set watchdog-timeout to that, or the device's with wdctl",
                self.device.display()
            )),
            // One that is no driver's tells nothing.
            _ => Ok(()),
        }
    }
}

pub struct Watchdog {
    path: CString,
    timeout: Millis,
    /// From the deadline to the lease's end.
    grace: Millis,
    /// Open is armed.
    device: Option<OwnedFd>,
    fed: Boottime,
}

impl Watchdog {
    pub fn new(device: &Path, timeout: Millis, grace: Millis) -> io::Result<Self> {
        let path = CString::new(device.as_os_str().as_bytes())?;
        Ok(Self { path, timeout, grace, device: None, fed: Boottime(0) })
    }

    pub fn is_armed(&self) -> bool {
        self.device.is_some()
    }

    /// Armed and fed when it is time, unless a reset could come too late then. Gives when it is to be
    /// called again; None: it is not to be fed for this deadline any more.
    pub fn feed(&mut self, deadline: Boottime, now: Boottime) -> Option<Boottime> {
        if now.after(self.timeout) > deadline.after(self.grace) {
            return None;
        }
        let interval = Millis((self.timeout.0 / FEEDS_PER_TIMEOUT).max(1));
        let due = self.fed.after(interval);
        if self.is_armed() && now < due {
            return Some(due);
        }
        if self.device.is_none() {
            // Another process may have it; it is tried again.
            self.device =
                rustix::fs::open(&*self.path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).ok();
        }
        if let Some(device) = &self.device
            && rustix::io::write(device, b"\0").is_err()
        {
            self.device = None;
        }
        self.fed = now;
        Some(now.after(interval))
    }

    /// Nothing is left that could write.
    pub fn disarm(&mut self) {
        if let Some(device) = self.device.take() {
            let _ = rustix::io::write(&device, MAGIC);
        }
    }
}
