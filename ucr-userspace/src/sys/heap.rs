//! Memory that the allocator keeps although nobody uses it.

/// Gives it back to the kernel: for a process that runs for months, and needs much only now and then.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: glibc's own function, which locks what it works on.
    unsafe {
        libc::malloc_trim(0)
    };
}
