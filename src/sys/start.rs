//! From the kernel's entry to `main`: the stack and the arguments.

use super::global::Global;
use core::ffi::c_char;

/// Bytes of the stack: whole pages. It ends where a page ends.
pub const STACK_SIZE: usize = 6 * 4096;

/// The stack of the program.
#[repr(C, align(16))]
pub struct Stack([u8; STACK_SIZE]);

/// It stands first among the writable pages (link.ld), so a stack that overflows meets
/// the read-only program.
// SAFETY: it is all zeros, as `.bss` is.
#[unsafe(link_section = ".bss.stack")]
pub static mut STACK: Stack = Stack([0; _]);

/// Where the kernel put the arguments. Handlers run on the stack below them.
pub static KERNEL_STACK: Global<usize> = Global::new(0);

unsafe extern "Rust" {
    /// The program's, as in C.
    safe fn main(args: Strings, env: Strings) -> !;
}

/// `_start` calls this on `STACK`.
///
/// # Safety
///
/// `stack` is the stack pointer that the kernel set.
pub unsafe extern "C" fn start(stack: *const usize) -> ! {
    KERNEL_STACK.set(stack as usize);
    // SAFETY: argc stands first, then argv and a null pointer, then envp
    // (execve(2); the ABI's process start).
    let (args, env) = unsafe { (stack.add(1), stack.add(*stack + 2)) };
    main(Strings(args.cast()), Strings(env.cast()))
}

/// argv or envp, as bytes.
#[derive(Clone, Copy)]
pub struct Strings(*const *const c_char);

impl Strings {
    /// The value of an environment variable (getenv(3)).
    pub fn getenv(mut self, name: &[u8]) -> Option<&'static [u8]> {
        self.find_map(|variable| variable.strip_prefix(name)?.strip_prefix(b"="))
    }
}

impl Iterator for Strings {
    type Item = &'static [u8];

    fn next(&mut self) -> Option<&'static [u8]> {
        // SAFETY: the array ends with a null pointer, which is not passed; its
        // strings end with NUL and stay as long as the parent. A child does not have
        // this memory (`dont_fork_beyond`) and uses none of it.
        unsafe {
            let string = *self.0;
            if string.is_null() {
                return None;
            }
            self.0 = self.0.add(1);
            // Volatile: the compiler would make this a call of strlen.
            let len = (0..).take_while(|&i| string.add(i).read_volatile() != 0).count();
            Some(core::slice::from_raw_parts(string.cast(), len))
        }
    }
}
