//! Assets: what is counted, with how many digits, and where it comes from on a chain.

use crate::id::EvmAddress;
use minicbor::{Decode, Encode};
use serde::Serialize;

/// A dense asset number, assigned by `NetworkOpened` or `AssetRegistered`; 0 is the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode, Serialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct AssetId(#[n(0)] pub u32);

/// One asset. `ledger base unit = 10^-ledger_scale`; vaults count in 1e-6 ([`VAULT_SCALE`]).
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct Asset {
    /// Its dense number.
    #[n(0)]
    pub id: AssetId,
    /// Short symbol, upper case letters and digits, 2 to 12.
    #[n(1)]
    pub symbol: String,
    /// Digits after the point in the ledger, 0 to 18; 9 by default.
    #[n(2)]
    pub ledger_scale: u8,
    /// Digits of the token on its chain; `None` for an asset that lives only here.
    #[n(3)]
    pub chain_scale: Option<u8>,
}

/// Digits after the point of a vault unit: vaults keep every token in units of 1e-6.
pub const VAULT_SCALE: u8 = 6;

/// Where a backing lies: one vault contract on one chain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode, Serialize)]
#[cbor(array)]
pub struct VaultRef {
    /// EIP-155 chain id.
    #[n(0)]
    pub chain_id: u64,
    /// The `CreditVault` contract.
    #[n(1)]
    pub vault: EvmAddress,
}
