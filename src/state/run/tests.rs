#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Model = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

fn keys() -> impl Strategy<Value = Vec<u8>> {
    // Of few letters, so that keys begin alike and come again.
    prop::collection::vec(0..3_u8, 0..5)
}

fn writes() -> impl Strategy<Value = Model> {
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..200));
    prop::collection::btree_map(keys(), value, 0..80)
}

fn run(writes: &Model, space: Space) -> Run {
    let mut overlay = Overlay::default();
    for (key, value) in writes {
        overlay.put(space, key, value.as_deref());
    }
    Run::of(&overlay)
}

fn held(entries: impl Iterator<Item = (Slice, Option<Slice>)>) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    entries.map(|(key, value)| (key.to_vec(), value.map(|value| value.to_vec()))).collect()
}

struct Ref<'a>(&'a Run);

impl AsRef<Run> for Ref<'_> {
    fn as_ref(&self) -> &Run {
        self.0
    }
}

proptest! {
    #[test]
    fn a_run_holds_what_was_written(writes in writes(), key in keys(), excluded: bool) {
        for space in [Space::Rows, Space::FanOuts] {
            let packed = run(&writes, space);
            let parsed = Run::parse(packed.bytes()).unwrap();
            prop_assert_eq!(parsed.bytes(), packed.bytes());
            prop_assert_eq!(packed.is_empty(), writes.is_empty());
            prop_assert_eq!(packed.has(space), !writes.is_empty());
            for (key, value) in &writes {
                prop_assert_eq!(packed.get(space, &Wanted::new(key)), Some(value.as_deref()));
            }
            let found = packed.get(space, &Wanted::new(&key));
            prop_assert_eq!(found, writes.get(&key).map(Option::as_deref));
            prop_assert_eq!(packed.get(Space::Groups, &Wanted::new(&key)), None);
            let from = if excluded { Bound::Excluded(key.clone()) } else { Bound::Included(key.clone()) };
            let expected: Vec<_> = writes
                .range((from.clone(), Bound::Unbounded))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            prop_assert_eq!(held(packed.range(space, &from)), expected);
        }
    }

    #[test]
    fn newer_runs_win(all in prop::collection::vec(writes(), 1..6)) {
        let runs: Vec<Run> = all.iter().map(|writes| run(writes, Space::Reverse)).collect();
        let runs: Vec<Ref<'_>> = runs.iter().map(Ref).collect();
        let model: Model = all.into_iter().flatten().collect();
        let merged = Run::merged(&runs);
        let at_once = run(&model, Space::Reverse);
        prop_assert_eq!(merged.bytes(), at_once.bytes());
        for (key, value) in &model {
            let wanted = Wanted::new(key);
            prop_assert_eq!(merged.get(Space::Reverse, &wanted), Some(value.as_deref()));
        }
        let expected: Vec<_> = model.into_iter().collect();
        prop_assert_eq!(held(merge(&runs, Space::Reverse, &Bound::Unbounded)), expected);
    }

    #[test]
    fn foreign_bytes_do_not_panic(bytes: Vec<u8>, writes in writes(), at: prop::sample::Index, flip: u8) {
        Run::parse(&bytes);
        let mut bytes = run(&writes, Space::Rows).bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        Run::parse(&bytes);
    }
}

/// One look in a hundred, about, finds what is not there.
#[test]
fn few_keys_that_are_not_there_pass_the_filter() {
    let mut filter = Filter::new(10_000);
    let hash = |n: u32| xxh3_64(&n.to_be_bytes());
    (0..10_000).for_each(|n| filter.add(hash(n)));
    assert!((0..10_000).all(|n| filter.may_hold(hash(n))));
    let passed = (10_000..30_000).filter(|n| filter.may_hold(hash(*n))).count();
    assert!(passed < 600, "{passed} of 20,000");
}
