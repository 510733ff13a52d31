//! Betting's views over a state in memory.

use anyhow::Result;
use walview::service::ingest::Relations;
use walview::source::stream::Event;
use walview_core::catalog::Catalog;
use walview_core::engine::{Engine, Layout, MemoryState, Part};
use walview_core::pgoutput::{self, Message};
use walview_core::position::Lsn;

use super::log::betting;

pub(crate) struct Betting {
    pub(crate) engine: Engine,
    pub(crate) state: MemoryState,
    pub(crate) layout: Layout,
    pub(crate) relations: Relations,
    catalog: Catalog,
}

impl Betting {
    pub(crate) fn new() -> Result<Self> {
        let (pipeline, catalog, bound) = betting()?;
        let layout = bound.layout.clone();
        Ok(Self {
            engine: Engine::new(bound.layout, bound.targets, pipeline.stores.len(), 1),
            state: MemoryState::default(),
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
            Event::Commit { .. } => return self.end(),
            Event::KeepAlive { .. } | Event::Message { .. } => {}
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
}
