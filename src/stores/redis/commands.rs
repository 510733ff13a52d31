//! Operations as Redis commands, with the way back from a reply to its target.

use ::redis::{Cmd, Pipeline};
use walview_core::target::redis::{Action, Op};

/// Commands of one transaction.
#[derive(Default)]
pub(super) struct Commands {
    commands: Vec<Cmd>,
    /// For each command: whose it is, if a target's.
    targets: Vec<Option<u16>>,
    /// Commands that add a stream entry: their index and key, in order.
    streams: Vec<(usize, String)>,
}

impl Commands {
    pub(super) fn unlink<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        let mut command = ::redis::cmd("UNLINK");
        for key in keys {
            command.arg(key);
        }
        let mut commands = Self::default();
        commands.add(None, command);
        commands
    }

    pub(super) fn expiring(key: &str, value: &str, seconds: u64) -> Self {
        let mut command = ::redis::cmd("SET");
        command.arg(key).arg(value).arg("EX").arg(seconds);
        let mut commands = Self::default();
        commands.add(None, command);
        commands
    }

    pub(super) fn push(&mut self, op: Op) {
        let target = Some(op.target);
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
                if fields.is_empty() {
                    return self.add(target, del);
                }
                self.add(target, del);
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
                command.arg(&key);
                if let Some(maxlen) = maxlen {
                    command.arg("MAXLEN").arg("=").arg(maxlen);
                }
                command.arg(format!("{}-{}", id.0, id.1));
                for (name, value) in fields {
                    command.arg(name).arg(value);
                }
                self.streams.push((self.commands.len(), key));
            }
        }
        self.add(target, command);
    }

    fn add(&mut self, target: Option<u16>, command: Cmd) {
        self.commands.push(command);
        self.targets.push(target);
    }

    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    pub(super) fn write(&mut self, pipeline: &mut Pipeline) {
        for command in self.commands.drain(..) {
            pipeline.add_command(command);
        }
    }

    /// Whose the command at `index` was.
    pub(super) fn target(&self, index: usize) -> Option<u16> {
        self.targets.get(index).copied().flatten()
    }

    /// The key, where the command at `index` adds a stream entry.
    pub(super) fn stream(&self, index: usize) -> Option<&str> {
        let place = self.streams.binary_search_by_key(&index, |(entry, _)| *entry).ok()?;
        self.streams.get(place).map(|(_, key)| key.as_str())
    }
}
