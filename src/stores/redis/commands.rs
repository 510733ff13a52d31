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
    /// Those of one slot in order; nothing else is in the transaction.
    pub(super) fn batch(ops: Vec<OpRef<'a>>) -> Self {
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
        // The keys of hashes go first.
        Encoded::Del | Encoded::HashReplace { .. } => "DEL",
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
            Encoded::HashReplace { fields: count } => {
                command.arg(op.key);
                if count > 0 {
                    let mut hash = Cmd::with_capacity(2 + 2 * count, 8 + op.encoded_len());
                    hash.arg("HSET").arg(op.key);
                    push_fields(&mut hash, fields)?;
                    hashes.push(hash);
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
    use walview_core::target::redis::{Action, Op, coalesce, gather};

    fn sent(ops: &[(u16, Action)]) -> (Vec<String>, Vec<Option<u16>>) {
        let mut bytes = Vec::new();
        for (target, action) in ops {
            Op { target: *target, action: action.clone() }.encode(&mut bytes);
        }
        let mut ops: Vec<OpRef<'_>> = OpRef::decode_all(&bytes).map(Result::unwrap).collect();
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
