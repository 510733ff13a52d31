//! `walview dead-letters`: rows that are left out of a view because they cannot be evaluated or held.
//!
//! ```text
//!  command ── POST /dead-letters, with the state folder's token ─────► desk ── order ──► engine loop
//!                                                                       └─ read ──► last local commit
//! ```
//!
//! The running instance holds the state, so it is asked, as `status` asks it. Keys and, for `show`
//! alone, values of rows pass here: only whoever may read the state folder, which has them all, can
//! ask. Nothing of it is logged.

mod desk;
mod render;

pub use desk::{Books, Desk, Order, Refusal, Work};

use crate::cli::{DeadLettersCommand, Exit, LetterChoice, StateArgs};
use crate::config::Pipeline;
use crate::output::Output;
use crate::status;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// The path that the running instance answers on.
pub const PATH: &str = "/dead-letters";
/// Longer than the instance itself waits for its engine.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Letters that a replay or a drop names in its answer; all of them count.
const NAMED_MAX: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    List,
    Show,
    Replay,
    Drop,
}

/// What is asked of the running instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    pub pipeline: String,
    pub action: Action,
    #[serde(default)]
    pub view: Option<String>,
    /// Only these; else all that are not dropped.
    #[serde(default)]
    pub ids: Option<Vec<String>>,
    /// The dropped ones, too.
    #[serde(default)]
    pub dropped: bool,
    /// How many `list` names.
    #[serde(default)]
    pub limit: usize,
    /// `next` of the answer before.
    #[serde(default)]
    pub after: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    pub letters: Vec<Info>,
    /// Of all letters of the view or the pipeline.
    pub counts: Vec<Count>,
    /// Ids that name no letter.
    pub unknown: Vec<String>,
    /// There are more: ask again with it as `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A letter. Field names are stable.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Info {
    pub id: String,
    pub view: String,
    /// Absent where the row could not be evaluated: then it is in no target of its view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Of the table's row where it could not be evaluated, else of the result's.
    pub key: Vec<KeyPart>,
    pub reason: String,
    /// The change that parked it.
    pub position: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed_at: Option<String>,
    pub dropped: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Of `show` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Vec<ShownRow>>,
}

/// A column and its value in PostgreSQL's text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPart {
    pub column: String,
    pub value: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShownRow {
    /// `schema.table`, or the result of a view.
    pub of: String,
    pub columns: Vec<KeyPart>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Count {
    pub view: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    pub reason: String,
    pub dropped: bool,
    pub letters: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// In the view, and durable on its way to the stores.
    Delivered,
    /// Left out as before.
    Still(String),
    /// No longer there, or no part of the result.
    Gone,
    Dropped,
}

/// What an instance answers where it does not do as it is asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct Fault {
    pub error: String,
}

/// `list --json`.
#[derive(Debug, Serialize)]
struct Listing {
    pipelines: Vec<PipelineLetters>,
}

#[derive(Debug, Serialize)]
pub(super) struct PipelineLetters {
    pub(super) pipeline: String,
    /// Those that count.
    pub(super) total: u64,
    pub(super) dropped: u64,
    pub(super) counts: Vec<Count>,
    pub(super) letters: Vec<Info>,
}

/// `show`, `replay` and `drop` with `--json`.
#[derive(Debug, Default, Serialize)]
pub(super) struct Done {
    pub(super) pipeline: String,
    pub(super) delivered: u64,
    pub(super) still: u64,
    pub(super) gone: u64,
    pub(super) dropped: u64,
    pub(super) letters: Vec<Info>,
    pub(super) unknown: Vec<String>,
}

/// The command.
pub async fn run(command: &DeadLettersCommand, output: Output) -> Exit {
    match command {
        DeadLettersCommand::List(args) => {
            let state = &args.state.state;
            let pipelines = match &args.file {
                Some(file) => match named(file, output) {
                    Some(name) => vec![name],
                    None => return Exit::CouldNotTell,
                },
                None => status::known(state),
            };
            let request = Request {
                view: args.view.clone(),
                dropped: args.dropped,
                limit: args.limit,
                ..request("", Action::List)
            };
            list(state, pipelines, &request, output).await
        }
        DeadLettersCommand::Show(args) => {
            let choice = LetterChoice { ids: args.ids.clone(), ..LetterChoice::default() };
            change(&args.file, &args.state, &choice, Action::Show, output).await
        }
        DeadLettersCommand::Replay(args) => {
            change(&args.file, &args.state, &args.choice, Action::Replay, output).await
        }
        DeadLettersCommand::Drop(args) => {
            change(&args.file, &args.state, &args.choice, Action::Drop, output).await
        }
    }
}

/// The pipeline that a file defines; says what is wrong with it.
fn named(file: &Path, output: Output) -> Option<String> {
    match Pipeline::load(file) {
        Ok(pipeline) => Some(pipeline.name.to_string()),
        Err(problems) => {
            output.problems(&[problems]);
            None
        }
    }
}

#[must_use]
pub fn request(pipeline: &str, action: Action) -> Request {
    Request {
        pipeline: pipeline.to_owned(),
        action,
        view: None,
        ids: None,
        dropped: false,
        limit: 0,
        after: None,
    }
}

async fn list(state: &Path, pipelines: Vec<String>, request: &Request, output: Output) -> Exit {
    if pipelines.is_empty() {
        output.fault(&format!(
            "no pipeline has run with the state folder \"{}\"; name another with --state",
            state.display()
        ));
        return Exit::CouldNotTell;
    }
    let (mut exit, mut found) = (Exit::Ok, Vec::new());
    for pipeline in pipelines {
        let request = Request { pipeline: pipeline.clone(), ..request.clone() };
        match ask(state, &request).await {
            Ok(Reply { letters, counts, .. }) => {
                let sum = |dropped: bool| {
                    let counts = counts.iter().filter(|count| count.dropped == dropped);
                    counts.map(|count| count.letters).sum()
                };
                let (total, dropped) = (sum(false), sum(true));
                found.push(PipelineLetters { pipeline, total, dropped, counts, letters });
            }
            Err(why) => {
                output.fault(&why);
                exit = Exit::CouldNotTell;
            }
        }
    }
    let text: Vec<String> = found.iter().map(render::list).collect();
    output.result(text.join("\n").trim_end(), &Listing { pipelines: found });
    exit
}

/// `show`, `replay` and `drop`, which differ in what they ask for and what they say.
async fn change(
    file: &Path,
    state: &StateArgs,
    choice: &LetterChoice,
    action: Action,
    output: Output,
) -> Exit {
    let Some(pipeline) = named(file, output) else {
        return Exit::CouldNotTell;
    };
    let mut request = request(&pipeline, action);
    request.view.clone_from(&choice.view);
    request.ids = (!choice.ids.is_empty()).then(|| choice.ids.clone());
    request.limit = NAMED_MAX;
    let mut done = Done { pipeline, unknown: choice.ids.clone(), ..Done::default() };
    loop {
        let reply = match ask(&state.state, &request).await {
            Ok(reply) => reply,
            Err(why) => {
                output.fault(&why);
                return Exit::CouldNotTell;
            }
        };
        // An id that one batch does not name, another may.
        done.unknown.retain(|id| reply.unknown.contains(id));
        for letter in reply.letters {
            match &letter.outcome {
                Some(Outcome::Delivered) => done.delivered += 1,
                Some(Outcome::Still(_)) => done.still += 1,
                Some(Outcome::Gone) => done.gone += 1,
                Some(Outcome::Dropped) => done.dropped += 1,
                None => {}
            }
            if done.letters.len() < NAMED_MAX {
                done.letters.push(letter);
            }
        }
        match reply.next {
            Some(next) => request.after = Some(next),
            None => break,
        }
    }
    let text = match action {
        Action::Show | Action::List => render::show(&done),
        Action::Replay | Action::Drop => render::done(&done, action),
    };
    output.result(text.trim_end(), &done);
    if done.unknown.is_empty() && done.still == 0 { Exit::Ok } else { Exit::Failed }
}

/// Asks the instance that runs the pipeline under the folder `state`.
///
/// # Errors
/// A sentence: none runs, or why it did not do as it was asked.
pub async fn ask(state: &Path, request: &Request) -> Result<Reply, String> {
    let pipeline = request.pipeline.as_str();
    let instance = status::instance(state, pipeline).await?;
    let body = serde_json::to_string(request).map_err(|error| error.to_string())?;
    let file = status::Instance::token_file(state, pipeline);
    let token = tokio::fs::read_to_string(&file).await.map_err(|error| {
        format!(
            "cannot read \"{}\": {error}; ask as the user that runs walview, or as root",
            file.display()
        )
    })?;
    let given = (body.as_str(), token.as_str());
    let (code, body) =
        status::exchange(&instance, pipeline, "POST", PATH, given, ANSWER_MAX).await?;
    if code == 200 {
        return serde_json::from_str(&body)
            .map_err(|error| format!("the instance of \"{pipeline}\" answers oddly: {error}"));
    }
    let fault: Result<Fault, _> = serde_json::from_str(&body);
    Err(match fault {
        Ok(fault) => format!("\"{pipeline}\": {}", fault.error),
        Err(_) => format!(
            "the instance of \"{pipeline}\" answers {code}; it is of another version: restart it"
        ),
    })
}
