//! What a change takes of instructions, counted by callgrind: the same wherever it runs, within a
//! thousandth, so a small gain shows on a busy machine too.
//!
//! Counted is, in `bench/engine.rs`, what runs below [`COUNTED`]: decoding, evaluation, rendering, reads
//! of the state, on the engine's thread. Not counted are the threads of the local store (commits,
//! flushes, compactions), the kernel, and what makes up the messages.

use crate::figures::Figure;
use crate::world::{LIMIT, install};
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use walview::demo::servers::{Launch, Signal, TempHome};

const COUNTED: &str = "engine::counted";
/// Of `--changes`: under callgrind all is more than fifty times as slow, and a state is filled first.
const PART: u32 = 200;
/// Each pass of `bench/engine.rs` with the end of its file's name: callgrind writes one whenever a
/// pass begins, the second with what the dimensions took, and the last at the end.
const PASSES: [(&str, &str); 3] = [
    ("instructions: inserts, 10 rows a transaction", ".3"),
    ("instructions: mixed, 1 row a transaction", ".4"),
    ("instructions: inserts, one transaction", ""),
];

pub(crate) async fn run(changes: u32, repeats: u32) -> Result<Vec<Figure>> {
    let changes = changes / PART;
    let home = TempHome::new("walview-bench-")?;
    if let Err(error) = install("valgrind", &home.log("setup")).await {
        println!("instructions are not counted here: {error:#}\n");
        return Ok(Vec::new());
    }
    let mut counts = vec![Vec::new(); PASSES.len()];
    for repeat in 0..repeats {
        let counted = home.path().join(format!("callgrind-{repeat}"));
        callgrind(&counted, changes, &home.log("callgrind")).await?;
        for ((_, end), counts) in PASSES.iter().zip(&mut counts) {
            counts.push(total(&counted, end)? / f64::from(changes));
        }
        eprintln!("instructions: run {} of {repeats}", repeat + 1);
    }
    let inserts = counts.first().and_then(|counts| counts.first()).copied().context("a count")?;
    let figure = |((case, _), counts): (&(&str, &str), Vec<f64>)| {
        let name = [case, "engine's thread", "instructions a change"];
        Figure::new(name, ("inserts", inserts), counts)
    };
    Ok(PASSES.iter().zip(counts).map(figure).collect())
}

async fn callgrind(counted: &Path, changes: u32, log: &Path) -> Result<()> {
    let out = format!("--callgrind-out-file={}", counted.display());
    let runner = [
        "valgrind",
        "--tool=callgrind",
        &out,
        &format!("--toggle-collect={COUNTED}"),
        "--dump-before=engine::Bench::pass",
    ];
    let launch = Launch {
        program: PathBuf::from(env!("CARGO")),
        args: [
            "bench",
            "--quiet",
            "--locked",
            "--package=walview",
            "--bench=engine",
            "--config",
            &format!("target.'cfg(all())'.runner = {runner:?}"),
            "--",
            &changes.to_string(),
        ]
        .map(str::to_owned)
        .to_vec(),
        env: Vec::new(),
        user: None,
        log: log.to_owned(),
        death: Signal::KILL,
    };
    launch.run("cargo bench under callgrind", LIMIT).await
}

fn total(counted: &Path, end: &str) -> Result<f64> {
    let file = format!("{}{end}", counted.display());
    let text = std::fs::read_to_string(&file).with_context(|| format!("no {file:?}"))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total: f64 = total.with_context(|| format!("no total in {file:?}"))?.parse()?;
    ensure!(total > 0.0, "callgrind has not seen {COUNTED}");
    Ok(total)
}
