//! The machine's own screen: name, address, the CA's fingerprint, and the administrator's secret until the machine
//! is next switched off. Lines that begin with `CAIRN-CONSOLE` are for programs that read a serial console.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::disks::Report;
use crate::told::Joining;

/// What the screen shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// The node's name.
    pub name: String,
    /// Its addresses on the LAN.
    pub addresses: Vec<IpAddr>,
    /// The CA certificate's SHA-256, hex; empty before the node is of a cloud.
    pub ca_sha256: String,
    /// The administrator's secret, if it is still to be shown.
    pub secret: Option<String>,
    /// Who waits to be let in: this node, or others here.
    pub joining: Joining,
    /// What is out of order, each with what to do.
    pub faults: Vec<String>,
}

impl Content {
    /// The screen's text.
    pub fn render(&self) -> String {
        let mut out = format!("\n  Cairn {}   node {}\n", env!("CARGO_PKG_VERSION"), self.name);
        for fault in &self.faults {
            out += &format!("  ! {fault}\n");
        }
        out += &joining(&self.joining);
        if self.ca_sha256.is_empty() {
            return out;
        }
        if self.addresses.is_empty() {
            return out + "  No address yet: waiting for the LAN's DHCP server (is the cable plugged in?)\n";
        }
        for address in &self.addresses {
            out += &format!("  CAIRN-CONSOLE url={}\n", url(address));
        }
        out += &format!("  CAIRN-CONSOLE ca-sha256={}\n", self.ca_sha256);
        if let Some(secret) = &self.secret {
            out += &format!("  CAIRN-CONSOLE user=admin password={secret}\n");
            out += "  Write the password down: it is not shown again after the machine is switched off.\n";
        }
        out
    }
}

fn joining(joining: &Joining) -> String {
    let mut out = String::new();
    if !joining.state.is_empty() {
        out += &format!("  {}\n", joining.state);
    }
    if let Some(words) = &joining.words {
        out += &format!("  CAIRN-CONSOLE words={words}\n");
    }
    for node in &joining.waiting {
        out += &format!("  {} asks to be let in and shows: {}\n", node.name, node.words);
    }
    out
}

fn url(address: &IpAddr) -> String {
    match address {
        IpAddr::V4(a) => format!("https://{a}/"),
        IpAddr::V6(a) => format!("https://[{a}]/"),
    }
}

/// The disks' line of the screen: only what needs a person's eye.
pub fn disk_faults(report: Option<&Report>) -> Vec<String> {
    let lines = report.iter().flat_map(|r| &r.disks).filter(|d| d.use_.starts_with("not used"));
    lines.map(|d| format!("{} {}", d.device, d.use_)).collect()
}

/// The terminals the screen is shown on.
pub struct Screen {
    outputs: Vec<PathBuf>,
    shown: Option<Content>,
}

impl Screen {
    /// A screen on these terminals or files.
    pub fn new(outputs: Vec<PathBuf>) -> Screen {
        Screen { outputs, shown: None }
    }

    /// Shows this, if it isn't what is shown already.
    pub fn show(&mut self, content: &Content) {
        if self.shown.as_ref() == Some(content) {
            return;
        }
        let text = content.render().replace('\n', "\r\n");
        for path in &self.outputs {
            // A terminal that isn't there (a machine without a serial port) is no fault.
            if let Ok(mut out) = OpenOptions::new().append(true).open(path) {
                let _ = out.write_all(text.as_bytes());
            }
        }
        self.shown = Some(content.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_shown_only_while_there_is_one() {
        let addresses = vec!["192.0.2.1".parse().unwrap()];
        let mut content = Content { addresses, ca_sha256: "00".into(), ..Content::default() };
        assert!(!content.render().contains("password"));
        content.secret = Some("abc".into());
        assert!(content.render().contains("CAIRN-CONSOLE user=admin password=abc\n"));
        assert!(content.render().contains("CAIRN-CONSOLE url=https://192.0.2.1/\n"));
    }

    #[test]
    fn a_node_that_waits_shows_its_words_and_no_address() {
        let joining = Joining { state: "Waiting.".into(), words: Some("a b c d".into()), waiting: vec![] };
        let content = Content {
            addresses: vec!["192.0.2.1".parse().unwrap()],
            secret: None,
            joining,
            ..Content::default()
        };
        let text = content.render();
        assert!(text.contains("CAIRN-CONSOLE words=a b c d\n") && !text.contains("url="), "{text}");
    }
}
