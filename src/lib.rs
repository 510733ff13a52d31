//! Walview.

pub mod demo;
pub mod stores;
