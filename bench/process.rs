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
