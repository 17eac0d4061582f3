//! Rounds of chaos for `cargo xtask chaos --rounds N --seed S`: a round that fails can be looked at again, as far as real
//! processes do the same twice. Minutes, so not part of every test run.

use network_tests::chaos;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}: not a number: {text}")))
}

#[test]
fn nothing_is_lost_repeated_or_left_behind() {
    let Some(rounds) = number("COUNTERFOIL_CHAOS_ROUNDS") else {
        eprintln!("skipped: cargo xtask chaos runs it");
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let told = chaos::run(dir.path(), rounds, number("COUNTERFOIL_CHAOS_SEED").unwrap_or(1));
    println!(
        "chaos: {} rounds, {} accounts, {} grants ({} uncertain calls repeated), {} whole answers; 0 lost, 0 doubled; service back after {} ms on average, {} ms at most",
        told.rounds,
        told.accounts,
        told.grants,
        told.uncertain,
        told.answers,
        told.waited.as_millis() / u128::from(told.rounds.max(1)),
        told.longest.as_millis(),
    );
    assert!(told.grants > told.rounds && told.accounts > told.rounds, "there was load: {told:?}");
}
