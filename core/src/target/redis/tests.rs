#![expect(clippy::unwrap_used, reason = "a spec that does not bind fails its test")]

use super::*;
use crate::plan::{OutputColumn, ViewKind};
use crate::position::Lsn;

fn view(key: &[usize]) -> View {
    let column = |name: &str, ty, nullable| OutputColumn { name: name.to_owned(), ty, nullable };
    View {
        name: "bets".to_owned(),
        inputs: Vec::new(),
        filter: None,
        kind: ViewKind::Rows { output: Vec::new() },
        columns: vec![
            column("id", Type::Int8, false),
            column("status", Type::Text, false),
            column("amount", Type::Numeric(Some((12, 2))), true),
            column("note", Type::Text, true),
        ],
        key: key.to_vec(),
        key_hint: String::new(),
    }
}

fn spec(template: &str, shape: SpecShape) -> Spec {
    Spec { template: Template::parse(template).unwrap(), shape, fields: None }
}

fn row(id: i64, status: &str, amount: Option<&str>, note: Option<&str>) -> Vec<Value> {
    let amount = amount
        .map_or(Value::Null, |text| Value::parse(&Type::Numeric(Some((12, 2))), text).unwrap());
    vec![
        Value::Int(id),
        Value::Text(status.into()),
        amount,
        note.map_or(Value::Null, |text| Value::Text(text.into())),
    ]
}

const AT: Position = Position { epoch: 1, lsn: Lsn(0x16_B374_D848), ordinal: 3 };
const COMMIT: Commit = Commit { committed_at: 848_530_920_123_456 };

type Rendered = (Vec<Action>, Result<(), RenderError>);

fn render(target: &Target, old: Option<&[Value]>, new: Option<&[Value]>) -> Rendered {
    let (mut scratch, mut bytes) = (Scratch::default(), Vec::new());
    let change = Change { old, new };
    let result = target.render(9, &change, AT, &COMMIT, &mut scratch, &mut bytes);
    let ops: Vec<Op> = OpRef::decode_all(&bytes).map(|op| op.unwrap().whole().unwrap()).collect();
    assert!(ops.iter().all(|op| op.target == 9));
    (ops.into_iter().map(|op| op.action).collect(), result)
}

fn set(key: &str, value: &str) -> Action {
    Action::Set { key: key.to_owned(), value: value.to_owned() }
}

fn del(key: &str) -> Action {
    Action::Del { key: key.to_owned() }
}

#[test]
fn a_string_follows_its_row() {
    let shape = |empty_zero| SpecShape::String { value: "amount".to_owned(), empty_zero };
    let target = Target::bind(&spec("a:{id}:{status}", shape(false)), &view(&[0])).unwrap();
    assert!(target.needs_old());
    let open = row(1, "open", Some("1.5"), None);
    let noted = row(1, "open", Some("1.5"), Some("seen"));
    let won = row(1, "won", Some("2"), None);
    let none = row(1, "won", None, None);
    assert_eq!(render(&target, None, Some(&open)).0, [set("a:1:open", "1.50")]);
    assert_eq!(render(&target, Some(&open), Some(&noted)).0, []);
    assert_eq!(
        render(&target, Some(&open), Some(&won)).0,
        [del("a:1:open"), set("a:1:won", "2.00")]
    );
    assert_eq!(render(&target, Some(&won), Some(&none)).0, [del("a:1:won")]);
    assert_eq!(render(&target, Some(&none), None).0, [del("a:1:won")]);
    assert_eq!(target.expected(&none), Ok(None));
    assert_eq!(target.expected(&won), Ok(Some(set("a:1:won", "2.00"))));

    let zero = Target::bind(&spec("a:{id}", shape(true)), &view(&[0])).unwrap();
    assert!(!zero.needs_old());
    assert_eq!(render(&zero, Some(&open), None).0, [set("a:1", "0")]);
    assert!(zero.may_remain(&set("a:1", "0")) && !target.may_remain(&set("a:1", "0")));
}

#[test]
fn hashes_and_json_hold_the_fields_shown() {
    let mut hash = spec("h:{id}", SpecShape::Hash);
    hash.fields = Some(vec!["note".to_owned(), "amount".to_owned()]);
    let hash = Target::bind(&hash, &view(&[0])).unwrap();
    let fields = |fields: &[(&str, &str)]| Action::HashReplace {
        key: "h:1".to_owned(),
        fields: fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
    };
    let full = row(1, "open", Some("3"), Some("x"));
    let bare = row(1, "open", None, None);
    assert_eq!(render(&hash, None, Some(&full)).0, [fields(&[("note", "x"), ("amount", "3.00")])]);
    assert_eq!(render(&hash, Some(&full), Some(&bare)).0, [del("h:1")]);
    // What a hash held of a field that is NULL now must go.
    let replaced = |new: &[Value]| {
        let (mut scratch, mut bytes) = (Scratch::default(), Vec::new());
        let change = Change { old: Some(&bare), new: Some(new) };
        hash.render(9, &change, AT, &COMMIT, &mut scratch, &mut bytes).unwrap();
        let op = OpRef::decode_all(&bytes).next().unwrap().unwrap();
        let Encoded::HashReplace { fields, all } = op.read().unwrap().0 else { panic!("{op:?}") };
        (fields, all)
    };
    assert_eq!(replaced(&full), (2, true));
    assert_eq!(replaced(&row(1, "open", Some("3"), None)), (1, false));

    let json = Target::bind(&spec("j:{id}", SpecShape::Json { numbers_text: false }), &view(&[0]));
    assert_eq!(
        render(&json.unwrap(), None, Some(&bare)).0,
        [set("j:1", "{\"id\":1,\"status\":\"open\",\"amount\":null,\"note\":null}")]
    );
}

#[test]
fn members_move_and_leave() {
    let shape = SpecShape::ZSet { member: "id".to_owned(), score: "amount".to_owned() };
    let target = Target::bind(&spec("top:{status}", shape), &view(&[0])).unwrap();
    let add = |key: &str, score: &str| Action::ZAdd {
        key: key.to_owned(),
        member: "1".to_owned(),
        score: score.to_owned(),
    };
    let rem = |key: &str| Action::ZRem { key: key.to_owned(), member: "1".to_owned() };
    let open = row(1, "open", Some("5"), None);
    let won = row(1, "won", Some("5"), None);
    let none = row(1, "won", None, None);
    assert_eq!(
        render(&target, Some(&open), Some(&won)).0,
        [rem("top:open"), add("top:won", "5.00")]
    );
    assert_eq!(render(&target, Some(&won), Some(&none)).0, [rem("top:won")]);
    let (ops, result) = render(&target, Some(&won), Some(&row(1, "won", Some("NaN"), None)));
    assert_eq!(ops, [rem("top:won")], "what the old row held goes");
    assert!(matches!(result, Err(RenderError::Unfit { .. })));
}

#[test]
fn stream_entries_say_what_happened() {
    let shape = SpecShape::Stream { events: Events::default(), maxlen: Some(10) };
    let mut stream = spec("s:{status}", shape);
    stream.fields = Some(vec!["id".to_owned(), "amount".to_owned()]);
    let target = Target::bind(&stream, &view(&[0])).unwrap();
    let old = row(1, "open", Some("1"), None);
    let new = row(1, "open", None, None);
    let unseen = row(1, "won", Some("1"), Some("x"));
    let entry = |(actions, result): Rendered| {
        result.unwrap();
        let [Action::StreamAdd { key, id, fields, maxlen }] = actions.as_slice() else {
            panic!("{actions:?}")
        };
        assert_eq!((*id, *maxlen), (((1 << 56) | 0x16_B374_D848, 3), Some(10)));
        let fields: Vec<String> =
            fields.iter().map(|(name, text)| format!("{name}={text}")).collect();
        format!("{key} {}", fields.join(" "))
    };
    let meta = "_view=bets _committed_at=2026-11-20T23:02:00.123456Z";
    assert_eq!(
        entry(render(&target, None, Some(&old))),
        format!("s:open id=1 amount=1.00 _op=insert {meta}")
    );
    assert_eq!(
        entry(render(&target, Some(&old), Some(&new))),
        format!("s:open id=1 _op=update {meta} _old={{\"amount\":\"1.00\"}}")
    );
    assert_eq!(
        entry(render(&target, Some(&old), None)),
        format!("s:open id=1 _op=delete {meta} _old={{\"id\":1,\"amount\":\"1.00\"}}")
    );
    assert_eq!(render(&target, Some(&old), Some(&unseen)).0, [], "no shown field changed");
    let change = Change { old: None, new: Some(&old) };
    let far = Position { epoch: 256, ..AT };
    let (mut scratch, mut out) = (Scratch::default(), Vec::new());
    let result = target.render(0, &change, far, &COMMIT, &mut scratch, &mut out);
    assert_eq!(result, Err(RenderError::Position(far)));

    let events = Events { insert: true, update: false, delete: false };
    let inserts = spec("s", SpecShape::Stream { events, maxlen: None });
    let inserts = Target::bind(&inserts, &view(&[0])).unwrap();
    assert!(!inserts.needs_old());
    assert_eq!(render(&inserts, Some(&old), Some(&new)).0, []);
    assert_eq!(render(&inserts, Some(&old), None).0, []);
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let string = || SpecShape::String { value: "amount".to_owned(), empty_zero: false };
    let zset = |score: &str| SpecShape::ZSet { member: "id".to_owned(), score: score.to_owned() };
    let check = |template: &str, shape: SpecShape, wanted: &[&str]| {
        let errors = Target::bind(&spec(template, shape), &view(&[0])).unwrap_err();
        assert_eq!(errors.len(), wanted.len(), "{errors:?}");
        for (error, wanted) in errors.iter().zip(wanted) {
            assert!(error.contains(wanted), "{error} does not say {wanted}");
        }
    };
    check("a:{status}", string(), &["key of the result"]);
    check("a:{id}:{note}", string(), &["may be NULL"]);
    check("a:{idd}", string(), &["\"idd\"", "key of the result"]);
    check("walview:{id}:{status}", string(), &["walview's own keys"]);
    check("top", zset("status"), &["must be a number"]);
    check(
        "s",
        SpecShape::String { value: "status".to_owned(), empty_zero: true },
        &["needs a number", "key"],
    );
    check("s", SpecShape::Set { member: "note".to_owned() }, &["may be NULL", "key of the result"]);
    let one = Target::bind(&spec("total", string()), &view(&[])).unwrap();
    assert_eq!(one.template().single_key(), Some("total"), "a single row needs no key");
}
