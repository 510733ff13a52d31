//! A throw-away PostgreSQL, and what it says of statements and tables.

use crate::programs::Programs;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use walview_core::catalog::{Catalog, Collation, Column, ReplicaIdentity, Table, UniqueKey};
use walview_core::value::{Carried, Type};

/// Tests of one process run at the same time.
static SERVERS: AtomicU32 = AtomicU32::new(0);

/// A server of its own folder and socket, stopped and removed on drop.
pub(crate) struct Server {
    folder: PathBuf,
    programs: Programs,
}

impl Server {
    pub(crate) fn start() -> Self {
        let programs = Programs::find();
        let folder = std::env::temp_dir().join(format!(
            "walview-sql-oracle-{}-{}",
            std::process::id(),
            SERVERS.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let server = Self { folder, programs };
        let data = server.folder.join("data");
        server.run(
            "initdb",
            &[
                "-D",
                path(&data),
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-sync",
                "--locale=C.UTF-8",
            ],
        );
        let options = format!(
            "-k {} -c listen_addresses='' -c fsync=off -c timezone=UTC",
            path(&server.folder)
        );
        let log = server.folder.join("log");
        server.run("pg_ctl", &["-D", path(&data), "-o", &options, "-l", path(&log), "-w", "start"]);
        server
    }

    /// The server's major version.
    pub(crate) fn major(&self) -> u32 {
        self.programs.major
    }

    /// As a user that PostgreSQL agrees to run as.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.path(program);
        let root = fs::metadata("/proc/self").map(|meta| {
            use std::os::unix::fs::MetadataExt as _;
            meta.uid() == 0
        });
        let mut command = if root.unwrap_or(false) {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir("/");
        command
    }

    fn run(&self, program: &str, args: &[&str]) {
        let log = fs::File::create(self.folder.join(format!("{program}.out"))).unwrap();
        let status = self
            .command(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .status()
            .unwrap_or_else(|error| panic!("{program} does not start: {error}"));
        assert!(status.success(), "{program} failed: see {}", self.folder.display());
    }

    /// Runs a script and gives what psql prints, errors in their place.
    pub(crate) fn psql(&self, script: &str) -> String {
        let psql = format!(
            "exec {} -h {} -U postgres -d postgres -AtXq -F '\u{1f}' -f - 2>&1",
            path(&self.programs.path("psql")),
            path(&self.folder)
        );
        let mut child = Command::new("sh")
            .args(["-c", &psql])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let script = script.to_owned();
        let writer = std::thread::spawn(move || stdin.write_all(script.as_bytes()));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn rows(&self, query: &str) -> Vec<Vec<String>> {
        let printed = self.psql(query);
        assert!(!printed.contains("ERROR"), "{query}: {printed}");
        printed.lines().map(|line| line.split('\u{1f}').map(str::to_owned).collect()).collect()
    }

    pub(crate) fn catalog(&self) -> Catalog {
        let columns = self.rows(
            "SELECT a.attrelid, a.attnum, a.attname, t.typname, a.atttypid, a.atttypmod, a.attnotnull, \
             coalesce(c.collname, ''), coalesce(c.collisdeterministic, true), a.attgenerated <> '', \
             (SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum \
              WHERE enumtypid = a.atttypid), t.typtype \
             FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
             JOIN pg_class r ON r.oid = a.attrelid AND r.relkind = 'r' \
             JOIN pg_namespace n ON n.oid = r.relnamespace AND n.nspname IN ('public', 'other') \
             LEFT JOIN pg_collation c ON c.oid = a.attcollation \
             WHERE a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, 2",
        );
        let keys = self.rows(
            "SELECT i.indrelid, c.relname, i.indkey, i.indisprimary FROM pg_index i \
             JOIN pg_class c ON c.oid = i.indexrelid \
             JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname IN ('public', 'other') \
             WHERE i.indisunique AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL \
             ORDER BY i.indisprimary DESC, i.indexrelid",
        );
        let tables = self.rows(
            "SELECT r.oid, n.nspname, r.relname FROM pg_class r \
             JOIN pg_namespace n ON n.oid = r.relnamespace AND n.nspname IN ('public', 'other') \
             WHERE r.relkind = 'r' ORDER BY r.oid",
        );
        let tables = tables
            .iter()
            .map(|table| Table {
                oid: table[0].parse().unwrap(),
                schema: table[1].clone(),
                name: table[2].clone(),
                columns: columns
                    .iter()
                    .filter(|row| row[0] == table[0])
                    .map(|row| column(row))
                    .collect(),
                unique_keys: keys
                    .iter()
                    .filter(|row| row[0] == table[0])
                    .map(|row| UniqueKey {
                        name: row[1].clone(),
                        columns: row[2]
                            .split(' ')
                            .map(|n| n.parse::<usize>().unwrap() - 1)
                            .collect(),
                        primary: row[3] == "t",
                    })
                    .collect(),
                replica_identity: ReplicaIdentity::Default,
            })
            .collect();
        Catalog { tables, ..Catalog::default() }
    }

    /// What PostgreSQL makes of each statement: `name type` of each column, or its error.
    pub(crate) fn views(&self, statements: &[&str]) -> Vec<Result<Vec<String>, String>> {
        let mut script = String::from("SET client_min_messages = error;\n");
        for (index, statement) in statements.iter().enumerate() {
            script.push_str(&format!(
                "\\echo @@\nCREATE TEMP VIEW v{index} AS {statement}\n;\n\
                 SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute \
                 WHERE attrelid = to_regclass('v{index}') AND attnum > 0 ORDER BY attnum;\n"
            ));
        }
        let printed = self.psql(&script);
        let answers: Vec<Result<Vec<String>, String>> = printed
            .split("@@\n")
            .skip(1)
            .map(|answer| match answer.find("ERROR:") {
                Some(_) => Err(answer.trim().to_owned()),
                None => Ok(answer.lines().map(str::to_owned).collect()),
            })
            .collect();
        assert_eq!(answers.len(), statements.len(), "{printed}");
        answers
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.folder.join("data");
        let stopped = self
            .command("pg_ctl")
            .args(["-D", path(&data), "-m", "immediate", "-w", "stop"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        // What failed is looked at in its folder.
        if stopped.is_ok_and(|status| status.success()) && !std::thread::panicking() {
            fs::remove_dir_all(&self.folder).unwrap_or(());
        }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn column(row: &[String]) -> Column {
    let modifier: i32 = row[5].parse().unwrap();
    let length = u32::try_from(modifier - 4).ok();
    let ty = match row[3].as_str() {
        "bool" => Type::Bool,
        "int2" => Type::Int2,
        "int4" => Type::Int4,
        "int8" => Type::Int8,
        "float4" => Type::Float4,
        "float8" => Type::Float8,
        "numeric" => Type::Numeric((modifier >= 0).then(|| {
            let packed = modifier - 4;
            (u16::try_from(packed >> 16).unwrap(), i16::try_from(packed & 0x7ff).unwrap())
        })),
        "text" => Type::Text,
        "varchar" => Type::Varchar(length),
        "bpchar" => Type::Char(length.unwrap()),
        "bytea" => Type::Bytea,
        "date" => Type::Date,
        "time" => Type::Time,
        "timestamp" => Type::Timestamp,
        "timestamptz" => Type::TimestampTz,
        "interval" => Type::Interval,
        "uuid" => Type::Uuid,
        "json" => Type::Json,
        "jsonb" => Type::Jsonb,
        name if row[11] == "e" => Type::Enum {
            oid: row[4].parse().unwrap(),
            name: name.to_owned(),
            labels: row[10].split(',').map(str::to_owned).collect(),
        },
        name => {
            let element = (name == "_int4").then(|| Box::new(Type::Int4));
            let carried = Carried {
                canonical: matches!(name, "_int4" | "inet"),
                castable: name != "inet",
                element,
                ..Carried::default()
            };
            Type::Other { oid: row[4].parse().unwrap(), name: name.to_owned(), carried }
        }
    };
    let collation = match row[7].as_str() {
        "" => Collation::None,
        "C" | "POSIX" | "ucs_basic" => Collation::C,
        _ if row[8] == "f" => Collation::NonDeterministic,
        _ => Collation::Deterministic,
    };
    Column {
        type_oid: 0,
        type_modifier: -1,
        name: row[2].clone(),
        attnum: row[1].parse().unwrap(),
        ty,
        not_null: row[6] == "t",
        collation,
        generated: row[9] == "t",
        toastable: false,
        added: None,
    }
}
