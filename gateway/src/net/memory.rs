//! Memory that the process has and does not use.
//!
//! Owns one call of the C library. Reading a large configuration takes many times what is kept of it, and the allocator
//! keeps the rest for later, which may never come.

/// Gives free memory back to the system. Takes some milliseconds for each hundred MiB; never called by a shard.
pub fn give_back_memory() {
    // SAFETY: `malloc_trim` takes no pointer, locks the arenas by itself and may be called by any thread at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
