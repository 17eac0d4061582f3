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

/// The development stand-in for USDC: permit and EIP-3009.
pub mod dollar {
    alloy::sol!(
        #[sol(rpc, all_derives)]
        DollarToken,
        "artefacts/DollarToken.json"
    );
}

/// Stake, votes by time.
pub mod stake {
    alloy::sol!(
        #[sol(rpc, all_derives)]
        StakeRegistry,
        "artefacts/StakeRegistry.json"
    );
}

/// Stakers' votes.
pub mod governor {
    alloy::sol!(
        #[sol(rpc, all_derives)]
        NetworkGovernor,
        "artefacts/NetworkGovernor.json"
    );
}

/// The parameter that votes change.
pub mod bounds {
    alloy::sol!(
        #[sol(rpc, all_derives)]
        AllotmentBounds,
        "artefacts/AllotmentBounds.json"
    );
}

/// The allotment's reserve.
pub mod treasury {
    alloy::sol!(
        #[sol(rpc, all_derives)]
        Treasury,
        "artefacts/Treasury.json"
    );
}

/// The price list and its sales.
pub mod packages {
    alloy::sol!(
        #[sol(rpc, all_derives)]
        Packages,
        "artefacts/Packages.json"
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

        #[derive(Debug)]
        struct TransferWithAuthorization {
            address from;
            address to;
            uint256 value;
            uint256 validAfter;
            uint256 validBefore;
            bytes32 nonce;
        }

        #[sol(rpc)]
        interface ContractWallet {
            function isValidSignature(bytes32 digest, bytes signature) external view returns (bytes4);
        }
    }
}
