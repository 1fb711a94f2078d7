//! The log on a disk that loses its power: each append and each cut is there whole or not at all, and what was promised
//! always is.

use redb::StorageBackend;

use super::frame::Rows;
use super::{Log, LogFile};
use crate::kv::StoreError;

#[path = "../../tests/common/disk.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with other tests; see there")]
mod disk;

use disk::{Break, Content, Dice, Disk};

/// So small that files are begun anew all the time.
const FILE_BYTES: u64 = 5 * 4096;

fn open(disk: &Disk, replica: u64) -> Result<Log, StoreError> {
    let [_, first, second] = disk.files().map(|file| Box::new(file) as LogFile);
    Log::open([first, second], replica, FILE_BYTES)
}

/// What the log must have: entries from `first` on.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    first: u64,
    entries: Vec<Vec<u8>>,
}

impl Model {
    fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn of(log: &Log, first: u64) -> Model {
        let mut model = Model { first, entries: Vec::new() };
        let take = |entry: &[u8]| {
            model.entries.push(entry.to_vec());
            Ok(true)
        };
        log.read(first, u64::MAX, take).unwrap();
        model
    }
}

#[derive(Debug)]
enum Step {
    Append(u64, Vec<Vec<u8>>),
    Cut(u64),
}

impl Step {
    fn any(model: &Model, dice: &mut Dice) -> Step {
        let back = model.next() - dice.below(model.entries.len().min(4) as u64 + 1);
        if dice.below(4) == 0 {
            return Step::Cut(back);
        }
        // Now and then in the place of others, and sometimes of several blocks.
        let from = if dice.below(4) == 0 { back } else { model.next() };
        let entry = |dice: &mut Dice| {
            let length = if dice.below(5) == 0 { dice.below(9000) } else { dice.below(40) };
            (0..length).map(|_| dice.below(256) as u8).collect()
        };
        Step::Append(from, (0..1 + dice.below(4)).map(|_| entry(dice)).collect())
    }

    fn on_model(&self, model: &mut Model) {
        let (from, more): (u64, &[Vec<u8>]) = match self {
            Step::Append(from, entries) => (*from, entries),
            Step::Cut(from) => (*from, &[]),
        };
        model.entries.truncate((from - model.first) as usize);
        model.entries.extend_from_slice(more);
    }

    fn on_log(&self, log: &Log) -> Result<(), StoreError> {
        let mut buffer = Vec::new();
        match self {
            Step::Cut(from) => log.cut(*from, &mut buffer),
            Step::Append(from, entries) => {
                let mut rows = Rows::default();
                entries.iter().for_each(|entry| rows.push(entry));
                log.append(*from, &rows, &mut buffer)
            }
        }
    }
}

fn run(seed: u64) -> u64 {
    let dice = &mut Dice(seed);
    let mut disk = Disk::new(Content::default(), Break::Never);
    let mut log = open(&disk, 7).unwrap();
    let mut model = Model { first: 1, entries: Vec::new() };
    for _ in 0..120 {
        if dice.below(6) == 0 && !model.entries.is_empty() {
            let upto = dice.below(model.entries.len() as u64);
            log.release(model.first + upto);
            model.entries.drain(..=upto as usize);
            model.first += upto + 1;
        }
        let step = Step::any(&model, dice);
        let mut after = model.clone();
        step.on_model(&mut after);
        let fails = dice.below(4) == 0;
        if fails {
            disk.break_after(dice.below(4));
        }
        let done = step.on_log(&log);
        assert!(done.is_ok() || fails, "seed {seed}: {done:?}");
        if fails {
            disk = Disk::new(disk.after_power_failure(dice), Break::Never);
            log = open(&disk, 7).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        }
        let found = Model::of(&log, model.first);
        if found != after {
            assert!(
                done.is_err() && found == model,
                "seed {seed}: {step:?} {done:?}\n{model:?}\n{after:?}\n{found:?}"
            );
        }
        model = found;
        assert!(log.span().map_or(model.first, |(_, next)| next) <= model.next().max(model.first));
    }
    log.number()
}

#[test]
fn what_was_promised_is_there_and_nothing_by_half() {
    for seed in 0..400 {
        assert!(run(seed) > 50);
    }
}

#[test]
fn files_are_begun_anew_and_not_longer_than_they_must_be() {
    let disk = Disk::new(Content::default(), Break::Never);
    let log = open(&disk, 7).unwrap();
    for index in 1..1000 {
        Step::Append(index, vec![vec![1; 100]]).on_log(&log).unwrap();
        log.release(index - index.min(3));
    }
    let [_, first, second] = disk.files();
    assert!(first.len().unwrap() + second.len().unwrap() <= 2 * (FILE_BYTES + 4096));
    assert_eq!(log.span(), Some((997, 1000)));
}

#[test]
fn another_replicas_frames_are_none() {
    let disk = Disk::new(Content::default(), Break::Never);
    Step::Append(1, vec![b"theirs".to_vec()]).on_log(&open(&disk, 7).unwrap()).unwrap();
    let log = open(&disk, 8).unwrap();
    assert_eq!((log.span(), log.number()), (None, 0));
}

#[test]
fn a_frame_that_is_damaged_is_no_end() {
    for damaged in 0..5 {
        let disk = Disk::new(Content::default(), Break::Never);
        let log = open(&disk, 7).unwrap();
        for index in 1..=5 {
            Step::Append(index, vec![vec![index as u8; 30]]).on_log(&log).unwrap();
        }
        let [_, first, _] = disk.files();
        first.write(damaged * 4096 + 60, &[0xff]).unwrap();
        match open(&disk, 7) {
            Ok(log) => assert_eq!((damaged, log.number()), (4, 4), "the last may never have been whole"),
            Err(e) => assert!(e.to_string().contains("damaged"), "{e}"),
        }
    }
}
