//! Betting's tables and messages of pgoutput about them, made up: the same each time.

use anyhow::Result;
use bytes::{BufMut as _, Bytes, BytesMut};
use std::path::Path;
use walview::config::Pipeline;
use walview::service::bound::{self, Bound};
use walview::source::stream::Event;
use walview_core::catalog::{Catalog, Collation, Column, ReplicaIdentity, Table, UniqueKey};
use walview_core::position::Lsn;
use walview_core::value::Type;

const USERS: u64 = 100_000;
const EVENTS: u64 = 1_000;

/// Betting's pipeline, bound to its tables.
pub(crate) fn betting() -> Result<(Pipeline, Catalog, Bound)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipeline/betting.yaml");
    let pipeline =
        Pipeline::load(&file).map_err(|_refused| anyhow::anyhow!("the pipeline is refused"))?;
    let catalog = catalog();
    let bound = bound::bind(&pipeline, "public", &catalog)
        .map_err(|_refused| anyhow::anyhow!("the pipeline does not fit"))?;
    Ok((pipeline, catalog, bound))
}

/// A log that is made up, with the positions of a real one.
#[derive(Default)]
pub(crate) struct Log {
    lsn: u64,
    bets: u64,
    random: u64,
}

impl Log {
    fn next(&mut self, below: u64) -> u64 {
        // xorshift64: the same log each time.
        let mut x = if self.random == 0 { 0x9E37_79B9_7F4A_7C15 } else { self.random };
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random = x;
        (x >> 11) % below
    }

    fn transactions(
        &mut self,
        rows: u64,
        each: u64,
        mut change: impl FnMut(&mut Self, u64) -> Bytes,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        let mut at = 0;
        while at < rows {
            let commit = Lsn(self.lsn + 100);
            let committed_at = 800_000_000_000_000;
            events.push(Event::Begin { xid: 1, commit_lsn: commit, committed_at });
            if self.lsn == 0 || at == 0 {
                events.extend(catalog().tables.iter().map(|table| Event::Data(relation(table))));
            }
            for row in at..(at + each).min(rows) {
                events.push(Event::Data(change(self, row)));
            }
            at += each;
            self.lsn += 200;
            events.push(Event::Commit {
                commit_lsn: commit,
                end_lsn: Lsn(commit.0 + 40),
                committed_at,
            });
        }
        events
    }

    pub(crate) fn dimensions(&mut self) -> Vec<Event> {
        let mut events = self.transactions(EVENTS, 100, |_, id| {
            insert(
                EVENTS_OID,
                &[
                    Some(&id.to_string()),
                    Some(&format!("Team {id} v Team {}", id + 1)),
                    Some(["football", "tennis", "darts"][(id % 3) as usize]),
                    Some("LIVE"),
                    Some("2026-01-05 18:30:00+00"),
                ],
            )
        });
        events.extend(self.transactions(USERS, 100, |_, id| {
            let country = ["DE", "SE", "GB", "FI"][(id % 4) as usize];
            insert(
                USERS_OID,
                &[
                    Some(&id.to_string()),
                    Some(&format!("Player {id}")),
                    Some(country),
                    Some("t"),
                    Some("{\"odds\": \"decimal\"}"),
                    Some("2025-01-05 18:30:00+00"),
                ],
            )
        }));
        events
    }

    fn bet(&mut self, id: u64) -> [String; 5] {
        let cents = self.next(10_000);
        [
            id.to_string(),
            self.next(USERS).to_string(),
            self.next(EVENTS).to_string(),
            format!("{}.{:02}", cents / 100 + 1, cents % 100),
            format!("{}.{:02}", self.next(9) + 1, self.next(100)),
        ]
    }

    /// The next bet is placed.
    fn place(&mut self) -> Bytes {
        self.bets += 1;
        let [id, user, event, amount, odds] = self.bet(self.bets);
        insert(
            BETS_OID,
            &[
                Some(&id),
                Some(&user),
                Some(&event),
                Some(&amount),
                Some(&odds),
                Some("OPEN"),
                None,
                Some("2026-01-05 18:30:00.123456+00"),
                None,
            ],
        )
    }

    pub(crate) fn inserts(&mut self, rows: u64, each: u64) -> Vec<Event> {
        self.transactions(rows, each, |log, _| log.place())
    }

    /// 60 inserts, 40 settled bets in a hundred. A bet that is settled gets another player, event and
    /// stake, too, so every group that it was in loses it: more work than a real one.
    pub(crate) fn mixed(&mut self, rows: u64, each: u64) -> Vec<Event> {
        self.transactions(rows, each, |log, _| {
            if log.bets < 1000 || log.next(100) < 60 {
                return log.place();
            }
            let id = log.next(log.bets) + 1;
            let [id, user, event, amount, odds] = log.bet(id);
            update(
                BETS_OID,
                &[
                    Some(&id),
                    Some(&user),
                    Some(&event),
                    Some(&amount),
                    Some(&odds),
                    Some("SETTLED"),
                    Some("12.50"),
                    Some("2026-01-05 18:30:00.123456+00"),
                    Some("2026-01-06 18:30:00.123456+00"),
                ],
            )
        })
    }
}

const USERS_OID: u32 = 1;
const EVENTS_OID: u32 = 2;
pub(crate) const BETS_OID: u32 = 3;

fn catalog() -> Catalog {
    let table = |oid, name: &str, columns: &[(&str, Type, bool)]| Table {
        oid,
        schema: "public".to_owned(),
        name: name.to_owned(),
        columns: columns
            .iter()
            .map(|(name, ty, not_null)| Column {
                name: (*name).to_owned(),
                attnum: 0,
                collation: Collation::None,
                ty: ty.clone(),
                type_oid: 20,
                type_modifier: -1,
                not_null: *not_null,
                generated: false,
                toastable: false,
                added: None,
            })
            .collect(),
        unique_keys: vec![UniqueKey {
            name: format!("{name}_pkey"),
            columns: vec![0],
            primary: true,
        }],
        replica_identity: ReplicaIdentity::Default,
    };
    let (text, at, money) = (Type::Text, Type::TimestampTz, Type::Numeric(Some((12, 2))));
    Catalog {
        tables: vec![
            table(
                USERS_OID,
                "users",
                &[
                    ("id", Type::Int8, true),
                    ("name", text.clone(), true),
                    ("country", text.clone(), false),
                    ("verified", Type::Bool, true),
                    ("preferences", Type::Jsonb, true),
                    ("created_at", at.clone(), true),
                ],
            ),
            table(
                EVENTS_OID,
                "events",
                &[
                    ("id", Type::Int8, true),
                    ("name", text.clone(), true),
                    ("category", text.clone(), true),
                    ("status", text.clone(), true),
                    ("starts_at", at.clone(), true),
                ],
            ),
            table(
                BETS_OID,
                "bets",
                &[
                    ("id", Type::Int8, true),
                    ("user_id", Type::Int8, true),
                    ("event_id", Type::Int8, true),
                    ("amount", money.clone(), true),
                    ("odds", Type::Numeric(Some((6, 2))), true),
                    ("status", text, true),
                    ("payout", money, false),
                    ("placed_at", at.clone(), true),
                    ("settled_at", at, false),
                ],
            ),
        ],
        other_encoding: false,
    }
}

pub(crate) fn relation(table: &Table) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(b'R');
    out.put_u32(table.oid);
    out.put_slice(b"public\0");
    out.put_slice(table.name.as_bytes());
    out.put_slice(b"\0d");
    out.put_u16(u16::try_from(table.columns.len()).unwrap_or(0));
    for (index, column) in table.columns.iter().enumerate() {
        out.put_u8((index == 0).into());
        out.put_slice(column.name.as_bytes());
        out.put_u8(0);
        out.put_u32(column.type_oid);
        out.put_i32(column.type_modifier);
    }
    out.freeze()
}

fn insert(oid: u32, cells: &[Option<&str>]) -> Bytes {
    change(b'I', oid, cells)
}

fn update(oid: u32, cells: &[Option<&str>]) -> Bytes {
    change(b'U', oid, cells)
}

fn change(kind: u8, oid: u32, cells: &[Option<&str>]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(kind);
    out.put_u32(oid);
    out.put_u8(b'N');
    out.put_u16(u16::try_from(cells.len()).unwrap_or(0));
    for cell in cells {
        match cell {
            None => out.put_u8(b'n'),
            Some(text) => {
                out.put_u8(b't');
                out.put_u32(u32::try_from(text.len()).unwrap_or(0));
                out.put_slice(text.as_bytes());
            }
        }
    }
    out.freeze()
}
