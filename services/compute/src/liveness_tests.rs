//! Two nodes, one guest, a lease: every schedule that is tried ends with at most one copy running at a time.

use super::*;
use proptest::prelude::*;

/// How long a lease lasts, and how often its renewal is asked for.
const LEASE_S: f64 = 10.0;
const RENEW_S: f64 = 2.0;
/// How often each process looks.
const LOOK_S: f64 = 1.0;
/// How long a node may take from deciding to stop its guests until they are stopped.
const STOP_S: f64 = 4.0;
/// How much faster or slower than time a clock may be.
const DRIFT: f64 = 0.05;
const TICK_S: f64 = 0.25;

/// What happens in one tick.
#[derive(Debug, Clone, Copy)]
struct Weather {
    /// Whether the first node reaches the group.
    linked: bool,
    /// Whether the answer to a renewal gets back to it.
    answered: bool,
    /// How long a renewal is under way before it is committed, in seconds.
    delay: f64,
    /// Whether the process that would take over is restarted.
    forgets: bool,
}

fn weather() -> impl Strategy<Value = Vec<Weather>> {
    // Phases rather than ticks: what matters lasts for seconds.
    let phase = (1usize..200, any::<bool>(), any::<bool>(), 0.0..8.0f64, 0u8..40).prop_map(
        |(ticks, linked, answered, delay, forgets)| {
            vec![Weather { linked, answered, delay, forgets: forgets == 0 }; ticks]
        },
    );
    proptest::collection::vec(phase, 1..8).prop_map(|phases| phases.concat())
}

/// The first node and what the group knows.
struct World {
    now: f64,
    /// The node's clock, in its own seconds.
    node_clock: f64,
    node_rate: f64,
    other_rate: f64,
    asked_next: f64,
    renewals: Vec<(f64, f64)>,
    renewed_by_node: Option<f64>,
    lease_ends: f64,
    /// The node that the record names: the first, or the other.
    moved: bool,
    /// What the node's copy of the record says; stale while it is cut off.
    believes_own: bool,
    runs_here_until: Option<f64>,
    runs_here: bool,
    runs_there: bool,
}

impl World {
    fn new(node_rate: f64, other_rate: f64) -> World {
        World {
            now: 0.0,
            node_clock: 0.0,
            node_rate,
            other_rate,
            asked_next: 0.0,
            renewals: Vec::new(),
            renewed_by_node: None,
            lease_ends: 0.0,
            moved: false,
            believes_own: true,
            runs_here_until: None,
            runs_here: false,
            runs_there: false,
        }
    }

    /// The node asks for a renewal; some time later it is committed, perhaps, and perhaps it hears of that.
    fn renew(&mut self, w: Weather) {
        if self.node_clock >= self.asked_next {
            self.asked_next = self.node_clock + RENEW_S;
            if w.linked {
                self.renewals.push((self.now + w.delay, self.node_clock));
            }
        }
        let due: Vec<_> = self.renewals.iter().copied().filter(|(at, _)| *at <= self.now).collect();
        self.renewals.retain(|(at, _)| *at > self.now);
        for (_, asked) in due.into_iter().filter(|_| w.linked) {
            self.lease_ends = self.now + LEASE_S;
            if w.answered {
                self.renewed_by_node = Some(self.renewed_by_node.unwrap_or(asked).max(asked));
            }
        }
    }

    /// The node's agent. What it reads before a start is the group's word, or nothing.
    fn node(&mut self, w: Weather) {
        if w.linked && w.answered {
            self.believes_own = !self.moved;
        }
        let age = self.renewed_by_node.map(|at| Duration::from_secs_f64((self.node_clock - at).max(0.0)));
        match standing(false, age) {
            Standing::Cut if self.runs_here && self.runs_here_until.is_none() => {
                self.runs_here_until = Some(self.now + STOP_S);
            }
            Standing::Clear if !self.runs_here && w.linked && w.answered && !self.moved => {
                self.runs_here = true;
                self.runs_here_until = None;
            }
            _ => {}
        }
        if self.runs_here && !self.believes_own && self.runs_here_until.is_none() {
            self.runs_here_until = Some(self.now + STOP_S);
        }
        if self.runs_here_until.is_some_and(|at| at <= self.now) {
            (self.runs_here, self.runs_here_until) = (false, None);
        }
    }
}

fn play(weather: &[Weather], node_rate: f64, other_rate: f64) -> Result<World, String> {
    let mut world = World::new(node_rate, other_rate);
    let (start, mut absences, mut looks_next) = (Instant::now(), Absences::default(), 0.0);
    for w in weather {
        world.renew(*w);
        world.node(*w);
        // The other's clock, from when the node is lost; the record is read in the transaction that moves it.
        let clock = start + Duration::from_secs_f64(world.now * world.other_rate);
        if w.forgets {
            absences = Absences::default();
        }
        if world.now >= looks_next {
            looks_next = world.now + LOOK_S;
            let present = world.lease_ends > world.now;
            absences.note("n", present, clock);
            if absences.lost("n", clock) && !present && !world.moved {
                world.moved = true;
                world.runs_there = true;
            }
        }
        if world.runs_here && world.runs_there {
            return Err(format!("it runs twice at {:.2} s", world.now));
        }
        world.now += TICK_S;
        world.node_clock += TICK_S * world.node_rate;
    }
    Ok(world)
}

fn calm(ticks: usize, linked: bool) -> Vec<Weather> {
    vec![Weather { linked, answered: true, delay: 0.0, forgets: false }; ticks]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn a_guest_never_runs_twice(
        weather in weather(), node_rate in 1.0 - DRIFT..1.0 + DRIFT, other_rate in 1.0 - DRIFT..1.0 + DRIFT,
    ) {
        prop_assert!(play(&weather, node_rate, other_rate).map(drop).is_ok());
    }
}

#[test]
fn a_guest_of_a_node_that_is_cut_off_runs_elsewhere_within_a_minute() {
    let mut weather = calm(40, true);
    weather.extend(calm(200, false));
    let world = play(&weather, 1.0, 1.0).unwrap();
    assert!(world.runs_there && !world.runs_here);
    let world = play(&calm(400, true), 1.0 - DRIFT, 1.0 + DRIFT).unwrap();
    assert!(world.runs_here && !world.runs_there, "a node in touch keeps its guests");
}

#[test]
fn the_model_would_see_a_guest_that_runs_twice() {
    // Without the fence: a node whose clock stands still never finds its lease old.
    let mut weather = calm(40, true);
    weather.extend(calm(400, false));
    assert!(play(&weather, 0.01, 1.0).is_err());
}

#[test]
fn what_a_node_may_do() {
    let table = [
        (None, Standing::Hold),
        (Some(0), Standing::Clear),
        (Some(9), Standing::Clear),
        (Some(12), Standing::Hold),
        (Some(15), Standing::Cut),
        (Some(900), Standing::Cut),
    ];
    for (age, expected) in table {
        let age = age.map(Duration::from_secs);
        assert_eq!(standing(false, age), expected, "{age:?}");
        assert_eq!(standing(true, age), Standing::Clear, "nobody could take over");
    }
}

#[test]
fn a_lease_that_comes_back_begins_the_wait_anew() {
    let (mut absences, start) = (Absences::default(), Instant::now());
    let at = |s: u64| start + Duration::from_secs(s);
    absences.note("n", false, at(0));
    absences.note("n", false, at(19));
    assert!(!absences.lost("n", at(19)));
    assert!(absences.lost("n", at(20)));
    absences.note("n", true, at(20));
    absences.note("n", false, at(21));
    assert!(!absences.lost("n", at(40)) && absences.lost("n", at(41)));
    assert!(!absences.lost("never heard of", at(99)));
}
