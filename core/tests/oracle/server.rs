//! A throw-away PostgreSQL that answers thousands of expressions in one call.

use crate::programs::Programs;
use std::fs;
use std::io::Write as _;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The session that Walview pins: every test compares with what it prints.
const SESSION: &str = "SET client_min_messages = error; SET TimeZone = 'UTC'; \
    SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 1; \
    SET bytea_output = 'hex'; SET client_encoding = 'UTF8';\n";

/// `ask(x, row)` is the output function's text of an expression, `!SQLSTATE message` of its error.
const ASK: &str = r"
CREATE FUNCTION ask(expression text, source text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE answer text;
BEGIN
  EXECUTE 'SELECT CASE WHEN x IS NULL THEN NULL ELSE format(''%s'', x) END FROM (SELECT ('
    || expression || ') AS x ' || source || ' OFFSET 0) q' INTO answer;
  RETURN '=' || answer;
EXCEPTION WHEN OTHERS THEN RETURN '!' || SQLSTATE || ' ' || SQLERRM;
END $$;
CREATE TEMP TABLE question (n int, expression text, source text);
";

/// `ask_rows(x, first, last)` is the type of an expression and its answers over these rows of `t`.
/// Where a row fails, each is asked alone; the plan is made once.
const ASK_ROWS: &str = r"
SET plan_cache_mode = force_generic_plan;
CREATE FUNCTION pg_temp.ask_rows(expression text, first int, last int) RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
  answers text[];
  kind text;
  answer text;
BEGIN
  BEGIN
    EXECUTE 'SELECT array_agg(''='' || CASE WHEN x IS NULL THEN NULL ELSE format(''%s'', x) END
        ORDER BY id), min(pg_typeof(x)::text) FROM (SELECT id, (' || expression || ') AS x FROM t
        WHERE id BETWEEN $1 AND $2 OFFSET 0) q' INTO answers, kind USING first, last;
    RETURN kind || answers;
  EXCEPTION WHEN OTHERS THEN answers := ARRAY[NULL];
  END;
  BEGIN
    EXECUTE 'PREPARE one(int) AS SELECT CASE WHEN x IS NULL THEN NULL ELSE format(''%s'', x) END
        FROM (SELECT (' || expression || ') AS x FROM t WHERE id = $1 OFFSET 0) q';
  EXCEPTION WHEN OTHERS THEN
    answer := '!' || SQLSTATE || ' ' || SQLERRM;
    RETURN answers || array_fill(answer, ARRAY[last - first + 1]);
  END;
  FOR id IN first..last LOOP
    BEGIN
      EXECUTE 'EXECUTE one(' || id || ')' INTO answer;
      answer := '=' || answer;
    EXCEPTION WHEN OTHERS THEN answer := '!' || SQLSTATE || ' ' || SQLERRM;
    END;
    answers := answers || answer;
  END LOOP;
  DEALLOCATE one;
  RETURN answers;
END $$;
CREATE TEMP TABLE question (n int, expression text, first int, last int);
";

/// What PostgreSQL says to an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Null,
    Text(String),
    /// SQLSTATE and message.
    Error(String, String),
}

impl Answer {
    fn of(text: Option<String>) -> Self {
        match text {
            None => Self::Null,
            Some(text) => match text.strip_prefix('=') {
                Some(text) => Self::Text(text.to_owned()),
                None => Self::Error(text[1..6].to_owned(), text[7..].to_owned()),
            },
        }
    }
}

/// What PostgreSQL says to an expression over some rows.
pub(crate) struct Answers {
    /// Unknown where a row failed.
    pub(crate) ty: Option<String>,
    pub(crate) answers: Vec<Answer>,
}

/// A server in a folder of its own, stopped and removed on drop.
pub(crate) struct Server {
    folder: PathBuf,
    programs: Programs,
}

impl Server {
    pub(crate) fn start(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("walview-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let server = Self { folder, programs: Programs::find() };
        let data = server.path("data");
        let init = ["-D", &data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"];
        server.run("initdb", &[&init[..], &["--locale=C.UTF-8"]].concat());
        let options = format!(
            "-k {} -c listen_addresses='' -c fsync=off -c autovacuum=off \
             -c wal_level=logical -c max_prepared_transactions=2",
            server.folder.display()
        );
        let log = server.path("log");
        server.run("pg_ctl", &["-D", &data, "-o", &options, "-l", &log, "-w", "start"]);
        server
    }

    /// The server's major version.
    pub(crate) fn major(&self) -> u32 {
        self.programs.major
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    /// As a user that PostgreSQL agrees to run as.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.path(program);
        let mut command = if fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0) {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, args: &[&str]) {
        let out = self.path(&format!("{program}.out"));
        let log = fs::File::create(&out).unwrap();
        let status = self
            .command(program)
            .args(args)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .status()
            .unwrap_or_else(|error| panic!("{program} does not start: {error}"));
        assert!(status.success(), "{program} failed: see {out}");
    }

    /// Runs a script; what it prints. Any error fails the test.
    pub(crate) fn psql(&self, script: &str) -> String {
        let mut child = Command::new(self.programs.path("psql"))
            .args(["-h", self.folder.to_str().unwrap(), "-U", "postgres", "-d", "postgres"])
            .args(["-AtXq", "-v", "ON_ERROR_STOP=1", "-P", "null=\u{2}", "-F", "\u{1f}"])
            .args(["-R", "\u{1e}", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let script = format!("{SESSION}{script}");
        let writer = std::thread::spawn(move || stdin.write_all(script.as_bytes()));
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "psql failed");
        writer.join().unwrap().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Rows of a query; NULL is `None`.
    pub(crate) fn rows(&self, query: &str) -> Vec<Vec<Option<String>>> {
        let printed = self.psql(query);
        printed.trim_end_matches(['\n', '\u{1e}']).split('\u{1e}').map(cells).collect()
    }

    /// Rows of many queries, whose first column begins with the character 0x1d.
    pub(crate) fn records(&self, script: &str) -> Vec<Vec<Option<String>>> {
        let printed = self.psql(script);
        let ended = |row: &str| row.strip_suffix(['\n', '\u{1e}']).map(cells);
        printed.split('\u{1d}').skip(1).map(|row| ended(row).unwrap()).collect()
    }

    /// The answers to (expression, FROM clause) pairs, in their order.
    pub(crate) fn ask<'a>(
        &self,
        questions: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Vec<Answer> {
        let mut script = format!("{ASK}COPY question FROM stdin;\n");
        let mut count = 0;
        for (n, (expression, source)) in questions.enumerate() {
            script.push_str(&format!("{n}\t{}\t{}\n", escaped(expression), escaped(source)));
            count = n + 1;
        }
        script.push_str("\\.\nSELECT ask(expression, source) FROM question ORDER BY n;\n");
        script.push_str("DROP FUNCTION ask;");
        let answers: Vec<Answer> =
            self.rows(&script).into_iter().map(|mut row| Answer::of(row.remove(0))).collect();
        assert_eq!(answers.len(), count);
        answers
    }

    /// The answers to each expression over rows of `t`, named by their ids.
    pub(crate) fn ask_rows<'a>(
        &self,
        questions: impl Iterator<Item = (&'a str, Range<usize>)>,
    ) -> Vec<Answers> {
        let mut script = format!("{ASK_ROWS}COPY question FROM stdin;\n");
        let mut counts = Vec::new();
        for (n, (expression, ids)) in questions.enumerate() {
            let (first, last) = (ids.start, ids.end - 1);
            script.push_str(&format!("{n}\t{}\t{first}\t{last}\n", escaped(expression)));
            counts.push(ids.len());
        }
        script.push_str(
            "\\.\nSELECT unnest(pg_temp.ask_rows(expression, first, last)) FROM question ORDER BY n;\n",
        );
        let mut texts = self.rows(&script).into_iter().map(|mut row| row.remove(0));
        let answers = counts
            .into_iter()
            .map(|count| Answers {
                ty: texts.next().unwrap(),
                answers: (0..count).map(|_| Answer::of(texts.next().unwrap())).collect(),
            })
            .collect();
        assert!(texts.next().is_none());
        answers
    }
}

fn cells(row: &str) -> Vec<Option<String>> {
    row.split('\u{1f}').map(|cell| (cell != "\u{2}").then(|| cell.to_owned())).collect()
}

/// As COPY reads it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t")
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped = self
            .command("pg_ctl")
            .args(["-D", &self.path("data"), "-m", "immediate", "-w", "stop"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        // What failed is looked at in its folder.
        if stopped.is_ok_and(|status| status.success()) && !std::thread::panicking() {
            fs::remove_dir_all(&self.folder).unwrap_or(());
        }
    }
}
