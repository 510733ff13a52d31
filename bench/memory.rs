//! Betting's views over a state in memory.

use anyhow::{Context as _, Result};
use walview::service::ingest::Relations;
use walview::source::stream::Event;
use walview_core::catalog::Catalog;
use walview_core::engine::{Engine, Layout, MemoryState, Part, RowChange};
use walview_core::pgoutput::{self, Message};
use walview_core::position::Lsn;

use super::log::{BETS_OID, betting};

pub(crate) struct Betting {
    pub(crate) engine: Engine,
    pub(crate) state: MemoryState,
    pub(crate) bets: usize,
    layout: Layout,
    catalog: Catalog,
    relations: Relations,
}

impl Betting {
    pub(crate) fn new() -> Result<Self> {
        let (pipeline, catalog, bound) = betting()?;
        let layout = bound.layout.clone();
        Ok(Self {
            engine: Engine::new(bound.layout, bound.targets, pipeline.stores.len(), 1),
            state: MemoryState::default(),
            bets: layout.table_by_oid(BETS_OID).context("bets")?,
            layout,
            catalog,
            relations: Relations::default(),
        })
    }

    /// What the stores must do, once a transaction ends.
    pub(crate) fn take(&mut self, event: &Event) -> Result<Vec<Part>> {
        match event {
            Event::Begin { commit_lsn, committed_at, .. } => {
                self.engine.begin(*commit_lsn, *committed_at, None);
            }
            Event::Data(bytes) => self.message(&pgoutput::decode(bytes)?)?,
            _ => return self.end(),
        }
        Ok(Vec::new())
    }

    fn message(&mut self, message: &Message<'_>) -> Result<()> {
        let Self { relations, layout, engine, state, .. } = self;
        if let Message::Relation(relation) = message {
            relations.relation(engine, &self.catalog, relation, Lsn(1));
            return Ok(());
        }
        let apply = |table, change| Ok(engine.apply(state, table, change)?);
        relations.changes(layout, message, apply).map_err(anyhow::Error::from)?;
        Ok(())
    }

    pub(crate) fn end(&mut self) -> Result<Vec<Part>> {
        self.engine.commit(&mut self.state)?;
        Ok(self.engine.take_parts())
    }

    pub(crate) fn decode(&self, message: &[u8]) -> Option<RowChange> {
        let message = pgoutput::decode(message).ok()?;
        let mut found = None;
        let keep = |_, change| {
            found = Some(change);
            Ok(())
        };
        self.relations.changes(&self.layout, &message, keep).ok()?;
        found
    }
}
