//! Variables that live as long as the program.

use core::ops::Deref;

/// A C global: the program and its signal handlers share it. It holds
/// `Cell`s, so nobody keeps a reference to a value that a handler may change.
#[repr(transparent)]
pub struct Global<T>(pub T);

// SAFETY: the process has one thread. A handler of the parent runs only inside
// `pause` and between the two calls of `sigmask` in `with_signals`. There the only
// `Cell` that is written is `TABLE.client`, by the kernel, and no handler uses it. A
// handler of a child can run at any time. It writes only `REASON`, one aligned word, which the child
// reads only after system calls.
unsafe impl<T> Sync for Global<T> {}

impl<T> Deref for Global<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
