//! Every history within small bounds, on the pipeline itself. The bounds are small enough for seconds and large enough that
//! a mistake in fencing needs no luck. What was proved and what not: `specs/models/README.md`.

use simulator::Mistake;
use simulator::exhaustive::{Bounds, Step, explore};

/// One takeover, one fault, one time-out.
const SMALL: Bounds =
    Bounds { takeovers: 1, crashes: 0, faults: 1, timeouts: 1, commands: 3, states_max: 400_000 };

#[test]
fn no_history_within_the_bounds_breaks_a_promise() {
    for bounds in [
        Bounds { takeovers: 0, crashes: 0, faults: 2, timeouts: 1, commands: 2, ..SMALL },
        Bounds { takeovers: 1, crashes: 0, faults: 0, timeouts: 0, commands: 2, ..SMALL },
        Bounds { takeovers: 1, crashes: 1, faults: 0, timeouts: 0, commands: 2, ..SMALL },
        Bounds { takeovers: 1, crashes: 0, faults: 1, timeouts: 0, commands: 1, ..SMALL },
    ] {
        let explored = explore(bounds, None);
        println!(
            "{bounds:?}: {} states, {} steps, depth {}",
            explored.states, explored.steps, explored.depth
        );
        assert_eq!(explored.broken, None, "{bounds:?}");
        assert!(explored.complete && explored.states > 300, "{bounds:?}: {explored:?}");
    }
}

#[test]
fn without_the_fence_the_shortest_history_is_found() {
    let explored = explore(SMALL, Some(Mistake::DropFencing));
    let (violation, path) = explored.broken.expect("two writers without a fence break the chain");
    assert!(path.contains(&Step::Start), "{violation}: {path:?}");
    assert!(path.len() <= 8, "the shortest one: {path:?}");
}

/// Which of the pipeline's own mistakes these bounds reach; the others need clocks, rot or more than two writers.
#[cfg(feature = "mutants")]
#[test]
fn the_mistakes_within_reach_are_caught() {
    let mut caught = Vec::new();
    for mistake in Mistake::all() {
        let explored = explore(Bounds { states_max: 60_000, ..SMALL }, Some(mistake));
        if let Some((violation, path)) = explored.broken {
            println!("{}: {} steps: {violation}", mistake.name(), path.len());
            caught.push(mistake.name());
        }
    }
    assert!(caught.len() >= 8, "{caught:?}");
}
