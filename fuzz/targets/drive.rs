//! The short run of a fuzz target inside of `make test`: the kept corpus, then random changes of it.
//!
//! `SEED` takes a printed seed back, `FUZZ_RUNS` goes on for longer.

#![expect(
    clippy::disallowed_methods,
    reason = "a test reads its corpus, and its seed from outside"
)]

use std::fs;
use std::io::Write as _;
use std::path::Path;

/// xorshift64*.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next()).unwrap_or(0) % limit.max(1)
    }
}

/// Says what was being run when a target panics.
struct Running<'a>(&'a str, &'a [u8]);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (target, input) = (self.0, self.1.escape_ascii());
            writeln!(std::io::stderr(), "fuzz/corpus/{target} lacks what fails: b\"{input}\"").ok();
        }
    }
}

/// Runs `target` on its corpus in the folder `fuzz` and on `runs` changes of it. `words` are what
/// changes are made of besides bytes.
pub(crate) fn drive(fuzz: &Path, name: &str, words: &[&str], runs: usize, target: fn(&[u8])) {
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    let folder = fuzz.join("corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.sort();
    for file in files {
        corpus.push(fs::read(file).expect("a file that can be read"));
    }
    assert!(!corpus.is_empty(), "no corpus for {name}");
    let given = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = given("SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| u64::from(now.subsec_nanos()) ^ now.as_secs())
    });
    writeln!(std::io::stderr(), "{name}: SEED={seed}").ok();
    for input in &corpus {
        let _running = Running(name, input);
        target(input);
    }
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let runs = given("FUZZ_RUNS").and_then(|runs| usize::try_from(runs).ok()).unwrap_or(runs);
    for _ in 0..runs {
        let at = dice.below(corpus.len());
        let mut input = corpus.get(at).cloned().unwrap_or_default();
        for _ in 0..=dice.below(4) {
            change(&mut input, &corpus, words, &mut dice);
        }
        let _running = Running(name, &input);
        target(&input);
    }
}

fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&str], dice: &mut Dice) {
    let at = dice.below(input.len() + 1);
    let end = (at + dice.below(12)).min(input.len());
    match dice.below(8) {
        0 => drop(input.drain(at..end)),
        1 | 2 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
        3 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = [0, 1, 0x7f, 0x80, 0xff, b'0', b'\'', b'\n'][dice.below(8)];
            }
        }
        4 => {
            let copy: Vec<u8> = input.get(at..end).unwrap_or_default().to_vec();
            drop(input.splice(at..at, copy));
        }
        5 => {
            // The beginning of one and the end of another.
            let other = corpus.get(dice.below(corpus.len())).map_or(&[][..], Vec::as_slice);
            let from = dice.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(other.get(from..).unwrap_or_default());
        }
        6 => drop(input.splice(at..end, dice.next().to_le_bytes())),
        _ => {
            let word = words.get(dice.below(words.len())).copied().unwrap_or("0");
            drop(input.splice(at..end, word.bytes()));
        }
    }
}
