//! `walview plan`: what `run` would make, what it needs, what it costs. Changes nothing, anywhere.
//!
//! ```text
//!  file ─► environment ─► state folder ─┐
//!                         source ───────┼─► Report ─► render, or --json
//!                         stores ───────┘
//! ```
//!
//! What `run` checks is checked by the same code (`service::preflight`, `service::lineage`,
//! `stores::*::inspect`); `run` stops at the first problem, here all are named. A part that cannot
//! be found out (a server that does not answer, a view that does not fit) leaves the others as they
//! are.

mod cost;
mod inspect;
mod render;
mod report;

pub use report::{PipelinePlan, Problem, Report, Verdict};

use crate::cli::{Exit, PlanArgs};
use crate::config::{Environment, Problems, load_each};
use crate::output::Output;

/// The command.
pub async fn run(args: &PlanArgs, environment: &Environment, output: Output) -> Exit {
    let (mut pipelines, mut excerpts) = (Vec::new(), Vec::new());
    for (file, loaded) in args.files.iter().zip(load_each(&args.files)) {
        let mut plan = PipelinePlan::new(file.display().to_string());
        let planned = match loaded {
            Ok(pipeline) => {
                plan.pipeline = Some(pipeline.name.to_string());
                let state = &args.state.state;
                Box::pin(inspect::inspect(&pipeline, environment, state, &mut plan)).await
            }
            Err(problems) => Err(problems),
        };
        let excerpt = planned.err().inspect(|problems| {
            plan.problems.splice(0..0, Problem::of_file(problems));
        });
        plan.judge();
        excerpts.push(excerpt.as_ref().map(Problems::with_excerpts));
        pipelines.push(plan);
    }
    let result = verdict(&pipelines);
    let texts: Vec<String> = pipelines
        .iter()
        .zip(&excerpts)
        .map(|(plan, excerpts)| render::render(plan, excerpts.as_deref()))
        .collect();
    output.result(texts.join("\n\n"), &Report { result, pipelines });
    match result {
        Verdict::Ready => Exit::Ok,
        Verdict::Problems => Exit::Failed,
        Verdict::Unknown => Exit::CouldNotTell,
    }
}

/// A certain problem of one outweighs what could not be told of another.
fn verdict(pipelines: &[PipelinePlan]) -> Verdict {
    let any = |verdict| pipelines.iter().any(|plan| plan.result == verdict);
    if any(Verdict::Problems) {
        Verdict::Problems
    } else if any(Verdict::Unknown) {
        Verdict::Unknown
    } else {
        Verdict::Ready
    }
}
