//! The C library's allocator: how much freed memory it may keep. What does not live here: allocating.

/// Two arenas instead of eight for each core: threads that come and go would each leave one full of holes behind. And
/// blocks from 128 KiB on are mapped, so that they go back to the kernel when they are freed (mallopt(3)).
/// No other thread may run yet.
pub fn keep_little() {
    // SAFETY: mallopt changes parameters of the allocator only; called first thing in main, before any thread.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
    }
}

/// Gives free memory back to the kernel (malloc_trim(3)). Takes milliseconds; for quiet moments.
pub fn trim() {
    // SAFETY: malloc_trim takes the allocator's own locks and frees only what nobody holds.
    unsafe {
        libc::malloc_trim(0);
    }
}
