//! An allocator that counts, so that a test can bound what a decoder holds at once. It knows no decoder.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Runs `decode` and returns what it returns.
///
/// # Panics
/// If at any time this thread holds more than `bytes_max` bytes beyond what it held before.
pub fn within<T>(bytes_max: usize, decode: impl FnOnce() -> T) -> T {
    let before = HELD.with(Cell::get);
    PEAK.with(|peak| peak.set(before));
    let decoded = decode();
    let most = PEAK.with(Cell::get).saturating_sub(before);
    assert!(most <= bytes_max, "{most} bytes held at once, allowed are {bytes_max}");
    decoded
}

thread_local! {
    /// Bytes that this thread has allocated and not freed, counted from an offset so that freeing another thread's
    /// memory does not wrap.
    static HELD: Cell<usize> = const { Cell::new(1 << 40) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn took(bytes: usize) {
    // Memory taken or given back while a thread ends is of no interest.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

fn gave(bytes: usize) {
    let _ = HELD.try_with(|held| held.set(held.get().saturating_sub(bytes)));
}

#[expect(unsafe_code, reason = "an allocator cannot be written without; every call is handed to the system's as it is")]
// SAFETY: the system's allocator keeps the contract; counting neither allocates nor touches the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's obligations are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        gave(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // The old and the new may both be held while the bytes are copied.
        took(bytes);
        gave(layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}
