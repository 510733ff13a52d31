//! Random numbers and values from a seed that is printed and can be given back.

use walview_core::value::{Interval, Numeric, Value};

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    /// From `SEED`, or the clock; the seed is printed, and shown when a test fails.
    #[expect(clippy::print_stderr, reason = "a random test says how to run it again")]
    pub(crate) fn new(test: &str) -> Self {
        let seed = match std::env::var("SEED") {
            Ok(seed) => seed.parse().expect("SEED is a number"),
            Err(_) => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(1, |time| u64::from(time.subsec_nanos()) ^ time.as_secs()),
        };
        eprintln!("{test}: SEED={seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    pub(crate) fn between(&mut self, from: i64, to: i64) -> i64 {
        let span = to.abs_diff(from);
        let offset = if span == u64::MAX { self.next() } else { self.next() % (span + 1) };
        from.wrapping_add_unsigned(offset)
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    /// An integer of any magnitude up to 64 bits, often at the edge of a width.
    pub(crate) fn int(&mut self) -> i64 {
        let bits = u32::try_from(self.below(64)).unwrap();
        let value = (self.next() >> bits).cast_signed();
        match self.below(6) {
            0 => (1_i64 << (self.below(63))).wrapping_add(self.between(-2, 1)),
            1 => value.wrapping_neg(),
            _ => value,
        }
    }

    fn digits(&mut self, count: usize) -> String {
        (0..count)
            .map(|_| match self.below(6) {
                0 => '0',
                1 => '9',
                _ => char::from(b'0' + u8::try_from(self.below(10)).unwrap()),
            })
            .collect()
    }

    /// The text of a numeric: mostly of human size, sometimes of hundreds of digits, sometimes
    /// special.
    pub(crate) fn numeric_text(&mut self) -> String {
        match self.below(60) {
            0 => return "NaN".to_owned(),
            1 => return "Infinity".to_owned(),
            2 => return "-Infinity".to_owned(),
            _ => {}
        }
        let size = [3, 9, 20, 40, 200][[0, 0, 0, 1, 1, 1, 2, 2, 3, 4][self.below(10)]];
        let (before, after) = (self.below(size), self.below(size));
        let mut text = String::new();
        if self.one_in(2) {
            text.push('-');
        }
        text.push_str(&self.digits(before.max(usize::from(after == 0))));
        if after > 0 {
            text.push('.');
            let zeros = if self.one_in(4) { self.below(after) } else { 0 };
            text.push_str(&"0".repeat(zeros));
            text.push_str(&self.digits(after - zeros));
        }
        if self.one_in(12) {
            text.push_str(&format!("e{}", self.between(-30, 30)));
        }
        text
    }

    pub(crate) fn f64(&mut self) -> f64 {
        match self.below(12) {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => -0.0,
            3..=5 => f64::from(i32::try_from(self.between(-100_000, 100_000)).unwrap()) / 16.0,
            // Decimals of few digits, over the whole range.
            6..=7 => {
                let text = format!("{}e{}", self.between(-9999, 9999), self.between(-330, 304));
                text.parse().unwrap()
            }
            8 => {
                f64::from_bits((self.between(1020, 1160)).cast_unsigned() << 52 | self.next() >> 58)
            }
            _ => f64::from_bits(self.next()),
        }
    }

    pub(crate) fn f32(&mut self) -> f32 {
        match self.below(8) {
            0 => f32::NEG_INFINITY,
            1..=2 => {
                let text = format!("{}e{}", self.between(-999, 999), self.between(-45, 36));
                text.parse().unwrap()
            }
            _ => f32::from_bits(u32::try_from(self.next() >> 32).unwrap()),
        }
    }

    /// Days since 2000, over the whole range of `date`, mostly near.
    pub(crate) fn days(&mut self) -> i32 {
        let days = match self.below(8) {
            0 => return i32::MAX,
            1 => return i32::MIN,
            2 => self.between(-2_451_545, 2_145_031_948),
            3 => self.between(-1_500_000, 3_000_000),
            _ => self.between(-20_000, 20_000),
        };
        i32::try_from(days).unwrap()
    }

    /// Microseconds since 2000, over the whole range of `timestamp`, mostly near.
    pub(crate) fn micros(&mut self) -> i64 {
        let micros = match self.below(8) {
            0 => return i64::MAX,
            1 => return i64::MIN,
            2 => self.between(-211_813_488_000_000_000, 9_223_371_331_199_999_999),
            3 => self.between(-100_000_000_000_000_000, 300_000_000_000_000_000),
            _ => self.between(-1_000_000_000_000_000, 1_000_000_000_000_000),
        };
        self.rounded(micros)
    }

    fn rounded(&mut self, micros: i64) -> i64 {
        let unit = [1, 1_000, 1_000_000, 60_000_000, 86_400_000_000][self.below(5)];
        micros / unit * unit
    }

    pub(crate) fn interval(&mut self) -> Interval {
        let wide = self.one_in(6);
        let mut part = |narrow: i64| -> i64 {
            if self.one_in(3) {
                0
            } else if wide {
                self.int().clamp(i64::from(i32::MIN), i64::from(i32::MAX))
            } else {
                self.between(-narrow, narrow)
            }
        };
        let (months, days) = (part(30), part(70));
        let micros =
            if wide { self.int() } else { self.between(-200_000_000_000, 200_000_000_000) };
        let micros = if self.one_in(3) { 0 } else { self.rounded(micros) };
        Interval {
            months: i32::try_from(months).unwrap(),
            days: i32::try_from(days).unwrap(),
            micros,
        }
    }

    pub(crate) fn text(&mut self) -> String {
        const PARTS: &[&str] = &[
            "a", "b", "ab", "A", "Zz", " ", "  ", ",", "%", "_", "\\", "'", "\"", "é", "ß", "日本",
            "🎲", "e\u{301}", "0", "12", "{", "]", "\t", "x",
        ];
        (0..self.below(7)).map(|_| self.pick(PARTS)).collect()
    }

    /// A document with blanks, escapes, duplicate keys and numbers of every form.
    pub(crate) fn json(&mut self, depth: usize) -> String {
        let kind = if depth == 0 { self.below(5) } else { self.below(9) };
        match kind {
            0 => "null".to_owned(),
            1 => self.pick(&["true", "false"]).to_owned(),
            2 => self
                .pick(&["0", "-0", "1.50", "-12e3", "1E-5", "12345678901234567890.5"])
                .to_owned(),
            3 => self.between(-5, 5).to_string(),
            4 => self.json_string(),
            5 | 6 => {
                let items: Vec<String> = (0..self.below(4)).map(|_| self.json(depth - 1)).collect();
                format!("[{}]", items.join(self.pick(&[",", " , ", ", "])))
            }
            _ => {
                let members: Vec<String> = (0..self.below(5))
                    .map(|_| {
                        let key = self.pick(&[
                            "\"a\"",
                            "\"b\"",
                            "\"ab\"",
                            "\"\"",
                            "\"\\u0061\"",
                            "\"é\"",
                        ]);
                        format!("{key}{}{}", self.pick(&[":", " : "]), self.json(depth - 1))
                    })
                    .collect();
                format!("{{{}}}", members.join(self.pick(&[",", " ,\n", ", "])))
            }
        }
    }

    fn json_string(&mut self) -> String {
        const PARTS: &[&str] = &[
            "a",
            "é",
            "🎲",
            "\\n",
            "\\\"",
            "\\\\",
            "\\/",
            "\\u00e9",
            "\\ud83d\\ude00",
            "\\u0001",
            "\\t",
            "\u{7f}",
            " ",
        ];
        let inner: String = (0..self.below(5)).map(|_| self.pick(PARTS)).collect();
        format!("\"{inner}\"")
    }

    /// A value of each kind by its SQL type name.
    pub(crate) fn value(&mut self, ty: &str) -> Value {
        match ty {
            "bool" => Value::Bool(self.one_in(2)),
            "int2" => Value::Int(self.int() >> 48),
            "int4" => Value::Int(self.int() >> 32),
            "int8" => Value::Int(self.int()),
            "float4" => Value::Float4(self.f32()),
            "float8" => Value::Float8(self.f64()),
            "numeric" => Value::Numeric(self.numeric_text().parse::<Numeric>().unwrap()),
            "date" => Value::Date(self.days()),
            "time" => Value::Time(self.between(0, 86_400_000_000)),
            "timestamp" => Value::Timestamp(self.micros()),
            "timestamptz" => Value::TimestampTz(self.micros()),
            "interval" => Value::Interval(self.interval()),
            "uuid" => Value::Uuid(u128::from(self.next()) << 64 | u128::from(self.next())),
            "bytea" => {
                Value::Bytea((0..self.below(9)).map(|_| self.next().to_le_bytes()[0]).collect())
            }
            "text" => Value::Text(self.text().into()),
            _ => panic!("no values of {ty}"),
        }
    }
}
