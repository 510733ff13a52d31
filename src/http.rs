//! What operators and probes read: `/live`, `/ready`, `/status`, `/metrics` and a page for people.
//!
//! Loopback unless `--http` says otherwise. Read only, and without a value of a row or a secret; but
//! for `/dead-letters`, which asks for the token that only readers of the state folder know.

use crate::letters::{self, Desk, Fault};
use crate::service::board::{Board, Phase, RefillStatus, Status, StoreState};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The document of `/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub pipelines: Vec<Status>,
}

/// What is served.
pub struct Served {
    pub boards: Vec<Arc<Board>>,
    /// By pipeline.
    pub desks: Vec<(String, Arc<Desk>)>,
    pub token: String,
}

#[derive(Clone)]
struct Shared {
    served: Arc<Served>,
    prometheus: PrometheusHandle,
}

impl Shared {
    fn report(&self) -> Report {
        Report { pipelines: self.served.boards.iter().map(|board| board.status()).collect() }
    }
}

/// Binds `address`; port 0 takes a free one. Returns where it listens.
///
/// # Errors
/// The address is taken or not this machine's.
pub async fn bind(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

/// Serves until `stop` turns true.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    served: Served,
    prometheus: PrometheusHandle,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/", get(page))
        .route("/live", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route(letters::PATH, post(dead_letters))
        .with_state(Shared { served: Arc::new(served), prometheus });
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            // The sender only goes away at the end, which is a reason to stop too.
            stop.wait_for(|stop| *stop).await.ok();
        })
        .await
}

async fn status(State(shared): State<Shared>) -> Json<Report> {
    Json(shared.report())
}

/// The token keeps out whoever reaches the port but not the state folder, web pages in a browser
/// on this machine included.
async fn dead_letters(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Json(request): Json<letters::Request>,
) -> Response {
    let fault = |status: u16, error: String| {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(Fault { error })).into_response()
    };
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if given.and_then(|given| given.strip_prefix("Bearer ")) != Some(shared.served.token.as_str()) {
        let why = "the token is not this instance's; it stands in the state folder";
        return fault(401, why.to_owned());
    }
    let desk = shared.served.desks.iter().find(|(name, _)| *name == request.pipeline);
    let Some((_, desk)) = desk else {
        return fault(404, "the process does not run this pipeline".to_owned());
    };
    match desk.answer(request).await {
        Ok(reply) => Json(reply).into_response(),
        Err(refusal) => fault(refusal.status, refusal.why),
    }
}

/// 200 where every pipeline is live and every store takes writes; else 503, naming what is not.
async fn ready(State(shared): State<Shared>) -> Response {
    let mut faults = String::new();
    for status in shared.report().pipelines {
        for fault in faults_of(&status) {
            // Writing to a String does not fail.
            writeln!(faults, "{}: {fault}", status.pipeline).ok();
        }
    }
    if faults.is_empty() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, faults).into_response()
    }
}

/// What keeps a pipeline from being ready, one sentence each; empty where all is well.
#[must_use]
pub fn faults_of(status: &Status) -> Vec<String> {
    let mut faults = Vec::new();
    match status.state {
        Phase::Live => {}
        Phase::Starting => faults.push("starting".to_owned()),
        Phase::Snapshotting => faults.push("the first snapshot is running".to_owned()),
        Phase::Stopped => {
            faults.push(format!("stopped: {}", status.reason.as_deref().unwrap_or("unknown")));
        }
    }
    if status.state == Phase::Live && !status.source.connected {
        let error = status.source.error.as_deref().unwrap_or("connecting");
        faults.push(format!("source is not connected: {error}"));
    }
    faults.extend(status.source.problems.iter().map(|problem| format!("source: {problem}")));
    if status.local.outbox_full {
        faults.push(
            "the outbox is full, so nothing is read and WAL gathers at the source: mend the store \
             that is behind, or give more room with --outbox-max"
                .to_owned(),
        );
    }
    for store in &status.stores {
        match store.state {
            StoreState::Live | StoreState::Loading => {}
            StoreState::Refilling => faults.push(format!(
                "store {} {}",
                store.name,
                store
                    .refill
                    .as_ref()
                    .map_or_else(|| "is filled again".to_owned(), RefillStatus::text)
            )),
            StoreState::Connecting if status.state != Phase::Live => {}
            StoreState::Connecting => faults.push(format!("store {}: connecting", store.name)),
            StoreState::Retrying | StoreState::Stopped => faults.push(format!(
                "store {}: {}",
                store.name,
                store.last_error.as_deref().unwrap_or("does not take writes")
            )),
        }
    }
    for view in &status.views {
        if let Some(reason) = &view.reason {
            faults.push(format!("view {} stopped: {reason}", view.name));
        }
    }
    faults
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    for status in shared.report().pipelines {
        crate::service::metrics::publish(&status);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.prometheus.render())
}

/// The same as `walview status`, for a browser; it renews itself.
async fn page(State(shared): State<Shared>) -> Html<String> {
    let mut body = String::new();
    for status in shared.report().pipelines {
        body.push_str(&escape(&crate::status::render(&status)));
        body.push('\n');
    }
    Html(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>walview</title>\
         <meta http-equiv=\"refresh\" content=\"2\"><meta name=\"viewport\" \
         content=\"width=device-width\"><style>body{{font:14px/1.5 ui-monospace,monospace;\
         margin:2em;color-scheme:light dark}}</style></head><body><h1>walview</h1>\
         <pre>{body}</pre><p><a href=\"/status\">status as JSON</a> · \
         <a href=\"/metrics\">metrics</a></p></body></html>"
    ))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
