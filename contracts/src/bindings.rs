//! Typed calls and events, generated from the committed artefacts. Nothing here is written by hand.
#![allow(missing_docs, clippy::too_many_arguments)]

/// The users' prepaid vault.
pub mod vault {
    alloy::sol!(
        #[sol(rpc, all_derives)]
        CreditVault,
        "artefacts/CreditVault.json"
    );
}

/// The operators' pot.
pub mod payouts {
    alloy::sol!(
        #[sol(rpc, all_derives)]
        OperatorPayouts,
        "artefacts/OperatorPayouts.json"
    );
}

/// Heads of transparency logs.
pub mod anchor {
    alloy::sol!(
        #[sol(rpc, all_derives)]
        CheckpointAnchor,
        "artefacts/CheckpointAnchor.json"
    );
}

/// The development token; its ERC-20 part serves for any token.
pub mod token {
    alloy::sol!(
        #[sol(rpc, all_derives)]
        FoilToken,
        "artefacts/FoilToken.json"
    );
}

/// What is signed off-chain (EIP-712), and the one call of a contract wallet.
pub mod signed {
    alloy::sol! {
        #[derive(Debug)]
        struct SpendAuthorisation {
            address account;
            address coordinator;
            uint64 maxCumulative;
            uint32 validUntil;
            uint64 nonce;
            bytes32 session;
        }

        #[derive(Debug)]
        struct WithdrawalVoucher {
            address account;
            uint64 units;
            uint64 nonce;
            uint32 deadline;
        }

        #[sol(rpc)]
        interface ContractWallet {
            function isValidSignature(bytes32 digest, bytes signature) external view returns (bytes4);
        }
    }
}
