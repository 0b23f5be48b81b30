//! How a thread stands beside the shards.

/// Lets the calling thread have a core only for a small part of the time in which a shard wants it too. For good: what is
/// given up is not given back to a process without privileges.
pub fn give_way() {
    // SAFETY: the call touches no memory. On Linux it is about the calling thread, not about its process.
    unsafe { libc::nice(NICE) };
}

/// A tenth of the time of a thread that wants all of it, so that a reload ends also where shards are never idle.
const NICE: libc::c_int = 10;

#[cfg(test)]
mod tests {
    #[test]
    fn only_the_thread_that_asks_gives_way() {
        let nice = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap().parse::<i32>().unwrap()
        };
        let before = nice();
        let aside = std::thread::spawn(move || {
            super::give_way();
            nice()
        });
        assert_eq!(aside.join().unwrap(), (before + super::NICE).min(19));
        assert_eq!(nice(), before);
    }
}
