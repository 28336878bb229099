//! The tests are one program: each is linked with all optimisations, as the
//! server is, and that takes longer than most of them run.

#[path = "../common/mod.rs"]
mod common;

mod activation;
mod binary;
mod cap;
mod clients;
mod compare;
mod confine;
mod delays;
mod deploy;
mod drain;
mod endless;
mod faults;
mod limits;
mod limits_real;
mod lossless;
mod memory;
mod messages;
mod package;
mod peers;
mod processes;
#[path = "../races/mod.rs"]
mod races;
mod reports;
mod reuse_port;
mod rude;
mod startup;
mod wings;
mod wire;
