//! How a cloud is reached: the `openrc` that `cargo dev` and `cargo up` leave behind, read back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The settings of an `openrc`, by name.
#[derive(Clone, Debug)]
pub struct Access {
    environment: BTreeMap<String, String>,
}

impl Access {
    /// Reads `openrc` in this folder.
    pub fn load(dir: &Path) -> Result<Access> {
        let file = dir.join("openrc");
        let text = fs::read_to_string(&file).with_context(|| {
            format!("no cloud runs here ({} is missing); start one by: cargo dev --detach", file.display())
        })?;
        let environment = text
            .lines()
            .filter_map(|l| l.strip_prefix("export ")?.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.trim_matches(['"', '\'']).to_owned()))
            .collect();
        Ok(Access { environment })
    }

    /// The settings as environment variables.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// The same cloud with one setting changed.
    pub fn with(&self, name: &str, value: &str) -> Access {
        let mut environment = self.environment.clone();
        environment.insert(name.into(), value.into());
        Access { environment }
    }

    /// One setting; empty if it isn't there.
    pub fn get(&self, name: &str) -> &str {
        self.environment.get(name).map_or("", String::as_str)
    }

    /// The CA certificate's file.
    pub fn ca(&self) -> PathBuf {
        self.get("OS_CACERT").into()
    }

    /// The endpoint, `https://10.0.0.1`, with no slash at the end.
    pub fn base_url(&self) -> &str {
        let url = self.get("OS_AUTH_URL");
        url.find("/identity").map_or(url, |at| &url[..at])
    }
}
