//! `audit liabilities` and `audit prove-balance`: what the network owes, as a Merkle-sum tree per asset. Whoever is owed
//! finds the own balance in it by a path; nobody learns another's, because leaves are salted and sorted by their hashes.
//! It says what the books owe at one size of the log, not that the network could pay: that is `audit reconcile`.

use crate::checks::CheckKind;
use crate::copy::LogCopy;
use crate::error::AuditError;
use crate::replay::{self, ReplayOptions, Replayed, World};
use crate::report::{Checks, Finding, Item, Report};
use protocol::asset::AssetId;
use protocol::event::account::AccountKind;
use protocol::id::{AccountId, Hash32};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The proof's layout.
pub const BALANCE_PROOF_SCHEMA: &str = "counterfoil-balance-proof-1";
const SALT_DOMAIN: &[u8] = b"counterfoil balance salt 1\0";

/// What to sum up.
pub struct LiabilitiesOptions {
    /// A fetched copy, or a data directory.
    pub directory: PathBuf,
    /// The policy file; a fetched copy keeps its own.
    pub policy: Option<PathBuf>,
    /// Stop after so many leaves.
    pub at: Option<u64>,
    /// Secret that the leaves' salts are drawn from; who has it can find every balance.
    pub salt: [u8; 32],
}

/// A node: hash and sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Node {
    hash: Hash32,
    sum: i128,
}

/// What one account is owed.
struct Leaf {
    account: AccountId,
    amount: i128,
    salt: Hash32,
    node: Node,
}

/// One step of a path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BalanceStep {
    /// Whether the sibling stands left.
    pub left: bool,
    /// The sibling's hash.
    pub hash: Hash32,
    /// What is below it, base units.
    pub sum: String,
}

/// That one balance is in the tree; what a customer keeps.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BalanceProof {
    /// [`BALANCE_PROOF_SCHEMA`].
    pub schema: String,
    /// The log.
    pub origin: String,
    /// Leaves of the log.
    pub log_size: u64,
    /// The asset's number.
    pub asset: u32,
    /// Whose.
    pub account: AccountId,
    /// What is owed, base units.
    pub amount: String,
    /// The leaf's salt.
    pub salt: Hash32,
    /// From the leaf up.
    pub path: Vec<BalanceStep>,
    /// The tree's root.
    pub root: Hash32,
    /// All that is owed, base units.
    pub total: String,
}

/// Sums up what is owed, tree by tree. Never prints.
pub fn liabilities(options: &LiabilitiesOptions) -> Result<Report, AuditError> {
    let (mut report, world, mut checks) = replayed(options, "liabilities")?;
    for (asset, leaves) in trees(&world, &options.salt) {
        let check = checks.of(CheckKind::Liabilities);
        check.examined += leaves.len() as u64;
        for leaf in leaves.iter().filter(|leaf| leaf.amount < 0) {
            let (expected, actual) = ("at least 0".to_owned(), leaf.amount.to_string());
            let message = format!("{} is owed less than nothing", leaf.account);
            check.fail(Finding { leaf: None, event_id: None, expected, actual, message });
        }
        let nodes: Vec<Node> = leaves.iter().map(|leaf| leaf.node).collect();
        let root = root(&nodes);
        let owed = owed_by_books(&world, asset);
        if root.sum != owed {
            check.fail_because(owed, root.sum, "the tree's total is not that of the trial balance");
        }
        report.items.push(Item {
            what: "liabilities".to_owned(),
            id: Some(root.hash.to_string()),
            asset: Some(replay::symbol(&world, asset).0),
            amount: Some(root.sum.to_string()),
            note: format!("{} accounts, asset {}", leaves.len(), asset.0),
            ..Item::default()
        });
    }
    Ok(report.end(checks))
}

/// The paths of one account's balances, an asset each. Empty when it is owed nothing.
pub fn prove_balance(
    options: &LiabilitiesOptions,
    account: AccountId,
) -> Result<(Report, Vec<BalanceProof>), AuditError> {
    let (mut report, world, mut checks) = replayed(options, "prove-balance")?;
    let mut proofs = Vec::new();
    for (asset, leaves) in trees(&world, &options.salt) {
        let nodes: Vec<Node> = leaves.iter().map(|leaf| leaf.node).collect();
        let Some(at) = leaves.iter().position(|leaf| leaf.account == account) else { continue };
        let (leaf, root) = (&leaves[at], root(&nodes));
        let mut path = Vec::new();
        collect_path(&nodes, at, &mut path);
        let proof = BalanceProof {
            schema: BALANCE_PROOF_SCHEMA.to_owned(),
            origin: report.subject.origin.clone(),
            log_size: report.events,
            asset: asset.0,
            account,
            amount: leaf.amount.to_string(),
            salt: leaf.salt,
            path,
            root: root.hash,
            total: root.sum.to_string(),
        };
        let check = checks.of(CheckKind::BalanceProof);
        check.examine();
        if let Err(reason) = verify_balance(&proof) {
            check.fail_because("a path to the root", reason, "the proof that was made does not stand");
        }
        proofs.push(proof);
    }
    if proofs.is_empty() {
        checks.of(CheckKind::BalanceProof).skip(format!("{account} is owed nothing"));
    }
    report.remark = Some("compare root and total with what the network published for everybody".to_owned());
    Ok((report.end(checks), proofs))
}

fn replayed(
    options: &LiabilitiesOptions,
    command: &'static str,
) -> Result<(Report, World, Checks), AuditError> {
    let copy = LogCopy::open(&options.directory)?;
    let (directory, policy) = (options.directory.clone(), options.policy.clone());
    let Replayed { report, judge, world } =
        replay::run(&copy, command, &ReplayOptions { directory, policy, at: options.at })?;
    Ok((report, world, judge.into_checks()))
}

/// What an account of this kind is owed. An unused credit line is a promise of the account, not of the network.
fn is_owed(kind: AccountKind) -> bool {
    use AccountKind::*;
    match kind {
        CustomerDeposited | CustomerPackage | CustomerEarned | CustomerAllotment | CustomerPromo
        | OperatorAccrued | OperatorSettling | OperatorPayable | UnattributedDeposits => true,
        CustomerCredit | VaultAsset | PotAsset | Receivable | PlatformRevenue | Breakage | PromoExpense
        | PlatformTreasury | CreditLines | HoldsPending => false,
    }
}

fn owed_by_books(world: &World, asset: AssetId) -> i128 {
    let rows = world.books.rows.iter().filter(|row| row.key.asset == asset && is_owed(row.key.kind));
    rows.map(|row| row.credits.saturating_sub(row.debits)).fold(0, i128::saturating_add)
}

/// The leaves of each asset's tree, sorted by their hashes.
fn trees(world: &World, salt: &[u8; 32]) -> BTreeMap<AssetId, Vec<Leaf>> {
    let mut owed: BTreeMap<(AssetId, AccountId), i128> = BTreeMap::new();
    for row in world.books.rows.iter().filter(|row| is_owed(row.key.kind)) {
        let sum = owed.entry((row.key.asset, row.key.owner)).or_default();
        *sum = sum.saturating_add(row.credits.saturating_sub(row.debits));
    }
    let mut trees: BTreeMap<AssetId, Vec<Leaf>> = BTreeMap::new();
    for ((asset, account), amount) in owed.into_iter().filter(|(_, amount)| *amount != 0) {
        let hasher = Sha256::new().chain_update(SALT_DOMAIN).chain_update(salt);
        let hasher = hasher.chain_update(account.0).chain_update(asset.0.to_be_bytes());
        let salt = Hash32(hasher.finalize().into());
        let node = leaf_node(&salt, &account, asset, amount);
        trees.entry(asset).or_default().push(Leaf { account, amount, salt, node });
    }
    trees.values_mut().for_each(|leaves| leaves.sort_by_key(|leaf| leaf.node.hash));
    trees
}

fn leaf_node(salt: &Hash32, account: &AccountId, asset: AssetId, amount: i128) -> Node {
    let hasher = Sha256::new().chain_update([0]).chain_update(salt.0).chain_update(account.0);
    let hasher = hasher.chain_update(asset.0.to_be_bytes()).chain_update(amount.to_be_bytes());
    Node { hash: Hash32(hasher.finalize().into()), sum: amount }
}

fn parent(left: &Node, right: &Node) -> Node {
    let mut hasher = Sha256::new().chain_update([1]);
    for node in [left, right] {
        hasher.update(node.hash.0);
        hasher.update(node.sum.to_be_bytes());
    }
    Node { hash: Hash32(hasher.finalize().into()), sum: left.sum.saturating_add(right.sum) }
}

/// Where RFC 6962 divides a row of nodes.
fn split(count: usize) -> usize {
    1 << (usize::BITS - 1 - (count - 1).leading_zeros())
}

fn root(nodes: &[Node]) -> Node {
    match nodes {
        [] => Node { hash: Hash32(Sha256::digest([]).into()), sum: 0 },
        [only] => *only,
        _ => {
            let (left, right) = nodes.split_at(split(nodes.len()));
            parent(&root(left), &root(right))
        }
    }
}

fn collect_path(nodes: &[Node], at: usize, path: &mut Vec<BalanceStep>) {
    if nodes.len() < 2 {
        return;
    }
    let (left, right) = nodes.split_at(split(nodes.len()));
    let is_left = at < left.len();
    let (own, sibling) = if is_left { (left, right) } else { (right, left) };
    collect_path(own, if is_left { at } else { at - left.len() }, path);
    let sibling = root(sibling);
    path.push(BalanceStep { left: !is_left, hash: sibling.hash, sum: sibling.sum.to_string() });
}

/// A balance proof against what was published for everybody.
pub fn check_balance(proof: &BalanceProof, root: &str, total: &str) -> Report {
    let mut report = Report::begin("check-balance");
    let mut checks = Checks::default();
    report.subject.origin = proof.origin.clone();
    report.subject.size = proof.log_size;
    let check = checks.of(CheckKind::BalanceProof);
    check.examine();
    let published = (root.to_lowercase(), total.to_owned());
    let proved = (proof.root.to_string(), proof.total.clone());
    if published != proved {
        let text = |(root, total): &(String, String)| format!("{root} over {total}");
        check.fail_because(
            text(&published),
            text(&proved),
            "the proof leads to another tree than the published one",
        );
    }
    if let Err(reason) = verify_balance(proof) {
        check.fail_because("a path to root and total", reason, "the proof does not stand");
    }
    report.items.push(Item {
        what: "balance".to_owned(),
        id: Some(proof.account.to_string()),
        amount: Some(proof.amount.clone()),
        note: format!("asset {}", proof.asset),
        ..Item::default()
    });
    report.end(checks)
}

/// Checks a path offline: from salt, account and amount up to root and total, and no sum on the way below zero.
pub fn verify_balance(proof: &BalanceProof) -> Result<(), String> {
    let number = |text: &str| {
        let number = text.parse::<i128>().ok().filter(|number| number.to_string() == text);
        number.filter(|number| *number >= 0).ok_or_else(|| format!("{text:?} is no amount of 0 or more"))
    };
    if proof.schema != BALANCE_PROOF_SCHEMA {
        return Err(format!("schema {:?}; this program knows {BALANCE_PROOF_SCHEMA}", proof.schema));
    }
    let mut node = leaf_node(&proof.salt, &proof.account, AssetId(proof.asset), number(&proof.amount)?);
    for step in &proof.path {
        let sibling = Node { hash: step.hash, sum: number(&step.sum)? };
        node = if step.left { parent(&sibling, &node) } else { parent(&node, &sibling) };
    }
    if node != (Node { hash: proof.root, sum: number(&proof.total)? }) {
        return Err(format!("the path leads to {} over {}", node.hash, node.sum));
    }
    Ok(())
}
