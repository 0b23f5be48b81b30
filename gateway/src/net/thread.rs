//! How a thread stands beside the shards.

/// Lets the calling thread have a core only for a small part of the time in which a shard wants it too, and only until the
/// shard wakes. For good: what is given up is not given back to a process without privileges.
pub fn give_way() {
    // SAFETY: the call touches no memory. On Linux it is about the calling thread, not about its process.
    unsafe { libc::nice(NICE) };
    ask_for_long_turns();
}

/// A tenth of the time of a thread that wants all of it, so that a reload ends also where shards are never idle.
const NICE: libc::c_int = 10;

/// Nanoseconds that the calling thread wishes to keep a core for. What is woken and has shorter turns does not wait for
/// the end of this one, as it does for the end of one of its own length (`PREEMPT_SHORT` of the kernel's scheduler).
const TURN: u64 = 100_000_000;

/// `struct sched_attr` of sched_setattr(2) in its first size.
#[derive(Default)]
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// From Linux 6.12 on; before, the wish is ignored.
fn ask_for_long_turns() {
    let Some(mut attributes) = attributes() else { return };
    attributes.runtime = TURN;
    // SAFETY: 0 is the calling thread; the kernel only reads `attributes`, which is as large as it says.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}

/// Those of the calling thread, if its turns have a length that can be asked for.
fn attributes() -> Option<Attributes> {
    const SIZE: u32 = size_of::<Attributes>() as u32;
    let mut attributes = Attributes::default();
    // SAFETY: 0 is the calling thread; the kernel writes at most `SIZE` bytes into `attributes`, any of which are valid.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, SIZE, 0) };
    let fair = [libc::SCHED_OTHER, libc::SCHED_BATCH].contains(&(attributes.policy as libc::c_int));
    (read == 0 && fair).then_some(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_that_asks_gives_way() {
        let stands = || {
            let attributes = attributes().unwrap();
            (attributes.nice, attributes.runtime)
        };
        let before = stands();
        let aside = std::thread::spawn(move || {
            give_way();
            stands()
        });
        let (nice, turn) = aside.join().unwrap();
        assert_eq!(nice, (before.0 + NICE).min(19));
        // A kernel without such wishes says nothing of turns.
        assert_eq!(turn, if before.1 == 0 { 0 } else { TURN });
        assert_eq!(stands(), before);
    }
}
