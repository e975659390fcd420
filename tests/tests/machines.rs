//! Proves the library's disks and clocks: what is said of them holds on this kernel.

use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_tests::{Net, clock, cmd, until};

const SOON: Duration = Duration::from_secs(20);
/// How long nothing is waited for.
const SILENCE: Duration = Duration::from_millis(700);
const DISK_BYTES: u64 = 16 << 20;

#[test]
fn whoever_writes_to_a_hung_disk_stands_still_until_it_answers() -> Result<()> {
    let host = Net::new()?.host("a")?;
    let disk = host.frail_disk("disk", DISK_BYTES)?;
    let hung = disk.hang()?;
    let mut touch = host.spawn(cmd("touch").arg(disk.path().join("file")))?;
    ensure!(touch.wait_timeout(SILENCE).is_err(), "it was written");
    drop(hung);
    ensure!(touch.wait_timeout(SOON)?.success());
    let slow = disk.slow(Duration::from_millis(300), Duration::from_millis(10));
    for n in 0..3 {
        host.run(cmd("touch").arg(disk.path().join(n.to_string())))?.ok()?;
    }
    drop(slow);
    Ok(())
}

#[test]
fn a_power_cut_takes_what_was_not_flushed() -> Result<()> {
    let host = Net::new()?.host("a")?;
    let disk = host.frail_disk("disk", DISK_BYTES)?;
    let path = |name| disk.path().join(name);
    let mut flushed = File::create(path("flushed"))?;
    flushed.write_all(b"flushed")?;
    flushed.sync_all()?;
    drop(flushed);
    fs::write(path("not"), "not flushed")?;
    let mut user = host.spawn(cmd("tail").arg("-f").arg(path("flushed")))?;
    until(SOON, "it is read", || user.log() == "flushed");
    disk.lose_power(|| host.power_off())?;
    ensure!(!user.is_running() && fs::read(path("flushed"))? == b"flushed");
    ensure!(fs::read(path("not")).unwrap_or_default().is_empty(), "it is there");
    fs::write(path("again"), "it can be written again")?;
    Ok(())
}

#[test]
fn a_full_disk_has_no_room_until_it_is_freed() -> Result<()> {
    let host = Net::new()?.host("a")?;
    for disk in [host.frail_disk("disk", DISK_BYTES)?, host.disk("memory", DISK_BYTES)?] {
        disk.fill()?;
        let full = fs::write(disk.path().join("file"), vec![7; 8192]);
        ensure!(full.is_err_and(|e| e.kind() == std::io::ErrorKind::StorageFull));
        disk.free()?;
        // A journal gives room back when it is written.
        let write = || fs::write(disk.path().join("file"), vec![7; 8192]);
        until(SOON, "there is room", write);
    }
    Ok(())
}

#[test]
fn a_clock_is_its_hosts_own() -> Result<()> {
    let host = Net::new()?.host("a")?;
    let read = |given: bool| -> Result<i64> {
        let mut date = cmd("date");
        if given {
            clock::give(&mut date, &host)?;
        }
        host.run(date.arg("+%s"))?.ok()?.trim().parse().context("no number")
    };
    for offset_s in [0, 3600, -3600] {
        clock::set(&host, offset_s)?;
        let off = read(true)? - read(false)? - offset_s;
        // The machine may be busy between the two.
        ensure!(off.abs() < 60, "{off} s beside {offset_s:+} s");
    }
    Ok(())
}
