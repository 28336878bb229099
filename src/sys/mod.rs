//! What the C gets from its C library: the entry, system calls, signals,
//! memory, printing, numeric addresses and error texts; and, for speed, two parts of the
//! services, `rot13_block` and `report`. Nothing here imports the rest of the program.

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

pub use arch::{AUDIT_ARCH, rot13_block};
pub use call::*;
pub use errno::{ERRORS, SIGNALS};
pub use global::Global;
pub use inet::{Sockaddr, inet_pton, number, split_once};
pub use mem::{memmove, memrchr};
pub use print::{Line, message, report};
pub use signal::*;
pub use start::{BUFSIZ, Buf, Strings};
