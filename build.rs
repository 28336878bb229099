//! Link arguments, so that a plain `cargo build --release` makes the file that
//! is shipped, without RUSTFLAGS or a `.cargo/config.toml`.

use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/sys/link.ld");
    // `_start` is ours: no crt1.o, and nothing from a C library.
    link("-nostartfiles");
    link("-nostdlib");
    // The libc crate tells the linker to use these libraries. Only its constants
    // and types are used, so the linker finds empty ones here.
    let out = env::var("OUT_DIR").unwrap();
    for library in ["c", "m", "rt", "pthread"] {
        fs::write(format!("{out}/lib{library}.a"), "!<arch>\n").unwrap();
        fs::write(format!("{out}/lib{library}.so"), "").unwrap();
    }
    link(&format!("-L{out}"));
    let root = env::var("CARGO_MANIFEST_DIR").unwrap();
    // The largest page that a kernel of this architecture may have: link.ld aligns by it.
    // The linker itself must not. It would let the writable segment begin where the file
    // ends, in the middle of a page: that page would be below the stack and writable.
    let arm = env::var("CARGO_CFG_TARGET_ARCH").unwrap() == "aarch64";
    link(&format!("-Wl,--defsym=PAGE={}", if arm { 65536 } else { 4096 }));
    link("-Wl,-z,max-page-size=16");
    link(&format!("-T{root}/src/sys/link.ld"));
    // A static-pie: no interpreter, and the kernel chooses the address.
    link("-Wl,--no-dynamic-linker");
    link("-Wl,--build-id=none");
    link("-Wl,--hash-style=gnu");
    link("-Wl,-z,norelro");
    // GNU ld, the usual linker there, reserves entries for tools that change them.
    if arm {
        link("-Wl,--spare-dynamic-tags=0");
    }
    link("-Wl,--no-eh-frame-hdr");
}

fn link(argument: &str) {
    println!("cargo::rustc-link-arg-bins={argument}");
}
