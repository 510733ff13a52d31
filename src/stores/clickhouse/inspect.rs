//! Is this `ClickHouse` suitable, and what stands where the targets' tables go?

use super::super::inspect::{Held, Inspected, Lack, Standing};
use super::super::{MarkText, StoreError};
use super::error::store_error;
use super::standing::{Found, Standing as Own, is_adopted};
use super::{ClickHouse, STATEMENT_TIMEOUT};
use walview_core::target::clickhouse::{Target, literal, quote, rows_database};

/// `SQL SECURITY` and lightweight enough views.
const VERSION_MIN: (u32, u32) = (24, 8);

/// What the user needs on the database of the exact views, and on that of the rows.
const ON_VIEWS: &[&str] = &["CREATE DATABASE", "CREATE VIEW", "DROP VIEW", "SELECT"];
const ON_ROWS: &[&str] =
    &["CREATE DATABASE", "CREATE TABLE", "DROP TABLE", "TRUNCATE", "INSERT", "SELECT"];

pub(super) fn require_version(version: &str) -> Result<(), StoreError> {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= VERSION_MIN {
        return Ok(());
    }
    Err(StoreError::stop(
        format!("this is ClickHouse {version}"),
        format!("walview needs {}.{} or later", VERSION_MIN.0, VERSION_MIN.1),
    ))
}

impl ClickHouse {
    /// Looks around; changes nothing.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn inspect(&self) -> Result<Inspected, StoreError> {
        let mut row =
            self.rows("SELECT version(), currentUser()").await?.into_iter().flatten().flatten();
        let (version, user) = (row.next().unwrap_or_default(), row.next().unwrap_or_default());
        let mut found =
            Inspected { server: format!("ClickHouse {version}"), ..Inspected::default() };
        if let Err(error) = require_version(&version) {
            found.problems.push(error.into());
            return Ok(found);
        }
        let database = &self.config.database;
        let rows = rows_database(database);
        for (name, privileges) in [(database, ON_VIEWS), (&rows, ON_ROWS)] {
            match self.missing(name, privileges).await? {
                Some(missing) if missing.is_empty() => {}
                Some(missing) => found.problems.push(not_granted(&user, name, &missing)),
                None => {
                    found.notes.push(format!(
                        "what user \"{user}\" may do cannot be asked of this version; it needs {} on \
                         {}.*",
                        privileges.join(", "),
                        quote(name)
                    ));
                }
            }
        }
        let known = self.databases(&[database, &rows]).await?;
        let marks = known.contains(&rows)
            && matches!(
                self.find_name(&rows, "walview_marks", "walview marks").await,
                Ok(Found::Own(_))
            );
        if marks {
            found.mark = self.held().await?;
        }
        for target in &self.targets {
            found.standing.push(match self.standing(target).await? {
                Own::Absent => Standing::Nothing,
                Own::Own | Own::Adopted(_) => self.stands(target).await?,
                Own::Refused(misfits) => {
                    let lacks = misfits.into_iter().map(|misfit| {
                        let place = format!("{}.{}: ", rows, target.table());
                        StoreError::stop(place + &misfit.cause, misfit.remedy).into()
                    });
                    found.problems.extend(lacks);
                    Standing::Nothing
                }
            });
        }
        Ok(found)
    }

    /// Those of `privileges` that the user lacks on a database; `None` where the server is too old
    /// to be asked.
    async fn missing(
        &self,
        database: &str,
        privileges: &[&'static str],
    ) -> Result<Option<Vec<&'static str>>, StoreError> {
        let mut missing = Vec::new();
        for privilege in privileges {
            let sql = format!("CHECK GRANT {privilege} ON {}.*", quote(database));
            match self.answer(&sql).await {
                Ok(granted) if granted == "1" => {}
                Ok(_) => missing.push(*privilege),
                Err(StoreError::Stop { message, .. }) if message.contains("SYNTAX_ERROR") => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(missing))
    }

    /// The only value of a statement that answers in no format but its own.
    async fn answer(&self, sql: &str) -> Result<String, StoreError> {
        let query = self.client.query_raw(sql);
        let mut cursor = query.fetch_bytes("TabSeparated").map_err(store_error)?;
        match tokio::time::timeout(STATEMENT_TIMEOUT, cursor.collect()).await {
            Ok(bytes) => {
                let bytes = bytes.map_err(store_error)?;
                Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
            }
            Err(_) => Err(StoreError::retry("ClickHouse did not answer in time")),
        }
    }

    async fn databases(&self, names: &[&String]) -> Result<Vec<String>, StoreError> {
        let list: Vec<String> = names.iter().map(|name| literal(name)).collect();
        let sql = format!("SELECT name FROM system.databases WHERE name IN ({})", list.join(", "));
        Ok(self.rows(&sql).await?.into_iter().flatten().flatten().collect())
    }

    async fn held(&self) -> Result<Held, StoreError> {
        Ok(match self.read_mark().await? {
            None => Held::Nothing,
            Some(MarkText::Loading(_)) => Held::Loading,
            Some(MarkText::At(mark)) if self.config.identity.mark(mark.position) == mark => {
                Held::Ours
            }
            Some(MarkText::At(_)) => Held::Other,
        })
    }

    /// How large the table behind a target is, and whether another version made it.
    async fn stands(&self, target: &Target) -> Result<Standing, StoreError> {
        let rows = rows_database(&self.config.database);
        let owner = self.owner(target);
        let changed = match self.find_name(&rows, target.table(), &owner).await? {
            Found::Own(known) => !is_adopted(&known) && known != self.comment(target),
            Found::Nothing | Found::Other(_) | Found::Foreign { .. } => false,
        };
        let sql = format!(
            "SELECT toString(total_rows) FROM system.tables WHERE database = {} AND name = {}",
            literal(&rows),
            literal(target.table())
        );
        let count = self.rows(&sql).await?.into_iter().flatten().flatten().next();
        let rows = count.and_then(|count| count.parse().ok()).unwrap_or(0);
        Ok(Standing::Table { rows, changed })
    }

    /// The exact view of a target, as readers name it.
    #[must_use]
    pub fn name_of(&self, target: &Target) -> String {
        format!("{}.{}", self.config.database, target.table())
    }

    /// What a start would run for a target where nothing stands.
    #[must_use]
    pub fn statements(&self, target: &Target) -> Vec<String> {
        let (database, comment) = (&self.config.database, self.comment(target));
        vec![target.create_rows(database, &comment), target.create_view(database, &comment, true)]
    }
}

fn not_granted(user: &str, database: &str, missing: &[&str]) -> Lack {
    let list = missing.join(", ");
    Lack {
        error: StoreError::stop(
            format!("the ClickHouse user \"{user}\" lacks rights on database \"{database}\""),
            format!("grant it: {list}"),
        ),
        by: "whoever runs ClickHouse",
        statements: vec![format!("GRANT {list} ON {}.* TO {}", quote(database), quote(user))],
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::super::super::Identity;
    use super::super::Config;
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    /// A server that answers every statement from its text: the embedded engine has no users.
    async fn server(answer: fn(&str) -> (u16, String)) -> (String, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                let text = loop {
                    let mut piece = [0; 4096];
                    let read = stream.read(&mut piece).await.unwrap();
                    request.extend_from_slice(piece.get(..read).unwrap());
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                        let length = head.to_lowercase();
                        let length = length.split("content-length: ").nth(1);
                        let length = length.and_then(|rest| rest.lines().next()?.parse().ok());
                        body.len() >= length.unwrap_or(0_usize)
                    });
                    if whole || read == 0 {
                        break text;
                    }
                };
                let (code, body) = answer(&text);
                let head = format!("HTTP/1.1 {code} x\r\nConnection: close\r\n");
                let reply = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
        });
        (format!("http://{address}"), tasks)
    }

    async fn inspect(answer: fn(&str) -> (u16, String)) -> Inspected {
        let (url, _tasks) = server(answer).await;
        let identity =
            Identity { pipeline: "shop".to_owned(), system: 1, slot: "walview_shop".to_owned() };
        let config = Config { url, database: "shop".to_owned(), identity };
        ClickHouse::new(config, Vec::new()).inspect().await.unwrap()
    }

    fn common(text: &str) -> Option<(u16, String)> {
        if text.contains("version()") {
            return Some((200, "[\"25.3.1.1\", \"etl\"]\n".to_owned()));
        }
        (!text.contains("CHECK GRANT")).then(|| (200, String::new()))
    }

    #[tokio::test]
    async fn missing_rights_are_one_grant_for_each_database() {
        let found = inspect(|text| {
            common(text).unwrap_or_else(|| {
                let lacks = text.contains("INSERT") || text.contains("CREATE VIEW");
                (200, if lacks { "0\n" } else { "1\n" }.to_owned())
            })
        })
        .await;
        let statements: Vec<_> = found.problems.iter().flat_map(|lack| &lack.statements).collect();
        assert_eq!(
            statements,
            ["GRANT CREATE VIEW ON `shop`.* TO `etl`", "GRANT INSERT ON `shop_rows`.* TO `etl`"]
        );
        assert_eq!((found.server.as_str(), found.notes.len()), ("ClickHouse 25.3.1.1", 0));
    }

    #[tokio::test]
    async fn a_server_without_check_grant_is_a_note() {
        let found = inspect(|text| {
            let syntax = "Code: 62. DB::Exception: Syntax error. (SYNTAX_ERROR)";
            common(text).unwrap_or_else(|| (400, syntax.to_owned()))
        })
        .await;
        assert!(found.problems.is_empty(), "{:?}", found.problems);
        assert_eq!(found.notes.len(), 2);
        assert!(
            found.notes[0].contains("cannot be asked of this version; it needs CREATE DATABASE")
        );
    }
}
