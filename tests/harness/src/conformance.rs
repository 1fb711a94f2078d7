//! OpenStack's own test suite (tempest) against a cloud, one rung at a time. A rung is a list of test names in
//! `tests/conformance/`; the suite's version is pinned there too.

mod settings;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use image_builder::{Paths, exec};

use crate::client::Client;
use crate::cloud::Access;
use crate::tools;

/// How long a rung may take in all, and each test, in seconds.
const RUN_MAX: &str = "3000";
const TEST_MAX: &str = "400";

/// Options of the conformance run.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The folder with the cloud's `openrc`.
    #[arg(long)]
    pub cloud: Option<PathBuf>,
    /// The rung: a list in `tests/conformance/`.
    #[arg(long, default_value = "rung1")]
    pub rung: String,
    /// Run only the tests whose name has this text in it.
    #[arg(long)]
    pub only: Option<String>,
}

/// Runs a rung and fails if more fails than `tests/conformance/RUNG.known` names.
pub fn run(paths: &Paths, options: &Options) -> Result<()> {
    let dir = options.cloud.clone().unwrap_or_else(|| paths.cloud());
    let client = Client::new(paths, Access::load(&dir)?)?;
    let bin = tools::python_env(paths, "tempest", "tests/conformance/requirements.txt")?;
    let work = paths.workspace().join("target/conformance");
    let prepared = Prepared::make(&client, &work, &options.rung)?;
    let outcome = prepared.run_rung(paths, options, &bin);
    prepared.undo(&client)?;
    outcome
}

/// What the suite needs of a cloud before it starts: an image, two flavors, an external network.
struct Prepared {
    work: PathBuf,
    undo: Vec<Vec<String>>,
}

impl Prepared {
    fn make(client: &Client, work: &Path, rung: &str) -> Result<Prepared> {
        fs::create_dir_all(work.join("etc"))?;
        fs::create_dir_all(work.join("lock"))?;
        let mut prepared = Prepared { work: work.to_owned(), undo: Vec::new() };
        let made = prepared.make_all(client, rung);
        if made.is_err() {
            prepared.undo(client)?;
        }
        made.map(|()| prepared)
    }

    fn make_all(&mut self, client: &Client, rung: &str) -> Result<()> {
        let lan = client.access().get("CAIRN_LAN").to_owned();
        let image = Paths::find()?.guests().join("tiny.qcow2").display().to_string();
        self.create(
            client,
            "image create --public --disk-format qcow2 --file",
            &[&image, "conf-image"],
            "image delete conf-image",
        )?;
        for (name, ram) in [("conf.nano", "128"), ("conf.micro", "160")] {
            let args = ["--vcpus", "1", "--disk", "1", "--ram", ram, name];
            self.create(client, "flavor create", &args, &format!("flavor delete {name}"))?;
        }
        let flat = "network create --external --provider-network-type flat --provider-physical-network lan";
        self.create(client, flat, &["conf-public"], "network delete conf-public")?;
        let (range, gateway) = (format!("{lan}.0/24"), format!("{lan}.1"));
        let pool = format!("start={lan}.100,end={lan}.250");
        let args =
            ["--subnet-range", &range, "--gateway", &gateway, "--allocation-pool", &pool, "conf-public"];
        self.create(
            client,
            "subnet create --network conf-public --no-dhcp",
            &args,
            "subnet delete conf-public",
        )?;
        Ok(fs::write(self.work.join("etc/tempest.conf"), settings::of(client, &self.work, rung)?)?)
    }

    fn create(&mut self, client: &Client, words: &str, more: &[&str], undo: &str) -> Result<()> {
        let args: Vec<&str> = words.split(' ').chain(more.iter().copied()).collect();
        client.run(&args)?;
        self.undo.push(undo.split(' ').map(str::to_owned).collect());
        Ok(())
    }

    fn undo(&self, client: &Client) -> Result<()> {
        for args in self.undo.iter().rev() {
            client.run(&args.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn run_rung(&self, paths: &Paths, options: &Options, bin: &Path) -> Result<()> {
        let lists = paths.workspace().join("tests/conformance");
        let wanted = names(&lists.join(format!("{}.list", options.rung)))?;
        let known = names(&lists.join(format!("{}.known", options.rung))).unwrap_or_default();
        self.write_workspace(bin)?;
        let all = exec::output(&mut self.stestr(bin, &["list"])).context("tempest cannot list its tests")?;
        let chosen = |id: &&str| {
            let name = plain(id);
            wanted.iter().any(|w| w == name)
                && options.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
        };
        let ids: Vec<&str> = all.lines().filter(chosen).collect();
        if ids.is_empty() {
            bail!("the rung {} selects no test", options.rung);
        }
        fs::write(self.work.join("run.txt"), ids.join("\n") + "\n")?;
        let load = self.work.join("run.txt").display().to_string();
        let run = self.stestr(bin, &["run", "--concurrency", "2", "--load-list", &load]).output()?;
        fs::write(self.work.join("run.log"), [&run.stdout[..], &run.stderr[..]].concat())?;
        let failing = self.stestr(bin, &["failing", "--list"]).output()?;
        let failed: Vec<String> =
            String::from_utf8_lossy(&failing.stdout).lines().map(|l| plain(l.trim()).to_owned()).collect();
        judge(&ids, &failed, &known, &String::from_utf8_lossy(&run.stdout))
    }

    fn write_workspace(&self, bin: &Path) -> Result<()> {
        let site = exec::output(
            Command::new(bin.join("python"))
                .args(["-c", "import tempest,os;print(os.path.dirname(tempest.__file__))"]),
        )?;
        let site = Path::new(site.trim());
        let top = site.parent().unwrap_or(site).display();
        let config = format!(
            "[DEFAULT]\ntest_path={}/test_discover\ntop_dir={top}\ngroup_regex=([^\\.]*\\.)*\n",
            site.display()
        );
        fs::write(self.work.join(".stestr.conf"), config)?;
        let _ = fs::remove_dir_all(self.work.join(".stestr"));
        exec::run(&mut self.stestr(bin, &["init"]))
    }

    fn stestr(&self, bin: &Path, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--signal=INT", RUN_MAX]).arg(bin.join("stestr")).args(args).current_dir(&self.work);
        command.env("TEMPEST_CONFIG_DIR", self.work.join("etc")).env("TEMPEST_CONFIG", "tempest.conf");
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("OS_TEST_TIMEOUT", TEST_MAX).env("PATH", format!("{}:{path}", bin.display()));
        command
    }
}

/// A test's name without its `[tags]`.
fn plain(id: &str) -> &str {
    id.split('[').next().unwrap_or(id)
}

fn names(list: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(list).with_context(|| format!("no list {}", list.display()))?;
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map(str::to_owned)
        .collect())
}

/// Prints the outcome by service, and fails for any test that fails without being known to.
fn judge(ids: &[&str], failed: &[String], known: &[String], log: &str) -> Result<()> {
    let mut table: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for id in ids {
        let name = plain(id);
        let service = name.split('.').nth(2).unwrap_or(name);
        let row = table.entry(service).or_default();
        row.1 += 1;
        row.0 += usize::from(!failed.iter().any(|f| f == name));
    }
    for (service, (passed, of)) in &table {
        eprintln!("  {service:<16} {passed:>4} of {of:>4}");
    }
    let skipped: usize =
        log.lines().filter_map(|l| l.trim().strip_prefix("- Skipped:")?.trim().parse::<usize>().ok()).sum();
    let passed: usize =
        log.lines().filter_map(|l| l.trim().strip_prefix("- Passed:")?.trim().parse::<usize>().ok()).sum();
    eprintln!("{passed} passed, {} failed, {skipped} skipped", failed.len());
    for name in failed {
        eprintln!("  failed: {name}{}", if known.contains(name) { " (known)" } else { "" });
    }
    let new: Vec<_> = failed.iter().filter(|f| !known.contains(f)).collect();
    if passed == 0 || !new.is_empty() {
        bail!("{} tests failed that should pass; the log is target/conformance/run.log", new.len());
    }
    Ok(())
}
