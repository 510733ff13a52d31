//! The HTTP interface: `/` runs a statement, `/ping` and `/replicas_status` answer `Ok.`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request as HttpRequest, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::spawn_blocking;

use crate::answer::{Identity, random_id};
use crate::engine::{Engine, EngineError, Statistics};
use crate::execute::{BLOCKS_MAX, Job, Sink};
use crate::request::Request;
use crate::sql::{self, Statement};

/// How long a statement waits for its turn.
const TURN_WAIT_MAX: Duration = Duration::from_secs(60);
/// After an insert has failed, what is still being sent is read for so long: many clients look at
/// the answer only when they have sent everything.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// The format of a result when nobody names one.
const FORMAT_DEFAULT: &str = "TabSeparated";
/// The format of rows when nobody names one.
const INSERT_FORMAT_DEFAULT: &str = "Values";

/// What all requests share.
pub(crate) struct Server {
    pub(crate) engine: Arc<Engine>,
    pub(crate) identity: Identity,
    /// One permit for each statement that may run at once.
    pub(crate) permits: Arc<Semaphore>,
    /// One permit for each compressed upload that may be decoded at once.
    pub(crate) decoders: Arc<Semaphore>,
    pub(crate) whole_result_bytes_max: u64,
    /// How long a client may pause in an upload.
    pub(crate) receive_pause_max: Duration,
}

/// Routes of the interface.
pub(crate) fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/", get(run).post(run))
        .route("/ping", get("Ok.\n"))
        .route("/replicas_status", get("Ok.\n"))
        .fallback(no_handler)
        .with_state(server)
}

async fn no_handler(request: HttpRequest<Body>) -> Response {
    let text =
        format!("There is no handle {}\n\nUse / or /ping for health checks.\n", request.uri());
    (StatusCode::NOT_FOUND, text).into_response()
}

async fn run(State(server): State<Arc<Server>>, request: HttpRequest<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let mut query_id = random_id();
    match server.run_request(&parts, body, &mut query_id).await {
        Ok(response) => response,
        Err(error) => {
            tracing::debug!(query_id, code = error.code, "statement failed");
            server.identity.exception(&error, &query_id)
        }
    }
}

impl Server {
    async fn run_request(
        &self,
        parts: &axum::http::request::Parts,
        body: Body,
        query_id: &mut String,
    ) -> Result<Response, EngineError> {
        let mut request =
            Box::pin(Request::read(parts, body, self.receive_pause_max, &self.decoders)).await?;
        if let Some(id) = request.options.query_id.take() {
            *query_id = id;
        }
        match std::mem::replace(&mut request.statement, Statement::Empty) {
            // As ClickHouse: a plain GET of / asks whether anybody is there.
            Statement::Empty if parts.uri.query().is_none() && request.text.is_empty() => {
                Ok("Ok.\n".into_response())
            }
            Statement::Empty => {
                Err(EngineError::new(62, "SYNTAX_ERROR", "Syntax error: Empty query"))
            }
            Statement::Several => Err(EngineError::new(
                62,
                "SYNTAX_ERROR",
                "Syntax error (Multi-statements are not allowed)",
            )),
            Statement::Insert { head, format, rows } => {
                let format = format
                    .or_else(|| request.options.format.take())
                    .unwrap_or_else(|| INSERT_FORMAT_DEFAULT.to_owned());
                let statistics = self.run_insert(request, head, format, rows).await?;
                Ok(self.identity.done(statistics, query_id))
            }
            Statement::Query { .. }
                if request.options.session && sql::needs_session(&request.text) =>
            {
                let text = "sessions are not served, so nothing would keep this: send settings \
                            and database with each query, and make a table that is not temporary";
                Err(EngineError::new(48, "NOT_IMPLEMENTED", text))
            }
            Statement::Query { select, format } => {
                let format = format
                    .or_else(|| request.options.format.take())
                    .unwrap_or_else(|| FORMAT_DEFAULT.to_owned());
                self.run_query(request, select, format, query_id).await
            }
        }
    }

    async fn run_query(
        &self,
        request: Request,
        select: bool,
        format: String,
        query_id: &str,
    ) -> Result<Response, EngineError> {
        let Request { options, text, .. } = request;
        let job = self.job(options).await?;
        let (head_sender, head) = oneshot::channel();
        let (block_sender, blocks) = mpsc::channel(BLOCKS_MAX);
        // Owned by its permit: shutdown waits for all permits. Its end is an answer or, should it
        // panic, the end of both channels.
        drop(spawn_blocking(move || {
            let sink = Sink { head: head_sender, blocks: block_sender };
            job.run_query(&text, &format, select, sink);
        }));
        let head = head.await.map_err(|_closed| thread_died())??;
        Ok(self.identity.result(&head, blocks, query_id))
    }

    async fn run_insert(
        &self,
        request: Request,
        head: usize,
        format: String,
        first: usize,
    ) -> Result<Statistics, EngineError> {
        let Request { options, mut text, mut upload, .. } = request;
        let job = self.job(options).await?;
        let insert = spawn_blocking(move || {
            let first = text.split_off(first);
            text.truncate(head);
            // The engine appends its FORMAT clause: a comment at the end would swallow it.
            text.push(b'\n');
            let result = job.run_insert(&text, &format, &first, &mut upload);
            (result, upload)
        });
        let (result, mut upload) = insert.await.map_err(|_panic| thread_died())?;
        if result.is_err() {
            let rest = async { while let Ok(Some(_)) = upload.next().await {} };
            if tokio::time::timeout(DRAIN_MAX, rest).await.is_err() {
                tracing::debug!("client still sends rows of a failed insert");
            }
        }
        result
    }

    async fn job(&self, options: crate::request::Options) -> Result<Job, EngineError> {
        Ok(Job {
            engine: Arc::clone(&self.engine),
            options,
            whole_result_bytes_max: self.whole_result_bytes_max,
            permit: self.turn().await?,
        })
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, EngineError> {
        let permit = Arc::clone(&self.permits).acquire_owned();
        match tokio::time::timeout(TURN_WAIT_MAX, permit).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_closed)) => {
                Err(EngineError::new(210, "NETWORK_ERROR", "the server is shutting down"))
            }
            Err(_elapsed) => {
                let text = format!("no turn within {} s", TURN_WAIT_MAX.as_secs());
                Err(EngineError::new(202, "TOO_MANY_SIMULTANEOUS_QUERIES", text))
            }
        }
    }
}

fn thread_died() -> EngineError {
    EngineError::new(1002, "UNKNOWN_EXCEPTION", "the statement's thread died")
}
