//! The only file of the edge that reads CLOCK_BOOTTIME, which goes on in suspend and which nobody
//! sets: leases are counted on it. It may not decide anything with it.

use lockstep_model::Millis;
use rustix::time::{ClockId, clock_gettime};

/// Since this machine was started.
pub fn now() -> Millis {
    let now = clock_gettime(ClockId::Boottime);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    Millis(part(now.tv_sec).saturating_mul(1000).saturating_add(part(now.tv_nsec) / 1_000_000))
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_the_kernel_s_uptime() {
        let text = std::fs::read_to_string("/proc/uptime").unwrap();
        let secs: f64 = text.split(' ').next().unwrap().parse().unwrap();
        let off = super::now().0 as f64 / 1000.0 - secs;
        assert!((-0.1..60.0).contains(&off), "{off} s apart");
    }
}
