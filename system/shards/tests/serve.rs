//! Volumes as a guest sees them: requests, limits, hostile rings, reconnects, a full disk.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_shards::blk::{Export, ServeOptions};
use cairn_shards::media::Switch;
use cairn_shards::pool::{NewVolume, Pool};
use cairn_shards::throttle::{IoLimits, Measure, Rate};
use common::front_end::*;

const SIZE: u64 = 64 << 20;

struct Bench {
    dir: tempfile::TempDir,
    pool: Pool,
    export: Option<Export>,
}

impl Bench {
    fn new(read_only: bool) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        common::make_disk(dir.path(), "d1");
        let pool = Pool::new(dir.path(), None);
        pool.scan().unwrap();
        let new =
            NewVolume { id: "volume-0123456789abcdef".into(), size: SIZE, read_only: false, source: None };
        pool.create(&new).unwrap();
        if read_only {
            let source = Some(new.id);
            pool.create(&NewVolume { id: "image".into(), read_only: true, source, ..new_volume() }).unwrap();
        }
        let mut bench = Bench { dir, pool, export: None };
        bench.export(if read_only { "image" } else { "volume-0123456789abcdef" });
        bench
    }

    fn export(&mut self, id: &str) {
        let options = ServeOptions { dir: self.dir.path().join("run"), gid: None };
        options.prepare().unwrap();
        let volume = self.pool.open(id).unwrap();
        self.export = Some(Export::start(id, 1, volume, &options).unwrap());
    }

    fn socket(&self) -> PathBuf {
        self.export.as_ref().unwrap().socket().to_owned()
    }

    fn guest(&self) -> Guest {
        Guest::connected(&self.socket())
    }
}

fn new_volume() -> NewVolume {
    NewVolume { id: String::new(), size: SIZE, read_only: false, source: None }
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

#[test]
fn a_guest_reads_what_it_wrote() {
    let bench = Bench::new(false);
    let mut guest = bench.guest();
    assert_eq!(guest.config(0, 8), (SIZE / 512).to_le_bytes());
    assert_eq!(guest.read(0, 4096), [0; 4096]);
    let data: Vec<u8> = (0..8192).map(|i| (i % 251) as u8).collect();
    assert_eq!(guest.request(OUT, 100, &Data::Out(&data)), 0);
    assert_eq!(guest.request(FLUSH, 0, &Data::None), 0);
    assert_eq!(guest.read(100, 8192), data);
    assert_eq!(guest.request(WRITE_ZEROES, 0, &Data::Out(&range(100, 1, 0))), 0);
    assert_eq!(guest.request(WRITE_ZEROES, 0, &Data::Out(&range(101, 1, 1))), 0);
    assert_eq!(guest.request(DISCARD, 0, &Data::Out(&range(104, 8, 0))), 0);
    let mut expected = data.clone();
    expected[..1024].fill(0);
    expected[2048..6144].fill(0);
    assert_eq!(guest.read(100, 8192), expected);
    assert_eq!(guest.request(GET_ID, 0, &Data::In(20)), 0);
    assert_eq!(guest.data(0, 20), b"volume-0123456789abc");
}

#[test]
fn what_no_driver_asks_for_is_refused_and_the_device_goes_on() {
    let bench = Bench::new(false);
    let mut guest = bench.guest();
    let end = SIZE / 512;
    assert_eq!(guest.request(IN, end, &Data::In(512)), 1, "past the end");
    assert_eq!(guest.request(IN, end - 1, &Data::In(1024)), 1, "over the end");
    assert_eq!(guest.request(IN, u64::MAX, &Data::In(512)), 1, "overflow");
    assert_eq!(guest.request(OUT, 0, &Data::Out(&[0; 100])), 1, "not whole sectors");
    assert_eq!(guest.request(DISCARD, 0, &Data::Out(&range(0, u32::MAX, 0))), 1);
    assert_eq!(guest.request(DISCARD, 0, &Data::Out(&range(end, 1, 0))), 1);
    assert_eq!(guest.request(DISCARD, 0, &Data::Out(&range(0, 1, 1))), 2, "discard knows no flag");
    assert_eq!(guest.request(WRITE_ZEROES, 0, &Data::Out(&[1; 15])), 1);
    assert_eq!(guest.request(WRITE_ZEROES, 0, &Data::Out(&range(0, 1, 2))), 2);
    assert_eq!(guest.request(77, 0, &Data::None), 2, "an unknown request");
    assert_eq!(guest.read(0, 512), [0; 512]);
}

/// Never faster than its limits; how much slower is the machine's affair.
#[test]
fn a_limited_guest_waits_and_loses_nothing() {
    let mut bench = Bench::new(false);
    bench.export = None;
    let options = ServeOptions { dir: bench.dir.path().join("run"), gid: None };
    let switch = Arc::new(Switch::new(bench.pool.open("volume-0123456789abcdef").unwrap()));
    switch.limit(&IoLimits::from([(Measure::WriteIops, Rate::steady(20))]));
    bench.export = Some(Export::start("limited", 1, switch.clone(), &options).unwrap());
    let mut guest = bench.guest();
    let begun = Instant::now();
    // All at once: they wait on the ring.
    for slot in 0..8 {
        guest.submit(slot, OUT, u64::from(slot) * 8, &Data::Out(&[slot as u8 + 1; 4096]));
    }
    guest.kick();
    guest.wait(8);
    // The first three at once, and one each 50 ms.
    assert!(begun.elapsed() >= Duration::from_millis(240), "{:?}", begun.elapsed());
    for slot in 0..8 {
        assert_eq!(guest.status(slot), 0);
    }
    assert_eq!(guest.read(7 * 8, 4096), [8; 4096], "reads are not limited");
    switch.limit(&IoLimits::new());
    assert_eq!(guest.request(OUT, 0, &Data::Out(&[9; 4096])), 0);
}

#[test]
fn a_hostile_ring_harms_nobody() {
    let bench = Bench::new(false);
    let mut guest = bench.guest();
    // Each of these is a chain that leads out of memory, in circles or nowhere.
    let head = guest.header(0, IN, 0);
    let cases: [&dyn Fn(&Guest); 7] = [
        &|g| g.descriptor(0, MEMORY - 8, 16, NEXT, 1),
        &|g| g.descriptor(0, u64::MAX - 4, 16, 0, 0),
        &|g| g.descriptor(0, head, 16, NEXT, 0),
        &|g| g.descriptor(0, head, 16, NEXT, QUEUE_SIZE + 5),
        &|g| {
            g.descriptor(0, head, 16, NEXT, 1);
            g.descriptor(1, MEMORY - 512, 1024, WRITE | NEXT, 2);
            g.descriptor(2, head + 16, 1, WRITE, 0);
        },
        &|g| g.descriptor(0, head, 16, 4, 0),
        &|g| {
            g.descriptor(0, head, 16, NEXT, 1);
            g.descriptor(1, 0, u32::MAX, WRITE | NEXT, 1);
        },
    ];
    for (i, case) in cases.iter().enumerate() {
        case(&guest);
        guest.offer(0);
        guest.kick();
        assert_eq!(guest.wait(1), [(0, 0)], "case {i}");
    }
    // A head outside the table is never completed; an available index far ahead is never followed.
    guest.offer(QUEUE_SIZE + 1);
    guest.kick();
    guest.set_avail(30_000);
    guest.kick();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(guest.completed(), []);
    let mut honest = {
        guest.disconnect();
        bench.guest()
    };
    assert_eq!(honest.read(0, 512), [0; 512]);
}

#[test]
fn completions_come_in_ring_order() {
    let bench = Bench::new(false);
    let mut guest = bench.guest();
    for round in 0..20u64 {
        for slot in 0..SLOTS {
            let data = vec![(u64::from(slot) + round) as u8; 4096];
            let kind = if slot % 16 == 15 { FLUSH } else { OUT };
            let data = if kind == FLUSH { Data::None } else { Data::Out(&data) };
            guest.submit(slot, kind, u64::from(slot) * 8, &data);
        }
        guest.kick();
        let done: Vec<u16> = guest.wait(SLOTS.into()).iter().map(|(head, _)| *head).collect();
        assert_eq!(done, (0..SLOTS).map(|s| 3 * s).collect::<Vec<_>>());
    }
}

#[test]
fn a_read_only_volume_cannot_be_changed() {
    let bench = Bench::new(true);
    let mut guest = bench.guest();
    assert_eq!(guest.request(OUT, 0, &Data::Out(&[1; 512])), 1);
    assert_eq!(guest.request(DISCARD, 0, &Data::Out(&range(0, 1, 0))), 1);
    assert_eq!(guest.request(WRITE_ZEROES, 0, &Data::Out(&range(0, 1, 0))), 1);
    assert_eq!(guest.request(FLUSH, 0, &Data::None), 0);
    assert_eq!(guest.read(0, 512), [0; 512]);
}

#[test]
fn guests_come_and_go_and_a_stop_ends_all() {
    let mut bench = Bench::new(false);
    let fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut guest = bench.guest();
    assert_eq!(guest.request(OUT, 8, &Data::Out(&[7; 512])), 0);
    guest.disconnect();
    let mut before = 0;
    for round in 0..30 {
        let mut next = bench.guest();
        assert_eq!(next.read(8, 512), [7; 512]);
        if round == 10 {
            before = fds();
        }
    }
    // Other tests of this binary open files too, for a while: only a leak per connection would be this large and stay.
    let until = Instant::now() + Duration::from_secs(10);
    while fds() >= before + 15 {
        assert!(Instant::now() < until, "{before} -> {}", fds());
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut last = bench.guest();
    assert_eq!(last.read(8, 512), [7; 512]);
    let mut export = bench.export.take().unwrap();
    assert!(export.stop(Duration::from_secs(60)));
    assert!(!export.socket().exists());
    last.submit(0, OUT, 8, &Data::Out(&[9; 512]));
    last.kick();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(last.completed(), [], "nobody serves a guest whose export has ended");
}

#[test]
fn a_stale_socket_is_replaced() {
    let mut bench = Bench::new(false);
    let socket = bench.socket();
    drop(bench.export.take());
    std::thread::sleep(Duration::from_millis(50));
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(Guest::new().connect(&socket).is_err());
    bench.export("volume-0123456789abcdef");
    assert_eq!(bench.guest().read(0, 512), [0; 512]);
}

#[test]
fn a_ring_can_be_stopped_and_started_while_it_is_busy() {
    let bench = Bench::new(false);
    let mut guest = bench.guest();
    for _ in 0..20 {
        for slot in 0..SLOTS {
            guest.submit(slot, OUT, u64::from(slot) * 8, &Data::Out(&[slot as u8; 4096]));
        }
        guest.kick();
        guest.stop_ring();
        guest.disconnect();
        guest.connect(&bench.socket()).unwrap();
        guest.wait(SLOTS.into());
        assert!((0..SLOTS).all(|slot| guest.status(slot) == 0));
    }
}

#[test]
fn without_a_cache_each_write_is_synced() {
    let bench = Bench::new(false);
    let mut guest = bench.guest();
    assert_eq!(guest.config(32, 1), [1]);
    guest.set_writeback(false);
    assert_eq!(guest.config(32, 1), [0]);
    assert_eq!(guest.request(OUT, 0, &Data::Out(&[1; 512])), 0);
    // A front-end that knows neither flush nor cache gets write-through too.
    drop(guest);
    let mut plain = Guest::new().without(1 << 9 | 1 << 11);
    plain.connect(&bench.socket()).unwrap();
    assert_eq!(plain.request(OUT, 0, &Data::Out(&[2; 512])), 0);
    assert_eq!(plain.read(0, 512), [2; 512]);
}

#[test]
fn two_queues_of_work_on_one_volume_do_not_mix() {
    let bench = Arc::new(Bench::new(false));
    // One front-end at a time is served: the second waits its turn.
    let mut first = bench.guest();
    let waiting = {
        let bench = bench.clone();
        std::thread::spawn(move || bench.guest().read(0, 512))
    };
    assert_eq!(first.request(OUT, 0, &Data::Out(&[3; 512])), 0);
    std::thread::sleep(Duration::from_millis(50));
    assert!(!waiting.is_finished());
    first.disconnect();
    assert_eq!(waiting.join().unwrap(), [3; 512]);
}

#[test]
fn a_guest_is_told_that_its_volume_has_grown_and_only_then() {
    let bench = Bench::new(false);
    let mut guest = bench.guest();
    let told = guest.listens();
    let export = bench.export.as_ref().unwrap();
    let heard = || {
        let mut message = [0; 12];
        std::io::Read::read_exact(&mut &told, &mut message).ok().map(|()| message)
    };
    export.heed_size();
    assert_eq!(heard(), None, "nothing has changed");
    bench.pool.open("volume-0123456789abcdef").unwrap().grow(2 * SIZE).unwrap();
    export.heed_size();
    export.heed_size();
    assert_eq!(heard(), Some([2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]), "the configuration has changed");
    assert_eq!(heard(), None, "once");
    assert_eq!(guest.config(0, 8), (2 * SIZE / 512).to_le_bytes());
    let sector = (2 * SIZE - 4096) / 512;
    assert_eq!(guest.request(OUT, sector, &Data::Out(&[7; 4096])), 0);
    assert_eq!(guest.read(sector, 4096), [7; 4096]);
}
