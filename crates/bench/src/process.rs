//! What the kernel knows of a process: processor time and memory.

use crate::Failure;
use std::fs;

/// Of the kernel's clock for processes (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    /// All of it, measured by the scheduler.
    pub(crate) total_s: f64,
    /// How it is divided, sampled in ticks of 10 ms.
    user_ticks: f64,
    kernel_ticks: f64,
}

impl Cpu {
    /// Of all threads of a process whose names begin with `prefix`.
    pub(crate) fn of_threads(pid: u32, prefix: &str) -> Result<Self, Failure> {
        let mut sum = Self::default();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = entry?.path();
            let Ok(name) = fs::read_to_string(path.join("comm")) else { continue };
            if name.starts_with(prefix) {
                sum.add(&path)?;
            }
        }
        Ok(sum)
    }

    fn add(&mut self, task: &std::path::Path) -> Result<(), Failure> {
        // A thread may end while it is looked at.
        let (Ok(scheduled), Ok(stat)) =
            (fs::read_to_string(task.join("schedstat")), fs::read_to_string(task.join("stat")))
        else {
            return Ok(());
        };
        let ns: f64 = scheduled.split_whitespace().next().ok_or("no schedstat")?.parse()?;
        self.total_s += ns / 1e9;
        // The name in parentheses may hold anything; utime and stime are the 12th and 13th field after it.
        let fields = stat.rsplit_once(')').ok_or("no stat")?.1;
        let mut fields = fields.split_whitespace().skip(11);
        let mut ticks = || -> Result<f64, Failure> { Ok(fields.next().ok_or("short stat")?.parse()?) };
        self.user_ticks += ticks()?;
        self.kernel_ticks += ticks()?;
        Ok(())
    }

    /// Time since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            total_s: self.total_s - before.total_s,
            user_ticks: self.user_ticks - before.user_ticks,
            kernel_ticks: self.kernel_ticks - before.kernel_ticks,
        }
    }

    /// Seconds outside and inside the kernel.
    pub(crate) fn split(&self) -> (f64, f64) {
        let ticks = self.user_ticks + self.kernel_ticks;
        let in_kernel = if ticks > 0.0 { self.kernel_ticks / ticks } else { 0.0 };
        (self.total_s * (1.0 - in_kernel), self.total_s * in_kernel)
    }
}

/// Processes that a process has started, without those that they have.
pub(crate) fn children(pid: u32) -> Result<Vec<u32>, Failure> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(child) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // One may end while it is looked at.
        if stat(child).is_ok_and(|stat| stat.get(1) == Some(&f64::from(pid))) {
            children.push(child);
        }
    }
    Ok(children)
}

/// Seconds of processor time of a process and those it has started, the ended ones included.
pub(crate) fn family_cpu_s(pid: u32) -> Result<f64, Failure> {
    let mut sum = Cpu::of_threads(pid, "")?.total_s;
    for child in children(pid)? {
        sum += Cpu::of_threads(child, "").map_or(0.0, |cpu| cpu.total_s);
    }
    // Of children that have ended, in the kernel and outside.
    let ended: f64 = stat(pid)?.iter().skip(13).take(2).sum();
    Ok(sum + ended / TICKS_PER_SECOND)
}

/// What stands behind the name in a process's `stat`; what is no number is 0.
fn stat(pid: u32) -> Result<Vec<f64>, Failure> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').ok_or("no stat")?.1;
    Ok(fields.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect())
}

/// Resident set of a process, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> Result<f64, Failure> {
    status_bytes(pid, "VmRSS:")
}

/// The largest that it has been.
pub(crate) fn peak_bytes(pid: u32) -> Result<f64, Failure> {
    status_bytes(pid, "VmHWM:")
}

/// Lets the largest be what it is now.
pub(crate) fn forget_peak(pid: u32) -> Result<(), Failure> {
    Ok(fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

fn status_bytes(pid: u32, name: &str) -> Result<f64, Failure> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no {name}"))?;
    let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_time_and_memory() {
        let pid = std::process::id();
        let before = Cpu::of_threads(pid, "").unwrap();
        let mut sum = 0u64;
        while Cpu::of_threads(pid, "").unwrap().since(&before).total_s < 0.01 {
            sum = (0..100_000).fold(sum, |sum, n: u64| sum.wrapping_mul(31).wrapping_add(n));
        }
        assert!(resident_bytes(pid).unwrap() > 100_000.0 && sum != 1);
        let (user, kernel) = Cpu::of_threads(pid, "").unwrap().split();
        assert!(user + kernel > 0.0);
    }

    #[test]
    fn a_child_and_its_time_are_found() {
        let pid = std::process::id();
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert!(children(pid).unwrap().contains(&child.id()));
        assert!(family_cpu_s(pid).unwrap() >= Cpu::of_threads(child.id(), "").unwrap().total_s);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!children(pid).unwrap().contains(&child.id()));
        assert!(peak_bytes(pid).unwrap() >= resident_bytes(pid).unwrap() * 0.5);
    }
}
