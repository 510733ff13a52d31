//! A store of either kind, for the parts that treat all alike.

use super::clickhouse::ClickHouse;
use super::inspect::Inspected;
use super::redis::Redis;
use super::{Batch, Mark, Store, StoreError};
use bytes::Bytes;
use std::collections::BTreeSet;
use walview_core::engine::RefillPage;
use walview_core::position::{Lsn, Position};

pub enum AnyStore {
    Redis(Box<Redis>),
    ClickHouse(Box<ClickHouse>),
}

impl AnyStore {
    /// Looks around; changes nothing.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn inspect(&self) -> Result<Inspected, StoreError> {
        match self {
            Self::Redis(store) => store.inspect().await,
            Self::ClickHouse(store) => store.inspect().await,
        }
    }
}

impl Store for AnyStore {
    async fn connect(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.connect().await,
            Self::ClickHouse(store) => store.connect().await,
        }
    }

    async fn mark(&mut self) -> Result<Option<Mark>, StoreError> {
        match self {
            Self::Redis(store) => store.mark().await,
            Self::ClickHouse(store) => store.mark().await,
        }
    }

    async fn reset(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.reset().await,
            Self::ClickHouse(store) => store.reset().await,
        }
    }

    fn load_bytes(&self) -> usize {
        match self {
            Self::Redis(store) => store.load_bytes(),
            Self::ClickHouse(store) => store.load_bytes(),
        }
    }

    async fn load(&mut self, parts: &[Bytes]) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.load(parts).await,
            Self::ClickHouse(store) => store.load(parts).await,
        }
    }

    async fn set_mark(&mut self, position: Position) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.set_mark(position).await,
            Self::ClickHouse(store) => store.set_mark(position).await,
        }
    }

    async fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.apply(batch).await,
            Self::ClickHouse(store) => store.apply(batch).await,
        }
    }

    async fn fresh(&mut self, as_of: i64, lsn: Lsn) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.fresh(as_of, lsn).await,
            Self::ClickHouse(store) => store.fresh(as_of, lsn).await,
        }
    }

    fn stop_targets(&mut self, stopped: BTreeSet<u16>) {
        match self {
            Self::Redis(store) => store.stop_targets(stopped),
            Self::ClickHouse(store) => store.stop_targets(stopped),
        }
    }

    fn expect_rows(&mut self, targets: BTreeSet<u16>) {
        match self {
            Self::Redis(store) => store.expect_rows(targets),
            Self::ClickHouse(store) => store.expect_rows(targets),
        }
    }

    fn refills(&self) -> bool {
        match self {
            Self::Redis(store) => store.refills(),
            Self::ClickHouse(store) => store.refills(),
        }
    }

    async fn remains(&mut self) -> Result<Option<Position>, StoreError> {
        match self {
            Self::Redis(store) => store.remains().await,
            Self::ClickHouse(store) => store.remains().await,
        }
    }

    async fn begin_refill(
        &mut self,
        to: Position,
        left_out: &BTreeSet<u16>,
    ) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.begin_refill(to, left_out).await,
            Self::ClickHouse(store) => store.begin_refill(to, left_out).await,
        }
    }

    async fn refill(&mut self, page: &RefillPage) -> Result<(), StoreError> {
        match self {
            Self::Redis(store) => store.refill(page).await,
            Self::ClickHouse(store) => store.refill(page).await,
        }
    }
}
