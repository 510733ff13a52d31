//! What the kernel counts of a process.

use anyhow::{Context as _, Result};

/// User and system time of a process (its id, or `self`), of threads that have ended, too. In steps
/// of 10 ms.
pub(crate) fn cpu_seconds(process: &str) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
    // Fields 14 and 15 of proc(5); the first here is field 3.
    Ok((ticks(11).context("utime")? + ticks(12).context("stime")?) / 100.0)
}

/// Busy time of all processors since the machine's start, whoever it was for. In steps of 10 ms.
pub(crate) fn busy_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("the processors' line")?;
    let ticks = line.split_whitespace().skip(1).map(str::parse);
    let ticks = ticks.collect::<Result<Vec<f64>, _>>()?;
    // user, nice, system, idle, iowait, irq, softirq of proc_stat(5); guests are in user.
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|index| ticks.get(*index));
    Ok(busy.sum::<f64>() / 100.0)
}
