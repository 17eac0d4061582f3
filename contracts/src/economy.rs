//! Stake, votes, treasury and packages: where they are, that they are what the manifest says, and what is asked of and
//! sent to them. What an allotment follows from a stake is the ledger's business.

mod vote;

use alloy::primitives::{Address, U256};
use alloy::providers::DynProvider;
use alloy::sol_types::SolConstructor;
use serde::{Deserialize, Serialize};

use crate::bindings::bounds::AllotmentBounds;
use crate::bindings::dollar::DollarToken;
use crate::bindings::governor::NetworkGovernor;
use crate::bindings::packages::{IPackages, Packages};
use crate::bindings::stake::StakeRegistry;
use crate::bindings::treasury::Treasury;
use crate::chain::{Chain, Head, Mined};
use crate::deploy::create;
use crate::deployment::Deployment;
use crate::error::ChainError;
use crate::event::EconomyEmitter;
use crate::fixed_bytes::{Address20, Hash32};
use crate::key::EvmKey;
use crate::manifest::{Artefact, Manifest, code_at, require_artefact, require_equal};

pub use vote::{BoundsProposal, ProposalState, Voice};

/// Where the contracts of a network with stake are, and the hash of each one's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EconomyManifest {
    /// Stake and votes, in the manifest's token.
    pub stake: Placed,
    /// Stakers' votes.
    pub governor: Placed,
    /// The parameter that votes change; the governor's own.
    pub bounds: Placed,
    /// The stable token that packages are paid and workers are paid in.
    pub dollar: Placed,
    /// The allotment's reserve.
    pub treasury: Placed,
    /// The treasury's pot for workers.
    pub treasury_payouts: Placed,
    /// Price list and sales.
    pub packages: Placed,
}

/// A contract's address and the keccak256 of its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placed {
    /// Where it is.
    pub address: Address20,
    /// Hash of what is there.
    pub code: Hash32,
}

/// How a network with stake begins.
#[derive(Debug, Clone)]
pub struct EconomyOptions {
    /// Pays for the deployment; mints the development dollar, if that is deployed.
    pub deployer: EvmKey,
    /// The stable token; `None` deploys the development one.
    pub dollar: Option<Address20>,
    /// The hot key that opens days and pays.
    pub settler: Address20,
    /// Keeps the price list.
    pub publisher: Address20,
    /// The stake from which an account is eligible, in base units.
    pub minimum_stake_base_units: u128,
    /// Seconds between the start of an unbonding and its payment.
    pub unbond_delay_s: u32,
    /// Seconds between a proposal and its snapshot.
    pub voting_delay_s: u32,
    /// Seconds that a vote takes.
    pub voting_period_s: u32,
    /// Percent of all stake that must take part.
    pub quorum_percent: u8,
    /// The first lower bound of a day's pool, in units.
    pub floor_units: u64,
    /// The first upper bound of a day's pool, in units.
    pub ceiling_units: u64,
}

/// An epoch's payment to workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkersPayment {
    /// The treasury's epoch: the last one plus 1.
    pub epoch: u64,
    /// The day whose reserve pays.
    pub day: u64,
    /// What is paid now.
    pub units: u64,
    /// Root over what each payee got for life.
    pub root: Hash32,
    /// The sum of its leaves.
    pub root_total_units: u64,
    /// What the payment is for, as the log has it.
    pub commitment: Hash32,
}

/// The stakes of an allotment day, as the chain had them at the end of a second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EligibleStakes {
    /// Each account's stake in base units; zero below the minimum. In the order asked.
    pub base_units: Vec<u128>,
    /// All stake, including what is below the minimum.
    pub total_base_units: u128,
}

/// A package on the price list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackageTerms {
    /// Its price in the stable token's base units.
    pub price_base_units: u128,
    /// Credits that it gives, 1e-6 of a whole credit.
    pub units: u64,
    /// For how many seconds; zero takes it off the list.
    pub validity_s: u32,
}

/// Deploys stake, governor, treasury and packages beside a vault; the manifest that names them all.
pub async fn deploy_economy(
    chain: &Chain,
    manifest: &Manifest,
    options: &EconomyOptions,
) -> Result<Manifest, ChainError> {
    let deployer = &options.deployer;
    let dollar = match options.dollar {
        Some(dollar) => dollar,
        None => create(chain, deployer, "deploying the dollar", DollarToken::BYTECODE.to_vec()).await?.0,
    };
    let stake =
        create(chain, deployer, "deploying the stake registry", stake_code(manifest, options)).await?.0;
    let governor = create(chain, deployer, "deploying the governor", governor_code(stake, options)).await?.0;
    let failed = |error| chain.call_failed("reading the governor's bounds", error);
    let bounds = NetworkGovernor::new(governor.into(), chain.provider()).bounds().call().await;
    let bounds = Address20::from(bounds.map_err(failed)?);
    let code = treasury_code(manifest, dollar, (governor, bounds), options);
    let treasury = create(chain, deployer, "deploying the treasury", code).await?.0;
    let payouts = Treasury::new(treasury.into(), chain.provider()).payouts().call().await;
    let payouts = payouts.map_err(|error| chain.call_failed("reading the treasury's pot", error))?;
    let code = packages_code(dollar, treasury, options.publisher);
    let packages = create(chain, deployer, "deploying the packages", code).await?.0;
    let economy = EconomyManifest {
        stake: placed(chain, stake).await?,
        governor: placed(chain, governor).await?,
        bounds: placed(chain, bounds).await?,
        dollar: placed(chain, dollar).await?,
        treasury: placed(chain, treasury).await?,
        treasury_payouts: placed(chain, payouts.into()).await?,
        packages: placed(chain, packages).await?,
    };
    let manifest = Manifest { economy: Some(economy), ..manifest.clone() };
    manifest.verify(chain).await?;
    Ok(manifest)
}

async fn placed(chain: &Chain, address: Address20) -> Result<Placed, ChainError> {
    Ok(Placed { address, code: Hash32::keccak(&code_at(chain, address).await?) })
}

fn stake_code(manifest: &Manifest, options: &EconomyOptions) -> Vec<u8> {
    let arguments = StakeRegistry::constructorCall {
        token_: manifest.token.into(),
        minimumStake_: U256::from(options.minimum_stake_base_units),
        unbondDelay_: options.unbond_delay_s,
    };
    [StakeRegistry::BYTECODE.to_vec(), arguments.abi_encode()].concat()
}

fn governor_code(stake: Address20, options: &EconomyOptions) -> Vec<u8> {
    let arguments = NetworkGovernor::constructorCall {
        registry: stake.into(),
        options: NetworkGovernor::Options {
            votingDelay: alloy::primitives::aliases::U48::from(options.voting_delay_s),
            votingPeriod: options.voting_period_s,
            proposalThreshold: U256::from(options.minimum_stake_base_units),
            quorumPercent: options.quorum_percent,
            floor: options.floor_units,
            ceiling: options.ceiling_units,
        },
    };
    [NetworkGovernor::BYTECODE.to_vec(), arguments.abi_encode()].concat()
}

fn treasury_code(
    manifest: &Manifest,
    dollar: Address20,
    (governor, bounds): (Address20, Address20),
    options: &EconomyOptions,
) -> Vec<u8> {
    let arguments = Treasury::constructorCall {
        token_: dollar.into(),
        bounds_: bounds.into(),
        roles: Treasury::Roles {
            coordinator: manifest.coordinator.into(),
            settler: options.settler.into(),
            guardian: manifest.guardian.into(),
            governor: governor.into(),
        },
        rootDelay: manifest.root_delay_s,
    };
    [Treasury::BYTECODE.to_vec(), arguments.abi_encode()].concat()
}

fn packages_code(dollar: Address20, treasury: Address20, publisher: Address20) -> Vec<u8> {
    let arguments = Packages::constructorCall {
        token_: dollar.into(),
        treasury_: treasury.into(),
        publisher_: publisher.into(),
    };
    [Packages::BYTECODE.to_vec(), arguments.abi_encode()].concat()
}

impl EconomyManifest {
    /// Which of the contracts an address is.
    pub(crate) fn emitter(&self, contract: Address20) -> Option<EconomyEmitter> {
        let of = |placed: &Placed, emitter| (placed.address == contract).then_some(emitter);
        of(&self.stake, EconomyEmitter::Stake)
            .or_else(|| of(&self.governor, EconomyEmitter::Governor))
            .or_else(|| of(&self.bounds, EconomyEmitter::Bounds))
            .or_else(|| of(&self.treasury, EconomyEmitter::Treasury))
            .or_else(|| of(&self.treasury_payouts, EconomyEmitter::TreasuryPayouts))
            .or_else(|| of(&self.packages, EconomyEmitter::Packages))
    }

    /// The contracts whose events are read.
    pub(crate) fn emitters(&self) -> [Address20; 6] {
        [self.stake, self.governor, self.bounds, self.treasury, self.treasury_payouts, self.packages]
            .map(|placed| placed.address)
    }

    /// This release's code at every address, and wired to each other and to the vault's roles.
    pub(crate) async fn verify(&self, chain: &Chain, manifest: &Manifest) -> Result<(), ChainError> {
        for (artefact, placed) in [
            (Artefact::Stake, self.stake),
            (Artefact::Governor, self.governor),
            (Artefact::Bounds, self.bounds),
            (Artefact::Treasury, self.treasury),
            (Artefact::Payouts, self.treasury_payouts),
            (Artefact::Packages, self.packages),
        ] {
            require_artefact(chain, artefact, placed.address).await?;
            self.verify_hash(chain, artefact.contract(), placed).await?;
        }
        self.verify_hash(chain, "dollar", self.dollar).await?;
        self.verify_wiring(chain, manifest).await
    }

    async fn verify_hash(
        &self,
        chain: &Chain,
        contract: &'static str,
        placed: Placed,
    ) -> Result<(), ChainError> {
        let found = Hash32::keccak(&code_at(chain, placed.address).await?);
        if found == placed.code {
            return Ok(());
        }
        let found = format!("code with hash {found}, the manifest says {}", placed.code);
        Err(ChainError::ForeignCode { contract, address: placed.address, found })
    }

    async fn verify_wiring(&self, chain: &Chain, manifest: &Manifest) -> Result<(), ChainError> {
        let failed = |error| chain.call_failed("reading the economy's wiring", error);
        let provider = chain.provider();
        let equal = |what, expected: Address20, got: Address| require_equal(what, expected, got.into());
        let stake = StakeRegistry::new(self.stake.address.into(), provider);
        equal("the staked token", manifest.token, stake.token().call().await.map_err(failed)?)?;
        let governor = NetworkGovernor::new(self.governor.address.into(), provider);
        equal("the governor's votes", self.stake.address, governor.token().call().await.map_err(failed)?)?;
        equal("the governor's bounds", self.bounds.address, governor.bounds().call().await.map_err(failed)?)?;
        let bounds = AllotmentBounds::new(self.bounds.address.into(), provider);
        equal(
            "the bounds' governor",
            self.governor.address,
            bounds.governor().call().await.map_err(failed)?,
        )?;
        let treasury = Treasury::new(self.treasury.address.into(), provider);
        equal("the treasury's token", self.dollar.address, treasury.token().call().await.map_err(failed)?)?;
        equal("the treasury's bounds", self.bounds.address, treasury.bounds().call().await.map_err(failed)?)?;
        let governed = treasury.governor().call().await.map_err(failed)?;
        equal("the treasury's governor", self.governor.address, governed)?;
        let pot = treasury.payouts().call().await.map_err(failed)?;
        equal("the treasury's pot", self.treasury_payouts.address, pot)?;
        let coordinator = treasury.coordinator().call().await.map_err(failed)?;
        equal("the treasury's coordinator", manifest.coordinator, coordinator)?;
        let packages = Packages::new(self.packages.address.into(), provider);
        equal("the packages' token", self.dollar.address, packages.token().call().await.map_err(failed)?)?;
        let paid = packages.treasury().call().await.map_err(failed)?;
        equal("the packages' treasury", self.treasury.address, paid)
    }
}

/// The contracts of a network with stake. From [`Deployment::economy`].
#[derive(Debug, Clone, Copy)]
pub struct Economy<'a> {
    deployment: &'a Deployment,
    manifest: EconomyManifest,
}

impl Deployment {
    /// Stake, votes, treasury and packages; `None` for a network without.
    pub fn economy(&self) -> Option<Economy<'_>> {
        let manifest = self.manifest().economy?;
        Some(Economy { deployment: self, manifest })
    }
}

impl Economy<'_> {
    /// Stakes at a block, for an allotment day: use a block that is final.
    pub async fn eligible_stakes(
        &self,
        accounts: &[Address20],
        block: Head,
    ) -> Result<EligibleStakes, ChainError> {
        let accounts = accounts.iter().map(|account| Address::from(*account)).collect();
        let found = self.stake().eligibleStakeAt(accounts, U256::from(block.timestamp)).call().await;
        let found = found.map_err(|error| self.chain().call_failed("eligibleStakeAt", error))?;
        let base_units = found.stakes.iter().map(|stake| stake.saturating_to()).collect();
        Ok(EligibleStakes { base_units, total_base_units: found.total.saturating_to() })
    }

    /// Votes that an account had at a block.
    pub async fn past_votes(&self, account: Address20, block: Head) -> Result<u128, ChainError> {
        let votes = self.stake().getPastVotes(account.into(), U256::from(block.timestamp)).call().await;
        let votes = votes.map_err(|error| self.chain().call_failed("getPastVotes", error))?;
        Ok(votes.saturating_to())
    }

    /// The voted bounds of a day's pool, in units: floor and ceiling.
    pub async fn bounds(&self) -> Result<(u64, u64), ChainError> {
        let failed = |error| self.chain().call_failed("reading the bounds", error);
        let bounds = AllotmentBounds::new(self.manifest.bounds.address.into(), self.chain().provider());
        let floor = bounds.floor().call().await.map_err(failed)?;
        Ok((floor, bounds.ceiling().call().await.map_err(failed)?))
    }

    /// Units in the treasury that no day has reserved.
    pub async fn treasury_free(&self) -> Result<u64, ChainError> {
        let treasury = Treasury::new(self.manifest.treasury.address.into(), self.chain().provider());
        let free = treasury.free().call().await;
        free.map(|units| units.saturating_to()).map_err(|error| self.chain().call_failed("free", error))
    }

    /// Stakes approved tokens of the key.
    pub async fn stake_tokens(&self, key: &EvmKey, base_units: u128) -> Result<Mined, ChainError> {
        let call = StakeRegistry::stakeCall { amount: U256::from(base_units) };
        self.send(key, "stake", self.manifest.stake.address, call).await
    }

    /// Allows the registry to take the key's network tokens.
    pub async fn approve_stake(&self, key: &EvmKey, base_units: u128) -> Result<Mined, ChainError> {
        let spender = self.manifest.stake.address.into();
        let call = DollarToken::approveCall { spender, value: U256::from(base_units) };
        self.send(key, "approve", self.deployment.manifest().token, call).await
    }

    /// Starts taking stake out.
    pub async fn unbond(&self, key: &EvmKey, base_units: u128) -> Result<Mined, ChainError> {
        let call = StakeRegistry::unbondCall { amount: U256::from(base_units) };
        self.send(key, "unbond", self.manifest.stake.address, call).await
    }

    /// Puts a package on the list; the publisher's key.
    pub async fn list_package(
        &self,
        key: &EvmKey,
        package: u32,
        terms: PackageTerms,
    ) -> Result<Mined, ChainError> {
        let listed = IPackages::Package {
            price: terms.price_base_units,
            units: terms.units,
            validityS: terms.validity_s,
        };
        let call = Packages::listCall { id: package, package: listed };
        self.send(key, "list", self.manifest.packages.address, call).await
    }

    /// Buys a package for an account at the listed price, with approved dollars of the key.
    pub async fn buy_package(
        &self,
        key: &EvmKey,
        package: u32,
        account: Address20,
        highest_price_base_units: u128,
    ) -> Result<Mined, ChainError> {
        let highest = U256::from(highest_price_base_units);
        let call = Packages::buyCall { id: package, account: account.into(), highestPrice: highest };
        self.send(key, "buy", self.manifest.packages.address, call).await
    }

    /// Allows the shop to take the key's dollars.
    pub async fn approve_packages(&self, key: &EvmKey, base_units: u128) -> Result<Mined, ChainError> {
        let spender = self.manifest.packages.address.into();
        let call = DollarToken::approveCall { spender, value: U256::from(base_units) };
        self.send(key, "approve", self.manifest.dollar.address, call).await
    }

    /// Mints the development dollar; its deployer's key.
    pub async fn mint_dollars(
        &self,
        minter: &EvmKey,
        to: Address20,
        base_units: u128,
    ) -> Result<Mined, ChainError> {
        let call = DollarToken::mintCall { to: to.into(), amount: U256::from(base_units) };
        self.send(minter, "mint", self.manifest.dollar.address, call).await
    }

    /// Reserves a day's pool; the treasury's settler.
    pub async fn open_day(&self, key: &EvmKey, day: u64, pool_units: u64) -> Result<Mined, ChainError> {
        let call = Treasury::openDayCall { day, pool: pool_units };
        self.send(key, "openDay", self.manifest.treasury.address, call).await
    }

    /// Pays an epoch out of a day's reserve into the workers' pot, with the root of what each may claim for life.
    pub async fn pay_workers(&self, key: &EvmKey, payment: WorkersPayment) -> Result<Mined, ChainError> {
        let call = Treasury::payCall {
            epoch: payment.epoch,
            day: payment.day,
            units: payment.units,
            root: payment.root.into(),
            rootTotal: payment.root_total_units,
            commitment: payment.commitment.into(),
        };
        self.send(key, "pay", self.manifest.treasury.address, call).await
    }

    fn chain(&self) -> &Chain {
        self.deployment.chain()
    }

    fn stake(&self) -> StakeRegistry::StakeRegistryInstance<DynProvider> {
        StakeRegistry::new(self.manifest.stake.address.into(), self.chain().provider().clone())
    }

    async fn send(
        &self,
        key: &EvmKey,
        name: &'static str,
        to: Address20,
        call: impl alloy::sol_types::SolCall,
    ) -> Result<Mined, ChainError> {
        self.deployment.send(key, name, to, call).await
    }
}
