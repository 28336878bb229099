//! Variables that live as long as the program.

use core::ops::Deref;

/// A C global: the program and its signal handlers share it. It holds
/// `Cell`s, so nobody keeps a reference to a value that a handler may change.
#[repr(transparent)]
pub struct Global<T>(pub T);

// SAFETY: the process has one thread. A handler runs only inside system calls
// that let signals in, never while the program reads or writes a `Cell`.
unsafe impl<T> Sync for Global<T> {}

impl<T> Deref for Global<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
