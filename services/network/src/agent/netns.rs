//! Network namespaces by name, as `ip netns` keeps them: files in `/run/netns` with a namespace mounted on.
//!
//! Every step that must be *in* a namespace runs in a thread of its own that ends with it, so that no thread of
//! the runtime ever changes its namespace, and nothing forks.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, statfs};

/// Where named namespaces live.
pub const DIRECTORY: &str = "/run/netns";
/// The magic number of the kernel's namespace file system.
const NSFS: FsType = FsType(0x6e73_6673);

/// The file of a namespace.
pub fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// The names of all live namespaces.
pub fn list() -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(DIRECTORY) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| is_live(&path(name))).collect())
}

fn is_live(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == NSFS)
}

/// Opens a namespace, for a veth's end to be put there.
pub fn open(name: &str) -> io::Result<File> {
    File::open(path(name))
}

/// Which namespace a name stands for now.
pub fn inode(name: &str) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(path(name))?.ino())
}

/// Makes a namespace; nothing if it lives already.
pub async fn create(name: &str) -> io::Result<()> {
    let path = path(name);
    if is_live(&path) {
        return Ok(());
    }
    prepare_directory()?;
    // A file without a namespace on it is what a crash left between the two steps below.
    File::create(&path)?;
    throw_away(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let own = Path::new("/proc/thread-self/ns/net");
        Ok(mount(Some(own), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
    })
    .await
}

/// Makes `/run/netns` a shared mount point, so that namespaces made here are seen by all who see it.
fn prepare_directory() -> io::Result<()> {
    let directory = Path::new(DIRECTORY);
    std::fs::create_dir_all(directory)?;
    let share =
        || mount(None::<&str>, directory, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    if share().is_err() {
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(directory), directory, None::<&str>, bind, None::<&str>)?;
        share()?;
    }
    Ok(())
}

/// Removes a namespace; its links die with it once its last user is gone.
pub fn delete(name: &str) -> io::Result<()> {
    let path = path(name);
    if is_live(&path) {
        umount2(&path, MntFlags::MNT_DETACH)?;
    }
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Runs `f` in a namespace (the node's own if `None`), off the runtime.
pub async fn within<T, F>(name: Option<&str>, f: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    let file = name.map(open).transpose()?;
    throw_away(move || {
        if let Some(file) = file {
            setns(file, CloneFlags::CLONE_NEWNET)?;
        }
        f()
    })
    .await
}

async fn throw_away<T, F>(f: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    let (done, wait) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    std::thread::Builder::new().name("netns".into()).stack_size(256 * 1024).spawn(move || {
        // Sockets made here are driven by the runtime, wherever they were made.
        let _in_runtime = runtime.enter();
        // Who asked may have been dropped; then nobody wants to know.
        let _ = done.send(f());
    })?;
    wait.await.map_err(|_| io::Error::other("the namespace thread panicked"))?
}
