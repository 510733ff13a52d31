//! Operations as Redis commands, with the way back from a reply to its target.
//!
//! A batch is decoded and packed piece by piece while it is sent, because taken apart it is several
//! times as large as its bytes.

use super::refill::{Id, last_events};
use ::redis::{Cmd, Pipeline};
use std::collections::HashMap;
use walview_core::target::codec::CodecError;
use walview_core::target::redis::{Action, Op, OpRef};

/// Operations that are taken apart and sent in one go.
const PIECE_BYTES: usize = 1 << 20;

/// Commands of one transaction: walview's own, then a batch's.
#[derive(Default)]
pub(super) struct Commands<'a> {
    own: Vec<Cmd>,
    ops: Vec<OpRef<'a>>,
    /// The next of `ops` to be sent.
    next: usize,
    /// For each command that was sent: whose it is, as an index into `ops`.
    owners: Vec<Option<usize>>,
}

impl<'a> Commands<'a> {
    /// In order; nothing else is in the transaction.
    pub(super) fn batch(ops: Vec<OpRef<'a>>) -> Self {
        Self { ops, ..Self::default() }
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
        while let Some(op) = self.ops.get(self.next).filter(|_| bytes < PIECE_BYTES) {
            bytes += op.encoded_len();
            let owner = Some(self.next);
            self.next += 1;
            push(op.whole()?, |command| {
                pipeline.add_command(command);
                self.owners.push(owner);
            });
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

fn push(op: Op, mut add: impl FnMut(Cmd)) {
    let mut command;
    match op.action {
        Action::Set { key, value } => {
            command = ::redis::cmd("SET");
            command.arg(key).arg(value);
        }
        Action::Del { key } => {
            command = ::redis::cmd("DEL");
            command.arg(key);
        }
        Action::HashReplace { key, fields } => {
            let mut del = ::redis::cmd("DEL");
            del.arg(&key);
            add(del);
            if fields.is_empty() {
                return;
            }
            command = ::redis::cmd("HSET");
            command.arg(key);
            for (name, value) in fields {
                command.arg(name).arg(value);
            }
        }
        Action::SetAdd { key, member } => {
            command = ::redis::cmd("SADD");
            command.arg(key).arg(member);
        }
        Action::SetRem { key, member } => {
            command = ::redis::cmd("SREM");
            command.arg(key).arg(member);
        }
        Action::ZAdd { key, member, score } => {
            command = ::redis::cmd("ZADD");
            command.arg(key).arg(score).arg(member);
        }
        Action::ZRem { key, member } => {
            command = ::redis::cmd("ZREM");
            command.arg(key).arg(member);
        }
        Action::StreamAdd { key, id, fields, maxlen } => {
            command = ::redis::cmd("XADD");
            command.arg(key);
            if let Some(maxlen) = maxlen {
                command.arg("MAXLEN").arg("=").arg(maxlen);
            }
            command.arg(format!("{}-{}", id.0, id.1));
            for (name, value) in fields {
                command.arg(name).arg(value);
            }
        }
    }
    add(command);
}
