//! One leg in words: who got what. The side follows from the kind of account: a credit is more of what we owe.

use super::absolute;
use crate::names::Names;
use protocol::event::Posting;
use protocol::event::account::AccountKind;
use protocol::id::AccountId;

/// A booked leg.
pub(super) fn booked(names: &dyn Names, posting: &Posting) -> String {
    let amount = names.money_of(posting.account, absolute(posting.amount));
    let Some(account) = names.ledger_account(posting.account) else {
        return format!("{amount} on an account that is not known");
    };
    let owner = owner(account.owner);
    let (debit, kind) = (posting.amount.0 >= 0, account.kind);
    use AccountKind::*;
    match (kind, debit) {
        (CustomerCredit, true) => format!("{owner} used {amount} of its credit line"),
        (CustomerCredit, false) => format!("{owner} may draw {amount} more on its credit line"),
        (CustomerDeposited | CustomerPackage | CustomerEarned | CustomerAllotment | CustomerPromo, true) => {
            format!("{owner} gave {amount} of its {} credit", credit(kind))
        }
        (CustomerDeposited | CustomerPackage | CustomerEarned | CustomerAllotment | CustomerPromo, false) => {
            format!("{owner} got {amount} of {} credit", credit(kind))
        }
        (OperatorAccrued, true) => format!("{amount} of {owner}'s earnings are no longer open"),
        (OperatorAccrued, false) => format!("{owner} earned {amount}, not yet in a batch"),
        (OperatorSettling, true) => format!("{amount} of {owner}'s earnings left the batch"),
        (OperatorSettling, false) => format!("{amount} of {owner}'s earnings went into a batch"),
        (OperatorPayable, true) => format!("{owner} may claim {amount} less from the payouts pot"),
        (OperatorPayable, false) => format!("{owner} may claim {amount} from the payouts pot"),
        (VaultAsset, true) => format!("the vault holds {amount} more"),
        (VaultAsset, false) => format!("the vault holds {amount} less"),
        (PotAsset, true) => format!("the payouts pot holds {amount} more"),
        (PotAsset, false) => format!("the payouts pot holds {amount} less"),
        (UnattributedDeposits, true) => format!("{amount} no longer waits for an account"),
        (UnattributedDeposits, false) => format!("{amount} waits until its wallet is linked to an account"),
        (Receivable, true) => format!("{owner} owes {amount} more"),
        (Receivable, false) => format!("{owner} owes {amount} less"),
        (PlatformRevenue, true) => format!("the platform gave back {amount}"),
        (PlatformRevenue, false) => format!("the platform earned {amount}"),
        (Breakage, true) => format!("{amount} that had lapsed came back"),
        (Breakage, false) => format!("{amount} lapsed to the platform"),
        (PromoExpense, true) => format!("the platform bears {amount} of given credit"),
        (PromoExpense, false) => format!("the platform bears {amount} of given credit less"),
        (PlatformTreasury, true) => format!("the treasury got {amount}"),
        (PlatformTreasury, false) => format!("the treasury paid {amount}"),
        (CreditLines, true) => format!("unused credit lines grew by {amount} (memorandum)"),
        (CreditLines, false) => format!("unused credit lines shrank by {amount} (memorandum)"),
        (HoldsPending, _) => format!("{amount} on the holds' account, which never has booked legs"),
    }
}

/// A reserved leg; `None` for the other side that every reservation has.
pub(super) fn reserved(names: &dyn Names, posting: &Posting) -> Option<String> {
    let account = names.ledger_account(posting.account)?;
    if account.kind == AccountKind::HoldsPending {
        return None;
    }
    let amount = names.money_of(posting.account, absolute(posting.amount));
    let what = match account.kind {
        AccountKind::CustomerCredit => "credit line".to_owned(),
        kind => format!("{} credit", credit(kind)),
    };
    let owner = owner(account.owner);
    Some(if posting.amount.0 >= 0 {
        format!("{amount} of {owner}'s {what} is reserved")
    } else {
        format!("{amount} of {owner}'s {what} is no longer reserved")
    })
}

fn owner(owner: AccountId) -> String {
    if owner == AccountId::SYSTEM { "the platform".to_owned() } else { owner.to_string() }
}

/// The kind of a customer's credit as an adjective.
pub(super) fn credit(kind: AccountKind) -> &'static str {
    use AccountKind::*;
    match kind {
        CustomerDeposited => "deposited",
        CustomerPackage => "package",
        CustomerEarned => "earned",
        CustomerAllotment => "allotted",
        CustomerPromo => "promotional",
        CustomerCredit => "credit-line",
        OperatorAccrued | OperatorSettling | OperatorPayable | VaultAsset | PotAsset
        | UnattributedDeposits | Receivable | PlatformRevenue | Breakage | PromoExpense
        | PlatformTreasury | CreditLines | HoldsPending => "other",
    }
}
