//! The number of descriptors that the process may have open.

/// Raises the soft limit (RLIMIT_NOFILE) to the hard one, since each connection takes one descriptor downstream and
/// mostly one upstream. Gives the limit now in force; the old one when the kernel refuses.
pub fn raise_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit that outlives both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            let wanted = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const wanted) == 0 {
                limit = wanted;
            }
        }
    }
    limit.rlim_cur
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = super::raise_limit();
        assert!(raised >= 256);
        assert_eq!(raised, super::raise_limit());
    }
}
