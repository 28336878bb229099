//! What every test needs: forkline and the C programs as running servers, with
//! their output collected, and ways to wait, look into /proc and talk to them.
//!
//! ```ignore
//! let server = Server::start(&["echo", "0"]);
//! assert_eq!(exchange(server.connect(), b"hello\n"), b"hello\n");
//! server.stdout.wait_for("server received 6 bytes\n");
//! ```
#![allow(dead_code, unused_imports)] // each program uses its own part of this

mod client;
mod machine;
pub mod messages;
mod parallel;
mod processes;
mod random;
mod server;
mod strace;

pub use client::*;
pub use machine::*;
pub use messages::shown;
pub use parallel::*;
pub use processes::*;
pub use random::*;
pub use server::*;
use std::time::Duration;
pub use strace::*;

/// The longest that anything here waits before the test fails: far longer than it
/// takes where many others want the processors too.
pub const DEADLINE: Duration = Duration::from_secs(120);
