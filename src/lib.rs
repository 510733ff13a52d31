//! Walview.

pub mod demo;
