//! A reorganisation deeper than the confirmations: deposits that vanished are taken back while they are unspent, and the
//! mirror goes on. When something was spent, or left the vault, the shortfall is booked, nothing more is mirrored, and a
//! person must look (rulings 3.7).

use std::time::Instant;

use ledger::command::ReverseDeposit;
use protocol::event::chain::DepositKey;
use protocol::event::{Actor, EventBody};
use protocol::id::{IdempotencyKey, Word32};

use super::{Mirror, evm, not_taken, submit_known};
use crate::error::ChainError;
use crate::event::EventKey;
use crate::watcher::{Halt, Undo, Vanished, Watcher};
use journal::SubmitError;
use ledger::command::Command;

impl Mirror {
    /// Takes back what vanished; ends the halt when nothing is owed for it.
    pub(super) async fn take_back(&self, watcher: &mut Watcher, halt: Halt) -> Result<(), ChainError> {
        let Some(vanished) = watcher.vanished(&self.reader).await? else {
            if self.complaint.is_due("no block stands".to_owned(), Instant::now()) {
                tracing::error!(target: "mirror", block = halt.replaced.number, "no remembered block stands any more");
            }
            return Ok(());
        };
        let mut owed = 0i128;
        for gone in vanished.iter().filter(|gone| gone.undo == Undo::Deposit) {
            owed += self.reverse(gone, halt).await?;
        }
        let for_people = vanished.iter().filter(|gone| gone.undo == Undo::Person).count();
        let deposits = vanished.iter().filter(|gone| gone.undo == Undo::Deposit).count();
        if self.resumes || (owed == 0 && for_people == 0) {
            let block = halt.replaced.number;
            tracing::warn!(target: "mirror", block, deposits, owed_base_units = owed, "deep reorganisation: deposits were taken back");
            watcher.accept_new_history(&vanished);
            return Ok(());
        }
        let words = format!("reorganisation of {}: {deposits} {for_people} {owed}", halt.replaced.number);
        if self.complaint.is_due(words, Instant::now()) {
            tracing::error!(
                target: "mirror", block = halt.replaced.number, deposits, for_people, owed_base_units = owed,
                "deep reorganisation: nothing more is mirrored until a person has looked"
            );
        }
        Ok(())
    }

    /// Books a deposit's reversal, once; what of it was spent and is owed now, base units.
    async fn reverse(&self, gone: &Vanished, halt: Halt) -> Result<i128, ChainError> {
        let EventKey { chain_id, contract, tx, ordinal, .. } = gone.key;
        let vault = protocol::asset::VaultRef { chain_id, vault: evm(contract) };
        let key = DepositKey { vault, tx: Word32(tx.0), ordinal };
        let once = IdempotencyKey::internal(
            "deposit vanished",
            &[&chain_id.to_be_bytes(), &contract.0, &tx.0, &ordinal.to_be_bytes(), &halt.replaced.hash.0],
        );
        let command = Command::new(once, Actor::Watcher, ReverseDeposit { key });
        match submit_known(&self.options.client, command).await {
            Ok(outcome) => Ok(outcome
                .events
                .iter()
                .map(|event| match &event.body {
                    EventBody::DepositReversed(reversed) => reversed.owed.0,
                    _ => 0,
                })
                .sum()),
            // The ledger never took it: nothing to take back.
            Err(SubmitError::Refused { refusal, .. }) if refusal.name() == "deposit_unknown" => Ok(0),
            Err(error) => Err(not_taken(error)),
        }
    }
}
