//! Panics: there are none. The symbol below exists nowhere, so a program in
//! which a panic can be reached does not link.

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    unsafe extern "C" {
        fn a_panic_is_reachable() -> !;
    }
    // SAFETY: it is never linked, so it is never called.
    unsafe { a_panic_is_reachable() }
}
