//! What Redis alone makes of a backlog: all that Walview told it during a drain, told once more to a
//! Redis that stands where the first one stood, with nothing else running.
//!
//! ```text
//!  Redis's folder ──copy──► another Redis ◄── the recording, as fast as it is taken
//!        │                                      ▲
//!  walview ──► recorder ──► Redis               │   replies are read and dropped
//!                 └─────────────────────────────┘
//! ```
//!
//! No drain can be faster: Redis carries out commands on one thread. It has an append-only file both
//! times.

use crate::drain::{BACKLOGS, Backlog, REFERENCE, betting, write};
use crate::figures::Figure;
use crate::process::cpu_seconds;
use crate::world::{LIMIT, World};
use anyhow::{Context as _, Result, ensure};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use walview::demo::servers::redis::{Persistence, Redis};
use walview::demo::servers::{Launch, Signal};

const CHUNK_BYTES: usize = 256 * 1024;
/// The last command of all, and its reply, which no other is like.
const LAST: &[u8] = b"*2\r\n$4\r\nECHO\r\n$12\r\nwalview: end\r\n";
const LAST_REPLY: &[u8] = b"$12\r\nwalview: end\r\n";

pub(crate) async fn run(changes: u32, repeats: u32) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for backlog in BACKLOGS.iter().take(2) {
        figures.extend(measure(backlog, changes / backlog.part, repeats).await?);
    }
    Ok(figures)
}

async fn measure(backlog: &Backlog, changes: u32, repeats: u32) -> Result<[Figure; 2]> {
    let mut world = betting(i32::try_from(changes / 20)?).await?;
    world.publish("bets").await?;
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for repeat in 0..repeats {
        world.park().await?;
        world.reference_slot().await?;
        let end = write(&world, &(backlog.call)(changes)).await?;
        let copy = copy(&mut world, repeat).await?;
        let (recording, in_drain) = record(&mut world, end, repeat).await?;
        let reference = world.reference(end).await?;
        let (replay, alone) = replay(&world, &copy, &recording).await?;
        let changes = f64::from(changes);
        eprintln!(
            "{}: replayed in {:.1} s, {REFERENCE} {:.1} s",
            backlog.case,
            replay.as_secs_f64(),
            reference.as_secs_f64()
        );
        rates.push((changes / replay.as_secs_f64(), changes / reference.as_secs_f64()));
        costs.push((alone * 1e6 / changes, in_drain * 1e6 / changes));
    }
    world.verify().await?;
    let case = backlog.case.replace("drain", "redis");
    Ok([
        Figure::paired([&case, "replayed", "changes/s"], REFERENCE, &rates),
        Figure::paired([&case, "CPU of redis-server", "µs a change"], "in the drain", &costs),
    ])
}

/// A folder like Redis's.
async fn copy(world: &mut World, repeat: u32) -> Result<PathBuf> {
    let folder = world.folder(&format!("redis-{repeat}"))?;
    world.redis.server.stop().await?;
    let launch = Launch {
        program: PathBuf::from("cp"),
        args: ["-rT", &world.redis_folder().display().to_string(), &folder.display().to_string()]
            .map(str::to_owned)
            .to_vec(),
        env: Vec::new(),
        user: None,
        log: world.log("cp"),
        death: Signal::KILL,
    };
    launch.run("cp", LIMIT).await?;
    world.redis.server.start().await?;
    Ok(folder)
}

/// What Walview's writer said during a drain, in a file, and what that took of Redis's processor
/// time, in seconds.
async fn record(world: &mut World, end: u64, repeat: u32) -> Result<(PathBuf, f64)> {
    let folder = world.folder(&format!("recording-{repeat}"))?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("redis://{}/0", listener.local_addr()?);
    let mut recorder = JoinSet::new();
    recorder.spawn(connections(listener, world.redis.server.port(), folder.clone()));
    let direct = world.options.env.clone();
    // The later one counts.
    world.options.env.push(("REDIS_URL".to_owned(), url));
    let redis = world.redis.server.pid()?.to_string();
    let before = cpu_seconds(&redis)?;
    world.drain(end).await?;
    let cpu_seconds = cpu_seconds(&redis)? - before;
    world.options.env = direct;
    recorder.shutdown().await;
    let mut recordings: Vec<(u64, PathBuf)> = std::fs::read_dir(&folder)?
        .map(|entry| entry.and_then(|entry| Ok((entry.metadata()?.len(), entry.path()))))
        .collect::<std::io::Result<_>>()?;
    recordings.sort();
    // The other connections ask how Redis is.
    let (_, writer) = recordings.pop().context("walview has not spoken with Redis")?;
    Ok((writer, cpu_seconds))
}

/// Passes everything on, and keeps what clients say, each in a file.
async fn connections(listener: TcpListener, server: u16, folder: PathBuf) -> Result<()> {
    let mut connections = JoinSet::new();
    for number in 0.. {
        let (client, _) = listener.accept().await?;
        let server = TcpStream::connect(("127.0.0.1", server)).await?;
        connections.spawn(connection(client, server, folder.join(number.to_string())));
    }
    Ok(())
}

async fn connection(client: TcpStream, server: TcpStream, file: PathBuf) -> Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut requests, mut to_client) = client.into_split();
    let (mut replies, mut to_server) = server.into_split();
    let record = async {
        let mut file = std::fs::File::create(file)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let bytes = requests.read(&mut chunk).await?;
            let said = chunk.get(..bytes).unwrap_or_default();
            if said.is_empty() {
                return to_server.shutdown().await;
            }
            file.write_all(said)?;
            to_server.write_all(said).await?;
        }
    };
    tokio::try_join!(record, tokio::io::copy(&mut replies, &mut to_client))?;
    Ok(())
}

/// How long a Redis on `folder` takes for the recording, and its processor time in seconds.
async fn replay(world: &World, folder: &Path, recording: &Path) -> Result<(Duration, f64)> {
    let mut redis = Redis::start(folder, &world.log("replay"), Persistence::AppendOnly).await?;
    let pid = redis.server.pid()?.to_string();
    world.clickhouse.server.freeze()?;
    let (before, started) = (cpu_seconds(&pid)?, Instant::now());
    tokio::time::timeout(LIMIT, tell(redis.server.port(), recording)).await??;
    let (elapsed, cpu_seconds) = (started.elapsed(), cpu_seconds(&pid)? - before);
    world.clickhouse.server.thaw()?;
    let (told, first) = (mark(&redis).await?, mark(&world.redis).await?);
    ensure!(told == first, "told the same, one Redis is at {told} and the other at {first}");
    redis.server.stop().await?;
    Ok((elapsed, cpu_seconds))
}

async fn tell(port: u16, recording: &Path) -> Result<()> {
    let (mut replies, mut requests) = TcpStream::connect(("127.0.0.1", port)).await?.into_split();
    let mut recording = tokio::fs::File::open(recording).await?;
    let tell = async {
        tokio::io::copy(&mut recording, &mut requests).await?;
        requests.write_all(LAST).await
    };
    let listen = async {
        let mut heard = Vec::with_capacity(CHUNK_BYTES);
        while !heard.ends_with(LAST_REPLY) {
            // The end of the last reply may come by itself.
            heard.drain(..heard.len().saturating_sub(LAST_REPLY.len()));
            if replies.read_buf(&mut heard).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    };
    tokio::try_join!(tell, listen)?;
    Ok(())
}

/// How far it says it is, which comes with all that is before.
async fn mark(redis: &Redis) -> Result<String> {
    let mut redis = redis.connect().await?;
    Ok(redis::cmd("GET").arg("walview:betting:mark").query_async(&mut redis).await?)
}
