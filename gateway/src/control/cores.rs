//! Which cores the shards run on.

use portcullis_config::Config;

/// The cores of `count` shards: those of the configuration, else those that the process may run on, in turn.
pub fn of_shards(config: &Config, count: usize) -> Vec<usize> {
    let cores = if config.shards.cores.is_empty() { allowed() } else { config.shards.cores.clone() };
    cores.iter().copied().cycle().take(count).collect()
}

/// A container's cores need not begin at 0. From `/proc/self/status`; core 0 if that cannot be read.
pub fn allowed() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let cores = parse_list(list.unwrap_or_default());
    if cores.is_empty() { vec![0] } else { cores }
}

/// `0-3,8` as in cpuset(7).
fn parse_list(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores() {
        assert_eq!(parse_list("\t0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(parse_list("5"), [5]);
        assert_eq!(parse_list(""), [0; 0]);
        assert!(!allowed().is_empty());
    }
}
