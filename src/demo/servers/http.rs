//! A loopback HTTP client of one request per connection: what looking at `/status` and asking
//! `ClickHouse` a question need, and no more.
//!
//! It speaks HTTP/1.0, so that no server answers in chunks; a body shorter than announced is an
//! error, never a short answer.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const LIMIT: Duration = Duration::from_secs(60);

/// The status code and the body.
pub async fn get(address: &str, path: &str) -> Result<(u16, String)> {
    request(address, "GET", path, "").await
}

pub async fn post(address: &str, path: &str, body: &str) -> Result<(u16, String)> {
    request(address, "POST", path, body).await
}

async fn request(address: &str, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    tokio::time::timeout(LIMIT, exchange(address, method, path, body))
        .await
        .with_context(|| format!("no answer from http://{address}{path} within {LIMIT:?}"))?
}

async fn exchange(address: &str, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot connect to http://{address}"))?;
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    parse(&answer).with_context(|| format!("a bad answer from http://{address}"))
}

fn parse(answer: &[u8]) -> Result<(u16, String)> {
    let end =
        answer.windows(4).position(|four| four == b"\r\n\r\n").context("no end of headers")?;
    let (head, body) = answer.split_at(end);
    let body = body.get(4..).unwrap_or_default();
    let head = std::str::from_utf8(head).context("headers that are not text")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?;
    for line in lines {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
            && value.trim().parse() != Ok(body.len())
        {
            bail!("{} bytes where {} were announced", body.len(), value.trim());
        }
    }
    let body = String::from_utf8(body.to_vec()).context("a body that is not UTF-8")?;
    Ok((status.parse().context("no status code")?, body))
}

/// `text` as a value in a query string.
pub fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
