//! What a process tree has used, from /proc: CPU time of every thread, its split, resident memory.
//!
//! Never samples on its own: a caller takes a reading before and after. Invariant: a thread or child that
//! ends in between loses its time, so callers measure only settled trees.

use anyhow::{Context, Result};
use std::fs;
use std::ops::Sub;

/// CPU time since the processes began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    /// Scheduler run time in seconds (proc(5), schedstat), exact to the nanosecond.
    pub total: f64,
    /// Seconds in user space and in the kernel. The kernel scales them to the run time, but their split
    /// comes from timer ticks: sum it over rounds before dividing.
    pub user: f64,
    pub system: f64,
}

impl Sub for Cpu {
    type Output = Cpu;

    fn sub(self, before: Cpu) -> Cpu {
        Cpu {
            total: self.total - before.total,
            user: self.user - before.user,
            system: self.system - before.system,
        }
    }
}

/// CPU time of a process and its children, all threads.
pub fn cpu(pid: u32) -> Result<Cpu> {
    let mut sum = Cpu::default();
    for pid in tree(pid) {
        for task in tasks(pid) {
            let run = fs::read_to_string(format!("{task}/schedstat")).unwrap_or_default();
            let nanoseconds = run.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
            sum.total += nanoseconds as f64 / 1e9;
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process has ended")?;
        let (user, system) = ticks(&stat).context("an odd /proc/PID/stat")?;
        sum.user += user;
        sum.system += system;
    }
    Ok(sum)
}

/// Resident bytes of a process and its children.
pub fn resident(pid: u32) -> u64 {
    let of = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    tree(pid).into_iter().map(of).sum()
}

/// Busy seconds of each core since boot.
pub fn cores() -> Vec<f64> {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let rows = stat.lines().filter(|l| l.starts_with("cpu") && !l.starts_with("cpu "));
    rows.map(|row| {
        let n: Vec<f64> = row.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; idle and iowait are not busy.
        (n.iter().take(8).sum::<f64>() - n.get(3).unwrap_or(&0.0) - n.get(4).unwrap_or(&0.0)) / TICKS
    })
    .collect()
}

/// USER_HZ, which Linux fixes at 100 for every program.
const TICKS: f64 = 100.0;

/// `utime` and `stime` in seconds: fields 14 and 15 of proc(5) stat, counted after the name's bracket.
fn ticks(stat: &str) -> Option<(f64, f64)> {
    let after = stat.rsplit_once(") ")?.1;
    let mut fields = after.split(' ').skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user / TICKS, system / TICKS))
}

fn tree(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        for task in tasks(found[next]) {
            let children = fs::read_to_string(format!("{task}/children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|c| c.parse::<u32>().ok()));
        }
        next += 1;
    }
    found
}

fn tasks(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    entries.flatten().map(|e| e.path().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0";
        assert_eq!(ticks(stat), Some((2.5, 0.5)));
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let pid = std::process::id();
        let before = cpu(pid).unwrap();
        let mut n = 0u64;
        while (cpu(pid).unwrap() - before).total < 0.02 {
            n = std::hint::black_box(n + 1);
        }
        assert!(resident(pid) > 100_000);
        assert!(!cores().is_empty());
    }
}
