//! The user's ways out: with a voucher, and without anybody.

use std::path::PathBuf;

use contracts::{Address20, ChainFact, Exit, ExitStage, WithdrawalVoucher, dev};

use crate::world::{EXIT_DELAY_S, World, repository_root};

#[tokio::test]
async fn a_voucher_pays_its_account_once() {
    let world = World::new(0).await;
    world.fund(&world.user, 10_000_000).await;
    let account = world.deployment.account(world.user.address()).await.expect("account");
    let deadline = world.chain.head().await.expect("head").timestamp as u32 + 600;
    let voucher = WithdrawalVoucher {
        account: world.user.address(),
        units: 4_000_000,
        nonce: account.withdrawal_nonce,
        deadline,
    };
    let signed = voucher.sign(&world.settler, &world.deployment.domain());
    let to = Address20([0x77; 20]);

    let thief =
        world.deployment.withdraw(&world.other_user, to, &signed).await.expect_err("bound to its account");
    assert!(thief.to_string().contains("BadSignature"), "{thief}");
    world.deployment.withdraw(&world.user, to, &signed).await.expect("paid");
    assert_eq!(world.deployment.token_balance(to).await.expect("balance"), 4_000_000 * 1_000_000_000_000);
    let again = world.deployment.withdraw(&world.user, to, &signed).await.expect_err("used");
    assert!(again.to_string().contains("BadSignature"), "{again}");

    let poll = world.poll(&mut world.watcher()).await;
    let expected = ChainFact::Withdrawn { account: world.user.address(), to, units: 4_000_000, nonce: 0 };
    assert!(poll.events.iter().any(|event| event.fact == expected));
    let account = world.deployment.account(world.user.address()).await.expect("account");
    assert_eq!((account.balance, account.withdrawal_nonce), (6_000_000, 1));
}

#[tokio::test]
async fn an_exit_needs_only_a_key_a_node_and_time() {
    let world = World::new(2).await;
    let mut watcher = world.watcher();
    world.fund(&world.user, 10_000_000).await;
    world.authorise(&world.user, 8_000_000).await;
    let old_signature = world.sign_cap(&world.user, 9_000_000).await;

    let exit = Exit::open(world.chain.clone(), world.deployment.manifest().vault).await.expect("a vault");
    assert_eq!(exit.delay_s(), EXIT_DELAY_S);
    exit.request(&world.user).await.expect("requested");
    let poll = world.poll(&mut watcher).await;
    let account = world.user.address();
    let seen = poll
        .early_exits
        .iter()
        .any(|event| matches!(event.fact, ChainFact::ExitRequested { account: who, .. } if who == account));
    assert!(seen, "known at first sight, without confirmations");
    assert_eq!(world.poll(&mut watcher).await.early_exits, [], "and once");

    let early = exit.finalize(&world.user, account).await.expect_err("too early");
    assert!(early.to_string().contains("ExitNotDue"), "{early}");
    let stage = exit.status(account).await.expect("status").stage;
    assert!(matches!(stage, ExitStage::Waiting { wait_s, .. } if wait_s <= EXIT_DELAY_S.into()), "{stage:?}");

    dev::increase_time(&world.chain, EXIT_DELAY_S.into()).await.expect("later");
    assert_eq!(exit.status(account).await.expect("status").stage, ExitStage::Due);
    let to = Address20([0x88; 20]);
    exit.finalize(&world.user, to).await.expect("everything is out");
    assert_eq!(world.deployment.token_balance(to).await.expect("balance"), 10_000_000 * 1_000_000_000_000);

    let replayed = world.deployment.authorise(&world.settler, &[old_signature]).await;
    assert!(replayed.expect_err("died with the exit").to_string().contains("BadSignature"));
    world.mine(2).await;
    let poll = world.poll(&mut watcher).await;
    let expected = ChainFact::ExitFinalized { account, to, units: 10_000_000 };
    assert!(poll.events.iter().any(|event| event.fact == expected));
}

#[tokio::test]
async fn an_exit_request_that_a_reorg_drops_is_taken_back() {
    let world = World::new(2).await;
    let mut watcher = world.watcher();
    world.fund(&world.user, 1_000_000).await;
    let exit = Exit::open(world.chain.clone(), world.deployment.manifest().vault).await.expect("a vault");
    exit.request(&world.user).await.expect("requested");
    assert_eq!(world.poll(&mut watcher).await.early_exits.len(), 1);
    dev::reorg(&world.chain, 1, Some(world.guardian.address())).await.expect("reorganised");
    world.mine(4).await;
    let poll = world.poll(&mut watcher).await;
    assert_eq!(poll.vanished_exits.len(), 1);
    assert_eq!(poll.halt, None);
    let status = exit.status(world.user.address()).await.expect("status");
    assert_eq!(status.stage, ExitStage::NotRequested);
}

#[tokio::test]
async fn nobody_is_asked_to_sign_for_another_contract() {
    let world = World::new(0).await;
    let error =
        Exit::open(world.chain.clone(), world.deployment.manifest().payouts).await.expect_err("no vault");
    assert_eq!(error.code(), "chain_foreign_code");
}

/// Runs a step of the exit page's script; the status afterwards, or what it said.
async fn page(world: &World, to: Address20, step: &str) -> Result<serde_json::Value, String> {
    let script = repository_root().join("contracts/tests/chain/exit_page.cjs");
    let mut command = tokio::process::Command::new("node");
    command.arg(script).arg(world.anvil.rpc_url()).arg(world.deployment.manifest().vault.to_string());
    command.args([world.user.address().to_string(), to.to_string(), step.to_string()]);
    let output = command.output().await.expect("node runs");
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).expect("JSON")),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[tokio::test]
async fn the_exit_page_takes_the_money_out_through_a_wallet_alone() {
    let world = World::new(0).await;
    world.fund(&world.user, 12_500_000).await;
    let to = Address20([0x99; 20]);
    let before = page(&world, to, "look").await.expect("a status");
    assert_eq!(
        (before["balance"].as_str(), before["stage"].as_str()),
        (Some("12.500000"), Some("not requested"))
    );
    assert_eq!(before["delay"], EXIT_DELAY_S.to_string());
    assert!(page(&world, to, "finalize").await.is_err(), "nothing is signed that would fail");
    let waiting = page(&world, to, "request").await.expect("requested");
    assert_eq!(waiting["stage"], "waiting");
    dev::increase_time(&world.chain, EXIT_DELAY_S.into()).await.expect("later");
    assert_eq!(page(&world, to, "look").await.expect("a status")["stage"], "due");
    let after = page(&world, to, "finalize").await.expect("paid");
    assert_eq!(
        (after["balance"].as_str(), after["stage"].as_str()),
        (Some("0.000000"), Some("not requested"))
    );
    assert_eq!(world.deployment.token_balance(to).await.expect("balance"), 12_500_000 * 1_000_000_000_000);
}

/// Where the browser's driver lies, and the browser; `None` on a machine without one.
fn browser() -> Option<(PathBuf, PathBuf)> {
    let named = std::env::var_os("COUNTERFOIL_CHROMIUM").map(PathBuf::from);
    let chromium = named.or_else(|| Some(PathBuf::from("/usr/bin/chromium")).filter(|path| path.exists()))?;
    let named = std::env::var_os("COUNTERFOIL_BROWSER_MODULES").map(PathBuf::from);
    let modules = named.unwrap_or_else(|| repository_root().join(".tools/browser/node_modules"));
    assert!(modules.is_dir(), "{} is missing: run cargo xtask test, which installs it", modules.display());
    Some((modules, chromium))
}

#[tokio::test]
async fn a_browser_takes_the_money_out_from_the_saved_page_alone() {
    let Some((modules, chromium)) = browser() else {
        eprintln!("skipped: chromium is not installed (COUNTERFOIL_CHROMIUM is not set)");
        return;
    };
    let world = World::new(0).await;
    world.fund(&world.user, 12_500_000).await;
    let to = Address20([0x98; 20]);
    let mut command = tokio::process::Command::new("node");
    command.arg(repository_root().join("contracts/tests/browser/exit.cjs"));
    command.arg(repository_root().join("examples/exit/index.html")).arg(world.anvil.rpc_url());
    command.arg(world.deployment.manifest().vault.to_string());
    command.args([world.user.address().to_string(), to.to_string()]);
    command.env("NODE_PATH", modules).env("CHROMIUM", chromium).env("DELAY_S", EXIT_DELAY_S.to_string());
    let output = command.output().await.expect("node runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(seen["before"].as_str().expect("text").starts_with("12.500000"), "{seen}");
    assert!(seen["after"].as_str().expect("text").starts_with("0.000000"), "{seen}");
    assert_eq!(seen["early"], true, "not before the delay is over: {seen}");
    assert_eq!(seen["asked"].as_array().map(Vec::len), Some(4), "ask, stay, ask, take: {seen}");
    assert!(seen["says"][0].as_str().expect("text").contains("to"), "a bad address is named: {seen}");
    assert_eq!(seen["says"][1], "", "{seen}");
    let elsewhere =
        seen["requests"].as_array().expect("a list").iter().filter(|protocol| *protocol != "file:");
    assert_eq!(elsewhere.count(), 0, "the page talks to the wallet and to nobody else: {seen}");
    assert_eq!(world.deployment.token_balance(to).await.expect("balance"), 12_500_000 * 1_000_000_000_000);
}
