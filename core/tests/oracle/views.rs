//! Whole views: random schemas, views and transactions. The engine is driven by what PostgreSQL's
//! own decoding says of them, and its results are compared with PostgreSQL's after every step.
//!
//! ```text
//!  schema, views, transactions ─► PostgreSQL ─► pgoutput of a slot ─► decode ─► engine ─► keys
//!                                      └──────► the same SQL, row by row ────────────────► keys
//! ```
//!
//! A fact whose expressions fail counts as absent in both. Conditions never fail: PostgreSQL may
//! evaluate them in any order. A fact that the engine parks because versions of PostgreSQL differ
//! over it may have a value here: a round with a difference is asked once more without such facts,
//! each only in the view and at the step that has its letter, and must then agree.

use crate::follow::Follower;
use crate::quoted;
use crate::random::Random;
use crate::schema::{Round, Schema};
use crate::server::Server;
use std::collections::BTreeMap;
use walview_core::plan::View;
use walview_core::sql;
use walview_core::value::Value;

/// Ids of facts that a view leaves out because versions differ over them, by (step, view).
type LeftOut = BTreeMap<(usize, usize), Vec<String>>;

/// Runs in a session; gives the rows of a view, one text each, without the facts of these ids.
const VIEW_ROWS: &str = r"
CREATE FUNCTION pg_temp.view_rows(template text, probe text, left_out text[]) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
  fact tid;
  bad tid[] := ARRAY(SELECT ctid FROM fact WHERE id::text = ANY (left_out));
  line text;
BEGIN
  FOR fact IN SELECT ctid FROM fact LOOP
    BEGIN
      EXECUTE replace(probe, '$F$',
        format('(SELECT * FROM fact WHERE ctid = %L OFFSET 0)', fact));
    EXCEPTION WHEN OTHERS THEN bad := bad || fact;
    END;
  END LOOP;
  FOR line IN EXECUTE replace(template, '$F$',
    format('(SELECT * FROM fact WHERE NOT ctid = ANY (%L) OFFSET 0)', bad)) LOOP
    RETURN NEXT line;
  END LOOP;
END $$;
";

pub(crate) struct Tried {
    pub(crate) rounds: usize,
    pub(crate) views: usize,
    /// Views that the front end took.
    pub(crate) bound: usize,
    pub(crate) changes: usize,
    pub(crate) results: usize,
    /// Rounds that differed, and agree without the facts over which versions differ.
    pub(crate) excused: usize,
    pub(crate) wrong: Vec<String>,
}

/// Rounds until `goes_on` says no; each a schema of its own.
pub(crate) fn differences(server: &Server, goes_on: impl Fn(usize) -> bool) -> Tried {
    let mut random = Random::new("views");
    let mut tried = Tried {
        rounds: 0,
        views: 0,
        bound: 0,
        changes: 0,
        results: 0,
        excused: 0,
        wrong: Vec::new(),
    };
    while goes_on(tried.rounds) && tried.wrong.len() < 3 {
        let round = Schema::random(&mut random, server.major()).round(&mut random);
        run(server, &round, &mut tried);
        tried.rounds += 1;
    }
    tried
}

fn run(server: &Server, round: &Round, tried: &mut Tried) {
    let catalog = round.schema.catalog();
    let mut views: Vec<(usize, View)> = Vec::new();
    for (index, view) in round.views.iter().enumerate() {
        tried.views += 1;
        let bound = sql::parse(&view.sql())
            .and_then(|parsed| sql::bind(&parsed, &format!("v{index}"), &catalog, "public"));
        if let Ok(bound) = bound {
            views.push((index, bound));
        }
    }
    let mut follower = Follower::new(&catalog, views.clone());
    tried.bound += follower.views().count();
    let (wrong, parked) = follow(server, round, &mut follower, &LeftOut::new(), tried);
    if wrong.is_empty() || parked.is_empty() {
        tried.wrong.extend(wrong);
        return;
    }
    let mut follower = Follower::new(&catalog, views);
    let (wrong, again) = follow(server, round, &mut follower, &parked, tried);
    assert_eq!(again, parked, "the same round parked other facts");
    tried.excused += usize::from(wrong.is_empty());
    tried.wrong.extend(wrong);
}

/// What differs at the first step where something does, and the facts that the engine leaves out at
/// each step because versions differ. PostgreSQL leaves out `left_out`.
fn follow(
    server: &Server,
    round: &Round,
    follower: &mut Follower,
    left_out: &LeftOut,
    tried: &mut Tried,
) -> (Vec<String>, LeftOut) {
    let lines = server.records(&script(round, follower, left_out));
    let mut step = 0;
    let (mut wrong, mut parked) = (Vec::new(), LeftOut::new());
    let mut expected = follower.nothing();
    for line in lines {
        let mut cells = line.into_iter();
        let tag = cells.next().unwrap().unwrap();
        match tag.as_str() {
            "load" => {
                let table = cells.next().unwrap().unwrap();
                follower.load(&table, &cells.collect::<Vec<_>>());
            }
            "loaded" => follower.snapshot(),
            "change" => {
                tried.changes += 1;
                follower.change(&unhex(&cells.next().unwrap().unwrap()));
            }
            "row" => {
                let view: usize = cells.next().unwrap().unwrap().parse().unwrap();
                let types = follower.view(view).columns.iter().map(|column| &column.ty);
                let row = cells
                    .zip(types)
                    .map(|(text, ty)| {
                        text.map_or(Value::Null, |text| {
                            Value::from_server(ty, &text).unwrap_or_else(|error| {
                                panic!("{ty:?} {text:?}: {error}\n{}", round.views[view].sql())
                            })
                        })
                    })
                    .collect();
                tried.results += 1;
                follower.expect(view, &row, &mut expected);
            }
            "step" => {
                if wrong.is_empty() {
                    let found = follower.compare(&expected).into_iter();
                    wrong.extend(found.map(|(view, what)| report(round, view, step, &what)));
                }
                for (view, id) in follower.parked_by_version(server.major()) {
                    parked.entry((step, view)).or_default().push(id);
                }
                expected = follower.nothing();
                step += 1;
            }
            _ => {}
        }
    }
    assert_eq!(step, round.steps.len() + 1);
    (wrong, parked)
}

/// All of a round as one script, so that it costs one connection.
fn script(round: &Round, follower: &Follower, left_out: &LeftOut) -> String {
    let mut script = format!("{VIEW_ROWS}{}", round.schema.create());
    script.push_str(&format!("{}\n", round.before.join("\n")));
    script.push_str(
        "SELECT E'\\x1dslot' FROM pg_create_logical_replication_slot('s', 'pgoutput');\n",
    );
    for table in &round.schema.tables {
        script.push_str(&format!("SELECT E'\\x1dload', '{0}', * FROM {0};\n", table.name));
    }
    script.push_str("SELECT E'\\x1dloaded';\n");
    script.push_str(&check(round, follower, 0, left_out));
    for (step, statements) in (1..).zip(&round.steps) {
        script.push_str(&statements.join("\n"));
        script.push_str(
            "\nSELECT E'\\x1dchange', encode(data, 'hex') FROM pg_logical_slot_get_binary_changes('s', \
             NULL, NULL, 'proto_version', '1', 'publication_names', 'p');\n",
        );
        script.push_str(&check(round, follower, step, left_out));
    }
    script.push_str("SELECT E'\\x1dend' FROM pg_drop_replication_slot('s');\n");
    script.push_str(&round.schema.drop());
    script
}

/// The rows of every view after a step.
fn check(round: &Round, follower: &Follower, step: usize, left_out: &LeftOut) -> String {
    let mut check = String::new();
    for (index, view) in follower.views() {
        let names: Vec<&str> = view.columns.iter().map(|column| column.name.as_str()).collect();
        let (template, probe) = round.views[index].questions(&names);
        let ids = left_out.get(&(step, index)).map_or(&[][..], Vec::as_slice);
        let ids: Vec<String> = ids.iter().map(|id| quoted(id)).collect();
        check.push_str(&format!(
            "SELECT E'\\x1drow', {index}, r FROM pg_temp.view_rows($q${template}$q$, \
             $q${probe}$q$, ARRAY[{}]::text[]) r;\n",
            ids.join(", ")
        ));
    }
    check.push_str("SELECT E'\\x1dstep';\n");
    check
}

fn report(round: &Round, view: usize, step: usize, what: &str) -> String {
    let mut text = format!("{}\n{what}\n", round.views[view].sql());
    text.push_str(&round.schema.create());
    text.push_str(&format!("{}\n-- slot\n", round.before.join("\n")));
    for (index, statements) in round.steps.iter().take(step).enumerate() {
        text.push_str(&format!("-- step {}\n{}\n", index + 1, statements.join("\n")));
    }
    text
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(text.get(at..at + 2).unwrap(), 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}
