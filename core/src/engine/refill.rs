//! A store filled again from the state: every result row as absolute operations, page by page.
//!
//! Unlike the first snapshot it computes nothing anew and writes nothing to the state: rows are
//! evaluated as they stand, groups are shown from their accumulators. So it needs to read only, and
//! may work on a frozen copy of the state while the engine goes on.
//!
//! Invariants:
//! - pages over one frozen state give each result row once, rows that a target cannot hold left
//!   out (they are dead letters already);
//! - a page holds at most [`PAGE_BYTES`] of operations, one row more, and what one scan brings;
//! - events have no rows to be filled from; only the keys of streams are named.

use super::deltas::{decode_group, group_plan, group_prefix};
use super::fan_out::FanOut;
use super::output::{Target, TargetKind};
use super::resolve::{self, Contribution};
use super::row_cache::RowCache;
use super::state::{ReadState, Space, StateError};
use super::{Engine, Layout, rows};
use crate::plan::ViewKind;
use crate::target::redis::Op;
use crate::value::Row;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Operations after which a page ends.
const PAGE_BYTES: usize = 1 << 20;
/// Groups that one scan brings into memory.
const SCAN_PAGE_KEYS: usize = 1024;

/// What one store is filled again with. It shares the engine's layout, and borrows nothing.
#[derive(Clone, Debug)]
pub struct Refill {
    layout: Arc<Layout>,
    /// Of the store.
    targets: Vec<Target>,
}

/// Where a refill goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefillCursor {
    view: usize,
    /// The last fact's or group's key that was done.
    after: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
pub struct RefillPage {
    /// Encoded operations of the store's kind.
    pub ops: Vec<u8>,
    /// Streams to which rows of the page belong, where the key of a stream has columns: target and
    /// key, each once.
    pub streams: BTreeSet<(u16, String)>,
    /// Targets that are filled by their store's own means, and have rows on the page.
    pub holding: BTreeSet<u16>,
    /// Result rows rendered.
    pub rows: u64,
    /// `None` after the last page.
    pub next: Option<RefillCursor>,
}

impl Engine {
    /// What `store` is filled again with.
    #[must_use]
    pub fn refill(&self, store: usize) -> Refill {
        let targets = self.output.targets.iter().filter(|target| target.store == store);
        Refill { layout: Arc::clone(&self.layout), targets: targets.cloned().collect() }
    }
}

impl Refill {
    /// The targets (by their numbers) of stopped views. The state has no results for them as of
    /// when they stopped, so what their stores hold stays as it is.
    #[must_use]
    pub fn left_out(&self, stopped: &[Option<String>]) -> BTreeSet<u16> {
        let targets = self.targets.iter().filter(|target| is_stopped(stopped, target.view));
        targets.map(|target| target.number).collect()
    }

    /// Targets that are filled by their store's own means, and have a row in the state.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn holding(
        &self,
        state: &impl ReadState,
        stopped: &[Option<String>],
    ) -> Result<BTreeSet<u16>, StateError> {
        let mut holding = BTreeSet::new();
        for view in 0..self.layout.views.len() {
            let mut wanted: BTreeSet<u16> =
                self.targets.iter().filter_map(|t| t.of(view)).collect();
            let mut cursor = Some(RefillCursor { view, after: None });
            while let Some(at) = cursor.filter(|at| at.view == view && !wanted.is_empty()) {
                let page = self.page(state, stopped, at)?;
                wanted.retain(|number| !page.holding.contains(number));
                holding.extend(page.holding);
                cursor = page.next;
            }
        }
        Ok(holding)
    }

    /// The page at `cursor`.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn page(
        &self,
        state: &impl ReadState,
        stopped: &[Option<String>],
        cursor: RefillCursor,
    ) -> Result<RefillPage, StateError> {
        let RefillCursor { view, after } = cursor;
        let mut page = RefillPage::default();
        let Some(layout) = self.layout.views.get(view) else {
            return Ok(page);
        };
        let concerned = self.targets.iter().any(|target| target.view == view);
        let last = match &layout.kind {
            _ if !concerned || is_stopped(stopped, view) => None,
            ViewKind::Rows { .. } => self.rows(state, view, after.as_deref(), &mut page)?,
            ViewKind::Groups { .. } => self.groups(state, view, after.as_deref(), &mut page)?,
        };
        page.next = match last {
            Some(last) => Some(RefillCursor { view, after: Some(last) }),
            None if view + 1 < self.layout.views.len() => {
                Some(RefillCursor { view: view + 1, after: None })
            }
            None => None,
        };
        Ok(page)
    }

    /// Result rows of facts after `after`; returns the last fact's key, `None` at the end.
    fn rows(
        &self,
        state: &impl ReadState,
        view: usize,
        after: Option<&[u8]>,
        page: &mut RefillPage,
    ) -> Result<Option<Vec<u8>>, StateError> {
        let Some(layout) = self.layout.views.get(view) else {
            return Ok(None);
        };
        let Some(table) = layout.inputs.first().and_then(|fact| self.layout.tables.get(fact.table))
        else {
            return Ok(None);
        };
        let fan_out = FanOut::load(&self.layout, state, view)?;
        let (mut last, mut cache) = (None, RowCache::new(&self.layout));
        for (key, fact) in rows::page(state, table, after)? {
            let ahead = fan_out.as_ref().filter(|fan_out| fan_out.is_ahead(&key));
            let (layout, reads) = (&self.layout, (state, &mut cache));
            let given = resolve::evaluate(layout, view, &fact, reads, None, ahead)?;
            if let Contribution::Row(row) = given {
                self.render(view, &row, page);
            }
            last = Some(key);
            if page.ops.len() >= PAGE_BYTES {
                break;
            }
        }
        Ok(last)
    }

    fn groups(
        &self,
        state: &impl ReadState,
        view: usize,
        after: Option<&[u8]>,
        page: &mut RefillPage,
    ) -> Result<Option<Vec<u8>>, StateError> {
        let Some(plan) = group_plan(&self.layout, view) else {
            return Ok(None);
        };
        let mut last = None;
        for (key, bytes) in state.scan(Space::Groups, &group_prefix(view), after, SCAN_PAGE_KEYS)? {
            let group = decode_group(view, &plan, &bytes)?;
            // A group that cannot be shown has stopped its view before it was written.
            if let Ok(row) = group.output(plan.aggregates, plan.output) {
                self.render(view, &row, page);
            }
            last = Some(key);
            if page.ops.len() >= PAGE_BYTES {
                break;
            }
        }
        Ok(last)
    }

    fn render(&self, view: usize, row: &Row, page: &mut RefillPage) {
        page.rows += 1;
        for target in self.targets.iter().filter(|target| target.view == view) {
            let redis = match &target.kind {
                TargetKind::Redis(redis) => redis,
                TargetKind::ClickHouse(clickhouse) => {
                    if clickhouse.expected(row).is_ok() {
                        page.holding.insert(target.number);
                    }
                    continue;
                }
            };
            if redis.is_stream() {
                if redis.template().single_key().is_none()
                    && let Ok(key) = redis.key(row)
                {
                    page.streams.insert((target.number, key));
                }
            } else if let Ok(Some(action)) = redis.expected(row) {
                Op { target: target.number, action }.encode(&mut page.ops);
            }
        }
    }
}

impl Target {
    /// Its number, where it shows this view in a ClickHouse.
    fn of(&self, view: usize) -> Option<u16> {
        let own = matches!(self.kind, TargetKind::ClickHouse(_));
        (own && self.view == view).then_some(self.number)
    }
}

fn is_stopped(stopped: &[Option<String>], view: usize) -> bool {
    stopped.get(view).is_some_and(Option::is_some)
}
