//! Running Ceph's programs: `rbd` and `rados`, and the `qemu-nbd` of a volume in use. They find the cluster, the user and the
//! key in files of a directory that only we can read, so that none of it is on a command line.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::AsyncReadExt;
use tokio::process::Child;

use crate::external::driver::Content;
use crate::external::model::{Access, Secret};
use crate::sys::{self, Confinement};

const CONF: &str = "ceph.conf";
const KEYRING: &str = "keyring";
/// How long a program may take that moves no content. The cluster may be busy; one that cannot be reached says so sooner.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the first contact may take, in seconds.
const CONTACT_S: u32 = 15;
/// How much of a content is handed on at a time, in bytes.
const CHUNK: usize = 256 << 10;
/// The most that is repeated of what a program said.
const SAID_MAX: usize = 300;

/// The errors by which a program says that it may go well another time: busy (somebody who is gone has not been forgotten
/// yet), no answer in time, and that it was itself taken for gone.
const PASSING: [i32; 3] = [16, 110, 108];

/// The programs, for one user of one cluster.
#[derive(Debug, Clone)]
pub struct Programs {
    dir: PathBuf,
    user: String,
}

/// A program that is to be run.
pub struct Ask {
    command: Command,
    what: String,
}

impl Programs {
    /// Writes what they must know.
    pub fn prepare(dir: &Path, access: &Access, secret: &Secret) -> io::Result<Programs> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        fs::set_permissions(dir, Permissions::from_mode(0o700))?;
        let keyring = dir.join(KEYRING);
        write(&keyring, &format!("[client.{}]\n\tkey = {}\n", access.user, secret.0))?;
        write(&dir.join(CONF), &configuration(&access.monitors, &keyring))?;
        Ok(Programs { dir: dir.into(), user: access.user.clone() })
    }

    fn conf(&self) -> PathBuf {
        self.dir.join(CONF)
    }

    /// `rbd`.
    pub fn rbd(&self, words: &[&str]) -> Ask {
        self.program("rbd", words)
    }

    /// `rados`.
    pub fn rados(&self, words: &[&str]) -> Ask {
        self.program("rados", words)
    }

    fn program(&self, name: &str, words: &[&str]) -> Ask {
        let mut command = bare(name);
        command.arg("--conf").arg(self.conf()).args(["--id", &self.user]).args(words);
        let verbs: Vec<&str> =
            words.iter().take_while(|w| !w.starts_with('-') && !w.contains('/')).copied().collect();
        Ask { command, what: format!("{name} {}", verbs.join(" ")) }
    }

    /// What serves an image at a socket, and keeps nothing of it in a cache.
    pub fn server(&self, pool: &str, image: &str, socket: &Path, read_only: bool) -> Command {
        let mut command = bare("qemu-nbd");
        let conf = self.conf();
        let image = format!(
            "driver=rbd,pool={pool},image={image},user={},conf={}",
            self.user,
            // A comma ends a value; two are one.
            conf.display().to_string().replace(',', ",,")
        );
        command.args(["--persistent", "--cache=none", "--discard=unmap", "--detect-zeroes=off"]);
        if read_only {
            command.arg("--read-only");
        }
        command.arg("--socket").arg(socket).args(["--image-opts", &image]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

impl Ask {
    /// Runs it to its end. It must go well.
    pub async fn done(self) -> io::Result<()> {
        self.answer().await.map(drop)
    }

    /// Runs it to its end; answers what it says.
    pub async fn answer(self) -> io::Result<String> {
        let (what, ended) = self.run().await?;
        judged(&what, &ended)
    }

    /// Runs it to its end; answers what it says, or nothing if that is that error.
    pub async fn unless(self, error: i32) -> io::Result<Option<String>> {
        let (what, ended) = self.run().await?;
        if ended.status.code() == Some(error) {
            return Ok(None);
        }
        judged(&what, &ended).map(Some)
    }

    async fn run(mut self) -> io::Result<(String, Output)> {
        confined(&mut self.command);
        let mut command = tokio::process::Command::from(self.command);
        let running = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .output();
        match tokio::time::timeout(PATIENCE, running).await {
            Ok(ended) => Ok((self.what.clone(), ended.map_err(|e| unstarted(&self.what, &e))?)),
            Err(_) => {
                let why = format!("{}: no answer within {} s", self.what, PATIENCE.as_secs());
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            }
        }
    }

    /// Runs it to its end on this thread. It must go well.
    pub fn now(self) -> io::Result<String> {
        let (what, ended) = self.run_now()?;
        judged(&what, &ended)
    }

    /// Runs it to its end on this thread; that error is as good.
    pub fn unless_now(self, error: i32) -> io::Result<()> {
        let (what, ended) = self.run_now()?;
        if ended.status.code() == Some(error) { Ok(()) } else { judged(&what, &ended).map(drop) }
    }

    fn run_now(mut self) -> io::Result<(String, Output)> {
        confined(&mut self.command);
        let ended = self.command.stdin(Stdio::null()).output();
        let ended = ended.map_err(|e| unstarted(&self.what, &e))?;
        Ok((self.what, ended))
    }

    /// Starts it with an input that is to be filled.
    pub fn with_input(mut self) -> io::Result<Child> {
        confined(&mut self.command);
        let mut command = tokio::process::Command::from(self.command);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        command.spawn().map_err(|e| unstarted(&self.what, &e))
    }

    /// Starts it; what it writes is the content.
    pub fn output(mut self) -> io::Result<Content> {
        confined(&mut self.command);
        let what = self.what;
        let mut command = tokio::process::Command::from(self.command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn().map_err(|e| unstarted(&what, &e))?;
        let chunks = futures_util::stream::try_unfold(Some(child), move |child| {
            let what = what.clone();
            async move {
                let Some(mut child) = child else { return Ok(None) };
                let Some(from) = child.stdout.as_mut() else { return Ok(None) };
                let mut bytes = vec![0; CHUNK];
                let read = from.read(&mut bytes).await?;
                if read == 0 {
                    ended(&what, child).await?;
                    return Ok(None);
                }
                bytes.truncate(read);
                Ok(Some((bytes::Bytes::from(bytes), Some(child))))
            }
        });
        Ok(chunks.boxed())
    }
}

/// Waits for the end of a program, which must go well.
pub async fn ended(what: &str, child: Child) -> io::Result<()> {
    judged(what, &child.wait_with_output().await?).map(drop)
}

fn bare(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").current_dir("/");
    command
}

fn confined(command: &mut Command) {
    sys::confine(command, Confinement::Ours);
}

fn unstarted(what: &str, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{what} could not be run: {e}"))
}

/// What a program said; an error with its reason if it failed.
fn judged(what: &str, ended: &Output) -> io::Result<String> {
    if ended.status.success() {
        return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let reason = said.lines().rev().map(str::trim).find(|l| !l.is_empty()).unwrap_or("it gave no reason");
    let reason: String = reason.chars().take(SAID_MAX).collect();
    let kind = match ended.status.code() {
        Some(code) if PASSING.contains(&code) => io::ErrorKind::ResourceBusy,
        Some(code) => io::Error::from_raw_os_error(code).kind(),
        None => io::ErrorKind::Interrupted,
    };
    Err(io::Error::new(kind, format!("{what}: {reason}")))
}

fn configuration(monitors: &[String], keyring: &Path) -> String {
    format!(
        "[global]
mon_host = {}
keyring = {}
client_mount_timeout = {CONTACT_S}
rados_mount_timeout = {CONTACT_S}
log_file =
admin_socket =
rbd_cache = false
rbd_default_clone_format = 2
rbd_default_features = 61
",
        monitors.join(","),
        keyring.display()
    )
}

/// Writes a file that only we can read, whole.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_key_is_in_a_file_of_ours_and_on_no_command_line() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("a/b");
        let access = Access {
            monitors: vec!["10.0.0.1".into(), "10.0.0.2".into()],
            pool: "p".into(),
            user: "u".into(),
        };
        let programs = Programs::prepare(&home, &access, &Secret("KEYKEYKEY".into())).unwrap();
        Programs::prepare(&home, &access, &Secret("KEYKEYKEY".into())).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&home), mode(&home.join(KEYRING)), mode(&home.join(CONF))), (0o700, 0o600, 0o600));
        assert!(fs::read_to_string(home.join(KEYRING)).unwrap().contains("[client.u]\n\tkey = KEYKEYKEY\n"));
        let conf = fs::read_to_string(home.join(CONF)).unwrap();
        assert!(conf.contains("mon_host = 10.0.0.1,10.0.0.2\n") && !conf.contains("KEYKEYKEY"));
        let server = programs.server("p", "i", Path::new("/s"), false);
        assert!(!format!("{server:?} {:?}", programs.rbd(&["ls"]).command).contains("KEYKEYKEY"));
    }

    #[tokio::test]
    async fn an_answer_is_judged_by_its_errno() {
        let ask = |script: &str| {
            let mut command = bare("sh");
            command.args(["-c", script]);
            Ask { command, what: "rbd thing".into() }
        };
        assert_eq!(ask("echo yes").answer().await.unwrap(), "yes\n");
        assert_eq!(ask("exit 2").unless(2).await.unwrap(), None);
        let busy =
            ask("echo noise >&2; echo 'rbd: image has watchers' >&2; exit 16").done().await.unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        assert_eq!(busy.to_string(), "rbd thing: rbd: image has watchers");
        assert_eq!(ask("exit 28").now().unwrap_err().kind(), io::ErrorKind::StorageFull);
        let content = ask("printf abc; exit 5").output().unwrap();
        let parts: Vec<io::Result<bytes::Bytes>> = content.collect().await;
        assert!(parts.first().is_some_and(|p| p.as_ref().is_ok_and(|b| b == "abc")));
        assert!(parts.last().is_some_and(Result::is_err), "a stream that was cut off is no whole one");
    }
}
