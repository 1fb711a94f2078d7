//! Reads from a role's systemd unit what matters where there is no systemd: the command, whom it runs as, and which
//! capabilities it keeps. So a development node has just the privileges that the appliance gives.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The part of a unit that is obeyed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unit {
    exec: Vec<String>,
    user: Option<String>,
    ambient: Vec<String>,
}

impl Unit {
    /// Reads a unit of the image.
    pub fn read(name: &str) -> Result<Unit> {
        let file = Path::new("/usr/lib/systemd/system").join(format!("{name}.service"));
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Unit::parse(&text))
    }

    fn parse(text: &str) -> Unit {
        let mut unit = Unit::default();
        for (key, value) in text.lines().filter_map(|l| l.split_once('=')) {
            let words = || value.split_whitespace().map(str::to_owned).collect();
            match key {
                "ExecStart" => unit.exec = words(),
                "User" => unit.user = Some(value.to_owned()),
                "AmbientCapabilities" => unit.ambient = words(),
                _ => {}
            }
        }
        unit
    }

    /// The command line to run it by, with `more` behind its own.
    pub fn command(&self, more: &[&str]) -> Vec<String> {
        let mut command = Vec::new();
        if let Some(user) = &self.user {
            let caps: String = self
                .ambient
                .iter()
                .map(|c| format!(",+{}", c.trim_start_matches("CAP_").to_lowercase()))
                .collect();
            command.extend(
                ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--no-new-privs"]
                    .map(str::to_owned),
            );
            for set in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
                command.extend([set.to_owned(), format!("-all{caps}")]);
            }
            command.push("--".to_owned());
        }
        command.extend(self.exec.iter().cloned());
        command.extend(more.iter().map(|s| (*s).to_owned()));
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_keeps_only_what_its_unit_gives() {
        let unit =
            Unit::parse("[Service]\nExecStart=/usr/bin/cairn x\nUser=u\nAmbientCapabilities=CAP_NET_RAW\n");
        let line = unit.command(&[]).join(" ");
        assert!(line.starts_with("setpriv --reuid u --regid u --init-groups --no-new-privs"));
        assert!(line.contains("--ambient-caps -all,+net_raw") && line.ends_with("-- /usr/bin/cairn x"));
        assert_eq!(Unit::parse("ExecStart=/usr/bin/cairn node\n").command(&["--screen", "s"]).len(), 4);
    }
}
