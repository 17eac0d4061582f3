//! A vault on a token that blacklists: an operator, a user, the pot, the vault. Nobody else's money is touched, nothing is
//! booked that did not happen, and everything goes on when the token lets it.

use alloy::primitives::keccak256;
use contracts::settlement::{batch_path, read_published};
use contracts::{Address20, DeployOptions, Deployment, deploy, dev};
use serde_json::{Value, json};

use crate::books::Books;
use crate::world::{EXIT_DELAY_S, ROOT_DELAY_S, World, deploy_options, repository_root};

const TOKEN_UNIT: u128 = 1_000_000_000_000;

async fn rpc(world: &World, method: &str, params: Value) -> Value {
    let client = contracts::http_client().no_proxy().build().expect("a client");
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    let sent = client.post(world.anvil.rpc_url()).header("content-type", "application/json").body(body);
    let answer = sent.send().await.expect("sent").text().await.expect("text");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert!(answer["error"].is_null(), "{method}: {answer}");
    answer["result"].clone()
}

/// A world whose vault holds the hostile token.
async fn hostile() -> (Books, Address20) {
    let mut world = World::new(0).await;
    let script = repository_root().join("contracts/tests/chain/hostile.cjs");
    let output = tokio::process::Command::new("node").arg(script).output().await.expect("node runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let code = String::from_utf8(output.stdout).expect("hex");
    let data = format!("0x{code}{:064x}", 18);
    let created = json!([{ "from": world.deployer.address(), "data": data, "gas": "0x5b8d80" }]);
    let tx = rpc(&world, "eth_sendTransaction", created).await;
    world.mine(1).await;
    let receipt = rpc(&world, "eth_getTransactionReceipt", json!([tx])).await;
    let token: Address20 =
        receipt["contractAddress"].as_str().expect("deployed").parse().expect("an address");
    let options = DeployOptions { token: Some(token), ..deploy_options() };
    let manifest = deploy(&world.chain, &options).await.expect("a vault on it");
    world.deployment = Deployment::open(world.chain.clone(), manifest).await.expect("verified");
    (Books::on(world).await, token)
}

async fn blacklist(books: &Books, token: Address20, who: Address20, listed: Listed) {
    let mut input = keccak256("setBlacklisted(address,bool)")[..4].to_vec();
    input.extend([0; 12]);
    input.extend(who.0);
    input.extend([0; 31]);
    input.push(listed as u8);
    dev::send_as(&books.world.chain, books.world.deployer.address(), token, &input).await.expect("sent");
    books.world.mine(1).await;
}

#[derive(Clone, Copy)]
enum Listed {
    No = 0,
    Yes = 1,
}

#[tokio::test]
async fn a_token_that_blacklists_an_operator_a_user_or_the_vault_traps_nobody_else() {
    let (books, token) = hostile().await;
    let (world, mut mirror) = (&books.world, books.mirror(0));
    let account = books.link(&world.user, 8_000_000).await;
    let other = books.link(&world.other_user, 8_000_000).await;
    for key in [&world.user, &world.other_user] {
        world.fund(key, 5_000_000).await;
    }
    books.catch_up(&mut mirror).await;
    books.serve(account, 1, 1_000).await;
    books.serve(other, 2, 1_000).await;

    // The vault itself, or its pot: nothing settles, nothing is booked; later it does.
    let manifest = world.deployment.manifest().clone();
    for stopped in [manifest.vault, manifest.payouts] {
        blacklist(&books, token, stopped, Listed::Yes).await;
        books.settlement().await.settle_once().await.expect_err("the token says no");
        books.catch_up(&mut mirror).await;
        books.assert_no_drift().await;
        blacklist(&books, token, stopped, Listed::No).await;
    }
    let (_, done) = books.settlement().await.settle_once().await.expect("settled").expect("due");
    assert_eq!((done.epoch, done.total), (1, 2_000_000));
    books.catch_up(&mut mirror).await;

    // An operator: it chooses another address and is paid there.
    let published = read_published(&batch_path(&books.batches(), 1)).expect("readable").expect("published");
    let claim = published.plan.claim(world.operator.address()).expect("it earned");
    dev::increase_time(&world.chain, ROOT_DELAY_S.into()).await.expect("later");
    blacklist(&books, token, world.operator.address(), Listed::Yes).await;
    world.deployment.claim(&world.operator, &claim).await.expect_err("the token says no");
    let elsewhere = Address20([0x71; 20]);
    world.deployment.set_payee(&world.operator, elsewhere).await.expect("chosen");
    world.deployment.claim(&world.operator, &claim).await.expect("paid");
    assert_eq!(world.deployment.token_balance(elsewhere).await.expect("balance"), 1_600_000 * TOKEN_UNIT);

    // A user: its money goes elsewhere; the other user's is untouched.
    blacklist(&books, token, world.user.address(), Listed::Yes).await;
    let exit = contracts::Exit::open(world.chain.clone(), manifest.vault).await.expect("a vault");
    exit.request(&world.user).await.expect("requested");
    dev::increase_time(&world.chain, EXIT_DELAY_S.into()).await.expect("later");
    exit.finalize(&world.user, world.user.address()).await.expect_err("the token says no");
    exit.finalize(&world.user, Address20([0x72; 20])).await.expect("paid elsewhere");
    books.catch_up(&mut mirror).await;
    assert_eq!((books.available(account).await, books.available(other).await), (0, 4_000_000));
    books.assert_no_drift().await;
}
