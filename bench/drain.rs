//! How fast a backlog reaches both stores: the betting views beside `pg_recvlogical`.
//!
//! ```text
//!  for each repeat:  walview's slot and the reference's begin here ─► backlog is written
//!                    ─► the two drain it, one after the other, the first in turns
//!  at the end:       walview verify
//! ```
//!
//! Walview's clock starts with its process and ends when both stores hold the last commit;
//! the reference's ends with it.

use crate::figures::Figure;
use crate::world::{Drained, World};
use anyhow::Result;
use std::time::Instant;
use walview::demo::{PIPELINE, Seed, migrate, seed};

const USERS: i32 = 100_000;
const EVENTS: i32 = 1_000;
pub(crate) const REFERENCE: &str = "pg_recvlogical";
/// Aims of our own, for views that keep fact state.
pub(crate) const CPU_MICROSECONDS: f64 = 6.0;
pub(crate) const PEAK_MIB: f64 = 256.0;

const INSERT: &str = "INSERT INTO bets (user_id, event_id, amount, odds) VALUES (1, 1, 1, 2)";

/// `CALL inserts(changes, rows of a transaction)`.
const INSERTS: &str = "
CREATE PROCEDURE inserts(changes int, each int) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. changes / each LOOP
        INSERT INTO bets (user_id, event_id, amount, odds, placed_at)
        SELECT 1 + floor(:users * power(random(), 2)), 1 + floor(:events * power(random(), 2)),
               round((1 + 199 * random())::numeric, 2), round((1.05 + 9 * random())::numeric, 2),
               clock_timestamp()
        FROM generate_series(1, each);
        COMMIT;
    END LOOP;
END $$";

/// `CALL mixed(changes)`: of 20 transactions of one row each, 12 place a bet, 7 settle any of those
/// there, old or new, and 1 deletes the oldest.
const MIXED: &str = "
CREATE PROCEDURE mixed(changes int) LANGUAGE plpgsql AS $$
DECLARE oldest bigint; newest bigint; kept bigint; chosen bigint;
BEGIN
    SELECT min(id), max(id) INTO oldest, newest FROM bets;
    kept := oldest + changes / 20;
    FOR i IN 1 .. changes LOOP
        IF i % 20 < 12 THEN
            INSERT INTO bets (user_id, event_id, amount, odds, placed_at)
            VALUES (1 + floor(:users * power(random(), 2)), 1 + floor(:events * power(random(), 2)),
                    round((1 + 199 * random())::numeric, 2), round((1.05 + 9 * random())::numeric, 2),
                    clock_timestamp())
            RETURNING id INTO newest;
        ELSIF i % 20 < 19 THEN
            chosen := kept + floor((newest - kept + 1) * random());
            UPDATE bets SET status = 'SETTLED', settled_at = clock_timestamp(),
                            payout = round(amount * random()::numeric, 2)
            WHERE id = chosen;
        ELSE
            DELETE FROM bets WHERE id = oldest;
            oldest := oldest + 1;
        END IF;
        COMMIT;
    END LOOP;
END $$";

pub(crate) struct Backlog {
    pub(crate) case: &'static str,
    /// What writes it, for so many changes.
    pub(crate) call: fn(u32) -> String,
    /// Of `--changes`.
    pub(crate) part: u32,
    /// How many times as fast as the reference Walview is to be.
    pub(crate) aim: f64,
    pub(crate) identity_full: bool,
}

pub(crate) const BACKLOGS: [Backlog; 4] = [
    Backlog {
        case: "drain: inserts, 10 rows a transaction",
        call: |changes| format!("CALL inserts({changes}, 10)"),
        part: 1,
        aim: 1.5,
        identity_full: false,
    },
    Backlog {
        case: "drain: mixed, 1 row a transaction",
        call: |changes| format!("CALL mixed({changes})"),
        part: 2,
        aim: 1.5,
        identity_full: false,
    },
    Backlog {
        case: "drain: inserts, one transaction",
        call: |changes| format!("CALL inserts({changes}, {changes})"),
        part: 1,
        aim: 1.2,
        identity_full: false,
    },
    Backlog {
        case: "drain: mixed, REPLICA IDENTITY FULL",
        call: |changes| format!("CALL mixed({changes})"),
        part: 2,
        aim: 1.5,
        identity_full: true,
    },
];

pub(crate) async fn run(changes: u32, repeats: u32) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for backlog in &BACKLOGS {
        figures.extend(measure(backlog, changes / backlog.part, repeats).await?);
    }
    Ok(figures)
}

async fn measure(backlog: &Backlog, changes: u32, repeats: u32) -> Result<Vec<Figure>> {
    let world = betting(i32::try_from(changes / 20)?).await?;
    if backlog.identity_full {
        world.client.batch_execute("ALTER TABLE bets REPLICA IDENTITY FULL").await?;
    }
    world.publish("bets").await?;
    let pairs = beside_reference(&world, backlog.case, &(backlog.call)(changes), repeats).await?;
    world.verify().await?;
    let changes = f64::from(changes);
    let (case, aim) = (backlog.case, backlog.aim);
    let mut figures = vec![
        rate([case, "drained", "changes/s"], REFERENCE, changes, &pairs),
        bound(case, aim, changes, &pairs)?,
    ];
    figures.extend(cost(case, changes, pairs.iter().map(|(drained, _)| drained)));
    Ok(figures)
}

/// A backlog for each repeat, and both drain it; the reference in seconds.
pub(crate) async fn beside_reference(
    world: &World,
    case: &str,
    call: &str,
    repeats: u32,
) -> Result<Vec<(Drained, f64)>> {
    let mut pairs = Vec::new();
    for repeat in 0..repeats {
        world.park().await?;
        world.reference_slot().await?;
        let writing = Instant::now();
        let end = write(world, call).await?;
        let written = writing.elapsed();
        let (drained, reference) = if repeat % 2 == 0 {
            let drained = world.drain(end).await?;
            (drained, world.reference(end).await?)
        } else {
            let reference = world.reference(end).await?;
            (world.drain(end).await?, reference)
        };
        eprintln!(
            "{case}: written in {:.1} s, walview {:.1} s, {REFERENCE} {:.1} s",
            written.as_secs_f64(),
            drained.elapsed.as_secs_f64(),
            reference.as_secs_f64()
        );
        pairs.push((drained, reference.as_secs_f64()));
    }
    Ok(pairs)
}

/// Servers with the betting tables, to drain backlogs of bets.
pub(crate) async fn betting(bets: i32) -> Result<World> {
    let world = World::start(PIPELINE, INSERT).await?;
    migrate(&world.client).await?;
    seed(&world.client, Seed { users: USERS, events: EVENTS, bets: bets.max(1_000) }).await?;
    for procedure in [INSERTS, MIXED] {
        let sql =
            procedure.replace(":users", &USERS.to_string()).replace(":events", &EVENTS.to_string());
        world.client.batch_execute(&sql).await?;
    }
    Ok(world)
}

/// Writes a backlog; whoever holds the LSN returned holds all of it.
pub(crate) async fn write(world: &World, call: &str) -> Result<u64> {
    world.client.batch_execute("SET synchronous_commit = off").await?;
    world.client.batch_execute(call).await?;
    world.last_commit().await
}

pub(crate) fn rate(
    name: [&str; 3],
    reference: &str,
    changes: f64,
    pairs: &[(Drained, f64)],
) -> Figure {
    let rates: Vec<(f64, f64)> = pairs
        .iter()
        .map(|(drained, reference)| (changes / drained.elapsed.as_secs_f64(), changes / reference))
        .collect();
    Figure::paired(name, reference, &rates)
}

/// What the changes took of everybody else, beside what all processors together have for one at the
/// aim's rate: from 1 on, the servers alone are too slow for it here, whatever Walview takes.
pub(crate) fn bound(
    case: &str,
    aim: f64,
    changes: f64,
    pairs: &[(Drained, f64)],
) -> Result<Figure> {
    let processors = f64::from(u32::try_from(std::thread::available_parallelism()?.get())?);
    let of = |(drained, reference): &(Drained, f64)| {
        let at_the_aim = processors * reference / aim;
        (drained.others_cpu_seconds * 1e6 / changes, at_the_aim * 1e6 / changes)
    };
    let name = [case, "CPU of the servers a change", "µs"];
    Ok(Figure::paired(name, "there for all at the aim", &pairs.iter().map(of).collect::<Vec<_>>()))
}

/// What the changes took of Walview's processor time and memory.
pub(crate) fn cost<'a>(
    case: &str,
    changes: f64,
    drained: impl Iterator<Item = &'a Drained> + Clone,
) -> [Figure; 2] {
    let cpu = drained.clone().map(|drained| drained.cpu_seconds * 1e6 / changes).collect();
    let peak = drained.map(|drained| drained.peak_mib).collect();
    [
        Figure::new([case, "CPU a change", "µs"], ("aim", CPU_MICROSECONDS), cpu),
        Figure::new([case, "peak memory", "MiB"], ("aim", PEAK_MIB), peak),
    ]
}
