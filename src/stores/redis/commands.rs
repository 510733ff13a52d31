//! Operations as Redis commands, with the way back from a reply to its target.
//!
//! A batch is packed piece by piece while it is sent. Neighbours of one kind and target go as one
//! command where Redis has one for many, which saves it and us most of what a command costs; a
//! reply still has one target.

use super::refill::{Id, last_events};
use ::redis::{Cmd, Pipeline};
use std::collections::{HashMap, HashSet};
use walview_core::target::codec::CodecError;
use walview_core::target::redis::{Encoded, Fields, OpRef};

/// Operations that are packed and sent in one go.
const PIECE_BYTES: usize = 1 << 20;
/// Operations in one command: no other client waits for long, could Redis turn to one in between.
const MERGED_MAX: usize = 1000;

/// Commands of one transaction: walview's own, then a batch's.
#[derive(Default)]
pub(super) struct Commands<'a> {
    own: Vec<Cmd>,
    ops: Vec<OpRef<'a>>,
    /// Of `ops`, the last entry of each stream, which trims it.
    trims: HashSet<usize>,
    /// The next of `ops` to be sent.
    next: usize,
    /// For each command that was sent: whose it is, as an index into `ops`.
    owners: Vec<Option<usize>>,
}

impl<'a> Commands<'a> {
    /// Those of one slot in order; nothing else is in the transaction. Entries that its last one of
    /// a stream would trim again are left out.
    pub(super) fn batch(mut ops: Vec<OpRef<'a>>) -> Self {
        // How many more may stay, as the last one of each stream says.
        let mut room: HashMap<_, u64> = HashMap::new();
        let mut stays: Vec<bool> = ops
            .iter()
            .rev()
            .map(|op| {
                let maxlen = || op.maxlen().unwrap_or(u64::MAX);
                let room = op.event.then(|| room.entry((op.target, op.key)).or_insert_with(maxlen));
                room.is_none_or(|room| {
                    let stays = *room > 0;
                    *room = room.saturating_sub(1);
                    stays
                })
            })
            .collect();
        ops.retain(|_| stays.pop().unwrap_or(true));
        let events = ops.iter().enumerate().filter(|(_, op)| op.event);
        let last: HashMap<_, _> = events.map(|(at, op)| ((op.target, op.key), at)).collect();
        Self { trims: last.into_values().collect(), ops, ..Self::default() }
    }

    pub(super) fn unlink<'k>(keys: impl IntoIterator<Item = &'k str>) -> Self {
        let mut command = ::redis::cmd("UNLINK");
        for key in keys {
            command.arg(key);
        }
        Self { own: vec![command], ..Self::default() }
    }

    pub(super) fn expiring(key: &str, value: &str, seconds: u64) -> Self {
        let mut command = ::redis::cmd("SET");
        command.arg(key).arg(value).arg("EX").arg(seconds);
        Self { own: vec![command], ..Self::default() }
    }

    /// The last stream entry of each target.
    pub(super) fn last_events(&self) -> HashMap<u16, Id> {
        last_events(&self.ops)
    }

    /// Appends the next piece to `pipeline`; `false` where nothing was left.
    pub(super) fn write(&mut self, pipeline: &mut Pipeline) -> Result<bool, CodecError> {
        let before = self.owners.len();
        for command in self.own.drain(..) {
            pipeline.add_command(command);
            self.owners.push(None);
        }
        let mut bytes = 0;
        while bytes < PIECE_BYTES {
            let run = run(self.ops.get(self.next..).unwrap_or_default());
            if run.is_empty() {
                break;
            }
            let owner = Some(self.next);
            let trims = self.trims.contains(&self.next);
            self.next += run.len();
            bytes += run.iter().map(OpRef::encoded_len).sum::<usize>();
            push(run, trims, |command| {
                pipeline.add_command(command);
                self.owners.push(owner);
            })?;
        }
        Ok(self.owners.len() > before)
    }

    /// Whether everything has been appended.
    pub(super) fn is_written(&self) -> bool {
        self.own.is_empty() && self.next == self.ops.len()
    }

    fn owner(&self, index: usize) -> Option<&OpRef<'a>> {
        self.ops.get((*self.owners.get(index)?)?)
    }

    /// Whose the command at `index` was.
    pub(super) fn target(&self, index: usize) -> Option<u16> {
        self.owner(index).map(|op| op.target)
    }

    /// The key, where the command at `index` adds a stream entry.
    pub(super) fn stream(&self, index: usize) -> Option<&'a str> {
        self.owner(index).filter(|op| op.event).map(|op| op.key)
    }
}

/// How many of `ops` go together, at the front.
fn run<'o, 'a>(ops: &'o [OpRef<'a>]) -> &'o [OpRef<'a>] {
    let Some(first) = ops.first() else {
        return ops;
    };
    let mut bytes = 0;
    let len = ops.iter().take(MERGED_MAX).take_while(|op| {
        let fits = bytes < PIECE_BYTES;
        bytes += op.encoded_len();
        let one_key = op.member.is_none() || op.key == first.key;
        fits && op.is_like(first) && one_key
    });
    // Each stream entry has a reply of its own.
    let len = if first.event { 1 } else { len.count() };
    ops.get(..len).unwrap_or_default()
}

/// The commands of a run. Redis trims a stream by walking over what it trimmed before, so an entry does
/// it for all entries of a transaction, which nobody sees one by one, where `trims` says so.
fn push(run: &[OpRef<'_>], trims: bool, mut add: impl FnMut(Cmd)) -> Result<(), CodecError> {
    let Some(first) = run.first() else {
        return Ok(());
    };
    let name = match first.read()?.0 {
        Encoded::Set { .. } if run.len() == 1 => "SET",
        Encoded::Set { .. } => "MSET",
        Encoded::HashReplace { all: true, .. } => {
            return run.iter().try_for_each(|op| hset(op).map(&mut add));
        }
        // Something may stand in these hashes that is not written.
        Encoded::Del | Encoded::HashReplace { all: false, .. } => "DEL",
        Encoded::SetAdd { .. } => "SADD",
        Encoded::SetRem { .. } => "SREM",
        Encoded::ZAdd { .. } => "ZADD",
        Encoded::ZRem { .. } => "ZREM",
        Encoded::StreamAdd { .. } => "XADD",
    };
    let bytes: usize = run.iter().map(OpRef::encoded_len).sum();
    let mut command = Cmd::with_capacity(2 + 2 * run.len(), 8 + bytes);
    command.arg(name);
    if first.member.is_some() {
        command.arg(first.key);
    }
    let mut hashes = Vec::new();
    for op in run {
        let (encoded, fields) = op.read()?;
        match encoded {
            Encoded::Set { value } => {
                command.arg(op.key).arg(value);
            }
            Encoded::Del => {
                command.arg(op.key);
            }
            Encoded::HashReplace { fields: count, .. } => {
                command.arg(op.key);
                if count > 0 {
                    hashes.push(hset(op)?);
                }
            }
            Encoded::SetAdd { member } | Encoded::SetRem { member } | Encoded::ZRem { member } => {
                command.arg(member);
            }
            Encoded::ZAdd { member, score } => {
                command.arg(score).arg(member);
            }
            Encoded::StreamAdd { id, maxlen, .. } => {
                command.arg(op.key);
                if let Some(maxlen) = maxlen.filter(|_| trims) {
                    command.arg("MAXLEN").arg("=").arg(maxlen);
                }
                command.arg(format!("{}-{}", id.0, id.1));
                push_fields(&mut command, fields)?;
            }
        }
    }
    add(command);
    hashes.into_iter().for_each(add);
    Ok(())
}

fn hset(op: &OpRef<'_>) -> Result<Cmd, CodecError> {
    let (_, fields) = op.read()?;
    let mut command = Cmd::with_capacity(2 + 2 * fields.size_hint().0, 8 + op.encoded_len());
    command.arg("HSET").arg(op.key);
    push_fields(&mut command, fields)?;
    Ok(command)
}

fn push_fields(command: &mut Cmd, fields: Fields<'_>) -> Result<(), CodecError> {
    for field in fields {
        let (name, value) = field?;
        command.arg(name).arg(value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "what does not decode fails the test")]

    use super::*;
    use walview_core::plan::{OutputColumn, View, ViewKind};
    use walview_core::position::Position;
    use walview_core::target::redis::{Action, Op, Spec, SpecShape, Target, coalesce, gather};
    use walview_core::target::template::Template;
    use walview_core::target::{Change, Commit, Scratch};
    use walview_core::value::{Type, Value};

    fn sent(ops: &[(u16, Action)]) -> (Vec<String>, Vec<Option<u16>>) {
        let mut bytes = Vec::new();
        for (target, action) in ops {
            Op { target: *target, action: action.clone() }.encode(&mut bytes);
        }
        sent_of(&bytes)
    }

    fn sent_of(bytes: &[u8]) -> (Vec<String>, Vec<Option<u16>>) {
        let mut ops: Vec<OpRef<'_>> = OpRef::decode_all(bytes).map(Result::unwrap).collect();
        coalesce(&mut ops);
        gather(&mut ops);
        let mut commands = Commands::batch(ops);
        let mut pipeline = Pipeline::new();
        while commands.write(&mut pipeline).unwrap() {}
        assert!(commands.is_written());
        let words = |command: &Cmd| -> Vec<String> {
            let packed = String::from_utf8(command.get_packed_command()).unwrap();
            packed.split("\r\n").skip(2).step_by(2).map(str::to_owned).collect()
        };
        let texts: Vec<String> =
            pipeline.cmd_iter().map(|command| words(command).join(" ")).collect();
        let targets = (0..texts.len()).map(|index| commands.target(index)).collect();
        (texts, targets)
    }

    /// Never across targets: a reply has one.
    #[test]
    fn neighbours_of_a_kind_and_target_go_as_one_command() {
        let text = str::to_owned;
        let set = |key| Action::Set { key: text(key), value: text("1") };
        let add =
            |key, member| Action::ZAdd { key: text(key), member: text(member), score: text("2") };
        let hash = |key, fields: &[&str]| Action::HashReplace {
            key: text(key),
            fields: fields.iter().map(|name| (text(name), text("3"))).collect(),
        };
        let event = |key, id| Action::StreamAdd {
            key: text(key),
            id: (id, 0),
            fields: vec![(text("f"), text("4"))],
            maxlen: (key == "e").then_some(9),
        };
        let (commands, targets) = sent(&[
            (5, event("e", 1)),
            (0, set("a")),
            (1, set("x")),
            (2, add("top", "m")),
            (0, set("b")),
            (2, add("low", "m")),
            (2, add("low", "n")),
            (3, hash("h", &["p"])),
            (3, hash("empty", &[])),
            (4, event("f", 2)),
            (5, event("e", 3)),
            (5, event("g", 4)),
        ]);
        let expected = [
            ("MSET a 1 b 1", 0),
            ("SET x 1", 1),
            ("ZADD top 2 m", 2),
            ("ZADD low 2 m 2 n", 2),
            ("DEL h empty", 3),
            ("HSET h p 3", 3),
            ("XADD e 1-0 f 4", 5),
            ("XADD f 2-0 f 4", 4),
            ("XADD e MAXLEN = 9 3-0 f 4", 5),
            ("XADD g 4-0 f 4", 5),
        ];
        assert_eq!(commands, expected.map(|(command, _)| command));
        assert_eq!(targets, expected.map(|(_, target)| Some(target)));
    }

    /// Keys and fields of hashes `h:…`, over a row of two columns that may be NULL.
    fn hashes(rows: &[(i64, Option<i64>, bool)]) -> Vec<String> {
        let column =
            |name: &str, nullable| OutputColumn { name: name.to_owned(), ty: Type::Int8, nullable };
        let view = View {
            name: "v".to_owned(),
            inputs: Vec::new(),
            filter: None,
            kind: ViewKind::Rows { output: Vec::new() },
            columns: vec![column("id", false), column("n", true)],
            key: vec![0],
            key_hint: String::new(),
        };
        let template = Template::parse("h:{id}").unwrap();
        let target =
            Target::bind(&Spec { template, shape: SpecShape::Hash, fields: None }, &view).unwrap();
        let (mut scratch, mut bytes) = (Scratch::default(), Vec::new());
        let (at, commit) = (Position::default(), Commit { committed_at: 0 });
        for (id, n, goes) in rows {
            let row = [Value::Int(*id), n.map_or(Value::Null, Value::Int)];
            let change = if *goes {
                Change { old: Some(&row), new: None }
            } else {
                Change { old: None, new: Some(&row) }
            };
            target.render(0, &change, at, &commit, &mut scratch, &mut bytes).unwrap();
        }
        sent_of(&bytes).0
    }

    #[test]
    fn a_hash_is_emptied_first_only_where_a_field_may_be_left_over() {
        assert_eq!(
            hashes(&[(1, Some(5), false), (2, None, false), (3, Some(6), false)]),
            ["DEL h:2", "HSET h:2 id 2", "HSET h:1 id 1 n 5", "HSET h:3 id 3 n 6"]
        );
        // Gone and back, or without a field in between: the last state has every field.
        assert_eq!(
            hashes(&[(1, Some(5), true), (1, None, false), (1, Some(6), false)]),
            ["HSET h:1 id 1 n 6"]
        );
        assert_eq!(hashes(&[(1, Some(5), false), (1, None, false)]), ["DEL h:1", "HSET h:1 id 1"]);
        assert_eq!(hashes(&[(1, Some(5), false), (1, Some(5), true)]), ["DEL h:1"]);
    }

    #[test]
    fn entries_that_would_be_trimmed_again_are_not_sent() {
        let event = |target, key: &str, id, maxlen| {
            let action = Action::StreamAdd {
                key: key.to_owned(),
                id: (id, 0),
                fields: vec![("f".to_owned(), "1".to_owned())],
                maxlen,
            };
            (target, action)
        };
        let (commands, _) = sent(&[
            event(0, "short", 1, Some(2)),
            event(1, "long", 2, None),
            event(0, "short", 3, Some(2)),
            event(0, "other", 4, Some(2)),
            event(0, "short", 5, Some(2)),
            event(1, "long", 6, None),
            event(1, "long", 7, None),
        ]);
        let expected = [
            "XADD long 2-0 f 1",
            "XADD short 3-0 f 1",
            "XADD other MAXLEN = 2 4-0 f 1",
            "XADD short MAXLEN = 2 5-0 f 1",
            "XADD long 6-0 f 1",
            "XADD long 7-0 f 1",
        ];
        assert_eq!(commands, expected);
    }

    #[test]
    fn a_command_has_a_limit() {
        let ops: Vec<(u16, Action)> =
            (0..=MERGED_MAX).map(|n| (0, Action::Del { key: n.to_string() })).collect();
        let (commands, _) = sent(&ops);
        let lengths: Vec<usize> =
            commands.iter().map(|command| command.split(' ').count() - 1).collect();
        assert_eq!(lengths, [MERGED_MAX, 1]);
    }
}
