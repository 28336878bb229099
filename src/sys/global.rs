//! Variables that live as long as the program.

use core::ops::Deref;

/// A C global: the program and its signal handlers share it. It holds
/// `Cell`s, so nobody keeps a reference to a value that a handler may change.
#[repr(transparent)]
pub struct Global<T>(pub T);

// SAFETY: the process has one thread. A handler of the parent runs only inside
// `pause` and between the two calls of `sigmask` in `with_signals`. There the
// parent neither reads nor writes a `Cell`. A handler of a child can run at any
// time, but it writes only `REASON`, which is one word.
unsafe impl<T> Sync for Global<T> {}

impl<T> Deref for Global<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
