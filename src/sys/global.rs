//! Variables that live as long as the program.

use core::cell::Cell;
use core::ops::Deref;

/// A C global: the program and its signal handlers share it. A value goes in and out
/// as a copy, so nobody keeps a reference to one that a handler may change.
#[repr(transparent)]
pub struct Global<T>(Cell<T>);

// SAFETY: there is one thread. A handler runs between two instructions of it, and what
// both use is safe because of when the handlers run:
//
// - The parent's handlers run only inside `pause` and `unblocked`, which use no `Global`
//   but this: the kernel stores `TABLE.client` in `accept`, and no handler uses that.
// - A child's handlers may run at any time. They write `REASON` only: one aligned
//   word, which the child reads after system calls. They read what the parent wrote
//   before the fork.
unsafe impl<T: Copy> Sync for Global<T> {}

impl<T> Global<T> {
    pub const fn new(value: T) -> Self {
        Global(Cell::new(value))
    }
}

impl<T> Deref for Global<T> {
    type Target = Cell<T>;

    fn deref(&self) -> &Cell<T> {
        &self.0
    }
}
