//! `walview check`: what can be said about pipeline files without any server or variable.

use std::path::Path;

use serde::Serialize;

use crate::cli::{CheckArgs, Exit};
use crate::config::{Pipeline, ProblemJson, Problems, load_each};
use crate::output::Output;

/// `--json`; fields are stable.
#[derive(Debug, Serialize)]
struct Report<'a> {
    ok: bool,
    files: Vec<FileReport<'a>>,
}

#[derive(Debug, Serialize)]
struct FileReport<'a> {
    file: String,
    ok: bool,
    pipeline: Option<&'a str>,
    views: Option<usize>,
    targets: Option<usize>,
    errors: Vec<ProblemJson<'a>>,
}

#[must_use]
pub fn run(args: &CheckArgs, output: Output) -> Exit {
    let results = load_each(&args.files);
    let ok = results.iter().all(Result::is_ok);
    let text: Vec<String> = results
        .iter()
        .map(|result| match result {
            Ok(pipeline) => good_line(pipeline),
            Err(problems) => problems.with_excerpts().trim_end().to_owned(),
        })
        .collect();
    let files = args.files.iter().zip(&results).map(|(file, result)| report(file, result));
    output.result(text.join("\n"), &Report { ok, files: files.collect() });
    if ok { Exit::Ok } else { Exit::Failed }
}

fn good_line(pipeline: &Pipeline) -> String {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    format!(
        "{}: ok ({}, {})",
        pipeline.file.display(),
        count(pipeline.views.len(), "view"),
        count(pipeline.target_count(), "target"),
    )
}

fn report<'a>(file: &Path, result: &'a Result<Pipeline, Problems>) -> FileReport<'a> {
    let pipeline = result.as_ref().ok();
    FileReport {
        file: file.display().to_string(),
        ok: pipeline.is_some(),
        pipeline: pipeline.map(|pipeline| pipeline.name.as_str()),
        views: pipeline.map(|pipeline| pipeline.views.len()),
        targets: pipeline.map(Pipeline::target_count),
        errors: result.as_ref().err().map(Problems::to_json).unwrap_or_default(),
    }
}
