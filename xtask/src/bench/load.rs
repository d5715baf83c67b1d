//! Whether the machine was ours alone while it was measured.

use std::fs;

/// Processor time since the machine started, in clock ticks.
#[derive(Debug, Clone, Copy)]
pub struct CpuTime {
    /// Of everybody, and taken by other guests of the same host.
    busy: u64,
    /// Of everybody, idle time included.
    total: u64,
    /// Of this process and the children it has waited for.
    ours: u64,
}

impl CpuTime {
    /// Now; `None` where the system does not tell (it does on Linux).
    pub fn now() -> Option<Self> {
        Self::parse(
            &fs::read_to_string("/proc/stat").ok()?,
            &fs::read_to_string("/proc/self/stat").ok()?,
        )
    }

    fn parse(machine: &str, process: &str) -> Option<Self> {
        // `cpu  user nice system idle iowait irq softirq steal guest guest_nice`; guests are part of user.
        let fields = machine.lines().next()?.split_whitespace().skip(1).take(8);
        let ticks: Vec<u64> = fields.map(|f| f.parse().ok()).collect::<Option<_>>()?;
        let total = ticks.iter().sum();
        let idle = ticks.get(3)? + ticks.get(4)?;
        // The name, in brackets, may hold spaces. After it, the 12th to the 15th field are the times wanted.
        let (_, fields) = process.rsplit_once(')')?;
        let times = fields.split_whitespace().skip(11).take(4);
        let ours = times.map(|f| f.parse::<u64>().ok()).sum::<Option<u64>>()?;
        Some(Self { busy: total - idle, total, ours })
    }

    /// The share of the machine that others used since `before`, from 0 to 1.
    pub fn others_since(&self, before: &Self) -> f64 {
        let others = (self.busy - before.busy).saturating_sub(self.ours - before.ours);
        others as f64 / (self.total - before.total).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::CpuTime;

    #[test]
    fn what_others_used_is_what_is_left() {
        let process =
            |utime: u64| format!("7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 {utime} 20 30 40 0 0");
        let before = CpuTime::parse("cpu  100 0 50 800 50 0 0 0 9 9\n", &process(10)).unwrap();
        let after = CpuTime::parse("cpu  180 0 60 890 50 0 0 20 9 9\n", &process(70)).unwrap();
        // 110 of 200 ticks were busy, 60 of them ours.
        assert!((after.others_since(&before) - 0.25).abs() < 1e-9);
    }
}
