//! What the operating system says of this process's memory.

/// Resident bytes, now and at most so far; `None` where the system does not say.
pub(super) fn resident() -> Option<[u64; 2]> {
    parsed(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parsed(status: &str) -> Option<[u64; 2]> {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
    };
    Some([bytes("VmRSS:")?, bytes("VmHWM:")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kibibytes_are_bytes_and_nonsense_is_nothing() {
        assert_eq!(parsed("Name:\tx\nVmHWM:\t   20 kB\nVmRSS:\t   12 kB\n"), Some([12 << 10, 20 << 10]));
        assert_eq!(parsed("VmRSS: 12 pages\nVmHWM: 1 kB"), None);
        assert_eq!(parsed(""), None);
    }
}
