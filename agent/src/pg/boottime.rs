//! Moments on the clock of leases, which runs on in suspend and which nobody sets. It decides nothing.

use std::fs;

use lockstep_model::Millis;
use lockstep_transport::boottime;

/// Milliseconds since this machine booted (CLOCK_BOOTTIME). Means nothing on another machine, nor
/// after a reboot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Boottime(pub u64);

impl Boottime {
    /// Never reached.
    pub const NEVER: Self = Self(u64::MAX);

    /// Zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }

    pub fn after(self, time: Millis) -> Self {
        Self(self.0.saturating_add(time.0))
    }

    /// Not before the boot.
    pub fn before(self, time: Millis) -> Self {
        Self(self.0.saturating_sub(time.0))
    }
}

pub fn now() -> Boottime {
    Boottime(boottime::now().0)
}

/// Which boot of this machine it is; empty where the kernel does not tell.
pub fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}
