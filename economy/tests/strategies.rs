//! Honest and long-term beats spoofing and hopping: sixty virtual days on the ledger's own rules.

use economy::{Load, Strategy, preset_file, shipped, simulate};
use protocol::amount::Amount;

/// More on request: each takes seconds.
const SEEDS: [u64; 1] = [1];

fn run(name: &str, load: &Load, days: u32) -> economy::report::Report {
    let preset = preset_file::read(name, shipped(name).unwrap()).unwrap();
    simulate(&preset, load, days).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn honest_beats_every_other_strategy_over_sixty_days() {
    for seed in SEEDS {
        let report = run("circular", &Load { seed, ..Load::default() }, 60);
        let profit = |wanted: Strategy| {
            let row = report.strategies.iter().find(|row| row.strategy == wanted);
            row.unwrap_or_else(|| panic!("no row of {}", wanted.name())).profit()
        };
        let honest = profit(Strategy::Honest);
        assert!(honest.0 > 0, "{}", report.text());
        for strategy in Strategy::ALL.into_iter().skip(1) {
            assert!(profit(strategy) < honest, "{} with seed {seed}\n{}", strategy.name(), report.text());
        }
        for strategy in [Strategy::Liar, Strategy::WashTrader] {
            assert!(profit(strategy).0 * 4 < honest.0, "{}\n{}", strategy.name(), report.text());
        }
        let unbacked: i128 = report.strategies.iter().map(|row| row.unbacked.0).sum();
        assert!(unbacked > 0, "the launderer got sign-up credit\n{}", report.text());
        let svg = economy::plot::earnings(&report);
        assert_eq!(svg.matches("<polyline").count(), Strategy::ALL.len());
    }
}

/// Stake in one wallet gets what it gets in ten, and nothing below the minimum; pools stay below their bound.
#[test]
fn splitting_a_stake_gains_nothing_over_sixty_days() {
    let report =
        run("allotment", &Load { growth_ppm_per_day: 20_000, jobs_per_hour: 10, ..Load::default() }, 60);
    let of = |wallets: u32| report.holders.iter().find(|row| row.wallets == wallets).unwrap().allotted;
    assert!(of(1) >= of(10) && of(10).0 > 0 && of(25) == Amount(0), "{}", report.text());
    let bound = 50 * 10i128.pow(report.scale.into());
    assert!(report.days.iter().all(|day| day.allotted <= day.pool && day.pool.0 <= bound));
    let paid: i128 = report.days.iter().map(|day| day.treasury_paid.0).sum();
    assert!(paid > 0, "workers of the included lane are paid by the treasury");
}

/// The same seed gives the same figures; every preset that ships can be tried.
#[test]
fn every_preset_runs_and_is_reproducible() {
    for (name, _) in preset_file::SHIPPED {
        let load = Load { jobs_per_hour: 10, ..Load::default() };
        let (first, again) = (run(name, &load, 3), run(name, &load, 3));
        let json = |report| serde_json::to_string(report).unwrap();
        assert_eq!(json(&first), json(&again));
        assert!(first.days.iter().all(|day| day.served > 0), "{}", first.text());
    }
    let preset = preset_file::read("x", shipped("circular").unwrap()).unwrap();
    assert!(simulate(&preset, &Load::default(), 0).unwrap_err().to_string().contains("1 to 730"));
}
