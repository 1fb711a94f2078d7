//! `bench boot`: from power-on to an API that answers. The peer is the same image in the same machine with Cairn's
//! units masked, from power-on to its multi-user.target: what Debian, this disk and this emulator take by themselves.
//!
//! Every boot is a first one, with empty disks. The sides take turns, and who goes first changes with each round.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use image_builder::Paths;
use image_builder::boot_check::REACHED;
use image_builder::emulated_node::EmulatedNode;
use image_builder::interrupt::Interrupt;
use image_builder::paths::ensure_dir;
use image_builder::stage::{say, seconds};
use image_builder::vm::{Vm, VmOptions, kvm_works};

use crate::figures::{median, ratio};

/// The instance's name and the first three bytes of its LAN.
const INSTANCE: &str = "bench";
const PREFIX: &str = "10.215.0";
/// Both sides show on the console what is started, since the end is read there.
const SHOW: &str = "systemd.show_status=yes";
/// What the console shows only if Cairn is started: the description of one of its units.
const STARTED: &str = "Cairn node";
/// How often is looked whether a point is reached: the error of a time.
const LOOK: Duration = Duration::from_millis(200);

/// How to measure.
#[derive(Args)]
pub struct Options {
    /// How often each side is started
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How many seconds a boot may take
    #[arg(long, default_value_t = 900)]
    limit: u64,
}

/// One boot of each side; times since power-on.
#[derive(Clone, Copy, Debug)]
struct Round {
    api: Duration,
    multi_user: Duration,
    plain_multi_user: Duration,
}

/// What stays the same from boot to boot.
struct Bench<'a> {
    paths: &'a Paths,
    dir: PathBuf,
    node: EmulatedNode,
    masks: String,
    limit: Duration,
    interrupt: Interrupt,
}

/// Measures, cleans up, and prints the ratio.
pub fn run(paths: &Paths, options: &Options) -> Result<()> {
    let interrupt = Interrupt::listen()?;
    let dir = ensure_dir(paths.workspace().join("target/bench/boot"))?;
    let _lock = lock(&dir)?;
    let node = EmulatedNode::new(INSTANCE, PREFIX, &dir);
    let masks = masks(&units(paths)?);
    let bench = Bench { paths, node, masks, limit: Duration::from_secs(options.limit), interrupt, dir };
    // Whatever a run that was killed has left.
    bench.clean()?;
    let measured = bench.prepare().and_then(|()| bench.rounds(options.rounds));
    let cleaned = bench.clean();
    say(&report(&measured?));
    cleaned
}

/// Two at once would measure each other.
fn lock(dir: &Path) -> Result<File> {
    let file = File::create(dir.join("lock"))?;
    file.try_lock().context("another `bench boot` is running in this checkout")?;
    Ok(file)
}

impl Bench<'_> {
    /// The image as it is now, by a hard link: a build that goes on meanwhile puts another in its place.
    fn iso(&self) -> PathBuf {
        self.dir.join("cairn.iso")
    }

    fn prepare(&self) -> Result<()> {
        let built = self.paths.iso();
        ensure!(built.exists(), "no {}: run `cargo iso` first", built.display());
        fs::hard_link(built, self.iso()).context("cannot link the image")?;
        // Read once, so that the first boot finds it in memory as the others do.
        std::io::copy(&mut File::open(self.iso())?, &mut std::io::sink())?;
        self.node.make_lan()
    }

    fn clean(&self) -> Result<()> {
        self.node.clean()?;
        if self.iso().exists() {
            fs::remove_file(self.iso())?;
        }
        Ok(())
    }

    fn rounds(&self, count: u32) -> Result<Vec<Round>> {
        say(if kvm_works() { "accelerator: KVM" } else { "accelerator: emulation" });
        (1..=count).map(|number| self.round(number)).collect()
    }

    fn round(&self, number: u32) -> Result<Round> {
        let ((api, multi_user), plain_multi_user) = if number % 2 == 1 {
            let cairn = self.cairn()?;
            (cairn, self.plain()?)
        } else {
            let plain = self.plain()?;
            (self.cairn()?, plain)
        };
        say(&format!(
            "round {number}: with Cairn API {}, multi-user {}; without Cairn multi-user {}",
            seconds(api),
            seconds(multi_user),
            seconds(plain_multi_user)
        ));
        Ok(Round { api, multi_user, plain_multi_user })
    }

    /// Boots with Cairn: when its API answered, and when multi-user.target was reached.
    fn cairn(&self) -> Result<(Duration, Duration)> {
        let (mut api, mut multi_user) = (None, None);
        self.boot("cairn", SHOW.to_owned(), |screen, since| {
            if multi_user.is_none() && screen.contains(REACHED) {
                multi_user = Some(since.elapsed());
            }
            if api.is_none() && self.node.check_api(screen).is_ok() {
                api = Some(since.elapsed());
            }
            Ok(api.zip(multi_user))
        })
    }

    /// Boots without Cairn: when multi-user.target was reached.
    fn plain(&self) -> Result<Duration> {
        self.boot("plain", format!("{SHOW} {}", self.masks), |screen, since| {
            ensure!(!screen.contains(STARTED), "Cairn was started although it is masked");
            Ok(screen.contains(REACHED).then(|| since.elapsed()))
        })
    }

    /// One boot, until `reached` has seen on the console what it wants, of a machine that did not exist before and does
    /// not afterwards. The console's log is kept.
    fn boot<T>(
        &self,
        name: &str,
        kernel_args: String,
        reached: impl FnMut(&str, Instant) -> Result<Option<T>>,
    ) -> Result<T> {
        let options = VmOptions { kernel_args, ..self.node.options(self.iso()) };
        let since = Instant::now();
        let result = Vm::boot(self.paths, &options).and_then(|mut vm| self.watch(&mut vm, since, reached));
        let log = self.dir.join(format!("serial.{name}.log"));
        // Not there if the machine could not even be started; the error says so.
        let _ = fs::copy(self.node.dir().join("serial.log"), &log);
        self.node.forget()?;
        result.with_context(|| format!("the boot whose console is in {}", log.display()))
    }

    fn watch<T>(
        &self,
        vm: &mut Vm,
        since: Instant,
        mut reached: impl FnMut(&str, Instant) -> Result<Option<T>>,
    ) -> Result<T> {
        loop {
            if let Some(result) = reached(&vm.serial_log()?, since)? {
                return Ok(result);
            }
            ensure!(!self.interrupt.seen(), "interrupted");
            ensure!(vm.running(), "the machine went off; its console ends with:\n{}", vm.last_words());
            if since.elapsed() > self.limit {
                bail!("not up after {:?}; its console ends with:\n{}", self.limit, vm.last_words());
            }
            sleep(LOOK);
        }
    }
}

/// Every unit that is Cairn's own, by the image's configuration. The mounts hang on Cairn's disks.
fn units(paths: &Paths) -> Result<Vec<String>> {
    let dir = paths.crate_dir().join("mkosi/root/mkosi.extra/usr/lib/systemd/system");
    let entries = fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut units = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".service") || name.ends_with(".mount") {
            units.push(name);
        }
    }
    units.sort();
    Ok(units)
}

fn masks(units: &[String]) -> String {
    let masks: Vec<String> = units.iter().map(|unit| format!("systemd.mask={unit}")).collect();
    masks.join(" ")
}

fn report(rounds: &[Round]) -> String {
    let api = median(rounds.iter().map(|round| round.api));
    let multi_user = median(rounds.iter().map(|round| round.multi_user));
    let plain = median(rounds.iter().map(|round| round.plain_multi_user));
    format!(
        "\nfrom power-on, medians of {} rounds\n  with Cairn, to an API that answers    {}\n  \
         with Cairn, to multi-user.target      {}\n  without Cairn, to multi-user.target   {}\n  \
         ratio of the first to the last        {:.2}",
        rounds.len(),
        seconds(api),
        seconds(multi_user),
        seconds(plain),
        ratio(api, plain)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_cairn_is_masked_and_nothing_else() {
        let units = units(&Paths::at(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))).unwrap();
        for name in ["disks", "node", "controller", "storage", "network", "compute"] {
            assert!(units.contains(&format!("cairn-{name}.service")), "{name}: {units:?}");
        }
        assert!(units.iter().all(|u| u.starts_with("cairn-") || u.starts_with("var-")), "{units:?}");
        let two = ["a.service".to_owned(), "b.mount".to_owned()];
        assert_eq!(masks(&two), "systemd.mask=a.service systemd.mask=b.mount");
    }

    #[test]
    fn the_result_is_the_ratio_of_the_medians() {
        let round = |api, multi_user, plain| Round {
            api: Duration::from_secs(api),
            multi_user: Duration::from_secs(multi_user),
            plain_multi_user: Duration::from_secs(plain),
        };
        let rounds = [round(30, 36, 20), round(40, 44, 30)];
        let text = report(&rounds);
        assert!(text.contains("40.0 s") && text.contains("25.0 s") && text.ends_with("1.40"), "{text}");
    }
}
