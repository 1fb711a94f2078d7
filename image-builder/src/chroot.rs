//! Programs of a Debian tree (the tools tree, the appliance's root tree) run on this host: in a mount
//! namespace of their own, with the host's devices and the workspace at its usual path.
//!
//! The tree itself is never written to and gets no mount points: a throw-away root of symlinks and bind
//! mounts is put together in a tmpfs that vanishes with the process.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::exec;
use crate::paths::{Paths, ensure_dir};

/// Assembles the root and enters it. Arguments: tree, place to mount on, folder to share, program, its arguments.
/// It execs to its end, so the process id stays the one that was started.
const ENTER: &str = r#"
set -e
tree=$1 new=$2 share=$3 here=$PWD
shift 3
mount -t tmpfs -o mode=0755 tmpfs "$new"
for link in bin sbin lib lib64; do ln -s "usr/$link" "$new/$link"; done
for part in usr etc; do mkdir "$new/$part"; mount --bind "$tree/$part" "$new/$part"; done
for part in dev sys; do mkdir "$new/$part"; mount --rbind "/$part" "$new/$part"; done
for part in proc run tmp var root; do mkdir "$new/$part"; done
mount -t proc proc "$new/proc" 2>/dev/null || mount --rbind /proc "$new/proc"
mkdir -p "$new$share"
mount --rbind "$share" "$new$share"
mount --rbind /tmp "$new/tmp"
exec chroot "$new" /usr/bin/env -C "$here" PATH=/usr/sbin:/usr/bin "$@"
"#;

/// A command that runs `program` of the Debian tree `tree`. Its working folder must be in the workspace.
pub fn command(paths: &Paths, tree: &Path, program: &str) -> Result<Command> {
    let new = ensure_dir(paths.cache().join("chroot"))?;
    // A checkout reached through a symlink would not be found inside.
    let share = paths.workspace().canonicalize().context("the workspace is gone")?;
    let mut command =
        exec::command("unshare", ["--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"]);
    command.arg(tree).arg(new).arg(&share).arg(program).current_dir(share);
    Ok(command)
}
