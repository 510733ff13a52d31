//! Debezium's engine on a backlog, without any sink: `bench/debezium/drain.py`, which counts what it
//! gets.

use crate::world::{LIMIT, World, install};
use anyhow::{Context as _, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use walview::demo::servers::{Launch, Signal};

/// One to warm the engine up, and the one that counts, over the same log.
const SLOTS: [&str; 2] = ["debezium_warm", "debezium"];

pub(crate) struct Debezium {
    folder: PathBuf,
}

/// What its engine took, warm.
#[derive(Deserialize)]
pub(crate) struct Drained {
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
}

impl Debezium {
    /// # Errors
    /// Java or the engine's package is missing and cannot be installed.
    pub(crate) async fn install(world: &World) -> Result<Self> {
        install("debezium", &world.log("setup")).await?;
        Ok(Self { folder: world.folder("debezium")? })
    }

    /// What is committed from here on is read by [`Self::drain`].
    pub(crate) async fn slots(&self, world: &World) -> Result<()> {
        for slot in SLOTS {
            let sql = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')";
            world.client.execute(sql, &[&slot]).await?;
        }
        Ok(())
    }

    /// From the start of an engine in a Java machine that has drained the same before, until it has
    /// handed out `rows`.
    pub(crate) async fn drain(&self, world: &World, rows: u32) -> Result<Drained> {
        let source = serde_json::json!({
            "host": "127.0.0.1",
            "port": world.postgres.server.port(),
            "user": "walview",
            "password": world.postgres.password(),
            "database": "betting",
            "publication": World::PUBLICATION,
            "tables": "public.bets",
            "slots": SLOTS,
            "rows": rows,
        });
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/debezium");
        let launch = Launch {
            program: programs.join("run"),
            args: vec![
                programs.join("drain.py").display().to_string(),
                self.folder.display().to_string(),
                source.to_string(),
            ],
            env: Vec::new(),
            user: None,
            log: world.log("debezium"),
            death: Signal::KILL,
        };
        launch.run("Debezium", LIMIT).await?;
        for slot in SLOTS {
            world.client.execute("SELECT pg_drop_replication_slot($1)", &[&slot]).await?;
        }
        let drained = std::fs::read_to_string(self.folder.join("drained.json"));
        Ok(serde_json::from_str(&drained.context("Debezium says nothing")?)?)
    }
}
