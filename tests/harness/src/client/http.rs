//! One HTTPS call by curl, the CA checked. Tokens and bodies go to it by its standard input, so that no list of
//! processes shows them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The longest a call may take, in seconds.
const CALL_MAX_S: u32 = 300;

/// A call that is being put together.
pub struct Request {
    config: String,
    told: String,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The body as it is.
    pub body: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// A call of this URL, trusting this CA.
    pub fn new(method: &str, url: &str, ca: &Path) -> Request {
        let mut request = Request { config: String::new(), told: format!("{method} {url}") };
        // HTTP/1.1: with HTTP/2 curl does not read an answer that comes before its body is sent.
        for flag in ["silent", "show-error", "http1.1", "include"] {
            let _ = writeln!(request.config, "{flag}");
        }
        let ca = ca.display().to_string();
        let limit = CALL_MAX_S.to_string();
        request.set("request", method).set("url", url).set("cacert", &ca).set("max-time", &limit)
    }

    fn set(mut self, name: &str, value: &str) -> Request {
        let _ = writeln!(self.config, "{name} = {}", quoted(value));
        self
    }

    /// With a header.
    pub fn header(self, name: &str, value: &str) -> Request {
        self.set("header", &format!("{name}: {value}"))
    }

    /// With a token.
    pub fn token(self, token: &str) -> Request {
        self.header("X-Auth-Token", token)
    }

    /// Given up after so many seconds.
    pub fn within(self, seconds: u32) -> Request {
        self.set("max-time", &seconds.to_string())
    }

    /// With a JSON body.
    pub fn json(self, body: &Value) -> Request {
        self.header("Content-Type", "application/json").set("data-binary", &body.to_string())
    }

    /// With the content of a file as the body, its length told before it.
    pub fn file(self, media_type: &str, file: &Path) -> Request {
        let file = file.display().to_string();
        self.header("Content-Type", media_type).set("data-binary", &format!("@{file}"))
    }

    /// Makes the call. Any status is an answer; an error is a call that got none.
    pub fn send(&self) -> Result<Reply> {
        let mut curl = Command::new("curl");
        curl.args(["--disable", "--config", "-"]);
        curl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = curl.spawn().context("cannot start curl")?;
        let mut stdin = child.stdin.take().context("curl takes no input")?;
        stdin.write_all(self.config.as_bytes())?;
        drop(stdin);
        let done = child.wait_with_output()?;
        if !done.status.success() {
            bail!("{}: {}", self.told, String::from_utf8_lossy(&done.stderr).trim());
        }
        Reply::parse(&String::from_utf8_lossy(&done.stdout)).with_context(|| self.told.clone())
    }

    /// Makes the call, which must be answered with this status.
    pub fn answered(&self, status: u16) -> Result<Reply> {
        let reply = self.send()?;
        ensure!(
            reply.status == status,
            "{}: {} instead of {status}: {}",
            self.told,
            reply.status,
            reply.body
        );
        Ok(reply)
    }
}

impl Reply {
    fn parse(text: &str) -> Result<Reply> {
        let (head, body) = text.split_once("\r\n\r\n").context("no end of the answer's head")?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|l| l.split_whitespace().nth(1)).context("no status line")?;
        let status = status.parse::<u16>().context("no status code")?;
        if status < 200 {
            // "100 Continue": the answer proper follows.
            return Reply::parse(body);
        }
        let headers = lines
            .filter_map(|l| l.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Ok(Reply { status, headers, body: body.to_owned() })
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {}", self.body))
    }

    /// A header that must be there; its name in lower case.
    pub fn header(&self, name: &str) -> Result<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str()).with_context(|| format!("the answer has no {name}"))
    }
}

/// A value as curl's configuration takes it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_behind_a_100_is_read() {
        let text =
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 413 Too Large\r\nX-Why: full\r\n\r\n{\"a\":\r\n\r\n1}";
        let reply = Reply::parse(text).unwrap();
        assert_eq!((reply.status, reply.header("x-why").unwrap()), (413, "full"));
        assert_eq!(reply.json().unwrap()["a"], 1);
        assert!(reply.header("x-other").is_err() && Reply::parse("HTTP/1.1 200 OK\r\n").is_err());
    }

    #[test]
    fn a_body_stays_one_value_of_the_configuration() {
        assert_eq!(quoted("{\"a\": \"b\\n\"}\nurl = x"), r#""{\"a\": \"b\\n\"}\nurl = x""#);
    }
}
