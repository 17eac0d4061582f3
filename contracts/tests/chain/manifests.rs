//! A manifest that is not true is refused before anything is served.

use contracts::{ChainError, Deployment, Hash32, Manifest, deploy, dev};

use crate::world::{World, connect, deploy_options, start_anvil};

async fn refusal(world: &World, change: impl FnOnce(&mut Manifest)) -> ChainError {
    let mut manifest = world.deployment.manifest().clone();
    change(&mut manifest);
    manifest.verify(&world.chain).await.expect_err("a false manifest")
}

#[tokio::test]
async fn a_true_manifest_survives_its_file_and_verifies() {
    let world = World::new(0).await;
    let path = world.directory.path().join("manifest.json");
    world.deployment.manifest().save(&path).expect("written");
    let read = Manifest::load(&path).expect("read");
    assert_eq!(read, *world.deployment.manifest());
    let opened = Deployment::open(world.chain.clone(), read).await.expect("verified");
    assert_eq!(opened.manifest().unit_base_units(), 1_000_000_000_000, "18 decimals in units of 1e-6");
    let separator = opened.domain().separator();
    assert_eq!(separator, world.deployment.domain().separator());
}

#[tokio::test]
async fn swapped_addresses_are_refused() {
    let world = World::new(0).await;
    let swapped = refusal(&world, |m| std::mem::swap(&mut m.vault, &mut m.payouts)).await;
    assert_eq!(swapped.code(), "chain_foreign_code", "{swapped}");
    let swapped = refusal(&world, |m| {
        std::mem::swap(&mut m.vault, &mut m.payouts);
        std::mem::swap(&mut m.code_hashes.vault, &mut m.code_hashes.payouts);
    });
    assert_eq!(swapped.await.code(), "chain_foreign_code", "an edited hash does not help");
    let swapped = refusal(&world, |m| std::mem::swap(&mut m.token, &mut m.anchor)).await;
    assert_eq!(swapped.code(), "chain_foreign_code", "{swapped}");
    let nobody = refusal(&world, |m| m.anchor.0 = [7; 20]).await;
    assert!(nobody.to_string().contains("no code at all"), "{nobody}");
}

#[tokio::test]
async fn changed_code_is_refused_even_with_an_edited_hash() {
    let world = World::new(0).await;
    let vault = world.deployment.manifest().vault;
    let mut code = dev::code(&world.chain, vault).await.expect("the vault's code");
    let middle = code.len() / 2;
    code[middle] ^= 1;
    dev::set_code(&world.chain, vault, &code).await.expect("changed");
    let error = refusal(&world, |m| m.code_hashes.vault = Hash32::keccak(&code)).await;
    assert_eq!(error.code(), "chain_foreign_code", "{error}");
    assert!(error.to_string().contains("of the same length"), "{error}");
}

#[tokio::test]
async fn another_vault_of_the_same_code_is_refused() {
    let world = World::new(0).await;
    let other = deploy(&world.chain, &deploy_options()).await.expect("a second deployment");
    let error = refusal(&world, |m| m.vault = other.vault).await;
    assert_eq!(error.code(), "chain_foreign_code", "{error}");
    let error = refusal(&world, |m| {
        m.vault = other.vault;
        m.code_hashes.vault = other.code_hashes.vault;
    });
    assert_eq!(error.await.code(), "chain_wrong_wiring", "its token and pot are others");
    let error = refusal(&world, |m| m.coordinator.0 = [7; 20]).await;
    assert_eq!(error.code(), "chain_wrong_wiring", "{error}");
}

#[tokio::test]
async fn another_chain_is_refused_even_with_the_same_id() {
    let world = World::new(0).await;
    let other = start_anvil().await;
    let other = connect(&other, 0).await;
    let error = world.deployment.manifest().verify(&other).await.expect_err("a shorter chain");
    assert_eq!(error.code(), "chain_wrong_history", "{error}");
    dev::mine(&other, 10).await.expect("as long as ours");
    let error = world.deployment.manifest().verify(&other).await.expect_err("another chain");
    assert_eq!(error.code(), "chain_wrong_history", "{error}");
    let error = refusal(&world, |m| m.chain_id = 1).await;
    assert_eq!(error.code(), "chain_wrong_chain", "{error}");
    let mut config = world.anvil.config(0, 5);
    config.chain_id = 1;
    let error = contracts::Chain::connect(config).await.expect_err("configured for another chain");
    assert_eq!(error.code(), "chain_wrong_chain", "{error}");
}
