//! Filling a Redis again whose mark is lost or too old.
//!
//! ```text
//!  remains ─► begin_refill(to) ──────────────────────► refill(page) … ─► set_mark(to)
//!  reads      `loading` mark; `fresh` and every key      rows
//!             that a target can have made go; streams
//!             stay, and get a gap entry where events
//!             up to `to` are lost
//! ```
//!
//! Everything goes first: what is left is of a past that nobody knows, and a reader who finds
//! nothing asks PostgreSQL, while one who finds an old number believes it. So nothing that is not
//! in the refill can stay behind, in keys, fields or members.
//!
//! # Which events are lost
//!
//! Redis keeps a prefix of what it was sent (a batch is one `MULTI`, a dump is of one moment), so
//! the last entry of *any* stream says up to where all streams are whole, and an old mark does too.
//! A stream has lost events where one that this process knows of lies behind that, or where nothing
//! is known of the time between. A gap entry is no proof of anything before it; it is known by the
//! ordinal at the end of a commit, which no event has. (Where `to` lies inside a transaction larger
//! than `atomic_max` it has an event's ordinal. Only a crash in that very refill can then leave
//! streams of a template with columns without their gap entry.)

use super::super::{MarkText, StoreError};
use super::commands::Commands;
use super::error::server_error;
use super::{Redis, last_id, read};
use ::redis::{Pipeline, Value as Reply};
use std::collections::{BTreeSet, HashMap};
use walview_core::engine::RefillPage;
use walview_core::position::{ORDINAL_MAX, Position};
use walview_core::target::redis::{Op, OpRef, Target};

/// Of a stream entry.
pub(super) type Id = (u64, u64);

/// What this process knows of the events in its Redis.
#[derive(Default)]
pub(super) struct Events {
    /// Every event behind this is in `last`.
    known_from: Option<Id>,
    /// The last event of each stream target.
    last: HashMap<u16, Id>,
    /// Up to here every stream was whole when `remains` looked.
    whole_to: Option<Id>,
    /// Where the refill that runs leads to.
    to: Option<Position>,
    /// Stream targets that have lost events.
    lost: BTreeSet<u16>,
}

impl Events {
    /// What a batch brought.
    pub(super) fn written(&mut self, last: impl IntoIterator<Item = (u16, Id)>) {
        self.last.extend(last);
    }

    fn has_lost(&self, target: u16, to: Id) -> bool {
        match (self.last.get(&target), self.known_from) {
            (Some(last), _) => self.whole_to < Some(*last),
            (None, Some(known_from)) => self.whole_to < Some(known_from),
            (None, None) => self.whole_to < Some(to),
        }
    }
}

/// Keys of streams with the last id that each gave out, and the cursor of the next page.
type Ends = (Vec<(String, Option<Id>)>, Option<String>);

impl Redis {
    /// Those that have not stopped.
    fn streams(&self) -> Vec<u16> {
        let streams = (0_u16..).zip(&self.targets).filter(|(_, target)| target.is_stream());
        let numbers = streams.map(|(number, _)| number);
        numbers.filter(|number| !self.stopped.contains(number)).collect()
    }

    /// Takes down how the streams stand while the mark is right: at most once.
    pub(super) async fn know_events(&mut self, mark: Position) -> Result<(), StoreError> {
        if self.events.known_from.is_some() {
            return Ok(());
        }
        for target in self.streams() {
            let template = self.targets.get(usize::from(target)).map(Target::template);
            // Of many streams nobody keeps a list; what comes from now on is enough.
            let Some(key) = template.and_then(|template| template.single_key()) else {
                continue;
            };
            let ends = self.last_ids(&[key.to_owned()]).await?;
            self.events.last.extend(ends.into_iter().flatten().map(|id| (target, id)));
        }
        self.events.known_from = mark.stream_id();
        Ok(())
    }

    /// The last id that each stream gave out; `None` for what is no stream. Its last entry would
    /// not tell: a consumer may have taken that away.
    pub(super) async fn last_ids(
        &mut self,
        keys: &[String],
    ) -> Result<Vec<Option<Id>>, StoreError> {
        let mut pipeline = Pipeline::new();
        for key in keys {
            pipeline.cmd("XINFO").arg("STREAM").arg(key);
        }
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let sent = self.session().await?.send_raw(&pipeline).await;
        if sent.is_err() {
            self.session = None;
        }
        let read = |reply: &Reply| {
            // Refused like this where there is no such key, or it holds something else.
            if let Reply::ServerError(error) = reply
                && !matches!(error.code(), "ERR" | "WRONGTYPE")
            {
                return Err(server_error(error.code(), error.details()));
            }
            Ok(last_id(reply))
        };
        sent?.iter().map(read).collect()
    }

    /// A page of the streams that a target can have made.
    async fn stream_ends(&mut self, target: u16, cursor: &str) -> Result<Ends, StoreError> {
        let Some(target) = self.targets.get(usize::from(target)) else {
            return Ok((Vec::new(), None));
        };
        let template = target.template().clone();
        let (keys, next) = if let Some(key) = template.single_key() {
            (vec![key.to_owned()], None)
        } else {
            let (next, mut keys) = self.scan(template.prefix(), cursor).await?;
            keys.retain(|key| template.matches(key));
            (keys, (next != "0").then_some(next))
        };
        let ends = self.last_ids(&keys).await?;
        Ok((keys.into_iter().zip(ends).collect(), next))
    }

    pub(super) async fn scan(
        &mut self,
        prefix: &str,
        cursor: &str,
    ) -> Result<(String, Vec<String>), StoreError> {
        let connection = &mut self.session().await?.connection;
        let page = read::scan(connection, prefix, cursor, super::SCAN_COUNT).await;
        if page.is_err() {
            self.session = None;
        }
        page
    }

    /// See the contract.
    pub(super) async fn look_for_remains(&mut self) -> Result<Option<Position>, StoreError> {
        let mark = match self.look().await? {
            Some(MarkText::At(mark)) => Some(mark.position),
            Some(MarkText::Loading(_)) | None => None,
        };
        let (mut whole, mut furthest) = (mark.and_then(Position::stream_id), mark);
        for target in self.streams() {
            let mut cursor = Some("0".to_owned());
            while let Some(at) = cursor {
                let (ends, next) = self.stream_ends(target, &at).await?;
                for id in ends.into_iter().filter_map(|(_, id)| id) {
                    furthest = furthest.max(Position::of_stream_id(id));
                    if id.1 != ORDINAL_MAX {
                        whole = whole.max(Some(id));
                    }
                }
                cursor = next;
            }
        }
        self.events.whole_to = whole;
        Ok(furthest)
    }

    pub(super) async fn start_refill(
        &mut self,
        to: Position,
        left_out: &BTreeSet<u16>,
    ) -> Result<(), StoreError> {
        self.look().await?;
        self.step(Commands::unlink([self.fresh_key.as_str()])).await?;
        self.events.to = Some(to);
        self.events.lost.clear();
        for index in 0..self.targets.len() {
            let number = u16::try_from(index).unwrap_or(u16::MAX);
            if self.stopped.contains(&number) || left_out.contains(&number) {
                continue;
            }
            if self.targets.get(index).is_some_and(|target| !target.is_stream()) {
                self.clear(index).await?;
            } else if to.stream_id().is_some_and(|id| self.events.has_lost(number, id)) {
                self.events.lost.insert(number);
                self.mark_gaps(number, to).await?;
            }
        }
        Ok(())
    }

    /// A gap entry for each stream of the target that is there, and for the only one it can have.
    async fn mark_gaps(&mut self, number: u16, to: Position) -> Result<(), StoreError> {
        let mut cursor = Some("0".to_owned());
        while let Some(at) = cursor {
            let (ends, next) = self.stream_ends(number, &at).await?;
            let mut ops = Vec::new();
            for (key, last) in ends {
                self.gap(number, &key, last.unwrap_or_default(), to, &mut ops);
            }
            self.step(self.commands(std::iter::once(ops.as_slice()))?).await?;
            cursor = next;
        }
        Ok(())
    }

    fn gap(&self, number: u16, key: &str, from: Id, to: Position, ops: &mut Vec<u8>) {
        let target = self.targets.get(usize::from(number));
        if let Some(action) = target.and_then(|target| target.gap(key, from, to)) {
            Op { target: number, action }.encode(ops);
        }
    }

    pub(super) async fn write_page(&mut self, page: &RefillPage) -> Result<(), StoreError> {
        if !matches!(self.seen().await?, Some(MarkText::Loading(_))) {
            return Err(self.moved().await);
        }
        let mut gaps = Vec::new();
        if let Some(to) = self.events.to {
            let lost = page.streams.iter().filter(|(n, _)| self.events.lost.contains(n));
            for (number, key) in lost {
                // One that is there has its entry already, and Redis refuses the same id again.
                self.gap(*number, key, Id::default(), to, &mut gaps);
            }
        }
        self.step(self.commands([page.ops.as_slice(), gaps.as_slice()].into_iter())?).await
    }
}

/// The last event of each target among `ops`, which are in order.
pub(super) fn last_events(ops: &[OpRef<'_>]) -> HashMap<u16, Id> {
    let mut last: HashMap<u16, &OpRef<'_>> = HashMap::new();
    for op in ops.iter().filter(|op| op.event) {
        last.insert(op.target, op);
    }
    last.into_iter().filter_map(|(target, op)| Some((target, op.stream_id()?))).collect()
}
