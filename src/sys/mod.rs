//! What the C gets from its C library: the entry, system calls, signals,
//! memory, printing, numeric addresses and error texts. Nothing here imports the rest
//! of the program.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
mod arch;
mod call;
mod errno;
mod global;
mod inet;
mod mem;
mod panic;
mod print;
mod signal;
mod start;
mod text;

pub use arch::AUDIT_ARCH;
pub use call::*;
pub use errno::{ERRORS, SIGNALS, find};
pub use global::Global;
pub use inet::{Sockaddr, inet_pton};
pub use mem::memmove;
pub use print::{Line, message, report};
pub use signal::*;
pub use start::Strings;
pub use text::{number, split_once};
