//! A volume that will move here, as QEMU opens it by NBD before it has: opening waits for nothing, and what is asked
//! for too early is done once the volume is here. With a real qemu-io.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::blk::{Export, ServeOptions};
use crate::format;
use crate::media::{Media, Prepared, Switch};
use crate::model::NBD_EXTENSION;
use crate::pool::{NewVolume, Pool};
use crate::sys::{Pieces, Sink, Source};

const SIZE: u64 = 64 << 20;
const ID: &str = "volume-0123456789abcdef";

/// What is prepared, with a count of the requests that it held.
struct Counted {
    prepared: Prepared,
    held: AtomicUsize,
}

impl Counted {
    fn count<T>(&self, result: io::Result<T>) -> io::Result<T> {
        self.held.fetch_add(usize::from(result.is_err()), SeqCst);
        result
    }
}

impl Media for Counted {
    fn size(&self) -> u64 {
        self.prepared.size()
    }

    fn read_only(&self) -> bool {
        self.prepared.read_only()
    }

    fn is_full(&self) -> bool {
        self.prepared.is_full()
    }

    fn read(&self, offset: u64, len: u64, to: &mut Pieces<'_, Sink>) -> io::Result<()> {
        self.count(self.prepared.read(offset, len, to))
    }

    fn write(&self, offset: u64, len: u64, from: &mut Pieces<'_, Source>) -> io::Result<()> {
        self.count(self.prepared.write(offset, len, from))
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.count(self.prepared.discard(offset, len))
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.count(self.prepared.write_zeroes(offset, len, unmap))
    }

    fn flush(&self) -> io::Result<()> {
        self.prepared.flush()
    }
}

fn qemu_io(socket: &Path, commands: &[&str]) -> Child {
    let mut command = Command::new("qemu-io");
    command.args(["-f", "raw"]);
    for c in commands {
        command.args(["-c", c]);
    }
    command.arg(format!("nbd+unix:///?socket={}", socket.display()));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("these tests need qemu-io")
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What it said; it must have succeeded.
fn ended(mut child: Child) -> String {
    until("qemu-io ends", || child.try_wait().unwrap().is_some());
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    assert!(output.status.success() && !said.contains("failed"), "{said}");
    said
}

#[test]
fn qemu_opens_what_is_prepared_and_gets_its_answers_when_it_has_moved() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("d1");
    fs::create_dir(&disk).unwrap();
    fs::write(disk.join(format::MARKER), r#"{"format":1,"disk":"d1","cloud":"c1"}"#).unwrap();
    let pool = Pool::new(dir.path(), None);
    pool.scan().unwrap();
    pool.create(&NewVolume { id: ID.into(), size: SIZE, read_only: false, source: None }).unwrap();
    let volume = pool.open(ID).unwrap();
    Media::write_slice(&*volume, 0, &[0x5a; 4096]).unwrap();

    let prepared = Prepared { size: SIZE, read_only: false };
    let counted = Arc::new(Counted { prepared, held: AtomicUsize::new(0) });
    let switch = Arc::new(Switch::new(counted.clone()));
    let options = ServeOptions { dir: dir.path().join("run"), gid: None };
    options.prepare().unwrap();
    let export = Export::start(ID, 0, switch.clone(), &options).unwrap();
    let socket = export.socket().with_extension(NBD_EXTENSION);

    let said = ended(qemu_io(&socket, &["length", "flush"]));
    assert!(said.contains("64 MiB"), "{said}");
    assert_eq!(counted.held.load(SeqCst), 0, "to open it, nothing is read");

    let commands = ["read -P 0x5a 0 4k", "write -P 0x77 4k 4k", "write -z 8k 4k", "discard 12k 4k", "flush"];
    let mut early = qemu_io(&socket, &commands);
    until("a read is held", || counted.held.load(SeqCst) > 0);
    assert_eq!(early.try_wait().unwrap(), None);
    switch.set(volume.clone());
    ended(early);
    let mut read = vec![0; 16 << 10];
    Media::read_slice(&*volume, 0, &mut read).unwrap();
    let expected = [[0x5a; 4096], [0x77; 4096], [0; 4096], [0; 4096]].concat();
    assert!(read == expected);
}
