//! A text as a pipeline file: refused with places inside of the file, never with a secret.

use std::path::Path;
use walview::config::{Environment, Pipeline};

const BYTES_MAX: usize = 16 << 10;

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if text.len() > BYTES_MAX {
        return;
    }
    let lines = text.split('\n').count();
    let environment = Environment::fixed(
        ["URL", "REDIS_URL", "CLICKHOUSE_URL", "X"].map(|name| (name, "redis://:hunter2@h")),
    );
    let found = match Pipeline::parse(Path::new("p.yaml"), text.to_owned()) {
        Err(found) => found,
        Ok(pipeline) => match pipeline.connect(&environment) {
            Err(found) => found,
            Ok(connections) => {
                assert!(!format!("{pipeline:?}{connections:?}").contains("hunter2"));
                drop(pipeline.canonical(&connections));
                return;
            }
        },
    };
    let shown = found.with_excerpts();
    assert!(!found.list().is_empty());
    let inside = |line: u32| usize::try_from(line).is_ok_and(|line| line <= lines);
    assert!(found.list().iter().all(|one| inside(one.place.line)), "{shown}");
    assert!(text.contains("hunter2") || !shown.contains("hunter2"), "{shown}");
}
