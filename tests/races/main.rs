//! What `make races` runs: a signal at every instruction of the server.

#[path = "../common/mod.rs"]
mod common;
#[path = "mod.rs"]
mod races;

fn main() {
    let good = !races::permitted() || races::all(1, 1);
    std::process::exit(i32::from(!good));
}
