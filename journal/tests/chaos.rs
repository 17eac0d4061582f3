//! `kill -9` at random, of the sequencer or of nats-server, under the load of gateways in another process. The checker
//! stands outside: it remembers every acknowledged answer and compares it with the log read back.
//! `COUNTERFOIL_KILL_ROUNDS` (20), `COUNTERFOIL_SEED` (printed) for another history.

mod harness;
mod processes;

use harness::*;
use nix::sys::signal::Signal;
use processes::*;
use std::time::{Duration, Instant};

/// Commands that are acknowledged before a kill, at most.
const BETWEEN_KILLS_MAX: u64 = 400;

/// SplitMix64: which process, and when.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text:?}: a number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_at_random_loses_and_repeats_nothing() {
    let rounds = number_from("COUNTERFOIL_KILL_ROUNDS").unwrap_or(20);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = number_from("COUNTERFOIL_SEED").unwrap_or(now.as_nanos() as u64);
    println!("COUNTERFOIL_SEED={seed}");
    let mut dice = Dice(seed);
    let mut harness = Harness::start().await;
    let mut leader = harness.sequencer("a", "lead");
    leader.says("leads").await;
    let gateways = [harness.gateway().await, harness.gateway().await];
    let loads = gateways.each_ref().map(|gateway| Load::start(gateway, 8));
    // Both gateways number their clients alike: half of all commands are sent by both, and must be done once.
    let (mut of_server, mut of_sequencer) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        loads[0].more(1 + dice.below(BETWEEN_KILLS_MAX)).await;
        // In the middle of whatever is going on.
        let moment = Duration::from_micros(dice.below(20_000));
        assert!(tokio::time::timeout(moment, std::future::pending::<()>()).await.is_err());
        let begin = Instant::now();
        if dice.below(2) == 0 {
            harness.server.kill().await.unwrap();
            harness.server.restart().await.unwrap();
            loads[0].more(8).await;
            of_server.push(begin.elapsed().as_millis());
        } else {
            leader.signal(Signal::SIGKILL);
            leader.wait().await;
            leader = harness.sequencer("a", "lead");
            loads[0].more(8).await;
            of_sequencer.push(begin.elapsed().as_millis());
        }
    }
    let [first, second] = loads;
    let told = [first.finish().await, second.finish().await];
    let log = harness.log().await;
    let mut most = 0;
    for told in &told {
        check_acknowledged(&log, told);
        most = most.max(told.len());
    }
    let opened = opened(&log).len();
    assert!(opened >= most && opened <= told[0].len() + told[1].len());
    println!(
        "{rounds} kills, {} acknowledged, {} commits; served again after ms: nats-server {of_server:?}, sequencer {of_sequencer:?}",
        told[0].len() + told[1].len(),
        log.len()
    );
}
