//! Every check there is: its stable id, its title, and how grave its failure is. `specs/audit.md` lists the same.

/// How grave a failed check is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Gravity {
    /// The books are wrong: exit code 1.
    Accounting,
    /// A hash, signature or history is wrong: exit code 4.
    Cryptographic,
}

macro_rules! checks {
    ($($name:ident = $id:literal $gravity:ident $title:literal,)*) => {
        /// A check.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum CheckKind {
            $(#[doc = $title] $name,)*
        }
        impl CheckKind {
            /// Every check.
            pub const ALL: &'static [CheckKind] = &[$(CheckKind::$name),*];
            /// The stable id in reports.
            pub fn id(self) -> &'static str {
                match self { $(CheckKind::$name => $id,)* }
            }
            /// What it says, in words.
            pub fn title(self) -> &'static str {
                match self { $(CheckKind::$name => $title,)* }
            }
            /// How grave its failure is.
            pub fn gravity(self) -> Gravity {
                match self { $(CheckKind::$name => Gravity::$gravity,)* }
            }
        }
    };
}

checks! {
    Checkpoint = "checkpoint" Cryptographic "The checkpoint is a checkpoint and signed by the log's key",
    Witnesses = "witnesses" Cryptographic "The quorum of the policy's witnesses cosigned the checkpoint",
    Entries = "entries" Cryptographic "Every entry is there, and together they hash to the signed root",
    Tiles = "tiles" Cryptographic "Every tile holds the hashes that follow from the entries",
    Consistency = "consistency" Cryptographic "The log only appended since each earlier checkpoint",
    ChainAnchors = "chain_anchors" Cryptographic "Every head written to the chain is a prefix of this log",
    Outside = "outside_evidence" Cryptographic "Something that the log's host does not control was compared with",
    Codec = "codec" Accounting "Every entry is a canonical event of a known version",
    Sequence = "sequence" Accounting "Leaves, commits, terms and times follow each other without a gap",
    Keys = "idempotency" Accounting "The events of a command stand together, and no command happened twice",
    Numbering = "numbering" Accounting "Accounts, ledger accounts, grants and rate cards are opened once, in order",
    Balanced = "balanced" Accounting "Booked and pending legs of every event sum to zero per asset",
    Legs = "legs" Accounting "The legs of every event are those its rule gives",
    Floors = "floors" Accounting "No customer, operator or reservation falls below zero",
    Holds = "holds" Accounting "A hold is placed once, within its grants, and closes once",
    Grants = "grants" Accounting "Grants pay within balance, owner, scope, expiry and signed cap, in their order",
    CreditLines = "credit_lines" Accounting "Credit lines are drawn within their limit, and what is drawn is owed",
    SpendCaps = "spend_caps" Accounting "No key spends or holds more than its cap",
    Jobs = "jobs" Accounting "Jobs are dispatched to registered nodes, attempts in order",
    Prices = "prices" Accounting "Every price is that of the pinned card in force, recomputed",
    Splits = "splits" Accounting "Every split is the cumulative share with its remainder carried",
    Economies = "economies" Accounting "Allotments, sign-up credit, bounties, cuts, strikes and the treasury follow their rules",
    Reversals = "reversals" Accounting "A charge is undone once, leg by leg, and before it is settled",
    Deposits = "deposits" Accounting "Every deposit is mirrored once and goes to its wallet's account",
    Vouchers = "vouchers" Accounting "Withdrawals are reserved, then used or released once",
    Batches = "batches" Accounting "Charges and payouts of every batch follow from the captures, first in first out",
    Roots = "settlement_roots" Cryptographic "Payout root, requests root and commitment are recomputed",
    Anchors = "anchors" Cryptographic "Heads of this log named in its own events are its heads",
    Claims = "claims" Accounting "Nobody claimed more than was payable",
    Receipts = "receipts" Accounting "Every charge is what its receipt says",
    ReceiptSignatures = "receipt_signatures" Cryptographic "Every receipt hashes to the log and is signed by its operator",
    Commits = "commits" Cryptographic "Commits chain to each other and carry exactly the log's entries",
    Block = "block" Accounting "The chain was read at one named block",
    VaultBalance = "vault_balance" Accounting "Deposits less withdrawals less charges is what the vault holds",
    WalletBalances = "wallet_balances" Accounting "Every wallet's balance and charge on the chain are those of the log",
    Pot = "pot" Accounting "Charges less claims is what the payouts pot holds",
    ChainDeposits = "chain_deposits" Accounting "Deposits on the chain and in the log are the same",
    ChainClaims = "chain_claims" Accounting "Claims on the chain and in the log are the same",
    ChainWithdrawals = "chain_withdrawals" Accounting "Withdrawals on the chain and in the log are the same",
    ChainSettlements = "chain_settlements" Accounting "Settlements on the chain are the log's batches, with the recomputed commitment",
    Selection = "selection" Accounting "The sample was drawn by a seed that neither side chose",
    Reperformed = "reperformed" Accounting "Charges of the sample, recomputed from card and counts",
    Contents = "contents" Cryptographic "Contents of the sample match their commitments and keys",
    Inclusion = "inclusion" Cryptographic "The event is a leaf under a checkpoint that the log signed",
    Duties = "duties" Accounting "Everybody did what is their duty, and for nobody but themselves",
    BothSides = "both_sides" Accounting "Nobody pays and is paid, or is paid twice over",
    Privacy = "privacy" Accounting "Nothing in the log is about a person",
    Cutoff = "cutoff" Accounting "What was served in a period was charged in it",
    Lifecycle = "lifecycle" Accounting "Whatever was begun has ended when it had to",
    Metered = "metered" Accounting "Whatever was served is charged",
    Liabilities = "liabilities" Accounting "No account is owed less than nothing, and all of them sum to the total",
    BalanceProof = "balance_proof" Cryptographic "The balance is a leaf of the tree whose root and total were published",
    Reexecuted = "reexecuted" Accounting "Jobs of the sample, run again, give the same tokens and digest",
}
