#![no_main]
// The program is no library: its modules are taken as they are.
#![allow(dead_code)]

#[path = "../../embedded/src/body.rs"]
mod body;
#[path = "../../embedded/src/engine/mod.rs"]
mod engine;
#[path = "../../embedded/src/request.rs"]
mod request;
#[path = "../../embedded/src/sql.rs"]
mod sql;
#[path = "../targets/request.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));
