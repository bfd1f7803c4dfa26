//! What processes take, and the peers of benchmarks.

use std::fs;
use std::process::Command;

use serde_json::{Map, Value};

use crate::repository;

/// A process and its children.
pub fn tree(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: Vec<u32> =
        children.flat_map(|text| text.split(' ').filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect();
    std::iter::once(process).chain(children.into_iter().flat_map(tree)).collect()
}

/// Processor seconds of a process and its children.
pub fn tree_cpu_s(process: u32) -> f64 {
    tree(process).into_iter().map(cpu_s).sum()
}

/// Processor seconds of a process, its own and the system's for it.
pub fn cpu_s(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<f64> =
        stat.rsplit(") ").next().unwrap_or_default().split(' ').filter_map(|one| one.parse().ok()).collect();
    // After the name come the state, which is no number, and ten numbers before these two, in hundredths.
    fields.get(10..12).map_or(0.0, |times| times.iter().sum::<f64>() / 100.0)
}

/// The most memory that a process has had, in bytes; `None` if it has ended.
pub fn peak_memory(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    peak.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kb| kb * 1024)
}

/// Bytes in MiB.
pub fn mb(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

/// What `tests/benches/peers/run` tells of a peer.
///
/// # Errors
/// The last that it says, where it tells nothing: it is not installed, say.
pub fn peer(name: &str, arguments: &[&str]) -> Result<Map<String, Value>, String> {
    let script = repository().join("tests/benches/peers/run");
    let output = Command::new(script).arg(name).args(arguments).output().expect("the repository has this script");
    let line = String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned();
    serde_json::from_str(&line).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        said.trim().lines().last().unwrap_or("it says nothing").to_owned()
    })
}
