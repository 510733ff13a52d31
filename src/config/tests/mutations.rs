//! Random damage to a file that is right: nothing panics, every error has a place inside the file,
//! and no secret comes out.

use std::path::Path;

use super::root;
use crate::config::{Environment, Pipeline};

const ROUNDS: u64 = 4_000;

/// xorshift64*: the seed is printed, and the same seed gives the same damage.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(number).unwrap() % limit.max(1)
    }
}

const PIECES: [&str; 34] = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ": ",
    "- ",
    "|",
    ">",
    "&a ",
    "*a",
    "!x ",
    "#",
    " #",
    "\"",
    "'",
    "\n",
    "\n\n",
    "  ",
    "\t",
    "\r",
    "\r\n",
    "${",
    "${X}",
    "é",
    "\u{1F600}",
    "\0",
    "\u{feff}",
    "? ",
    "---\n",
    "...\n",
    "%",
    "old.",
    "null",
];

fn damage(text: &str, dice: &mut Dice) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..=dice.below(3) {
        let at = dice.below(chars.len() + 1);
        let piece: Vec<char> = PIECES[dice.below(PIECES.len())].chars().collect();
        let end = (at + dice.below(12)).min(chars.len());
        match dice.below(4) {
            0 => drop(chars.splice(at..at, piece)),
            1 => drop(chars.splice(at..end, piece)),
            2 => drop(chars.drain(at..end)),
            _ => {
                // A line moves elsewhere.
                let text: String = chars.iter().collect();
                let mut lines: Vec<&str> = text.split('\n').collect();
                let line = lines.remove(dice.below(lines.len()));
                lines.insert(dice.below(lines.len() + 1), line);
                chars = lines.join("\n").chars().collect();
            }
        }
    }
    chars.into_iter().collect()
}

#[test]
fn damaged_files_never_panic_and_never_show_secrets() {
    let seed = Environment::Process.get("SEED").map_or(0x5EED, |seed| seed.parse().unwrap());
    let file = root().join("src/config/tests/golden/ok_every_option.yaml");
    let text = std::fs::read_to_string(file).unwrap();
    let text = text.replace("postgres://app@", "postgres://app:hunter2@");
    let environment = Environment::fixed(
        ["REDIS_URL", "CLICKHOUSE_URL", "X"].map(|name| (name, "redis://:hunter2@h")),
    );
    let mut accepted = 0;
    for round in 0..ROUNDS {
        let mut dice = Dice((seed + round).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let damaged = damage(&text, &mut dice);
        let lines = u32::try_from(damaged.split('\n').count()).unwrap();
        let found = match Pipeline::parse(Path::new("p.yaml"), damaged.clone()) {
            Ok(pipeline) => {
                accepted += 1;
                match pipeline.connect(&environment) {
                    Ok(connections) => {
                        let shown = format!("{pipeline:?}{connections:?}");
                        assert!(!shown.contains("hunter2"), "round {round}:\n{damaged}");
                        drop((pipeline.canonical(&connections), shown));
                        continue;
                    }
                    Err(found) => found,
                }
            }
            Err(found) => found,
        };
        let shown = found.with_excerpts();
        let context = format!("SEED={seed}, round {round}:\n{damaged}\n{shown}");
        assert!(!found.list().is_empty(), "{context}");
        assert!(found.list().iter().all(|one| one.place.line <= lines), "{context}");
        assert!(!shown.contains("hunter2"), "{context}");
    }
    // Damage to comments and texts often does none.
    assert!(accepted > ROUNDS / 100, "{accepted} of {ROUNDS} accepted");
}
