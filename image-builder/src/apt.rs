//! Debian packages for the image, whatever release the host runs: the mirror comes from the machine's own
//! apt configuration, the packages from the image's release through an apt root of our own.
//!
//! Reads the host's apt configuration and never changes it; all of its state is in `target/image/cache/apt`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::exec;
use crate::paths::{Paths, ensure_dir};
use crate::stage::Step;

/// The Debian release that the image is made of.
pub const RELEASE: &str = "trixie";
const COMPONENTS: &str = "main non-free-firmware";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where this machine gets Debian from, and what it needs to get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrors {
    /// The archive with the releases.
    pub archive: String,
    /// The archive with the security updates, where the machine has one configured.
    pub security: Option<String>,
    /// Lines of apt.conf that reach them (proxies and the like).
    pub options: String,
}

impl Mirrors {
    /// Reads them from the machine's own apt configuration.
    pub fn of_host() -> Result<Self> {
        let format = "$(ORIGIN)|$(LABEL)|$(REPO_URI)";
        let listed = exec::output(&mut exec::command("apt-get", ["indextargets", "--format", format]))?;
        let (archive, security) = pick(&listed);
        let Some(archive) = archive else {
            bail!("apt knows no Debian archive: run `apt-get update`, then this again");
        };
        let options = exec::output(&mut exec::command(
            "apt-config",
            ["dump", "--no-empty", "Acquire::http", "Acquire::https"],
        ))?;
        Ok(Self { archive: follow(&archive)?, security: security.map(|s| follow(&s)).transpose()?, options })
    }

    /// The sources in the one-line form, for our own apt root.
    fn sources_list(&self) -> String {
        let mut text = String::new();
        for (uri, suites) in self.suites() {
            for suite in suites {
                let _ = writeln!(text, "deb [signed-by={KEYRING}] {uri} {suite} {COMPONENTS}");
            }
        }
        text
    }

    /// The sources in the deb822 form, for mkosi.
    fn deb822(&self) -> String {
        let mut text = String::new();
        for (uri, suites) in self.suites() {
            let suites = suites.join(" ");
            let _ = writeln!(
                text,
                "Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: {COMPONENTS}\nSigned-By: {KEYRING}\n"
            );
        }
        text
    }

    fn suites(&self) -> Vec<(&str, Vec<String>)> {
        let mut all = vec![(self.archive.as_str(), vec![RELEASE.to_owned(), format!("{RELEASE}-updates")])];
        if let Some(security) = &self.security {
            all.push((security, vec![format!("{RELEASE}-security")]));
        }
        all
    }
}

/// The first archive and the first security archive among lines of `origin|label|uri`.
fn pick(listed: &str) -> (Option<String>, Option<String>) {
    let find = |label: &str| {
        let mut parts = listed.lines().map(|line| line.splitn(3, '|').collect::<Vec<_>>());
        parts.find(|p| p.len() == 3 && p[0] == "Debian" && p[1] == label).map(|p| p[2].to_owned())
    };
    (find("Debian"), find("Debian-Security"))
}

/// Cloud images name a file with a list of mirrors; mkosi's sandbox does not have that file.
fn follow(uri: &str) -> Result<String> {
    let Some(list) = uri.strip_prefix("mirror+file:") else { return Ok(uri.to_owned()) };
    let path = format!("/{}", list.trim_matches('/'));
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let first = text.lines().filter_map(|l| l.split_whitespace().next()).find(|l| !l.starts_with('#'));
    first.map(str::to_owned).with_context(|| format!("{path} names no mirror"))
}

/// Writes the files that make mkosi use the machine's mirror, and returns their folder
/// (to be laid over mkosi's sandbox).
pub fn sandbox(paths: &Paths) -> Result<PathBuf> {
    let mirrors = Mirrors::of_host()?;
    let folder = paths.cache().join("sandbox");
    let sources = ensure_dir(folder.join("etc/apt/sources.list.d"))?;
    write_if_changed(&sources.join("mkosi.sources"), &mirrors.deb822())?;
    let conf = ensure_dir(folder.join("etc/apt/apt.conf.d"))?;
    write_if_changed(&conf.join("80host"), &mirrors.options)?;
    Ok(folder)
}

/// An apt of the image's release beside the host's own.
pub struct AptRoot {
    folder: PathBuf,
}

impl AptRoot {
    /// Opens it, making it and fetching the package lists if it is new or older than a day.
    pub fn open(paths: &Paths, step: &Step) -> Result<Self> {
        let folder = ensure_dir(paths.cache().join("apt"))?;
        for part in ["etc/apt.conf.d", "etc/preferences.d", "state/lists/partial", "cache/archives/partial"] {
            ensure_dir(folder.join(part))?;
        }
        let mirrors = Mirrors::of_host()?;
        let status = folder.join("state/status");
        if !status.exists() {
            fs::write(&status, "")?;
        }
        let sources = mirrors.sources_list();
        let changed = write_if_changed(&folder.join("etc/sources.list"), &sources)?;
        fs::write(folder.join("apt.conf"), configuration(&folder, &mirrors.options))?;
        let root = Self { folder };
        let stamp = root.folder.join("updated");
        let fresh = fs::metadata(&stamp)
            .and_then(|m| m.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() < 24 * 3600));
        if changed || !fresh {
            step.exec(root.command("apt-get").args(["update", "-q"]))?;
            fs::write(stamp, "")?;
        }
        Ok(root)
    }

    /// Downloads packages (unless they are here already) and unpacks them all into `into`.
    pub fn unpack(&self, step: &Step, packages: &[&str], into: &Path) -> Result<()> {
        let debs = ensure_dir(self.folder.join("debs"))?;
        for package in packages {
            let uris = exec::output(self.command("apt-get").args(["download", "--print-uris", package]))?;
            let deb = debs.join(file_name(&uris).with_context(|| format!("no package {package}"))?);
            if !deb.exists() {
                step.exec(self.command("apt-get").args(["download", "-q", package]).current_dir(&debs))?;
            }
            step.exec(exec::command("dpkg-deb", ["-x"]).arg(&deb).arg(into))?;
        }
        Ok(())
    }

    /// Unpacks packages and all that they depend on, as if nothing were there yet: their programs run with `into` as
    /// their root. Nothing of the packages is run.
    pub fn unpack_whole(&self, step: &Step, packages: &[&str], into: &Path) -> Result<()> {
        let debs = self.folder.join("whole");
        ensure_dir(debs.join("partial"))?;
        let archives = format!("Dir::Cache::archives={}", debs.display());
        let download = ["install", "-q", "-y", "--download-only", "--no-install-recommends", "-o", &archives];
        step.exec(self.command("apt-get").args(download).args(packages))?;
        for deb in fs::read_dir(&debs)? {
            let deb = deb?.path();
            if deb.extension().is_some_and(|e| e == "deb") {
                step.exec(exec::command("dpkg-deb", ["-x"]).arg(&deb).arg(into))?;
            }
        }
        // Another release may be asked for next time.
        Ok(fs::remove_dir_all(debs)?)
    }

    /// The first package that `package` depends on: the real kernel behind `linux-image-cloud-amd64`.
    pub fn first_dependency(&self, package: &str) -> Result<String> {
        let text = exec::output(self.command("apt-cache").args(["depends", "--important", package]))?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
        line.map(str::to_owned).with_context(|| format!("{package} depends on nothing"))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = exec::command(program, [""; 0]);
        command.env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C");
        command
    }
}

/// The file name in a line of `apt-get download --print-uris`: `'uri' name size hash`.
fn file_name(uris: &str) -> Option<&str> {
    uris.lines().find(|line| line.starts_with('\'')).and_then(|line| line.split_whitespace().nth(1))
}

fn configuration(folder: &Path, options: &str) -> String {
    let f = folder.display();
    format!(
        "Dir::Etc \"{f}/etc\";\nDir::Etc::SourceList \"{f}/etc/sources.list\";\n\
         Dir::Etc::SourceParts \"/dev/null\";\nDir::Etc::Parts \"{f}/etc/apt.conf.d\";\n\
         Dir::State \"{f}/state\";\nDir::State::Status \"{f}/state/status\";\n\
         Dir::Cache \"{f}/cache\";\nAPT::Sandbox::User \"root\";\n{options}"
    )
}

/// Writes a file unless it says the same already; returns whether it wrote.
fn write_if_changed(path: &Path, text: &str) -> Result<bool> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(false);
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "Debian|Debian Backports|http://mirror/debian/\n\
        Other|Debian|http://other/\nDebian|Debian|http://mirror/debian/\n\
        Debian|Debian-Security|http://mirror/security/\n";

    #[test]
    fn the_machines_own_mirrors_are_used() {
        let (archive, security) = pick(LISTED);
        assert_eq!(archive.as_deref(), Some("http://mirror/debian/"));
        assert_eq!(security.as_deref(), Some("http://mirror/security/"));
        assert_eq!(pick("Ubuntu|Ubuntu|http://x/\n"), (None, None));
    }

    #[test]
    fn every_suite_is_signed() {
        let mirrors = Mirrors { archive: "http://m/".into(), security: None, options: String::new() };
        assert_eq!(mirrors.sources_list().lines().count(), 2);
        assert!(mirrors.sources_list().lines().all(|line| line.contains("signed-by=")));
        assert!(mirrors.deb822().contains("Suites: trixie trixie-updates\n"));
    }

    #[test]
    fn the_file_name_of_a_download() {
        assert_eq!(
            file_name("'http://m/p/a_1%3a2.deb' a_1%3a2_amd64.deb 12 SHA256:ab\n"),
            Some("a_1%3a2_amd64.deb")
        );
        assert_eq!(file_name(""), None);
    }
}
