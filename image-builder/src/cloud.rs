//! How a running cloud is reached: reads what a node shows on its console, checks the CA certificate against it, and
//! writes `openrc`, `clouds.yaml` and `ca.pem` for any client.
//!
//! These files hold the administrator's password: they are readable by their owner alone.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// What the console shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Console {
    /// The endpoint, as `https://10.0.0.1`.
    pub url: String,
    /// The SHA-256 of the CA certificate.
    pub ca_sha256: String,
    /// The administrator's password; shown on the first boot only, and on the founder's screen alone.
    pub password: Option<String>,
}

/// The words that a node shows while it waits to be let in, if that is what its console shows now.
pub fn words_shown(text: &str) -> Option<String> {
    // A node of a cloud shows its CA instead.
    let last =
        text.lines().rfind(|l| l.contains("CAIRN-CONSOLE words=") || l.contains("CAIRN-CONSOLE ca-"))?;
    Some(last.split_once("words=")?.1.trim().to_owned())
}

impl Console {
    /// Reads the newest of each line that is meant for programs; `None` until the node has an address.
    pub fn parse(text: &str) -> Option<Console> {
        let words = || {
            text.lines()
                .filter_map(|l| l.split_once("CAIRN-CONSOLE "))
                .flat_map(|(_, l)| l.split_whitespace())
        };
        // A node may have several addresses; a person's clients want the IPv4 one.
        let url = words().filter_map(|w| w.strip_prefix("url=")).rfind(|u| !u.contains('['))?;
        let (mut ca, mut passwords) = (None, Vec::new());
        for word in words() {
            ca = word.strip_prefix("ca-sha256=").or(ca);
            passwords.extend(word.strip_prefix("password=").map(|password| (ca, password)));
        }
        // A node that founded a cloud and gave it up has shown a password that opens nothing.
        let password =
            passwords.into_iter().rfind(|(of, _)| *of == ca).map(|(_, password)| password.to_owned());
        Some(Console { url: url.trim_end_matches('/').to_owned(), ca_sha256: ca?.to_owned(), password })
    }
}

/// The password of an `openrc` written earlier.
pub fn password_before(dir: &Path) -> Option<String> {
    let text = fs::read_to_string(dir.join("openrc")).ok()?;
    text.lines().find_map(|l| l.strip_prefix("export OS_PASSWORD=")).map(|p| p.trim_matches('\'').to_owned())
}

/// Whether this certificate is the one whose fingerprint the console showed.
pub fn check_ca(pem: &str, sha256: &str) -> Result<()> {
    let body: String = pem.lines().filter(|l| !l.starts_with("-----")).collect();
    let der = STANDARD.decode(body.trim()).context("the CA certificate is not PEM")?;
    let found = hex::encode(Sha256::digest(der));
    ensure!(
        found == sha256,
        "the CA certificate's SHA-256 is {found}, but the console shows {sha256}: do not trust it"
    );
    Ok(())
}

/// Writes the access files into `dir`. `screen` is the console's text, `ca` the certificate as it was fetched without
/// being checked, `lan` the first three bytes of the test LAN's addresses.
pub fn write_access(dir: &Path, screen: &str, ca: &Path, lan: &str) -> Result<()> {
    let Some(console) = Console::parse(screen) else { bail!("the console shows no address yet") };
    let pem = fs::read_to_string(ca).with_context(|| format!("cannot read {}", ca.display()))?;
    check_ca(&pem, &console.ca_sha256)?;
    let Some(password) = console.password.or_else(|| password_before(dir)) else {
        bail!(
            "the password was shown on the first boot only, and {} is gone: start anew by --clean",
            dir.join("openrc").display()
        );
    };
    let ca = dir.join("ca.pem");
    let (url, ca_path) = (&console.url, ca.display());
    private(&ca, &pem)?;
    let settings = [
        ("OS_AUTH_URL", format!("{url}/identity/v3")),
        ("OS_USERNAME", "admin".into()),
        ("OS_PASSWORD", password.clone()),
        ("OS_PROJECT_NAME", "admin".into()),
        ("OS_USER_DOMAIN_NAME", "Default".into()),
        ("OS_PROJECT_DOMAIN_NAME", "Default".into()),
        ("OS_REGION_NAME", "RegionOne".into()),
        ("OS_IDENTITY_API_VERSION", "3".into()),
        ("OS_CACERT", ca_path.to_string()),
        ("CAIRN_LAN", lan.into()),
    ];
    private(&dir.join("openrc"), &settings.map(|(k, v)| format!("export {k}='{v}'\n")).concat())?;
    let yaml = format!(
        "clouds:\n  cairn:\n    auth:\n      auth_url: {url}/identity/v3\n      username: admin\n      password: {password}\n\
         \x20     project_name: admin\n      user_domain_name: Default\n      project_domain_name: Default\n\
         \x20   region_name: RegionOne\n    cacert: {ca_path}\n"
    );
    private(&dir.join("clouds.yaml"), &yaml)
}

/// What a client needs; the password is in the first two.
const ACCESS_FILES: [&str; 3] = ["openrc", "clouds.yaml", "ca.pem"];

/// Shows a cloud's access files in another folder too, where a person looks for those of the cloud started last.
pub fn show_access(own: &Path, shown: &Path) -> Result<()> {
    fs::create_dir_all(shown)?;
    for file in ACCESS_FILES {
        fs::copy(own.join(file), shown.join(file)).with_context(|| format!("cannot copy {file}"))?;
    }
    Ok(())
}

/// Shows a cloud's access files no longer, unless those of another cloud are shown there by now.
pub fn hide_access(own: &Path, shown: &Path) -> Result<()> {
    let is_own = |file: &str| match (fs::read(own.join(file)), fs::read(shown.join(file))) {
        (Ok(own), Ok(shown)) => own == shown,
        _ => false,
    };
    for file in ACCESS_FILES.into_iter().filter(|file| is_own(file)) {
        fs::remove_file(shown.join(file)).with_context(|| format!("cannot remove {file}"))?;
    }
    Ok(())
}

fn private(path: &Path, text: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

/// What to tell the person whose cloud is up.
pub fn greeting(dir: &Path) -> String {
    let openrc = fs::read_to_string(dir.join("openrc")).unwrap_or_default();
    let value = |name: &str| {
        let line = openrc.lines().find_map(|l| l.strip_prefix(&format!("export {name}=")));
        line.unwrap_or_default().trim_matches('\'').to_owned()
    };
    let url = value("OS_AUTH_URL").replace("identity/v3", "");
    let lan = value("CAIRN_LAN");
    format!(
        "\nThe cloud is up.\n  endpoint     {url}\n  CA           {ca}\n  clouds.yaml  {clouds}\n  user         admin, password in {rc}\n\n\
         First commands to try:\n  . {rc}\n  openstack catalog list\n\
         \x20 openstack image create --disk-format qcow2 --file target/image/guests/tiny.qcow2 tiny\n\
         \x20 openstack network create --external --provider-network-type flat --provider-physical-network lan public\n\
         \x20 openstack subnet create --network public --no-dhcp --subnet-range {lan}.0/24 --gateway {lan}.1 \
         --allocation-pool start={lan}.100,end={lan}.250 public\n\
         \x20 openstack network create net\n  openstack subnet create --network net --subnet-range 10.0.0.0/24 subnet\n\
         \x20 openstack server create --image tiny --flavor c1.nano --network net --wait first\n\
         \x20 openstack console log show first\n",
        ca = dir.join("ca.pem").display(),
        clouds = dir.join("clouds.yaml").display(),
        rc = dir.join("openrc").display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCREEN: &str = "x\r\n  CAIRN-CONSOLE url=https://10.0.0.9/\r\n  CAIRN-CONSOLE url=https://[fd00::1]/\r\n\
        CAIRN-CONSOLE ca-sha256=00\r\n  CAIRN-CONSOLE user=admin password=a-b\r\n  CAIRN-CONSOLE url=https://10.0.0.8/\r\n";

    #[test]
    fn the_newest_address_counts() {
        let console = Console::parse(SCREEN).unwrap();
        assert_eq!((console.url.as_str(), console.password.as_deref()), ("https://10.0.0.8", Some("a-b")));
        assert_eq!(Console::parse("booting\r\n"), None);
    }

    #[test]
    fn the_password_is_that_of_the_cloud_that_is_shown_now() {
        let founder = "CAIRN-CONSOLE ca-sha256=01\r\nCAIRN-CONSOLE user=admin password=right\r\n";
        let gave_way = "CAIRN-CONSOLE ca-sha256=02\r\nCAIRN-CONSOLE user=admin password=wrong\r\n\
            CAIRN-CONSOLE url=https://10.0.0.7/\r\nCAIRN-CONSOLE ca-sha256=01\r\n";
        let console = Console::parse(&format!("{founder}{gave_way}")).unwrap();
        assert_eq!((console.ca_sha256.as_str(), console.password.as_deref()), ("01", Some("right")));
        assert_eq!(Console::parse(gave_way).unwrap().password, None);
    }

    #[test]
    fn words_are_shown_until_the_node_is_of_a_cloud() {
        let waits = "  CAIRN-CONSOLE words=one two three four\r\n";
        assert_eq!(words_shown(waits).as_deref(), Some("one two three four"));
        assert_eq!(words_shown(&format!("{waits}{SCREEN}")), None);
        assert_eq!(words_shown("booting\r\n"), None);
    }

    #[test]
    fn a_certificate_that_the_console_does_not_vouch_for_is_refused() {
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(check_ca(pem, "00").is_err());
        assert!(check_ca(pem, &hex::encode(Sha256::digest([0u8; 3]))).is_ok());
    }

    #[test]
    fn only_a_clouds_own_access_files_are_hidden() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two, shown] = ["one", "two", "shown"].map(|name| dir.path().join(name));
        for own in [&one, &two] {
            fs::create_dir(own).unwrap();
            for file in ACCESS_FILES {
                fs::write(own.join(file), own.display().to_string()).unwrap();
            }
        }
        show_access(&one, &shown).unwrap();
        show_access(&two, &shown).unwrap();
        hide_access(&one, &shown).unwrap();
        assert_eq!(fs::read_dir(&shown).unwrap().count(), ACCESS_FILES.len());
        hide_access(&two, &shown).unwrap();
        hide_access(&two, &shown).unwrap();
        assert_eq!(fs::read_dir(&shown).unwrap().count(), 0);
    }

    #[test]
    fn a_later_boot_keeps_the_password() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("fetched");
        fs::write(&ca, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let screen = SCREEN.replace("=00", &format!("={}", hex::encode(Sha256::digest([0u8; 3]))));
        let later = screen.replace("user=admin password=a-b", "");
        assert!(write_access(dir.path(), &later, &ca, "10.213.0").is_err(), "never shown");
        write_access(dir.path(), &screen, &ca, "10.213.0").unwrap();
        write_access(dir.path(), &later, &ca, "10.213.0").unwrap();
        assert_eq!(password_before(dir.path()).as_deref(), Some("a-b"));
        assert!(greeting(dir.path()).contains("10.213.0.100"));
    }
}
