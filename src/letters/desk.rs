//! The running pipeline's side: letters are read from the last local commit, beside the engine; what
//! changes them is an order to the engine's loop, which carries it out between two transactions.

use super::{Action, Count, Info, KeyPart, Outcome, Reply, Request, ShownRow};
use crate::service::board::rfc3339;
use crate::state;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use walview_core::engine::letters::{self, Letter};
use walview_core::engine::{Layout, StateError, Target, TargetKind};
use walview_core::plan::View;
use walview_core::value::{Type, Value};

/// How long an order may wait for its turn: a long transaction goes first.
const ORDER_MAX: Duration = Duration::from_secs(30);
/// Letters in one order: their rows are held in memory and delivered as one.
const ORDER_LETTERS_MAX: usize = 1_000;
/// Letters that one answer names.
const NAMED_MAX: usize = 10_000;

/// What letters are read with, once there is a state.
pub struct Books {
    pub freezer: state::Freezer,
    pub layout: Arc<Layout>,
    /// Those that the layout was made of.
    pub views: Vec<View>,
    pub targets: Vec<Target>,
    pub stores: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Replay,
    Drop,
}

/// For the engine's loop.
pub struct Order {
    pub work: Work,
    /// Keys of letters in the state.
    pub keys: Vec<Vec<u8>>,
    /// One outcome for each key, once it is durable; or why nothing was done.
    pub answer: oneshot::Sender<Result<Vec<Outcome>, String>>,
}

/// Why a request is not answered, with HTTP's status for it.
pub struct Refusal {
    pub status: u16,
    pub why: String,
}

/// Where one pipeline is asked about its letters.
pub struct Desk {
    books: Mutex<Option<Arc<Books>>>,
    orders: mpsc::Sender<Order>,
    waiting: tokio::sync::Mutex<mpsc::Receiver<Order>>,
}

impl Default for Desk {
    fn default() -> Self {
        let (orders, waiting) = mpsc::channel(1);
        Self { books: Mutex::new(None), orders, waiting: tokio::sync::Mutex::new(waiting) }
    }
}

impl Desk {
    pub fn open(&self, books: Books) {
        *self.books.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(books));
    }

    /// Lets go of the state's folder.
    pub fn close(&self) {
        *self.books.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The next order; to be asked by one session at a time. Dropping the future loses nothing: an
    /// order that was taken is returned at once.
    pub async fn next(&self) -> Option<Order> {
        self.waiting.lock().await.recv().await
    }

    /// # Errors
    /// A sentence, and HTTP's status for it.
    pub async fn answer(&self, request: Request) -> Result<Reply, Refusal> {
        let books = self.books.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let books = books.ok_or_else(|| {
            let why = "the pipeline does not stream (it starts, snapshots or has stopped); look at: \
                       walview status";
            refused(503, why)
        })?;
        let work = match request.action {
            Action::List | Action::Show => None,
            Action::Replay => Some(Work::Replay),
            Action::Drop => Some(Work::Drop),
        };
        let read = tokio::task::spawn_blocking(move || {
            let found = books.read(&request);
            (books, request, found)
        });
        let (books, _, found) = read.await.map_err(|error| refused(500, error.to_string()))?;
        let mut found = found?;
        if let Some(work) = work {
            let keys = found.letters.iter().map(|letter| letter.key.clone()).collect();
            let outcomes = self.order(work, keys).await?;
            for (info, outcome) in found.reply.letters.iter_mut().zip(outcomes) {
                info.outcome = Some(outcome);
            }
        }
        drop(books);
        Ok(found.reply)
    }

    async fn order(&self, work: Work, keys: Vec<Vec<u8>>) -> Result<Vec<Outcome>, Refusal> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let (answer, answered) = oneshot::channel();
        let carried_out = async {
            let gone =
                |_| refused(503, "the replication session ended; nothing was done: try again");
            let order = Order { work, keys, answer };
            self.orders.send(order).await.map_err(|_closed| refused(503, "the pipeline ends"))?;
            answered.await.map_err(gone)?.map_err(|why| refused(409, why))
        };
        // Whoever gives up waiting drops the answer's other end, and the order with it.
        tokio::time::timeout(ORDER_MAX, carried_out).await.map_err(|_elapsed| {
            let why = "the engine is inside a long transaction, or not connected to its source; \
                       nothing was done: look at walview status, and try again";
            refused(503, why)
        })?
    }
}

fn refused(status: u16, why: impl Into<String>) -> Refusal {
    Refusal { status, why: why.into() }
}

impl From<StateError> for Refusal {
    fn from(error: StateError) -> Self {
        refused(500, error.to_string())
    }
}

/// Letters that a request means.
struct Found {
    reply: Reply,
    /// Those that the reply names, in the same order.
    letters: Vec<Letter>,
}

impl Books {
    fn read(&self, request: &Request) -> Result<Found, Refusal> {
        let frozen = self.freezer.freeze()?;
        let view = match &request.view {
            None => None,
            Some(name) => {
                let found = self.views.iter().position(|view| view.name == *name);
                Some(found.ok_or_else(|| refused(404, format!("there is no view \"{name}\"")))?)
            }
        };
        let orders = matches!(request.action, Action::Replay | Action::Drop);
        let limit = if orders { ORDER_LETTERS_MAX } else { NAMED_MAX.min(request.limit) };
        let mut after = match &request.after {
            None => None,
            Some(text) => Some(
                from_hex(text).ok_or_else(|| refused(400, "\"after\" is not what was given"))?,
            ),
        };
        let mut counts: BTreeMap<(usize, Option<usize>, String, bool), u64> = BTreeMap::new();
        let mut unknown = request.ids.clone().unwrap_or_default();
        let mut found = Found { reply: Reply::default(), letters: Vec::new() };
        'pages: loop {
            let page = letters::page(&frozen, view, after.as_deref())?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for letter in page {
                let key = (letter.view, letter.target, letter.reason.clone(), letter.dropped);
                *counts.entry(key).or_default() += 1;
                let wanted = match &request.ids {
                    Some(ids) => ids.contains(&letter.id()),
                    None => request.dropped || !letter.dropped,
                };
                if !wanted {
                    continue;
                }
                unknown.retain(|id| *id != letter.id());
                if found.letters.len() < limit {
                    found.reply.letters.push(self.info(&letter, request, &frozen)?);
                    found.letters.push(letter);
                } else if orders {
                    let last = found.letters.last();
                    found.reply.next = last.map(|letter| hex(&letter.key));
                    break 'pages;
                }
            }
        }
        found.reply.unknown = unknown;
        let counts = counts.into_iter().map(|((view, target, reason, dropped), letters)| {
            let (view, store, target) = self.place(view, target);
            Count { view, store, target, reason, dropped, letters }
        });
        found.reply.counts = counts.collect();
        Ok(found)
    }

    /// View, store and target by name.
    fn place(
        &self,
        view: usize,
        target: Option<usize>,
    ) -> (String, Option<String>, Option<String>) {
        let view = self.views.get(view).map_or_else(String::new, |view| view.name.clone());
        let target = target.and_then(|target| self.targets.get(target));
        let store = target.and_then(|target| self.stores.get(target.store)).cloned();
        let label = target.map(|target| match &target.kind {
            TargetKind::Redis(target) => target.template().to_string(),
            TargetKind::ClickHouse(target) => target.table().to_owned(),
        });
        (view, store, label)
    }

    fn info(
        &self,
        letter: &Letter,
        request: &Request,
        frozen: &state::Frozen,
    ) -> Result<Info, StateError> {
        let (view, store, target) = self.place(letter.view, letter.target);
        let key = letter.key_columns(&self.layout, &self.views);
        let rows = match request.action {
            Action::Show => Some(self.rows(letter, frozen)?),
            Action::List | Action::Replay | Action::Drop => None,
        };
        Ok(Info {
            id: letter.id(),
            view,
            store,
            target,
            key: key.into_iter().map(|(name, ty, value)| part(&name, &ty, &value)).collect(),
            reason: letter.reason.clone(),
            position: letter.at.to_string(),
            committed_at: letter.committed_at.map(rfc3339),
            dropped: letter.dropped,
            outcome: None,
            rows,
        })
    }

    fn rows(&self, letter: &Letter, frozen: &state::Frozen) -> Result<Vec<ShownRow>, StateError> {
        let Some(shown) = letters::look(&self.layout, frozen, letter)? else {
            return Ok(Vec::new());
        };
        let mut rows = Vec::new();
        for (table, row) in shown.inputs {
            let Some(table) = self.layout.tables.get(table) else { continue };
            let columns = table.columns.iter().zip(&row);
            let columns = columns.map(|(column, value)| part(&column.name, &column.ty, value));
            rows.push(ShownRow { of: table.qualified(), columns: columns.collect() });
        }
        if let (Some(row), Some(view)) = (shown.result, self.views.get(letter.view)) {
            let columns = view.columns.iter().zip(&row);
            let columns = columns.map(|(column, value)| part(&column.name, &column.ty, value));
            let of = format!("result of {}", view.name);
            rows.push(ShownRow { of, columns: columns.collect() });
        }
        Ok(rows)
    }
}

fn part(column: &str, ty: &Type, value: &Value) -> KeyPart {
    let text = (!value.is_null()).then(|| value.to_text(ty));
    KeyPart { column: column.to_owned(), value: text }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pairs = digits.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    pairs.collect()
}
