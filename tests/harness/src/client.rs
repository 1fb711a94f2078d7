//! The real `openstack` command line against a cloud, and plain HTTPS for what it has no command for.

mod http;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use image_builder::Paths;
use serde_json::Value;

use crate::cloud::Access;
use crate::tools;
pub use http::{Reply, Request};

/// A cloud as its administrator's command line sees it.
pub struct Client {
    openstack: PathBuf,
    access: Access,
}

impl Client {
    /// A client for the cloud whose access files are in this folder; installs the command line if need be.
    pub fn new(paths: &Paths, access: Access) -> Result<Client> {
        let bin = tools::python_env(paths, "openstack", "tests/tour/requirements.txt")?;
        Ok(Client { openstack: bin.join("openstack"), access })
    }

    /// The access files.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The command, with nothing of the caller's own OS_* settings.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.openstack);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OS_")) {
            command.env_remove(name);
        }
        command.envs(self.access.environment()).args(args);
        command
    }

    /// Runs a command that must succeed; gives what it printed.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let done = self.command(args).output().context("cannot start the openstack client")?;
        if !done.status.success() {
            bail!("openstack {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// Runs a command that must succeed and print JSON.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.run(&[args, &["--format", "json"]].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("openstack {} printed no JSON: {text}", args.join(" ")))
    }

    /// One field of what a command prints, as text.
    pub fn field(&self, args: &[&str], field: &str) -> Result<String> {
        let value = self.json(args)?;
        match &value[field] {
            Value::String(text) => Ok(text.clone()),
            Value::Null => bail!("openstack {} shows no {field}: {value}", args.join(" ")),
            other => Ok(other.to_string()),
        }
    }

    /// Runs a command that must fail; gives what it said.
    pub fn refused(&self, args: &[&str]) -> Result<String> {
        let done = self.command(args).output().context("cannot start the openstack client")?;
        if done.status.success() {
            bail!("openstack {} was accepted, and should have been refused", args.join(" "));
        }
        Ok(String::from_utf8_lossy(&done.stderr).trim().to_owned())
    }

    /// Waits until a field of what a command prints has a value; fails at once if it becomes `error`.
    pub fn wait_field(&self, args: &[&str], field: &str, wanted: &str, limit: Duration) -> Result<()> {
        let since = Instant::now();
        loop {
            let now = self.field(args, field)?;
            if now == wanted {
                return Ok(());
            }
            if now.eq_ignore_ascii_case("error") || since.elapsed() > limit {
                bail!(
                    "openstack {}: {field} is {now}, not {wanted}, after {:?}",
                    args.join(" "),
                    since.elapsed()
                );
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// A token for plain HTTPS calls.
    pub fn token(&self) -> Result<String> {
        self.field(&["token", "issue"], "id")
    }

    /// A plain HTTPS call of a path, to be sent.
    pub fn request(&self, method: &str, path: &str) -> Request {
        let url = format!("{}{path}", self.access.base_url());
        Request::new(method, &url, &self.access.ca())
    }

    /// One plain HTTPS call, the body a file of JSON: status and body.
    pub fn http(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Path>,
    ) -> Result<(u16, String)> {
        let mut request = self.request(method, path);
        if let Some(token) = token {
            request = request.token(token);
        }
        if let Some(body) = body {
            request = request.file("application/json", body);
        }
        let reply = request.send()?;
        Ok((reply.status, reply.body))
    }
}
