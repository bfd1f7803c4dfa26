//! How much memory this process has and may have.

use std::fs;
use std::sync::OnceLock;

/// So many bytes of memory, or of addresses, are in use at most before rows leave memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RamLimit {
    resident: Option<u64>,
    addresses: Option<u64>,
}

impl RamLimit {
    /// This share, 0 to 1, of what the machine, the control group and `ulimit` allow.
    pub fn share(share: f64) -> Self {
        static ALLOWED: OnceLock<Allowed> = OnceLock::new();
        let Allowed { memory, addresses } = *ALLOWED.get_or_init(Allowed::read);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a share of it is no exact number"
        )]
        let part = |whole: u64| (whole as f64 * share) as u64;
        Self { resident: memory.map(part), addresses: addresses.map(part) }
    }

    /// No limit.
    pub fn none() -> Self {
        Self { resident: None, addresses: None }
    }

    /// Whether more is in use than may be.
    pub fn is_reached(&self) -> bool {
        let Some((addresses, resident)) = in_use() else { return false };
        self.resident.is_some_and(|limit| resident > limit) || self.addresses.is_some_and(|limit| addresses > limit)
    }
}

/// What the process may use at most, in bytes.
#[derive(Clone, Copy)]
struct Allowed {
    memory: Option<u64>,
    addresses: Option<u64>,
}

impl Allowed {
    fn read() -> Self {
        let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| kibibytes(&text, "MemTotal:"));
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let limits =
            limit_files(&groups).into_iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
        let memory = machine.into_iter().chain(limits).min();
        Self { memory, addresses: fs::read_to_string("/proc/self/limits").ok().and_then(|text| address_space(&text)) }
    }
}

/// Where the control groups of a process say how much memory they have: `0::/some/group` of version 2, and
/// `9:memory:/some/group` of version 1. A container sees its own group as the root.
fn limit_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        for group in [group.trim_end_matches('/'), ""] {
            if controllers.is_empty() {
                files.push(format!("/sys/fs/cgroup{group}/memory.max"));
            } else if controllers.split(',').any(|one| one == "memory") {
                files.push(format!("/sys/fs/cgroup/memory{group}/memory.limit_in_bytes"));
            }
        }
    }
    files
}

/// `MemTotal:       24576000 kB`.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

/// `Max address space         unlimited            unlimited            bytes`.
fn address_space(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes of addresses, and of memory.
fn in_use() -> Option<(u64, u64)> {
    const PAGE: u64 = 4096;
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split_whitespace().map(str::parse::<u64>);
    Some((pages.next()?.ok()? * PAGE, pages.next()?.ok()? * PAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_of_the_kernel_are_understood() {
        assert_eq!(kibibytes("MemTotal:       2 kB\nMemFree: 1 kB\n", "MemTotal:"), Some(2048));
        let limits = "Max processes  1  2 processes\nMax address space         4096            unlimited       bytes\n";
        assert_eq!(address_space(limits), Some(4096));
        assert_eq!(address_space("Max address space         unlimited            unlimited            bytes\n"), None);
    }

    #[test]
    fn the_limits_of_both_kinds_of_control_groups_are_found() {
        assert_eq!(limit_files("0::/a/b\n"), ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/memory.max"]);
        let one = limit_files("3:cpu,cpuacct:/x\n2:memory:/x\n");
        let folder = "/sys/fs/cgroup/memory";
        assert_eq!(one, [format!("{folder}/x/memory.limit_in_bytes"), format!("{folder}/memory.limit_in_bytes")]);
    }

    #[test]
    fn a_share_of_nothing_is_reached_and_no_limit_never() {
        assert!(RamLimit::share(0.0).is_reached());
        assert!(!RamLimit::none().is_reached());
    }
}
