//! The binary as its clients see it: real process, real engine, real HTTP clients.
//!
//! Each test has a server of its own on a free port and an own folder, so tests run side by side.
//! Without `libchdb.so`, or Python's clients, tests fail with a message that names scripts/setup.

mod clients;
mod faults;
mod process;
mod programs;
mod statements;
