//! Requests to `walview-clickhouse`: address, headers and body, up to where the engine begins.
//!
//! Line 1: method, address and headers, separated by blanks; the rest is the body.

use crate::body::Upload;
use crate::request::Request;
use crate::sql::{Statement, begins_insert, needs_session};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::http;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

/// What is read of an upload: a few bytes of zeros may be compressed from very many.
const READ_BYTES_MAX: usize = 4 << 20;

pub(crate) fn run(data: &[u8]) {
    statement(data);
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (head, body) = data.split_at(end);
    let Ok(head) = std::str::from_utf8(head) else {
        return;
    };
    let mut words = head.split(' ');
    let mut request = http::Request::builder()
        .method(words.next().unwrap_or("POST"))
        .uri(words.next().unwrap_or("/"));
    for header in words {
        let (name, value) = header.split_once(':').unwrap_or((header, ""));
        // In the place of a blank, which separates headers.
        request = request.header(name, value.replace('+', " "));
    }
    let Ok(request) = request.body(()) else {
        return;
    };
    let (parts, ()) = request.into_parts();
    let body = Body::from(body.get(1..).unwrap_or_default().to_vec());
    runtime().block_on(async {
        let turns = Arc::new(Semaphore::new(2));
        let read = Request::read(&parts, body, Duration::from_secs(10), &turns);
        if let Ok(mut request) = Box::pin(read).await {
            if let Statement::Insert { head, rows, .. } = &request.statement {
                assert!(head <= rows && *rows <= request.text.len());
            }
            rest(&mut request.upload).await;
        }
    });
}

async fn rest(upload: &mut Upload) {
    let mut read = 0;
    while let Ok(Some(bytes)) = upload.next().await {
        read += bytes.len();
        if read > READ_BYTES_MAX {
            return;
        }
    }
}

/// What follows a settled insert cannot change it.
fn statement(text: &[u8]) {
    let parsed = Statement::parse(text);
    assert!(!needs_session(text) || !begins_insert(text));
    if let Statement::Insert { head, rows, .. } = &parsed {
        assert!(head <= rows && *rows <= text.len());
    }
    if parsed.is_settled(text.len()) {
        assert_eq!(Statement::parse(&[text, b" ; SELECT 'x"].concat()), parsed);
    }
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().expect("a runtime")
    })
}
